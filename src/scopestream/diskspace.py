"""Free space: before the first frame against what the plan will write, and against `min_free` while frames come."""

from __future__ import annotations

import errno
import os
import shutil
import warnings
from pathlib import Path
from time import monotonic

from scopestream.describe import size_text
from scopestream.errors import DiskSpaceError
from scopestream.plan import LayoutPlan

_CHECK_EVERY_S = 1.0


def free_bytes(path: Path) -> int:
    """What this user may still write to the file system on which `path` is, or will be."""
    folder = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
    return shutil.disk_usage(folder).free


def check_space(plan: LayoutPlan) -> None:
    """Whether the disk has room for the plan, before anything is written.

    What compressed frames and unbounded acquisitions take is not known; then only what is free now counts. Raises
    DiskSpaceError when less than `min_free` would be left; without it, warns that not all frames fit.
    """
    settings = plan.settings
    if settings.scheme != "file":
        return
    payload = plan.payload_bytes if settings.codec.name == "none" else None
    free, min_free = free_bytes(plan.root), settings.min_free
    if (min_free or 0) + (payload or 0) <= free:
        return
    if settings.on_exists in ("overwrite", "resume"):
        free += _bytes_on_disk(plan.root)  # which will be deleted, or is a part of the plan
    left = free - (payload or 0)
    if min_free is not None and left < min_free:
        needs = "" if payload is None else f", the acquisition needs {size_text(payload)}"
        raise DiskSpaceError(
            errno.ENOSPC,
            f"{size_text(free)} are free{needs}, and min_free={size_text(min_free)} would not be left. Nothing was "
            f"written. Make room, choose another disk, or plan fewer frames",
            str(plan.root),
        )
    if min_free is None and payload is not None and left < 0:
        warnings.warn(
            f"Only {size_text(free)} are free on the disk of {plan.root}, the acquisition needs {size_text(payload)}: "
            f"about {free * (plan.n_frames or 0) // payload} of {plan.n_frames} frames fit.",
            RuntimeWarning,
            stacklevel=3,
        )


def _bytes_on_disk(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            status = Path(parent, name).lstat()
            total += getattr(status, "st_blocks", -(-status.st_size // 512)) * 512
    return total


class SpaceWatch:
    """Looks after `min_free` while frames are stored. Safe from any thread."""

    def __init__(self, root: Path, min_free: int) -> None:
        self._root = root
        self._min_free = min_free
        self._next_s = 0.0
        self._free: int | None = None  # when it was too little

    def check(self) -> None:
        """Costs next to nothing, since it looks once a second.

        Raises DiskSpaceError when there was less than `min_free` once: what comes is not stored any more.
        """
        if self._free is None and monotonic() >= self._next_s:
            self._next_s = monotonic() + _CHECK_EVERY_S
            free = free_bytes(self._root)
            self._free = free if free < self._min_free else None
        if self._free is not None:
            raise DiskSpaceError(
                errno.ENOSPC,
                f"{size_text(self._free)} are free, less than min_free={size_text(self._min_free)}",
                str(self._root),
            )
