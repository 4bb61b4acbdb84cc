"""Real file systems that lose power."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.mounts import in_file, mount

_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN
_WITHOUT_ITS_LOG = 2  # NOLOGFLUSH: what was not synced is gone
_BYTES = 400_000_000  # xfs wants 300 MB


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
        mount(self.folder, ["-o", "loop", str(self._image)])


@contextmanager
def machine(folder: Path, kind: str) -> Iterator[Machine]:
    """A file system of that kind, "ext4" or "xfs". Raises CannotMountError where that cannot be."""
    with in_file(folder, _BYTES, kind) as image:
        yield Machine(image, folder)
