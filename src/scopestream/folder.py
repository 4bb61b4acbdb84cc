"""The root folder of a dataset: what happens when something is there already."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

from scopestream.errors import DatasetExistsError
from scopestream.settings import AcquisitionSettings


def settled(settings: AcquisitionSettings) -> AcquisitionSettings:
    """The settings with the path that will really be used, after `on_exists`; nothing is touched yet.

    Raises DatasetExistsError when the path is taken and may not be replaced.
    """
    if settings.scheme != "file":
        return settings
    # Absolute, so that a program that changes its folder goes on writing to the same place.
    path = Path(settings.path).absolute()
    settings = settings.model_copy(update={"path": str(path)})
    if not (path.exists() or path.is_symlink()):
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


class NewRoot:
    """The root folder of settled settings, just made.

    A dataset that `on_exists="overwrite"` replaces is moved aside, until `keep` deletes it or `undo` brings it back.
    """

    def __init__(self, settings: AcquisitionSettings) -> None:
        self._root = Path(settings.path)
        self._replaced: Path | None = None
        if settings.on_exists == "overwrite" and self._root.exists():
            self._replaced = self._root.with_name(f".{self._root.name}.replaced-{os.getpid()}")
            os.replace(self._root, self._replaced)
        try:
            self._root.mkdir(parents=True)
        except OSError:
            self._bring_back()
            raise

    def keep(self) -> None:
        """The new dataset is there to stay. Warns where the old one cannot be deleted, which is no reason to stop."""
        if self._replaced is None:
            return
        try:
            shutil.rmtree(self._replaced)
        except OSError as error:
            warnings.warn(
                f"The dataset that {self._root} replaces could not be deleted: {error}. What is left of it is in "
                f"{self._replaced}; delete that yourself.",
                RuntimeWarning,
                stacklevel=4,
            )

    def undo(self) -> None:
        """As if nothing had happened."""
        shutil.rmtree(self._root)
        self._bring_back()

    def _bring_back(self) -> None:
        if self._replaced is not None:
            os.replace(self._replaced, self._root)


def _next_free(path: Path) -> Path:
    suffix = next((end for end in (".ome.zarr", ".zarr") if path.name.endswith(end)), path.suffix)
    stem = path.name.removesuffix(suffix)
    number = 1
    while True:
        candidate = path.with_name(f"{stem}_{number}{suffix}")
        if not (candidate.exists() or candidate.is_symlink()):
            return candidate
        number += 1
