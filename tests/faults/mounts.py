"""Small disks that really are full: mounted for one test, by root on Linux."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class CannotMountError(Exception):
    """Not on this system, or not by this user."""


@contextmanager
def tmpfs(folder: Path, size: int, n_files: int = 0) -> Iterator[Path]:
    """Memory as a disk of `size` bytes, for at most `n_files` files and folders (0: any number)."""
    with _mounted(folder, ["-t", "tmpfs", "-o", f"size={size},nr_inodes={n_files}", "tmpfs"]):
        yield folder


@contextmanager
def ext4(folder: Path, size: int) -> Iterator[Path]:
    """A file system of `size` bytes in a file beside the folder."""
    if shutil.which("mkfs.ext4") is None:
        raise CannotMountError("there is no mkfs.ext4")
    image = folder.with_name(f"{folder.name}.img")
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True, capture_output=True)
    with _mounted(folder, ["-t", "ext4", "-o", "loop", str(image)]):
        yield folder


@contextmanager
def _mounted(folder: Path, arguments: list[str]) -> Iterator[None]:
    if sys.platform != "linux" or os.geteuid() != 0:
        raise CannotMountError("only root on Linux can mount a small disk")
    folder.mkdir()
    done = subprocess.run(["mount", *arguments, folder], capture_output=True, text=True)
    if done.returncode:
        raise CannotMountError(f"mount says: {done.stderr.strip()}")
    try:
        yield
    finally:  # lazily, since whoever failed there may still hold a file open
        subprocess.run(["umount", "--lazy", folder], check=True)
