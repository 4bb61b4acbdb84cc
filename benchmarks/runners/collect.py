"""Frames collected into whole files, for libraries that write those best."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np

from benchmarks.geometry import Geometry

_WAITING_BYTES = 128 * 2**20  # that may wait for the library, or two blocks


class Pending(Protocol):
    """A future of any kind."""

    def done(self) -> bool: ...
    def result(self) -> Any: ...


Store = Callable[[int, tuple[slice, ...], np.ndarray], Pending]


@dataclass(slots=True)
class _Block:
    buffer: np.ndarray
    region: tuple[slice, ...]
    n_missing: int


class WholeFiles:
    """Copies frames into preallocated buffers, and stores one while the next is filled.

    `store(image, region, block)` starts to store a block and returns what tells when its memory is free again. A block
    that is never filled is stored as it is by `close`.
    """

    def __init__(self, geometry: Geometry, store: Store) -> None:
        self._geometry, self._store = geometry, store
        self._shape = (*geometry.depth, *geometry.shape[-2:])
        n_bytes = prod(self._shape) * 2
        self._n_waiting = max(2, min(16, _WAITING_BYTES // n_bytes))
        self._free: list[np.ndarray] = [self._buffer() for _ in range(2)]
        self._open: dict[tuple[Any, ...], _Block] = {}
        self._waiting: deque[tuple[Pending, np.ndarray]] = deque()
        self._n_frames = 0

    def append(self, frame: np.ndarray) -> None:
        image, index = self._geometry.locate(self._n_frames)
        region = self._geometry.block(index)
        key = (image, *[part.start for part in region])
        block = self._open.get(key)
        if block is None:
            sizes = [part.stop - part.start for part in region]
            block = self._open[key] = _Block(self._borrow(), region, prod(sizes))
        block.buffer[tuple([i - part.start for i, part in zip(index, region, strict=True)])] = frame
        block.n_missing -= 1
        if not block.n_missing:
            self._hand_over(image, self._open.pop(key))
        self._n_frames += 1

    def close(self) -> None:
        for (image, *_), block in self._open.items():
            self._hand_over(image, block)
        self._open.clear()
        while self._waiting:
            self._waiting.popleft()[0].result()

    def _hand_over(self, image: int, block: _Block) -> None:
        filled = block.buffer[tuple([slice(part.stop - part.start) for part in block.region])]
        self._waiting.append((self._store(image, block.region, filled), block.buffer))

    def _borrow(self) -> np.ndarray:
        if self._waiting and (len(self._waiting) >= self._n_waiting or self._waiting[0][0].done()):
            pending, buffer = self._waiting.popleft()
            pending.result()
            return buffer
        return self._free.pop() if self._free else self._buffer()

    def _buffer(self) -> np.ndarray:
        buffer = np.empty(self._shape, np.uint16)
        buffer.fill(0)  # its memory is touched before the clock starts, as that of scopestream is
        return buffer
