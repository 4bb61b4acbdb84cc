"""What backends have in common whose library stores whole files (shards, or chunks where there are no shards) at once.

The library is never told the real shape of an array, but one rounded up to whole files, and blocks are padded to whole
files. So each write covers its files completely, and no library finds a reason to read one back first: not at the end
of an axis, and not when a block comes again with more frames. The documents on disk have the real shape and are written
here, so they are the same whatever the library.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import product
from math import prod
from pathlib import Path
from threading import Lock, Semaphore
from typing import Any, ClassVar

import numpy as np

from scopestream.contract import Capabilities, WriteUnit
from scopestream.document import array_document, stored_length, write_document
from scopestream.durable import Unsynced
from scopestream.plan import ArrayPlan, LayoutPlan, max_threads
from scopestream.tiling import round_up

_ENDLESS = 2**31  # files along a growable axis, as the library is told: more than there will ever be
_AT_ONCE_BYTES = 64 * 2**20
_LIBRARY_BYTES = 64 * 2**20  # of threads, and of memory that is freed but not given back


class WholeFileBackend:
    """What the backends of these sinks declare alike."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        any_order=True,
        concurrent=True,
        growable=True,
        live_read=True,
        codecs=frozenset({"none", "zstd", "blosc-zstd", "blosc-lz4"}),
        schemes=frozenset({"file"}),
        resumes=True,
        durable=True,
    )

    def unit(self, array: ArrayPlan) -> WriteUnit:
        return WriteUnit.SHARD  # frame by frame, a shard of n frames would be rewritten n times

    def n_copies(self, array: ArrayPlan) -> int:
        """How many copies of a block the library makes while it stores it: encoded chunks, and the file made of them.

        Measured with each library, as peaks of resident memory.
        """
        return 2

    def held_bytes(self, array: ArrayPlan, n_arrays: int, room: int) -> int:
        """Those of the blocks that are given to the library at once: two, if there is room, or more small ones.

        It uses all cores for a large one, but not while it makes the file. Small ones would leave cores idle.
        """
        one = self._block_bytes(array)
        n_small = _AT_ONCE_BYTES // (prod(array.file_shape) * array.dtype.itemsize)
        n_with_room = min(2, (room - _LIBRARY_BYTES) // one)
        return max(1, min(max(n_small, n_with_room), max_threads(array, WriteUnit.SHARD))) * one + _LIBRARY_BYTES

    def at_once(self, plan: LayoutPlan) -> int:
        """How many blocks are given to the library at once."""
        return (plan.backend_bytes - _LIBRARY_BYTES) // max(map(self._block_bytes, plan.finest))

    def _block_bytes(self, array: ArrayPlan) -> int:
        """Bytes that are held while one block is stored.

        Each copy is as large as the block with its padding, and a little more where data does not compress. Where
        padding is needed, the padded block comes on top.
        """
        before = len(array.axes) - 2
        n_frames = prod(array.file_shape[:before])
        frame = map(round_up, array.frame_shape, array.file_shape[before:])
        block_bytes = n_frames * prod(frame) * array.dtype.itemsize
        is_padded = array.growable or any(size % step for size, step in zip(array.shape, array.file_shape, strict=True))
        return self.n_copies(array) * (block_bytes + block_bytes // 16) + is_padded * block_bytes

    def check(self, plan: LayoutPlan) -> Sequence[str]:
        return []


class WholeFileSink(ABC):
    """A sink whose `write` returns when the block is in its files, so that `flush` has nothing to do.

    Every document exists from the start, but the handle of an array only from its first block on: a plate has thousands
    of arrays. Of the threads that call `write` only `at_once` go on at the same time.
    """

    def __init__(self, plan: LayoutPlan, at_once: int, *, resumes: bool) -> None:
        self._plan = plan
        self._turn = Semaphore(at_once)
        self._unsynced = Unsynced(plan.root, careful=plan.settings.durability == "disk")
        self._lock = Lock()  # for what follows
        self._handles: dict[int, Any] = {}
        self._lengths: dict[int, int] = {}  # of growable arrays, once they grew
        self._shown = [array.shape[0] for array in plan.arrays]  # what the documents say
        if resumes:
            self._shown = [stored_length(self._folder(array)) for array in plan.arrays]
            return
        for array in plan.arrays:
            self._folder(array).mkdir(parents=True)
            write_document(self._folder(array), array_document(array, array.shape))

    def write(self, array: int, origin: tuple[int, ...], block: np.ndarray, *, final: bool = True) -> None:
        planned = self._plan.arrays[array]
        try:
            with self._turn:
                whole = _padded(block, planned.file_shape)
                region = tuple([slice(first, first + size) for first, size in zip(origin, whole.shape, strict=True)])
                files = self._files(planned, region)
                for folder in dict.fromkeys(file.parent for file in files):
                    self._unsynced.make_folders(folder)
                self._store(self._handle(array), region, whole, files)
                for file in files:
                    self._unsynced.named(file)
        except Exception as error:  # each library has types of its own for a full disk or a share that went away
            is_full = "No space left" in str(error)
            raise OSError(
                getattr(error, "errno", None) or (errno.ENOSPC if is_full else errno.EIO),
                f"The frames from {origin} on could not be stored in {self._folder(planned)}: {error}. "
                f"What was stored before is safe. "
                + ("Make room on the disk" if is_full else "Make sure that the disk is there and may be written to"),
            ) from error

    def extend(self, array: int, length: int) -> None:
        step = self._plan.arrays[array].file_shape[0]
        with self._lock:
            # Readers see whole files, so that the document is replaced once per file and not for every frame.
            if length > self._shown[array]:
                self._show(array, round_up(length, step))
            self._lengths[array] = max(length, self._lengths.get(array, 0))

    def flush(self) -> None:  # noqa: B027  # not abstract, and empty since nothing waits
        pass

    def sync(self) -> None:
        if not self._unsynced.careful:
            self._unsynced.careful = True
            self._handles.clear()  # they were opened for libraries that need not sync
        self._unsynced.sync()

    def close(self) -> None:
        with self._lock:
            for array, length in self._lengths.items():
                if length != self._shown[array]:
                    self._show(array, length)
            self._handles.clear()
        if self._unsynced.careful:
            self._unsynced.sync()

    @abstractmethod
    def _open(self, folder: Path, document: dict[str, Any]) -> Any:
        """The library's handle of the array that `document` describes, whatever the document in `folder` says.

        Opened again when care is needed (`self._unsynced.careful`) that was not needed before.
        """

    @abstractmethod
    def _store(self, handle: Any, region: tuple[slice, ...], block: np.ndarray, files: Sequence[Path]) -> None:
        """Replace whole files, each at once; on return `block` may be reused. Raises what the library raises.

        files  the same, as paths. Their folders are there, and their names are remembered for the next sync; where care
               is needed, what is in a file must be synced before it gets its name
        Called from several threads, for different files.
        """

    def _handle(self, array: int) -> Any:
        with self._lock:
            if (handle := self._handles.get(array)) is None:
                planned = self._plan.arrays[array]
                shape = tuple(map(round_up, planned.shape, planned.file_shape))
                if planned.growable:
                    shape = (_ENDLESS * planned.file_shape[0], *shape[1:])
                handle = self._handles[array] = self._open(self._folder(planned), array_document(planned, shape))
            return handle

    def _show(self, array: int, length: int) -> None:
        """Let readers see that many items of the first axis."""
        planned = self._plan.arrays[array]
        folder, document = self._folder(planned), array_document(planned, (length, *planned.shape[1:]))
        write_document(folder, document, synced=self._unsynced.careful)
        self._unsynced.named(folder / "zarr.json")
        self._shown[array] = length  # last, so that what failed is tried again

    def _files(self, array: ArrayPlan, region: tuple[slice, ...]) -> list[Path]:
        steps = zip(region, array.file_shape, strict=True)
        ranges = [range(part.start // step, part.stop // step) for part, step in steps]
        return [self._folder(array).joinpath("c", *map(str, file)) for file in product(*ranges)]

    def _folder(self, array: ArrayPlan) -> Path:
        return self._plan.root / array.path


def _padded(block: np.ndarray, file_shape: tuple[int, ...]) -> np.ndarray:
    """The block with the fill value up to whole files; the block itself where nothing is missing."""
    shape = tuple(map(round_up, block.shape, file_shape))
    if shape == block.shape:
        return block
    whole = np.zeros(shape, block.dtype)
    whole[tuple([slice(size) for size in block.shape])] = block
    return whole
