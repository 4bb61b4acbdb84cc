"""What sinks have in common whose library stores whole files (shards, or chunks without shards) at once.

The library is never told the real shape of an array, but one rounded up to whole files, and blocks are padded to whole
files: then each write covers its files completely, and no library has a reason to read one back first, not even at the
end of an axis or when a block comes again with more frames. The documents on disk are written here, with the real shape.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import prod
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from scopestream.document import array_document, write_document
from scopestream.plan import ArrayPlan, LayoutPlan
from scopestream.tiling import round_up

_ENDLESS = 2**31  # files along a growable axis, as the library is told: more than there will ever be


def padded_bytes(array: ArrayPlan) -> int:
    """Uncompressed bytes of one block of whole files, padding included."""
    before = len(array.axes) - 2
    frame = prod(
        round_up(size, step) for size, step in zip(array.shape[before:], array.file_shape[before:], strict=True)
    )
    return prod(array.file_shape[:before]) * frame * array.dtype.itemsize


class WholeFileSink(ABC):
    """A sink whose `write` returns when the block is in its files, so that `flush` has nothing to do.

    Safe from several threads when `_store` is. Documents exist from the start; handles open with the first block, since
    a plate has thousands of arrays and few of them are written at a time.
    """

    def __init__(self, plan: LayoutPlan) -> None:
        self._plan = plan
        self._lock = Lock()  # for what follows
        self._handles: dict[int, Any] = {}
        self._lengths: dict[int, int] = {}  # of the growable arrays that grew
        for array in plan.arrays:
            self._folder(array).mkdir(parents=True)
            write_document(self._folder(array), array_document(array, array.shape))

    def write(self, array: int, origin: tuple[int, ...], block: np.ndarray, *, final: bool = True) -> None:
        planned = self._plan.arrays[array]
        try:
            whole = _padded(block, planned.file_shape)
            region = tuple([slice(first, first + n) for first, n in zip(origin, whole.shape, strict=True)])
            self._store(self._handle(array), region, whole)
        except OSError:
            raise
        except Exception as error:  # libraries have their own types for a full disk or a lost share
            raise OSError(
                f"Frames from {origin} on could not be stored in {self._folder(planned)}: {error}. "
                f"What was stored before is safe. Make sure that the disk has space and is there."
            ) from error

    def extend(self, array: int, length: int) -> None:
        step = self._plan.arrays[array].file_shape[0]
        with self._lock:
            before = self._lengths.get(array, 0)
            self._lengths[array] = max(length, before)
            # In whole files, so that the document is replaced once per file and not for every frame.
            if (visible := round_up(length, step)) > round_up(before, step):
                self._show(array, visible)

    def flush(self) -> None: ...

    def close(self) -> None:
        with self._lock:
            while self._lengths:
                self._show(*self._lengths.popitem())
            self._handles.clear()

    @abstractmethod
    def _open(self, folder: Path, document: dict[str, Any]) -> Any:
        """The library's handle of the array that `document` describes, without reading what is in `folder`."""

    @abstractmethod
    def _store(self, handle: Any, region: tuple[slice, ...], block: np.ndarray) -> None:
        """Store whole files; on return they are complete and `block` may be reused."""

    def _handle(self, array: int) -> Any:
        with self._lock:
            if (handle := self._handles.get(array)) is None:
                planned = self._plan.arrays[array]
                shape = tuple(
                    round_up(size, step) for size, step in zip(planned.shape, planned.file_shape, strict=True)
                )
                if planned.growable:
                    shape = (planned.file_shape[0] * _ENDLESS, *shape[1:])
                handle = self._handles[array] = self._open(self._folder(planned), array_document(planned, shape))
            return handle

    def _show(self, array: int, length: int) -> None:
        """Let readers see that many items of the first axis."""
        planned = self._plan.arrays[array]
        write_document(self._folder(planned), array_document(planned, (length, *planned.shape[1:])))

    def _folder(self, array: ArrayPlan) -> Path:
        return self._plan.root / array.path


def _padded(block: np.ndarray, file_shape: tuple[int, ...]) -> np.ndarray:
    """The block with the fill value up to whole files; the block itself where nothing is missing."""
    shape = tuple([round_up(n, step) for n, step in zip(block.shape, file_shape, strict=True)])
    if shape == block.shape:
        return block
    whole = np.zeros(shape, block.dtype)
    whole[tuple([slice(n) for n in block.shape])] = block
    return whole
