"""Reading files that anybody may have written: nothing blocks, and nothing larger than expected is read."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

MAX_LINE_BYTES = 16_000_000
_MAX_SKIPPED_BYTES = 250_000_000  # of lines that are longer; a file full of holes has no end that anybody would see
# Opening a pipe waits for its other end, unless asked not to; without O_BINARY Windows would change line ends.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def open_regular(path: Path) -> BinaryIO:
    """Open an ordinary file to read bytes.

    Raises FileNotFoundError where nothing is, and OSError for what is no ordinary file (a pipe or a device might never
    answer), cannot be read, or has a name that the system does not take.
    """
    try:
        # Before it is opened: opening a device may do something.
        if not S_ISREG(path.stat().st_mode):
            raise OSError(errno.EINVAL, "it is not a file", str(path))
        file = os.open(path, _FLAGS)
    except ValueError as error:  # a zero byte, or text that is no Unicode
        raise OSError(errno.EINVAL, "it has a name that the system does not take", str(path)) from error
    if not S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "it is not a file", str(path))
    return os.fdopen(file, "rb")


def read_bounded(path: Path, max_bytes: int) -> bytes | None:
    """All bytes of an ordinary file, None when it has more than that. Raises OSError as `open_regular` does."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > max_bytes:
            return None
        content = file.read(max_bytes + 1)  # it may grow meanwhile
    return content if len(content) <= max_bytes else None


def lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Lines with their ends; None for one that is longer than anybody writes, which is not kept in memory.

    After very long lines the rest of the file is left out.
    """
    skipped = 0
    while line := file.readline(MAX_LINE_BYTES):
        if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
            yield line
            continue
        yield None
        while line and not line.endswith(b"\n"):
            skipped += len(line)
            if skipped > _MAX_SKIPPED_BYTES:
                return
            line = file.readline(MAX_LINE_BYTES)
