"""System calls that fail, come half way, come late or are written down: the Python side of `shim.c`.

control = Control.create(tmp_path / "control")
environment = preloaded(library, tmp_path / "control")       # for the process under test
control.set(root, [Op.WRITE], match="/c")                    # only counts
control.set(root, [Op.WRITE], mode=Mode.FAIL_ONCE, nth=3, error=errno.EIO)
"""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

_SOURCE = Path(__file__).with_name("shim.c")
_VARIABLE = "SCOPESTREAM_FAULTS"


class Op(IntEnum):
    """What is asked of the system."""

    WRITE = 0
    TRUNCATE = 1
    ALLOCATE = 2
    OPEN = 3  # for writing, or to make a file
    MKDIR = 4
    RENAME = 5
    FSYNC = 6
    FDATASYNC = 7
    SYNCFS = 8
    UNLINK = 9
    RMDIR = 10
    MARK = 11  # no call: a text that the program put into the trace


# What makes and fills files; a disk that is full takes none of it.
GROWING = (Op.WRITE, Op.TRUNCATE, Op.ALLOCATE, Op.OPEN, Op.MKDIR, Op.RENAME)
CHANGING = (*GROWING, Op.FSYNC, Op.FDATASYNC, Op.SYNCFS, Op.UNLINK, Op.RMDIR)
# Those that a signal may cut short before they did anything (POSIX).
INTERRUPTIBLE = (Op.WRITE, Op.TRUNCATE, Op.ALLOCATE, Op.OPEN, Op.FSYNC, Op.FDATASYNC)


class Mode(IntEnum):
    """What happens to a call that matches."""

    COUNT = 0
    FAIL_ONCE = 1
    FAIL_FROM = 2
    SHORT = 3  # of a write: only half of its bytes
    DELAY = 4


class _Struct(ctypes.Structure):
    _fields_ = (
        *[(name, ctypes.c_int64) for name in ("mode", "operations", "nth", "error", "delay_us", "recording")],
        *[(name, ctypes.c_int64) for name in ("seen", "hits")],
        *[(name, ctypes.c_char * 1024) for name in ("root", "match", "trace")],
    )


class Control:
    """What happens to calls of every process that was started with this control, at once and until it is changed."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), ctypes.sizeof(_Struct))
        self._struct = _Struct.from_buffer(self._memory)

    @classmethod
    def create(cls, path: Path) -> Control:
        path.write_bytes(bytes(ctypes.sizeof(_Struct)))
        return cls(path)

    def set(
        self,
        root: Path,
        operations: Sequence[int],
        *,
        mode: int = Mode.COUNT,
        match: str = "",
        nth: int = 1,
        error: int = 0,
        delay_us: int = 0,
    ) -> None:
        """From now on: calls of these operations below `root` are counted from 1, and tampered with as `mode` says.

        match  a text in the path below the root; with "!" before it, one that is not there
        nth    the call that is tampered with, the first of them for FAIL_FROM; DELAY holds up all
        error  the errno of calls that fail
        """
        self.off()
        new = self._struct
        new.mode, new.nth, new.error, new.delay_us = mode, nth, error, delay_us
        new.root, new.match = os.fsencode(root.resolve()), match.encode()
        new.seen = new.hits = 0
        new.operations = sum(1 << operation for operation in operations)  # last: it is what switches on

    def off(self) -> None:
        """Calls pass as they are, and are not recorded."""
        self._struct.operations = self._struct.recording = 0

    def record(self, root: Path, trace: Path) -> None:
        """From now on every call below `root` that changed something is appended to `trace`, until `off`."""
        self._struct.root, self._struct.trace = os.fsencode(root.resolve()), os.fsencode(trace)
        self._struct.recording = 1

    @property
    def seen(self) -> int:
        """Calls that matched since `set`."""
        return int(self._struct.seen)

    @property
    def hits(self) -> int:
        """Calls that were tampered with since `set`."""
        return int(self._struct.hits)


@dataclass(frozen=True, slots=True)
class Call:
    """A call that succeeded. Paths are relative to the root, and begin with "/"; the root itself is "".

    other   the new name of a rename
    flags   of open and fallocate
    offset  in the file, of WRITE and ALLOCATE
    length  what was written, or the size that TRUNCATE gave, or what was asked for
    data    the bytes of a WRITE; the text of a MARK
    """

    op: Op
    path: str
    other: str
    flags: int
    offset: int
    length: int
    data: bytes


_RECORD = struct.Struct("=iiiiqqq")


def read_trace(trace: Path) -> Iterator[Call]:
    """The recorded calls in the order in which they happened."""
    with trace.open("rb") as file:
        while head := file.read(_RECORD.size):
            op, path_bytes, other_bytes, flags, offset, length, data_bytes = _RECORD.unpack(head)
            path, other = os.fsdecode(file.read(path_bytes)), os.fsdecode(file.read(other_bytes))
            yield Call(Op(op), path, other, flags, offset, length, file.read(data_bytes))


def mark(text: str) -> None:
    """Put a text into the trace, in a process that was started with `preloaded`."""
    ctypes.CDLL(None).scopestream_faults_mark(text.encode())


def why_not() -> str:
    """Why there can be no shim here; empty where there can."""
    if sys.platform != "linux":
        return "calls are replaced with LD_PRELOAD, as on Linux"
    return "" if shutil.which("cc") else "there is no C compiler (cc)"


def build(folder: Path) -> Path:
    """Compile the shim. Raises CalledProcessError with what the compiler said."""
    library = folder / "shim.so"
    # The headers of a hardened build define some of the functions themselves.
    flags = ["-shared", "-fPIC", "-O2", "-Wall", "-U_FORTIFY_SOURCE"]
    subprocess.run(["cc", *flags, "-o", library, _SOURCE, "-ldl", "-lpthread"], check=True, capture_output=True)
    return library


def preloaded(library: Path, control: Path) -> dict[str, str]:
    """The environment of a process whose calls go through the shim."""
    return {**os.environ, "LD_PRELOAD": str(library), _VARIABLE: str(control)}
