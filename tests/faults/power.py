"""A disk that forgets: what a process did to its files, replayed up to a power loss.

A `Recorder` notes every change below a folder, in order, with every sync. A `Disk` then makes what a power loss could
have left: all that was synced, and of the rest whatever a seed says, in any order. That is more than any real file
system loses: a write may be kept in part, a file may get its size without its bytes, a name may be there without what
was done before it.

* A file's bytes and the growth that they need are safe after its `fsync` or `fdatasync`, other sizes after `fsync`.
* Where a file is cut off in the middle of a block, the rest of it is blanked, and that may be kept without the cut.
* A name, its removal and a renaming are safe after the `fsync` of the folders.
* `syncfs` makes everything safe.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

from scopestream import durable

_SECTOR_BYTES, _BLOCK_BYTES = 512, 4096
_ROOT = 0


class Name(NamedTuple):
    """A name in a folder that stands for a file or folder from now on; None: for nothing."""

    folder: int
    name: str
    node: int | None


class Renamed(NamedTuple):
    """One name goes, another one stands for what it stood for."""

    gone: Name
    new: Name


class Write(NamedTuple):
    node: int
    offset: int
    data: bytes


class Resize(NamedTuple):
    node: int
    size: int


class Sync(NamedTuple):
    """Of a file or folder; None: of all. `data` leaves out sizes that no byte needs."""

    node: int | None
    data: bool = False


class Promise(NamedTuple):
    """From here on so many frames, the first ones, must survive."""

    n_frames: int


Change = Name | Renamed | Write | Resize
Step = Change | Sync | Promise


@dataclass
class _Handle:
    node: int
    appends: bool
    position: int = 0


@dataclass
class Recorder:
    """Notes what the functions of `os` change below `base`, from any thread."""

    base: Path
    steps: list[Step] = field(default_factory=list)
    _names: dict[tuple[int, str], int] = field(default_factory=dict)
    _sizes: dict[int, int] = field(default_factory=dict)
    _handles: dict[int, _Handle] = field(default_factory=dict)
    _n_nodes: int = 1
    _lock: Any = field(default_factory=threading.RLock)

    def promise(self, n_frames: int) -> None:
        with self._lock:
            self.steps.append(Promise(n_frames))

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Everything that this process does meanwhile is noted, as long as it does it through `os` or `syncfs`."""
        with pytest.MonkeyPatch.context() as patch:
            calls = ("open", "close", "write", "pwrite", "pwritev", "ftruncate", "fsync", "fdatasync")
            for name in (*calls, "replace", "mkdir", "unlink"):
                patch.setattr(os, name, self._wrapped(getattr(os, name), getattr(self, f"_{name}")))
            patch.delattr(os, "copy_file_range", raising=False)  # then it is read and written
            patch.setattr(durable, "_syncfs", lambda: self._syncfs)
            yield

    def _wrapped(self, function: Callable[..., Any], note: Callable[..., None]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            with self._lock:  # one after the other, as they are noted
                result = function(*arguments, **keywords)
                note(result, *arguments)
                return result

        return call

    # -- what each function changes ---------------------------------------------------------------------------------

    def _open(self, file: int, path: Any, flags: int, *_: Any) -> None:
        if (place := self._place(path)) is None:
            return
        node = self._names.get(place) if place[1] else _ROOT
        if node is None:
            if not flags & os.O_CREAT:  # of before the recording
                return
            node = self._new_node(place)
        elif flags & os.O_TRUNC and self._sizes.get(node):
            self._resize(node, 0)
        self._handles[file] = _Handle(node, bool(flags & os.O_APPEND))

    def _close(self, _: None, file: int) -> None:
        self._handles.pop(file, None)

    def _write(self, n_bytes: int, file: int, data: Any) -> None:
        if (handle := self._handles.get(file)) is not None:
            at = self._sizes[handle.node] if handle.appends else handle.position
            self._note_write(handle.node, at, bytes(data)[:n_bytes])
            handle.position = at + n_bytes

    def _pwrite(self, n_bytes: int, file: int, data: Any, offset: int) -> None:
        if (handle := self._handles.get(file)) is not None:
            self._note_write(handle.node, offset, bytes(data)[:n_bytes])

    def _pwritev(self, n_bytes: int, file: int, pieces: Sequence[Any], offset: int) -> None:
        self._pwrite(n_bytes, file, b"".join(bytes(piece) for piece in pieces), offset)

    def _ftruncate(self, _: None, file: int, size: int) -> None:
        if (handle := self._handles.get(file)) is not None:
            self._resize(handle.node, size)

    def _fsync(self, _: None, file: int) -> None:
        if (handle := self._handles.get(file)) is not None:
            self.steps.append(Sync(handle.node))

    def _fdatasync(self, _: None, file: int) -> None:
        if (handle := self._handles.get(file)) is not None:
            self.steps.append(Sync(handle.node, data=True))

    def _syncfs(self, _: int) -> int:
        with self._lock:
            self.steps.append(Sync(None))
        return 0

    def _replace(self, _: None, source: Any, target: Any) -> None:
        old, new = self._place(source), self._place(target)
        if old is not None and new is not None:
            node = self._names.pop(old)
            self._names[new] = node
            self.steps.append(Renamed(Name(*old, None), Name(*new, node)))

    def _mkdir(self, _: None, path: Any, *__: Any) -> None:
        if (place := self._place(path)) is not None:
            self._new_node(place)

    def _unlink(self, _: None, path: Any, *__: Any) -> None:
        if (place := self._place(path)) is not None:
            self._names.pop(place, None)
            self.steps.append(Name(*place, None))

    # -- inside -----------------------------------------------------------------------------------------------------

    def _place(self, path: Any) -> tuple[int, str] | None:
        """Folder and name of a path below `base`; the name of `base` itself is empty."""
        try:
            parts = Path(os.fspath(path)).relative_to(self.base).parts
        except (TypeError, ValueError):
            return None
        if not parts:
            return _ROOT, ""
        folder = _ROOT
        for part in parts[:-1]:
            folder = self._names[folder, part]
        return folder, parts[-1]

    def _new_node(self, place: tuple[int, str]) -> int:
        node, self._n_nodes = self._n_nodes, self._n_nodes + 1
        self._names[place] = node
        self._sizes[node] = 0
        self.steps.append(Name(*place, node))
        return node

    def _note_write(self, node: int, offset: int, data: bytes) -> None:
        self._sizes[node] = max(self._sizes[node], offset + len(data))
        self.steps.append(Write(node, offset, data))

    def _resize(self, node: int, size: int) -> None:
        rest = min(self._sizes[node] - size, -size % _BLOCK_BYTES)
        if rest > 0:
            self.steps.append(Write(node, size, bytes(rest)))
        self._sizes[node] = size
        self.steps.append(Resize(node, size))


class Disk:
    """What may be left of recorded steps."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = steps

    def cuts(self) -> list[int]:
        """Steps before which the power may be lost: just before and just after each sync, and after the last step."""
        syncs = [number for number, step in enumerate(self._steps) if isinstance(step, Sync)]
        return sorted({*syncs, *(number + 1 for number in syncs), len(self._steps)})

    def promised(self, cut: int) -> int | None:
        """Frames that must survive a power loss there; None when nothing was promised yet."""
        found = [step.n_frames for step in self._steps[:cut] if isinstance(step, Promise)]
        return found[-1] if found else None

    def left(self, cut: int, seed: int, target: Path) -> None:
        """Make below `target`, a new folder, what is left of a power loss before that step.

        Seed 0 keeps only what was synced, seed 1 everything, seed 2 names and sizes without bytes, as journals do, and
        seed 3 bytes without the rest; others keep some of it.
        """
        luck = _Luck(seed)
        names: dict[tuple[int, str], int] = {}
        files: dict[int, bytearray] = {}
        for step, is_safe in zip(self._steps[:cut], self._safe(cut), strict=True):
            if isinstance(step, Sync | Promise):
                continue
            if isinstance(step, Write):
                _write(files.setdefault(step.node, bytearray()), step, ... if is_safe else luck.sectors(step))
            elif is_safe or luck.keeps_change():
                if isinstance(step, Resize):
                    _resize(files.setdefault(step.node, bytearray()), step.size)
                else:
                    _name(names, step)
        _materialise(names, files, self._folders(), target)

    def _safe(self, cut: int) -> list[bool]:
        """Which of the first steps were synced before the cut."""
        everything = False
        whole, data = set[int](), set[int]()
        safe = []
        for step in reversed(self._steps[:cut]):
            if isinstance(step, Sync):
                everything = everything or step.node is None
                if step.node is not None:
                    (data if step.data else whole).add(step.node)
                safe.append(True)
            elif isinstance(step, Write):
                safe.append(everything or step.node in whole or step.node in data)
            elif isinstance(step, Resize):
                safe.append(everything or step.node in whole)
            elif isinstance(step, Name):
                safe.append(everything or step.folder in whole)
            elif isinstance(step, Renamed):
                safe.append(everything or {step.gone.folder, step.new.folder} <= whole)
            else:
                safe.append(True)
        return safe[::-1]

    def _folders(self) -> set[int]:
        names = [step.new if isinstance(step, Renamed) else step for step in self._steps]
        return {name.folder for name in names if isinstance(name, Name)}


class _Luck:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        share = self._random.choice([0.1, 0.5, 0.9])
        self._changes = {0: 0.0, 1: 1.0, 2: 1.0, 3: 0.0}.get(seed, share)
        self._bytes = {0: 0.0, 1: 1.0, 2: 0.0, 3: 1.0}.get(seed, share)

    def keeps_change(self) -> bool:
        return self._random.random() < self._changes

    def sectors(self, write: Write) -> list[range] | Literal["size"] | None:
        """What is kept of a write: parts of its data, only the size that it gave the file, or nothing."""
        if self._random.random() >= self._bytes:
            return "size" if self._random.random() < self._changes else None
        if self._bytes == 1.0 or self._random.random() < 0.5:
            return [range(len(write.data))]
        bounds = range(-(write.offset % _SECTOR_BYTES), len(write.data), _SECTOR_BYTES)
        sectors = [range(max(first, 0), min(first + _SECTOR_BYTES, len(write.data))) for first in bounds]
        return [sector for sector in sectors if self._random.random() < 0.5]


def _write(file: bytearray, write: Write, kept: Any) -> None:
    if kept is None:
        return
    _resize(file, max(len(file), write.offset + len(write.data)))
    if kept == "size":
        return
    for part in [range(len(write.data))] if kept is ... else kept:
        file[write.offset + part.start : write.offset + part.stop] = write.data[part.start : part.stop]


def _resize(file: bytearray, size: int) -> None:
    if size < len(file):
        del file[size:]
    else:
        file.extend(bytes(size - len(file)))


def _name(names: dict[tuple[int, str], int], change: Name | Renamed) -> None:
    if isinstance(change, Renamed):
        _name(names, change.gone)
        _name(names, change.new)
    elif change.node is None:
        names.pop((change.folder, change.name), None)
    else:
        names[change.folder, change.name] = change.node


def _materialise(
    names: dict[tuple[int, str], int], files: dict[int, bytearray], folders: set[int], target: Path
) -> None:
    children: dict[int, list[tuple[str, int]]] = {}
    for (folder, name), node in names.items():
        children.setdefault(folder, []).append((name, node))
    waiting = [(_ROOT, target)]
    while waiting:
        node, path = waiting.pop()
        if node in folders:
            path.mkdir()
            waiting += [(child, path / name) for name, child in children.get(node, [])]
        else:
            path.write_bytes(files.get(node, b""))
