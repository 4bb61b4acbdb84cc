"""Real file systems that lose power: in a file, mounted for one test, by root on Linux."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN
_WITHOUT_ITS_LOG = 2  # NOLOGFLUSH: what was not synced is gone
_BYTES = 400_000_000  # xfs wants 300 MB


class CannotMountError(Exception):
    """Not on this system, or not by this user."""


class Machine:
    """A mounted file system; `folder` is where."""

    def __init__(self, image: Path, folder: Path) -> None:
        self._image = image
        self.folder = folder

    def lose_power(self) -> None:
        """From now on nothing gets to the disk, and every call fails; what was not synced is lost."""
        file = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(file, _SHUTDOWN, struct.pack("I", _WITHOUT_ITS_LOG))
        finally:
            os.close(file)

    def start_again(self) -> None:
        """Mount what is left, which replays the journal. Nobody may have a file open there."""
        subprocess.run(["umount", self.folder], check=True, capture_output=True)
        _mount(self._image, self.folder)


@contextmanager
def machine(folder: Path, kind: str) -> Iterator[Machine]:
    """A file system of that kind, "ext4" or "xfs". Raises CannotMountError where that cannot be."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise CannotMountError("only root on Linux can mount a file system")
    if shutil.which(f"mkfs.{kind}") is None:
        raise CannotMountError(f"there is no mkfs.{kind}")
    image = folder.with_name(f"{folder.name}.img")
    with image.open("wb") as file:
        file.truncate(_BYTES)
    subprocess.run([f"mkfs.{kind}", "-q", image], check=True, capture_output=True)
    folder.mkdir()
    _mount(image, folder)
    try:
        yield Machine(image, folder)
    finally:  # lazily, since whoever failed there may still hold a file open
        subprocess.run(["umount", "--lazy", folder], check=True)
        image.unlink()


def _mount(image: Path, folder: Path) -> None:
    done = subprocess.run(["mount", "-o", "loop", image, folder], capture_output=True, text=True)
    if done.returncode:
        raise CannotMountError(f"mount says: {done.stderr.strip()}")
