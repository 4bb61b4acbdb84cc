"""Frames -> blocks of the unit that the backend writes without reading back. The only buffer of pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from scopestream.framelog import Record
from scopestream.plan import LayoutPlan, WriteUnit
from scopestream.tiles import Tiler

Buffer = np.ndarray  # one-dimensional uint8, as large as the largest block


@dataclass(slots=True)
class Block:
    """Frames that are stored together.

    image    number in `plan.images`
    origin   of the block, storage order
    buffer   memory that `data` lies in; None until the first frame comes
    data     (..., Y, X), the frames that fit into the array
    filled   which of them arrived, without the last two axes
    n_open   frames that neither arrived nor were skipped
    records  of frames that arrived and are not stored yet
    """

    image: int
    origin: tuple[int, ...]
    filled: np.ndarray
    n_open: int
    buffer: Buffer | None = None
    data: np.ndarray | None = None
    records: list[Record] = field(default_factory=list)


class Job(NamedTuple):
    """What a writer thread stores: a block as it is now.

    data      (..., Y, X), or (rows, columns, y, x) where it `is_tiled`; None when no frame of it came
    buffer    memory that is given back afterwards; None when the block stays open, or is of the caller
    is_lent   the memory is of the caller, who must leave it alone until the job is stored
    is_final  False when the block comes again with more frames
    """

    image: int
    origin: tuple[int, ...]
    data: np.ndarray | None
    records: list[Record]
    buffer: Buffer | None
    is_tiled: bool = False
    is_lent: bool = False
    is_final: bool = True


class Assembler:
    """Collects the frames of every open block; passes them on one by one where a block is one frame.

    borrow  gives memory for a new block, or raises before anything is consumed
    lend    counts a frame that stays where it is, or raises likewise
    """

    def __init__(self, plan: LayoutPlan, borrow: Callable[[], Buffer], lend: Callable[[], None]) -> None:
        array = plan.arrays[0]
        self._extent = array.block_extent(plan.unit)
        self._bounds = tuple(
            None if array.growable and axis == 0 else size for axis, size in enumerate(array.shape[:-2])
        )
        self._growable = array.growable
        self._frame_shape = array.frame_shape
        self._single_frames = plan.unit in (WriteUnit.FRAME, WriteUnit.TILED_FRAME)
        self._dtype = array.dtype
        self._tiler = Tiler(array.frame_shape, array.tile) if plan.tiled_on_arrival else None
        # What a frame that is not copied looks like: one tile that needs no cutting, or rows that are cut later.
        self._is_one_tile = self._tiler is not None and array.tile == array.frame_shape
        n_before = 2 if self._is_one_tile else len(array.axes) - 2
        self._lent_shape = (*(1,) * n_before, *array.frame_shape)
        self._tells_empty = bool(plan.z_steps)  # where other blocks wait for one that will not come
        self._borrow = borrow
        self._lend = lend
        self._blocks: dict[tuple[int, ...], Block] = {}

    def add(
        self, image: int, index: tuple[int, ...], frame: np.ndarray, record: Record, *, copy: bool = True
    ) -> Job | None:
        """Copy one frame into its block; returns the block once it is complete.

        The frame has the shape and dtype of the plan, in any byte order or layout. With `copy=False` its memory itself
        is passed on where a block is one frame and the memory is as the backend wants it. Raises what `borrow` and
        `lend` raise; then nothing has changed.
        """
        if self._single_frames:
            if not copy and self.can_lend(frame):
                self._lend()
                data = frame.reshape(self._lent_shape)
                return Job(image, (*index, 0, 0), data, [record], None, self._is_one_tile, is_lent=True)
            return self._pass_on(image, index, frame, record)
        key, block = self._find(image, index)
        self._put(block, index, frame)
        self._blocks[key] = block
        block.records.append(record)
        return self._close_one(key, block)

    def can_lend(self, frame: np.ndarray) -> bool:
        """Whether that frame may stay in the memory of the caller when it is added with `copy=False`."""
        return self._single_frames and frame.flags.c_contiguous and frame.dtype.isnative

    def restore(self, image: int, index: tuple[int, ...], frame: np.ndarray | None) -> None:
        """A frame of an unfinished block that was settled before this stream: stored, or None when it will not come.

        It is stored again with its block. Raises what `borrow` raises.
        """
        key, block = self._find(image, index)
        if frame is not None:
            self._put(block, index, frame)
        self._blocks[key] = block
        block.n_open -= 1

    def leave_out(self, image: int, index: tuple[int, ...]) -> Job | None:
        """A frame that will not come; returns its block when nothing else is awaited there.

        A block without any frame is returned only where z is halved from level to level.
        """
        if self._single_frames:
            return self._empty(image, (*index, 0, 0))
        key, block = self._find(image, index)
        self._blocks[key] = block
        return self._close_one(key, block)

    def partial(self) -> Iterator[Job]:
        """Blocks with frames that are not stored yet, as they are now; they stay open and keep their memory."""
        for block in self._blocks.values():
            if block.records:
                yield self._job(block, keep=True)
                block.records = []

    def finish(self) -> Iterator[Job]:
        """Every open block that holds a frame, for the last time."""
        while self._blocks:
            _, block = self._blocks.popitem()
            if block.data is not None:
                yield self._job(block, keep=False)

    def _pass_on(self, image: int, index: tuple[int, ...], frame: np.ndarray, record: Record) -> Job:
        buffer = self._borrow()
        if self._tiler is None:
            data = np.ndarray((*(1 for _ in index), *self._frame_shape), self._dtype, buffer)
            data[...] = frame
        else:
            data = np.ndarray(self._tiler.shape, self._dtype, buffer)
            self._tiler.cut(frame, data)
        return Job(image, (*index, 0, 0), data, [record], buffer, self._tiler is not None)

    def _put(self, block: Block, index: tuple[int, ...], frame: np.ndarray) -> None:
        if block.data is None:
            block.buffer = self._borrow()
            block.data = np.ndarray((*block.filled.shape, *self._frame_shape), self._dtype, block.buffer)
        local = tuple([i - o for i, o in zip(index, block.origin, strict=False)])
        block.data[local] = frame
        block.filled[local] = True

    def _find(self, image: int, index: tuple[int, ...]) -> tuple[tuple[int, ...], Block]:
        origin = tuple([i // e * e for i, e in zip(index, self._extent, strict=True)])
        key = (image, *origin)
        block = self._blocks.get(key)
        if block is None:
            shape = tuple(
                [e if b is None else min(e, b - o) for e, b, o in zip(self._extent, self._bounds, origin, strict=True)]
            )
            filled = np.zeros(shape, bool)
            block = Block(image=image, origin=(*origin, 0, 0), filled=filled, n_open=filled.size)
        return key, block

    def _close_one(self, key: tuple[int, ...], block: Block) -> Job | None:
        block.n_open -= 1
        if block.n_open:
            return None
        del self._blocks[key]
        return self._empty(block.image, block.origin) if block.data is None else self._job(block, keep=False)

    def _empty(self, image: int, origin: tuple[int, ...]) -> Job | None:
        return Job(image, origin, None, [], None) if self._tells_empty else None

    def _job(self, block: Block, *, keep: bool) -> Job:
        assert block.data is not None, "a block that is handed over holds a frame"
        data, filled = block.data, block.filled
        if self._growable:  # the array ends with the last frame that came, not with the block
            length = int(np.flatnonzero(filled.reshape(len(filled), -1).any(axis=1))[-1]) + 1
            data, filled = data[:length], filled[:length]
        if not filled.all():
            data[~filled] = 0  # the memory held other frames before
        return Job(block.image, block.origin, data, block.records, None if keep else block.buffer, is_final=not keep)
