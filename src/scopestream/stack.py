"""Levels where z is halved too: a block waits for the next one along z, then both become one of the next level."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from scopestream.levels import FrameHalver, NextLevel
from scopestream.plan import LayoutPlan, block_bytes, z_steps_by_image
from scopestream.zsteps import Index


class Write(Protocol):
    """Where blocks of the coarser levels go."""

    def __call__(self, level: int, image: int, origin: Index, data: np.ndarray, /) -> None:
        """Store a block of a level; its memory is used again."""


@dataclass(slots=True)
class _Pair:
    """Blocks of which not all came yet.

    last      origin of the last of them
    n_left    that are not dealt with
    waits     whether one plane waits for its counterpart in the other block, and `is_first` which of both it is
    part      that plane, None when it is known to be missing, and `memory` that it lies in
    block     (..., Y, X) of the next level, None while nothing is in it, and `room` that it lies in
    length    of the first axis of `block`, in frames that came
    """

    last: Index
    n_left: int
    waits: bool = False
    is_first: bool = True
    part: np.ndarray | None = None
    memory: np.ndarray | None = None
    block: np.ndarray | None = None
    room: np.ndarray | None = None
    length: int = 0


class Stack:
    """Makes and stores all levels but the first. `add` may be called from several threads.

    steps     gives the steps from frame to frame of an image, those of the calling thread
    write     stores a block
    in_order  blocks of each level must be stored in the order in which their last frames came
    """

    def __init__(
        self, plan: LayoutPlan, steps: Callable[[int], Sequence[NextLevel]], write: Write, *, in_order: bool
    ) -> None:
        self._plan = plan
        self._steps, self._write, self._in_order = steps, write, in_order
        self._single_frames = all(size == 1 for array in plan.finest for size in array.block_extent(plan.unit))
        self._growable = plan.finest[0].growable
        self._z_steps = z_steps_by_image(plan)
        self._lock = threading.Lock()  # for what follows
        self._pairs: dict[tuple[int, int], dict[Index, _Pair]] = {}  # by (level, image), the oldest first
        self._free: dict[int, list[np.ndarray]] = {}  # by size

    def add(self, level: int, image: int, origin: Index, data: np.ndarray | None) -> None:
        """A block of `level` that will not change any more, None when none of its frames came.

        data  as the sink takes it, already stored; its memory is free on return
        """
        if level == len(self._z_steps[image]):
            return
        if self._in_order:
            self._give_up_before(level, image, origin)
        key = self._z_steps[image][level].coarse_origin(origin)
        pair = self._pair(level, image, key, origin)
        if self._single_frames:
            self._add_frame(level, image, key, pair, origin, data)
        else:
            self._add_block(level, image, key, pair, origin, data)

    def finish(self) -> None:
        """What still waits becomes blocks all the same: frames that did not come count as zeros."""
        errors: list[Exception] = []
        for level in range(max(map(len, self._z_steps))):
            waiting = [(image, key) for (at, image), pairs in self._pairs.items() if at == level for key in pairs]
            for image, key in waiting:
                try:
                    self._give_up(level, image, key)
                except Exception as error:  # all the others must be stored all the same
                    errors.append(error)
        if errors:
            raise errors[0]

    # -- single frames ----------------------------------------------------------------------------------------------

    def _add_frame(
        self, level: int, image: int, key: Index, pair: _Pair, origin: Index, data: np.ndarray | None
    ) -> None:
        if pair.n_left == 1:
            self._emit_frame(level, image, key, [data])
            return
        is_first = origin != pair.last
        # Where frames come in order, the first plane will not come any more after the second.
        meets, other = self._meet(pair, data, is_first, alone=self._in_order and not is_first)
        if meets:
            self._emit_frame(level, image, key, [data, other] if is_first else [other, data])
            self._release(pair)

    def _emit_frame(self, level: int, image: int, key: Index, planes: Sequence[np.ndarray | None]) -> None:
        with self._lock:
            del self._pairs[level, image][key]
        found = next((plane for plane in planes if plane is not None), None)
        halved = None
        if found is not None:
            halved = self._steps(image)[level](*[np.zeros_like(found) if plane is None else plane for plane in planes])
        self._emit(level, image, key, halved)

    # -- blocks of several frames -----------------------------------------------------------------------------------

    def _add_block(
        self, level: int, image: int, key: Index, pair: _Pair, origin: Index, data: np.ndarray | None
    ) -> None:
        step = self._z_steps[image][level]
        z = step.axis
        if data is not None:
            self._open_block(level, image, pair, key, len(data))
        first = origin[z]
        end = min(first + step.extent, step.n_planes)
        for coarse in range(first // 2, -(-end // 2)):
            inside = [_plane(data, z, plane - first) for plane in (2 * coarse, 2 * coarse + 1) if first <= plane < end]
            if len(inside) < 2 and 2 * coarse + 1 < step.n_planes:  # the other one is in another block
                is_first = 2 * coarse >= first
                meets, other = self._meet(pair, inside[0], is_first, alone=False)
                if not meets:
                    continue
                inside = [*inside, other] if is_first else [other, *inside]
            self._combine(level, image, pair, key, coarse, inside)
        with self._lock:
            pair.n_left -= 1
            if pair.n_left:
                return
        self._emit_block(level, image, key, pair)

    def _open_block(self, level: int, image: int, pair: _Pair, key: Index, length: int) -> None:
        array = self._plan.arrays[self._plan.images[image].arrays[level + 1]]
        extent = array.block_extent(self._plan.unit)
        with self._lock:
            pair.length = max(pair.length, length)
            if pair.block is not None:
                return
            shape = tuple(
                size if self._growable and axis == 0 else min(size, array.shape[axis] - key[axis])
                for axis, size in enumerate(extent)
            )
            pair.room = self._take(block_bytes(array, self._plan.unit))
            pair.block = np.ndarray((*shape, *array.frame_shape), array.dtype, pair.room)
            pair.block[...] = 0

    def _combine(
        self, level: int, image: int, pair: _Pair, key: Index, coarse: int, parts: Sequence[np.ndarray | None]
    ) -> None:
        """One or two parts (..., Y, X) without z into the plane `coarse`; what a part lacks is zeros."""
        if all(part is None for part in parts):
            return
        z = self._z_steps[image][level].axis
        assert pair.block is not None, "a block that holds a frame was opened"
        out = _plane(pair.block, z, coarse - key[z])
        assert out is not None
        halve = self._steps(image)[level]
        assert isinstance(halve, FrameHalver), "blocks of several frames are not cut into tiles"
        for index in np.ndindex(out.shape[:-2]):
            frames = [_frame(part, index) for part in parts]
            found = next((frame for frame in frames if frame is not None), None)
            if found is not None:
                halve.into(out[index], *[np.zeros_like(found) if frame is None else frame for frame in frames])

    def _emit_block(self, level: int, image: int, key: Index, pair: _Pair) -> None:
        with self._lock:
            del self._pairs[level, image][key]
        block = pair.block
        self._emit(level, image, key, block[: pair.length] if block is not None and self._growable else block)
        self._release(pair)

    # -- both -------------------------------------------------------------------------------------------------------

    def _emit(self, level: int, image: int, key: Index, data: np.ndarray | None) -> None:
        if data is not None:
            self._write(level + 1, image, key, data)
        self.add(level + 1, image, key, data)

    def _pair(self, level: int, image: int, key: Index, origin: Index) -> _Pair:
        step = self._z_steps[image][level]
        with self._lock:
            pairs = self._pairs.setdefault((level, image), {})
            if key not in pairs:
                pairs[key] = _Pair(last=step.last_origin(origin), n_left=step.n_parts(origin))
            return pairs[key]

    def _meet(
        self, pair: _Pair, part: np.ndarray | None, is_first: bool, *, alone: bool
    ) -> tuple[bool, np.ndarray | None]:
        """(True, the counterpart), or (False, None) after a copy was left for the counterpart to find.

        alone  the counterpart is missing unless it waits
        """
        memory = None
        with self._lock:
            if pair.waits or alone:
                return True, pair.part
            if part is not None:
                memory = self._take(part.nbytes)
        copy = None
        if part is not None:
            copy = np.ndarray(part.shape, part.dtype, memory)
            copy[...] = part  # without the lock: the other one may come meanwhile
        with self._lock:
            if pair.waits:
                self._give_back(memory)
                return True, pair.part
            pair.waits, pair.is_first, pair.part, pair.memory = True, is_first, copy, memory
            return False, None

    def _give_up_before(self, level: int, image: int, origin: Index) -> None:
        """Pairs whose last frame would have come before the one at `origin`: it will not come any more."""
        arrival = self._plan.finest[0].arrival
        now = [origin[axis] for axis in arrival]
        pairs = self._pairs.get((level, image), {})
        while pairs:
            key, oldest = next(iter(pairs.items()))
            if [oldest.last[axis] for axis in arrival] >= now:
                return
            self._give_up(level, image, key)

    def _give_up(self, level: int, image: int, key: Index) -> None:
        pair = self._pairs[level, image][key]
        parts = [pair.part, None] if pair.is_first else [None, pair.part]
        if self._single_frames:
            self._emit_frame(level, image, key, parts)
            self._release(pair)
            return
        if pair.waits:
            # The last block begins with the second of the two planes.
            self._combine(level, image, pair, key, pair.last[self._z_steps[image][level].axis] // 2, parts)
        self._emit_block(level, image, key, pair)

    def _release(self, pair: _Pair) -> None:
        with self._lock:
            self._give_back(pair.memory)
            self._give_back(pair.room)

    def _take(self, n_bytes: int) -> np.ndarray:
        free = self._free.get(n_bytes)
        return free.pop() if free else np.empty(n_bytes, np.uint8)

    def _give_back(self, memory: np.ndarray | None) -> None:
        if memory is not None:
            self._free.setdefault(memory.size, []).append(memory)


def _plane(data: np.ndarray | None, axis: int, plane: int) -> np.ndarray | None:
    return None if data is None else data[(slice(None),) * axis + (plane,)]


def _frame(part: np.ndarray | None, index: Index) -> np.ndarray | None:
    """A frame of a part, None when the part ends before it."""
    if part is None or any(i >= size for i, size in zip(index, part.shape[:-2], strict=True)):
        return None
    frame: np.ndarray = part[index]
    return frame
