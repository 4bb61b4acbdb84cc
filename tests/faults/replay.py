"""Recorded calls done again, in another folder."""

from __future__ import annotations

import os
from pathlib import Path

from tests.faults.shim import Call, Op

_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE


def do_again(call: Call, root: Path) -> None:
    """What the call changed. Syncs and marks change nothing, nor does space that lies behind the end of a file."""
    path = Path(f"{root}{call.path}")
    match call.op:
        case Op.WRITE:
            _at(path, call.offset, call.data)
        case Op.TRUNCATE:
            os.truncate(path, call.length)
        case Op.ALLOCATE if not call.flags & _KEEP_SIZE:
            os.truncate(path, max(path.stat().st_size, call.offset + call.length))
        case Op.OPEN:
            os.close(os.open(path, os.O_WRONLY | call.flags & (os.O_CREAT | os.O_TRUNC), 0o666))
        case Op.MKDIR:
            path.mkdir()
        case Op.RENAME:
            os.replace(path, f"{root}{call.other}")
        case Op.UNLINK:
            path.unlink()
        case Op.RMDIR:
            path.rmdir()


def _at(path: Path, offset: int, data: bytes) -> None:
    file = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(file, data, offset)
    finally:
        os.close(file)
