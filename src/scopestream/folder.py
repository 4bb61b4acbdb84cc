"""The root folder of a dataset: what happens when something is there already."""

from __future__ import annotations

import shutil
from pathlib import Path

from scopestream.errors import DatasetExistsError
from scopestream.settings import AcquisitionSettings


def settled(settings: AcquisitionSettings) -> AcquisitionSettings:
    """The settings with the path that will really be used, after `on_exists`; nothing is touched yet.

    Raises DatasetExistsError when the path is taken and may not be replaced.
    """
    path = Path(settings.path)
    if settings.scheme != "file" or not (path.exists() or path.is_symlink()):
        return settings
    if settings.on_exists == "increment":
        return settings.model_copy(update={"path": str(_next_free(path))})
    if settings.on_exists == "overwrite":
        if path.is_symlink() or not (path / "zarr.json").is_file():
            raise DatasetExistsError(
                f"{path} is {'a symbolic link' if path.is_symlink() else 'not a Zarr v3 dataset'}, so it was not "
                f"overwritten and nothing was changed. Remove it yourself, or choose another path."
            )
        return settings
    raise DatasetExistsError(
        f"{path} exists already; nothing was changed. Choose another path, or set on_exists to "
        f'"increment" (a new name beside it) or "overwrite" (deletes that dataset).'
    )


def create_root(settings: AcquisitionSettings) -> Path:
    """Make the root folder of settled settings, removing the dataset that `on_exists="overwrite"` allows to."""
    root = Path(settings.path)
    if settings.on_exists == "overwrite" and (root / "zarr.json").is_file() and not root.is_symlink():
        shutil.rmtree(root)
    root.mkdir(parents=True)
    return root


def _next_free(path: Path) -> Path:
    suffix = next((end for end in (".ome.zarr", ".zarr") if path.name.endswith(end)), path.suffix)
    stem = path.name.removesuffix(suffix)
    number = 1
    while True:
        candidate = path.with_name(f"{stem}_{number}{suffix}")
        if not (candidate.exists() or candidate.is_symlink()):
            return candidate
        number += 1
