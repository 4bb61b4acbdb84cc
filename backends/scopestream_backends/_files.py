"""Bytes to their place in a file, with as few system calls as there are places."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from scopestream.memory import PAGE, page_aligned

try:
    import resource
except ImportError:  # Windows, which grants thousands
    resource = None  # type: ignore[assignment]

O_BINARY = getattr(os, "O_BINARY", 0)
_MAX_VECTORS = 1024  # IOV_MAX of Linux, macOS and the BSDs
_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE
_COPY_BYTES = 2**22
_LEAST_OPEN_FILES = 16  # two for each of a few threads, and the documents
_seek_lock = threading.Lock()


def open_file_allowance(most: int) -> int:
    """How many files may be kept open, at most `most`: half of those that the system still grants this process.

    The other half is for what the program itself opens, and for documents. Raises OSError (EMFILE) when that is next to
    nothing.
    """
    if resource is None:
        return most
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return most
    left = limit - _n_open_files()
    if left < _LEAST_OPEN_FILES:
        raise OSError(
            errno.EMFILE,
            f"this process may open only {max(left, 0)} more files, at least {_LEAST_OPEN_FILES} are needed; raise the "
            f"limit of {limit} (ulimit -n), or close some",
        )
    return min(most, left // 2)


def _n_open_files() -> int:
    for folder in ("/proc/self/fd", "/dev/fd"):
        with suppress(OSError):
            return len(os.listdir(folder))  # noqa: PTH208  # names are enough
    return 0


def write_at(file: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`. Raises OSError; then any part of it may be there."""
    rest = memoryview(data).cast("B")
    while rest:
        if hasattr(os, "pwrite"):
            n = os.pwrite(file, rest, offset)
        else:  # Windows
            with _seek_lock:
                os.lseek(file, offset, os.SEEK_SET)
                n = os.write(file, rest)
        rest, offset = rest[n:], offset + n


def write_all_at(file: int, pieces: Sequence[bytes | memoryview], offset: int) -> None:
    """Write the pieces one behind the other, from `offset` on. Raises OSError as `write_at` does."""
    if len(pieces) == 1 or not hasattr(os, "pwritev"):
        for piece in pieces:
            write_at(file, piece, offset)
            offset += len(piece)
        return
    for first in range(0, len(pieces), _MAX_VECTORS):
        vectors = pieces[first : first + _MAX_VECTORS]
        n = os.pwritev(file, vectors, offset)
        for piece in vectors:
            if n < len(piece):  # the system took less than it was given
                write_at(file, memoryview(piece)[max(n, 0) :], offset + max(n, 0))
            n -= len(piece)
            offset += len(piece)


def copy_range(source: int, target: int, source_at: int, target_at: int, n_bytes: int) -> None:
    """Copy a part of a file to a place in another, inside the system where it can. Raises OSError."""
    while n_bytes:
        n = _copy_some(source, target, source_at, target_at, n_bytes)
        if not n:
            raise OSError(errno.EIO, "the file ends before the chunks that its index names")
        source_at, target_at, n_bytes = source_at + n, target_at + n, n_bytes - n


def _copy_some(source: int, target: int, source_at: int, target_at: int, n_bytes: int) -> int:
    if hasattr(os, "copy_file_range"):
        try:
            return os.copy_file_range(source, target, n_bytes, source_at, target_at)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
                raise
    os.lseek(source, source_at, os.SEEK_SET)
    data = os.read(source, min(n_bytes, _COPY_BYTES))
    write_at(target, data, target_at)
    return len(data)


def write_direct(file: int, pieces: Sequence[bytes | memoryview], offset: int) -> bool:
    """As `write_all_at`, past the page cache; `file` was opened by `open_direct`.

    False when the pieces do not lie as the system needs it; then any part of them may be there.
    """
    if offset % PAGE or any(len(piece) % PAGE for piece in pieces):
        return False
    try:
        write_all_at(file, pieces, offset)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def open_direct(path: Path) -> int | None:
    """The file for writing past the page cache; None where the system or the file system cannot."""
    try:
        return os.open(path, os.O_WRONLY | os.O_DIRECT)
    except AttributeError:
        return None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return None


def supports_direct_io(folder: Path) -> bool:
    """Whether files in that folder can be written past the page cache."""
    probe = folder / ".scopestream-probe"
    try:
        probe.touch()
        file = open_direct(probe)
        if file is None:
            return False
        try:
            return write_direct(file, [page_aligned(PAGE).data], 0)
        finally:
            os.close(file)
    finally:
        probe.unlink(missing_ok=True)


def supports_sparse_files(folder: Path) -> bool:
    """Whether a hole in a file of that folder takes no space; no, where the system does not tell (Windows)."""
    probe, size = folder / ".scopestream-probe", 1 << 20
    try:
        file = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | O_BINARY, 0o666)
        try:
            write_at(file, b"\1", size - 1)
            blocks = getattr(os.fstat(file), "st_blocks", size)
        finally:
            os.close(file)
    finally:
        probe.unlink(missing_ok=True)
    return bool(blocks * 512 < size)


def allocate(file: int, offset: int, n_bytes: int) -> bool:
    """Let the file system find the blocks of a range that will be written; it reads as zeros until then.

    One request for many megabytes costs much less than finding them while they are written. The size of the file
    stays. False where that is not possible: then the range is as it was, and can be written all the same.
    """
    call = _fallocate()
    if call is None:
        return False
    while call(file, _KEEP_SIZE, offset, n_bytes):
        if ctypes.get_errno() != errno.EINTR:
            return False
    return True


@cache
def _fallocate() -> Callable[[int, int, int, int], int] | None:
    # Not os.posix_fallocate: where the file system cannot do it the C library writes a byte to every block instead.
    if sys.platform != "linux":
        return None
    function = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
        function.restype = ctypes.c_int
    return function
