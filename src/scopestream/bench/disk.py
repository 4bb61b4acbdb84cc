"""The disk itself: frames written to one file, with nothing in between."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

_WARM_BYTES = 2**23
_SMALL_BYTES = 2**16


class RawFile:
    """One system call for each frame, into one file: what a disk (or its page cache) takes at the best."""

    def __init__(self, path: Path, *, sync: bool = False) -> None:
        self._file = path.open("xb", buffering=0)
        self._sync = sync

    def append(self, frame: np.ndarray, /) -> None:
        left = frame.data.cast("B")
        while left:
            left = left[self._file.write(left) :]

    def close(self) -> None:
        """With `sync`, return when the bytes are on the disk."""
        with self._file as file:
            if self._sync:
                os.fsync(file.fileno())


def warm_page_cache(folder: Path, n_bytes: int, frame_bytes: int) -> None:
    """Write and remove as many bytes as will be written, half of them in small pieces and half in whole frames.

    A virtual machine gives free memory back to its host, and the first writes after that wait for it: ten times as
    long, for whoever comes first. Small writes use other pieces of free memory than large ones.
    """
    path = folder / "warm-up.bin"
    try:
        with path.open("wb", buffering=0) as file:
            for n_at_once in (min(frame_bytes, _SMALL_BYTES), min(frame_bytes, _WARM_BYTES)):
                block = bytes(n_at_once)
                for _ in range(n_bytes // 2 // n_at_once + 1):
                    file.write(block)
    finally:
        path.unlink(missing_ok=True)
