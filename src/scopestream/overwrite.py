"""What `on_exists="overwrite"` may delete: a Zarr dataset, and nothing that somebody may miss."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from scopestream.document import read_document
from scopestream.errors import DatasetError, DatasetExistsError

# What a killed program leaves in a root, and what file browsers put into every folder.
_LITTER = (".*.tmp", ".scopestream-probe*", ".DS_Store", "._*", "Thumbs.db", "desktop.ini")
_OWN_FOLDERS = ("OME", "scopestream")
_MAX_NAMED = 3


def check_replaceable(path: Path) -> None:
    """Whether the folder at `path` may be deleted for a new dataset; nothing is touched.

    Raises DatasetExistsError that says why not.
    """
    reason = _why_kept(path)
    if reason is not None:
        raise DatasetExistsError(
            f"{path} {reason}, so it was not overwritten and nothing was changed. Remove it yourself, or choose "
            f"another path."
        )


def _why_kept(path: Path) -> str | None:
    if _is_link(path):
        return "is a symbolic link"
    if not path.is_dir():
        return "is not a folder"
    if (reason := _is_somewhere_special(path)) is not None:
        return reason
    try:
        if read_document(path).get("node_type") != "group":
            return "is not a Zarr v3 group"
        foreign = sorted(_foreign(path))
    except DatasetError as error:
        return f"is not a Zarr v3 dataset ({error})"
    except OSError as error:
        return f"cannot be listed ({error.strerror})"
    if foreign:
        more = f" and {len(foreign) - _MAX_NAMED} more" if len(foreign) > _MAX_NAMED else ""
        return f"holds what is not of a Zarr dataset ({', '.join(foreign[:_MAX_NAMED])}{more})"
    return None


def _is_link(path: Path) -> bool:
    is_junction = getattr(os.path, "isjunction", None)  # since Python 3.12
    return path.is_symlink() or (is_junction is not None and is_junction(path))


def _is_somewhere_special(path: Path) -> str | None:
    real = path.resolve()
    if os.path.ismount(real):
        return "is where a file system begins"
    for what, folder in (("the home folder", _home()), ("the current folder", Path.cwd())):
        if folder is not None and (real == folder.resolve() or real in folder.resolve().parents):
            return f"is {what}, or holds it"
    return None


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # an account without one
        return None


def _foreign(root: Path) -> Iterator[str]:
    """Names at the top of the dataset that no dataset has. Links are not followed."""
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and not _is_link(Path(entry.path)):
                if entry.name not in _OWN_FOLDERS and not _is_node(Path(entry.path)):
                    yield entry.name
            elif not entry.is_file(follow_symlinks=False) or not _is_known_file(entry.name):
                yield entry.name


def _is_known_file(name: str) -> bool:
    return name == "zarr.json" or any(fnmatch(name, pattern) for pattern in _LITTER)


def _is_node(folder: Path) -> bool:
    try:
        return read_document(folder).get("node_type") in ("group", "array")
    except DatasetError:
        return False
