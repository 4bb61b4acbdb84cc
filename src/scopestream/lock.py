"""One writer at a time: `scopestream/lock` is locked while a stream or a recovery changes a dataset.

The system gives the lock back when the process ends, however it ends. What the file says is for people, and for
recovery: who the last writer was, and in which run of the system it wrote.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from time import time
from typing import Any

from scopestream.errors import DatasetBusyError, DatasetError
from scopestream.untrusted import read_bounded

LOCK = "scopestream/lock"
_MAX_BYTES = 10_000
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_CANNOT = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


class DatasetLock:
    """Taken on creation. Raises DatasetBusyError when somebody else has it, and OSError.

    previous  what the last writer left, empty when it ended well or there was none
    """

    # "boot" tells in which run of the system the process lives, "run" in which the data was written: not the same
    # while somebody looks at what a crash left.

    def __init__(self, root: Path) -> None:
        self._path = root / LOCK
        self._file = -1
        self._root = root
        self.previous: dict[str, Any] = {}
        while not self._take():
            pass
        try:
            self._write_owner(self.previous.get("run"))
        except BaseException:
            self.abandon()
            raise

    def claim(self) -> None:
        """What this process writes from now on is of this run of the system, and what was there is in order."""
        self._write_owner(boot_id())

    def release(self) -> None:
        """Give it back, as one who ends well. Idempotent."""
        if self._file < 0:
            return
        try:
            with suppress(OSError):  # a full disk: the next one will find out that this process is gone
                self._write(b"")
            # Not only by closing the file, which a forked child may have open as well.
            _unlock(self._file)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Give it back without a word, as a crash would."""
        if self._file >= 0:
            file, self._file = self._file, -1
            os.close(file)

    def _take(self) -> bool:
        """Open and lock the file; False when it was replaced meanwhile."""
        self._file = os.open(self._path, _FLAGS, 0o666)
        try:
            locked = _lock(self._file)
            if not locked and not _owner_is_gone(self._root, may_be_nobody=locked is None):
                raise _busy(self._root)
            self.previous = read_owner(self._root)
            if locked is False:
                self._replace()
            # A lock on a file that is no longer there keeps nobody out.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._file), self._path.stat()):
                    return True
        except BaseException:
            self.abandon()
            raise
        self.abandon()
        return False

    def _replace(self) -> None:
        """A lock file of our own in the place of the one that a child of the dead process holds.

        Of several that find it so only one may do that: the others see whose lock it is then.
        """
        self.abandon()
        turn = os.open(self._path.with_name(".lock-turn.tmp"), _FLAGS, 0o666)
        try:
            if not _lock(turn) or not _owner_is_gone(self._root, may_be_nobody=False):
                raise _busy(self._root)
            own = self._path.with_name(f".lock-{os.getpid()}.tmp")
            self._file = os.open(own, _FLAGS, 0o666)
            _lock(self._file)
            self._write_owner(self.previous.get("run"))
            os.replace(own, self._path)
        finally:
            os.close(turn)

    def _write_owner(self, run: object) -> None:
        owner = {**_place(), "pid": os.getpid(), "run": run, "time": time()}
        with suppress(OSError):  # a full disk keeps nobody from making room: then nobody knows who holds the lock
            self._write(json.dumps(owner).encode())

    def _write(self, text: bytes) -> None:
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        os.write(self._file, text)


def check_not_busy(root: Path) -> None:
    """Raise DatasetBusyError when somebody has the lock; nothing is changed."""
    try:
        file = os.open(root / LOCK, _FLAGS & ~os.O_CREAT)
    except FileNotFoundError:
        return
    except OSError as error:
        raise DatasetError(f"{root / LOCK} is no lock that this program made: {error.strerror}.") from error
    try:
        locked = _lock(file)
        if not locked and not _owner_is_gone(root, may_be_nobody=locked is None):
            raise _busy(root)
    finally:
        os.close(file)


def read_owner(root: Path) -> dict[str, Any]:
    """Who has the dataset open, or had it when it was killed: pid, host, boot, run, time. Empty when nobody does."""
    try:
        owner = json.loads(read_bounded(root / LOCK, _MAX_BYTES) or b"{}")
    except (OSError, ValueError, RecursionError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _owner_is_gone(root: Path, *, may_be_nobody: bool) -> bool:
    """Whether the writer is dead: a child that it forked may hold its lock still, but does not write."""
    owner = read_owner(root)
    pid = owner.get("pid")
    if not isinstance(pid, int):
        return may_be_nobody
    here = _place()
    if owner.get("host") != here["host"]:
        return may_be_nobody
    if None not in (owner.get("boot"), here["boot"]) and owner["boot"] != here["boot"]:
        return True  # nothing outlives a start of the system
    # Containers on one computer may share its name, and not know the processes of one another.
    return all(owner.get(key) == here[key] for key in here) and not _is_alive(pid)


def _busy(root: Path) -> DatasetBusyError:
    owner = read_owner(root)
    who = f"process {owner['pid']} on {owner.get('host')}" if "pid" in owner else "another program"
    return DatasetBusyError(
        f"{root} is being written by {who}; nothing was changed. Close that stream first, or choose another path."
    )


def _place() -> dict[str, str | None]:
    """Where a process lives: only there its number means anything."""
    try:
        namespace: str | None = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = None
    return {"host": socket.gethostname(), "boot": boot_id(), "namespace": namespace}


def boot_id() -> str | None:
    """Which run of the system this is: what was written in the same run has not been through a power failure."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


if sys.platform == "win32":
    import msvcrt

    def _is_alive(pid: int) -> bool:
        """Windows frees a lock with its process, and children do not get it."""
        return True

    def _lock(file: int) -> bool | None:
        """Whether the lock is ours now, None where the file system has no locks. Texts lie before it."""
        os.lseek(file, 1 << 30, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(file: int) -> None:
        """Closing it does that."""

else:
    import fcntl

    def _is_alive(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except PermissionError:
            pass  # it is of another user
        return True

    def _lock(file: int) -> bool | None:
        """Whether the lock is ours now, None where the file system has no locks."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _CANNOT:
                return None
            raise
        return True

    def _unlock(file: int) -> None:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)
