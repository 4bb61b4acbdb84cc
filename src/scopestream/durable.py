"""What survives a power loss: how files and folders get to stable storage, and which of them still have to.

A file and its name are two things: a sync of the file brings its bytes and its size, a sync of its folder the name. A
system without a way to sync folders (Windows) keeps names in its journal.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

# Files and folders that are synced one by one. More of them are done faster by one sync of the file system; without
# that call all files of the dataset must be gone through, which is worth remembering many of them.
_MAX_NAMES, _MAX_NAMES_WITHOUT_SYNCFS = 256, 65536
_NO_SUCH_SYNC = (errno.EINVAL, errno.ENOTSUP)
# Of file systems; some network shares say how much they would like to be sent at once instead.
_LEAST_BLOCK, _MOST_BLOCK = 2**12, 2**16


def sync_file(file: int) -> None:
    """Return when the bytes and the size of an open file are on stable storage. Raises OSError.

    What failed must never be tried again: the system may have forgotten the bytes, and then the second call succeeds.
    """
    if sys.platform == "darwin":  # its fsync leaves the bytes in the cache of the drive
        import fcntl

        try:
            fcntl.fcntl(file, fcntl.F_FULLFSYNC)
            return
        except OSError as error:  # a network share may not have it
            if error.errno not in _NO_SUCH_SYNC:
                raise
    os.fsync(file)


def sync_data(file: int) -> None:
    """As `sync_file`, for bytes; the size only as far as they need it, so not when the file was cut off."""
    if hasattr(os, "fdatasync"):
        os.fdatasync(file)
    else:
        sync_file(file)


def sync_path(path: Path) -> None:
    """As `sync_file`, for a file that somebody may have open."""
    # Windows syncs through handles that may write only.
    file = os.open(path, (os.O_RDWR if os.name == "nt" else os.O_RDONLY) | getattr(os, "O_BINARY", 0))
    try:
        sync_file(file)
    finally:
        os.close(file)


def sync_folder(folder: Path) -> None:
    """Return when the names in a folder are on stable storage. Raises OSError."""
    if os.name == "nt":
        return
    file = os.open(folder, os.O_RDONLY)
    try:
        sync_file(file)
    except OSError as error:  # some network file systems have no folders to sync, and no names that wait
        if error.errno not in _NO_SUCH_SYNC:
            raise
    finally:
        os.close(file)


def sync_everything(root: Path) -> None:
    """Return when all that is below `root`, and its own name, are on stable storage. Raises OSError.

    One call for the whole file system, whoever wrote to it. Where there is none, file by file.
    """
    call = _syncfs()
    if call is None:
        _sync_tree(root)
        return
    file = os.open(root, os.O_RDONLY)
    try:
        if call(file):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(root))
    finally:
        os.close(file)


def block_bytes(path: Path) -> int:
    """Of the file system that has `path`: bytes that it changes as one.

    Where a file is cut off in the middle of a block, the rest of the block is blanked, and that may reach the disk
    before the new size does. What counts until then must not lie there.
    """
    if not hasattr(os, "statvfs"):
        return _LEAST_BLOCK
    return min(max(os.statvfs(path).f_frsize, _LEAST_BLOCK), _MOST_BLOCK)


class Unsynced:
    """What was written below `root` since the last `sync`, so that the next one need not go through all of it.

    Safe from any thread, but for `sync`, which is never called twice at once, and for the first time either while
    nobody writes or when it was careful from the start.

    careful  whether frames were promised to survive a power loss: from then on everything is written in an order that
             never makes them unreadable, and remembered here. What came before is found by syncing everything
    block    bytes of a block of the file system
    """

    def __init__(self, root: Path, *, careful: bool) -> None:
        self.careful = careful
        self.block = block_bytes(root)
        self._root = root
        self._files: set[Path] = set()
        self._folders: set[Path] = set()
        self._is_known = False  # whether these are all
        self._max_names = _MAX_NAMES_WITHOUT_SYNCFS if _syncfs() is None else _MAX_NAMES
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._error: OSError | None = None

    def changed(self, path: Path) -> None:
        """Bytes or the size of that file changed."""
        if self.careful:
            self._remember(self._files, path)

    def named(self, path: Path) -> None:
        """That name appeared in its folder, or stands for another file now."""
        if self.careful:
            self._remember(self._folders, path.parent)

    def make_folders(self, folder: Path) -> None:
        """Make a folder, and those above it that are missing."""
        if not self.careful:
            folder.mkdir(parents=True, exist_ok=True)
            return
        missing = []
        with self._making:  # whoever finds a folder there must also find that it is remembered
            while not folder.exists():
                missing.append(folder)
                folder = folder.parent
            for one in reversed(missing):
                one.mkdir(exist_ok=True)
                self.named(one)

    def sync(self) -> None:
        """Return when all that was written and remembered before is on stable storage: files, then their names.

        Raises OSError, and from then on always.
        """
        if self._error is not None:
            raise OSError(self._error.errno, f"What was written could not be synced before: {self._error}")
        with self._lock:
            is_known, self._is_known = self._is_known, True
            files, self._files = self._files, set()
            folders, self._folders = self._folders, set()
        try:
            if not is_known:
                sync_everything(self._root)
                return
            for path in files:
                sync_path(path)
            for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
                sync_folder(folder)
        except BaseException as error:
            with self._lock:
                self._is_known = False  # these names are forgotten
            if isinstance(error, OSError):
                self._error = error
            raise

    def _remember(self, names: set[Path], path: Path) -> None:
        with self._lock:
            if self._is_known:
                names.add(path)
                if len(self._files) + len(self._folders) > self._max_names:
                    self._is_known = False
                    self._files.clear()
                    self._folders.clear()


def _sync_tree(root: Path) -> None:
    for folder, _, names in os.walk(root, topdown=False):
        for name in names:
            with suppress(FileNotFoundError):  # a file under another name until it is complete
                sync_path(Path(folder, name))
        sync_folder(Path(folder))
    for above in root.absolute().parents:
        with suppress(PermissionError):  # nobody made that one for the dataset
            sync_folder(above)


@cache
def _syncfs() -> Callable[[int], int] | None:
    if sys.platform != "linux":
        return None
    function = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if function is not None:
        function.argtypes = [ctypes.c_int]
        function.restype = ctypes.c_int
    return function
