"""File systems in a file or in memory, mounted for one test, by root on Linux; small ones are really full."""

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
    """A file system of `size` bytes, none of them kept for root."""
    with in_file(folder, size, "ext4", "-m", "0"):
        yield folder


@contextmanager
def in_file(folder: Path, size: int, kind: str, *options: str) -> Iterator[Path]:
    """A file system of that kind and size in a file, whose path this yields, beside the folder."""
    if shutil.which(f"mkfs.{kind}") is None:
        raise CannotMountError(f"there is no mkfs.{kind}")
    image = folder.with_name(f"{folder.name}.img")
    with image.open("wb") as file:
        file.truncate(size)
    try:
        subprocess.run([f"mkfs.{kind}", "-q", *options, image], check=True, capture_output=True)
        with _mounted(folder, ["-o", "loop", str(image)]):
            yield image
    finally:
        image.unlink()


def mount(folder: Path, arguments: list[str]) -> None:
    done = subprocess.run(["mount", *arguments, folder], capture_output=True, text=True)
    if done.returncode:
        raise CannotMountError(f"mount says: {done.stderr.strip()}")


@contextmanager
def _mounted(folder: Path, arguments: list[str]) -> Iterator[None]:
    if sys.platform != "linux" or os.geteuid() != 0:
        raise CannotMountError("only root on Linux can mount a file system")
    folder.mkdir()
    mount(folder, arguments)
    try:
        yield
    finally:  # lazily, since whoever failed there may still hold a file open
        subprocess.run(["umount", "--lazy", folder], check=True)
