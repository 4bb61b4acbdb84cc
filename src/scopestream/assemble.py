"""Frames -> blocks of the unit that the backend writes without reading back. The only buffer of pixels.

An interrupt may come between any two steps of the thread that appends. So a frame comes in by two calls: `add` copies
it to where nobody looks yet, and `settle` makes it count. `settle` and all that follows may be done again, as often as
it takes, and comes to the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from scopestream.forms import forms_of
from scopestream.framelog import Record
from scopestream.plan import LayoutPlan, WriteUnit

_LARGE_BYTES = 2**20  # of frames that do not stay in the processor's cache while they are summed up
Buffer = np.ndarray  # one-dimensional uint8, as large as the largest block
Key = tuple[int, ...]  # image and origin of a block, without the last two axes


@dataclass(slots=True, eq=False)
class Block:
    """Frames that are stored together.

    image    number in `plan.images`
    origin   of the block, storage order
    buffer   memory that `data` lies in; None until the first frame comes
    data     (..., Y, X), the frames that fit into the array
    filled   which of them arrived, without the last two axes
    settled  numbers of frames that arrived or will not come
    records  of frames that arrived and are not stored yet, by number
    """

    image: int
    origin: tuple[int, ...]
    filled: np.ndarray
    buffer: Buffer | None = None
    data: np.ndarray | None = None
    settled: set[int] = field(default_factory=set)
    records: dict[int, Record] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return len(self.settled) == self.filled.size


class Gone(NamedTuple):
    """Frames that will not come, as the log tells it."""

    numbers: Sequence[int]
    time_s: float
    status: Literal["skipped", "dropped"]
    reason: str | None


class Job(NamedTuple):
    """What a writer thread stores: a block as it is now.

    data      (..., Y, X), or (rows, columns, y, x) where it `is_tiled`; None when no frame of it came
    buffer    memory that is given back afterwards; None when the block stays open, or is of the caller
    is_lent   the memory is of the caller, who must leave it alone until the job is stored
    is_final  False when the block comes again with more frames
    gone      when given, the only thing to do is to log it
    """

    image: int
    origin: tuple[int, ...]
    data: np.ndarray | None
    records: list[Record]
    buffer: Buffer | None
    is_tiled: bool = False
    is_lent: bool = False
    is_final: bool = True
    gone: Gone | None = None


class Piece(NamedTuple):
    """A frame that lies in its block, but does not count yet."""

    key: Key
    block: Block
    local: tuple[int, ...]
    record: Record
    data: np.ndarray
    buffer: Buffer


class Assembler:
    """Collects the frames of every open block; passes them on one by one where a block is one frame.

    borrow  gives memory for a new block, or raises before anything is consumed
    lend    counts a frame that stays where it is, or raises likewise
    """

    def __init__(self, plan: LayoutPlan, borrow: Callable[[], Buffer], lend: Callable[[], None]) -> None:
        self._forms = forms_of(plan)
        self._growable = plan.finest[0].growable
        self._single_frames = plan.unit in (WriteUnit.FRAME, WriteUnit.TILED_FRAME)
        self._tiles = plan.tiled_on_arrival
        self._sums = self._tiles and plan.settings.checksums
        # Memory of one camera holds tiles of another afterwards.
        self._is_mixed = len(plan.finest) > 1
        self._tells_empty = plan.halves_z  # where other blocks wait for one that will not come
        self._borrow = borrow
        self._lend = lend
        self._blocks: dict[Key, Block] = {}

    def add(
        self, image: int, index: tuple[int, ...], frame: np.ndarray, record: Record, *, copy: bool = True
    ) -> Job | Piece:
        """Copy one frame to its place: the block, where it is just that frame, or what `settle` needs.

        The frame has the shape and dtype of the plan, in any byte order or layout. With `copy=False` its memory itself
        is passed on where a block is one frame and the memory is as the backend wants it. Raises what `borrow` and
        `lend` raise; then nothing has changed.
        """
        if self._single_frames:
            if not copy and self.can_lend(frame):
                self._lend()
                form = self._forms[image]
                lent = frame.reshape(form.lent_shape)
                return Job(image, (*index, 0, 0), lent, [record], None, form.is_one_tile, is_lent=True)
            return self._pass_on(image, index, frame, record)
        key = self._key(image, index)
        block = self._blocks.get(key) or self._new_block(key)
        buffer, data = block.buffer, block.data
        if data is None or buffer is None:
            buffer = self._borrow()
            data = self._data(block, buffer)
        local = tuple([i - o for i, o in zip(index, block.origin, strict=False)])
        data[local] = frame
        return Piece(key, block, local, record, data, buffer)

    def can_lend(self, frame: np.ndarray) -> bool:
        """Whether that frame may stay in the memory of the caller when it is added with `copy=False`."""
        return self._single_frames and frame.flags.c_contiguous and frame.dtype.isnative

    def sums(self, frame: np.ndarray) -> bool:
        """Whether `add` takes the checksum of that frame, if it has none, while it copies it."""
        return (
            self._sums
            and frame.nbytes >= _LARGE_BYTES
            and frame.flags.c_contiguous
            and frame.dtype.isnative
            and sys.byteorder == "little"
        )

    def settle(self, piece: Piece) -> Job | None:
        """Let a frame count that `add` returned; returns its block once it is complete."""
        key, block, local, record, data, buffer = piece
        block.buffer, block.data = buffer, data
        self._blocks[key] = block
        block.filled[local] = True
        block.records[record.number] = record
        block.settled.add(record.number)
        return self._job_of(key, block) if block.is_complete else None

    def restore(self, number: int, image: int, index: tuple[int, ...], frame: np.ndarray | None) -> None:
        """A frame of an unfinished block that was settled before this stream: stored, or None when it will not come.

        It is stored again with its block. Raises what `borrow` raises.
        """
        key = self._key(image, index)
        block = self._blocks[key] = self._blocks.get(key) or self._new_block(key)
        block.settled.add(number)
        if frame is None:
            return
        if block.data is None:
            block.buffer = self._borrow()
            block.data = self._data(block, block.buffer)
        local = tuple([i - o for i, o in zip(index, block.origin, strict=False)])
        block.data[local] = frame
        block.filled[local] = True

    def leave_out(
        self, number: int, image: int, index: tuple[int, ...], blocks: dict[Key, Block], complete: dict[Key, Job]
    ) -> None:
        """A frame that will not come.

        blocks    is given every block that such frames belong to, and looked into first
        complete  is given the block when nothing else is awaited there; one without any frame only where z is halved
                  from level to level
        """
        key = self._key(image, index)
        if self._single_frames:
            if self._tells_empty:
                complete.setdefault(key, _empty(image, (*index, 0, 0)))
            return
        block = blocks[key] = blocks.get(key) or self._blocks.get(key) or self._new_block(key)
        self._blocks[key] = block
        block.settled.add(number)
        if block.is_complete:
            job = self._job_of(key, block)
            if job is not None:
                complete.setdefault(key, job)

    def unstored(self) -> list[tuple[Block, Job]]:
        """Blocks with frames that are not stored yet, as they are now; they stay open and keep their memory.

        `stored` says that they were handed over.
        """
        return [(block, self._job(block, keep=True)) for block in self._blocks.values() if block.records]

    @staticmethod
    def stored(blocks: Sequence[Block]) -> None:
        """The frames of these blocks that came until now are dealt with."""
        for block in blocks:
            block.records = {}

    def last(self) -> list[Job]:
        """Every open block that holds a frame, for the last time; `clear` says that they were handed over."""
        return [self._job(block, keep=False) for block in self._blocks.values() if block.data is not None]

    def clear(self) -> None:
        """No block is open any more."""
        self._blocks = {}

    @property
    def n_buffers(self) -> int:
        """Blocks that hold memory."""
        return sum(block.buffer is not None for block in self._blocks.values())

    # -- inside -----------------------------------------------------------------------------------------------------

    def _pass_on(self, image: int, index: tuple[int, ...], frame: np.ndarray, record: Record) -> Job:
        buffer = self._borrow()
        form = self._forms[image]
        if self._tiles:
            data = np.ndarray(form.tiler.shape, form.dtype, buffer)
            if self._is_mixed and form.is_padded:
                data.fill(0)
            if record.crc32c is None and self.sums(frame):
                record = record._replace(crc32c=form.tiler.cut_and_sum(frame, data))
            else:
                form.tiler.cut(frame, data)
        else:
            data = np.ndarray((*(1 for _ in index), *form.frame_shape), form.dtype, buffer)
            data[...] = frame
        return Job(image, (*index, 0, 0), data, [record], buffer, self._tiles)

    def _data(self, block: Block, buffer: Buffer) -> np.ndarray:
        form = self._forms[block.image]
        return np.ndarray(block.filled.shape + form.frame_shape, form.dtype, buffer)

    def _key(self, image: int, index: tuple[int, ...]) -> Key:
        return (image, *self._forms[image].origin(index))

    def _new_block(self, key: Key) -> Block:
        image, *origin = key
        shape = self._forms[image].block_shape(origin)
        return Block(image=image, origin=(*origin, 0, 0), filled=np.zeros(shape, bool))

    def _job_of(self, key: Key, block: Block) -> Job | None:
        """Of a complete block."""
        self._blocks.pop(key, None)
        if block.data is not None:
            return self._job(block, keep=False)
        return _empty(block.image, block.origin) if self._tells_empty else None

    def _job(self, block: Block, *, keep: bool) -> Job:
        assert block.data is not None, "a block that is handed over holds a frame"
        data, filled = block.data, block.filled
        if self._growable:  # the array ends with the last frame that came, not with the block
            length = int(np.flatnonzero(filled.reshape(len(filled), -1).any(axis=1))[-1]) + 1
            data, filled = data[:length], filled[:length]
        if not filled.all():
            data[~filled] = 0  # the memory held other frames before
        records = list(block.records.values())
        return Job(block.image, block.origin, data, records, None if keep else block.buffer, is_final=not keep)


def _empty(image: int, origin: tuple[int, ...]) -> Job:
    return Job(image, origin, None, [], None)
