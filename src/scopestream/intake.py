"""How frames come in, so that an interrupt between any two steps loses none, and takes none twice.

Ctrl-C raises KeyboardInterrupt wherever the main thread is. A frame is first checked and copied to where nobody looks
yet; an interrupt then leaves nothing behind but memory that is borrowed. One assignment, to `_taken`, says that it is
in. All that follows (`_settle`) may be done again from the start: it is done at once after an interrupt, and again by
the next call, whatever it is, should another interrupt come in between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import time
from typing import Any, Literal

import numpy as np

from scopestream.assemble import Assembler, Block, Gone, Job, Key, Piece
from scopestream.checksum import crc32c
from scopestream.dataset import Dataset
from scopestream.delivery import Delivery
from scopestream.errors import MemoryLimitError, StreamFullError, WriteError
from scopestream.framelog import Record
from scopestream.gate import Gate
from scopestream.jsontext import to_json
from scopestream.ledger import Ledger
from scopestream.plan import LayoutPlan
from scopestream.restore import Blocks
from scopestream.route import Route
from scopestream.stats import Counters
from scopestream.writer import Patience, Writer

_SKIPPED_AT_ONCE = 4096  # frames whose lines are logged by one write


# A frame that is in, as a bare tuple, which takes a tenth of the time of any class: its number, image and index, where
# its pixels are, when its call began in ns, how many frames are in with it, the jobs before its own, its lane, and what
# is next in that lane.
_Frame = tuple[int, int, tuple[int, ...], Job | Piece, int, int, int, int, int]


@dataclass(slots=True, eq=False)
class _Gap:
    """Frames that will not come, and what becomes complete by that."""

    gone: Gone
    n_gone: int
    n_before: int
    lane: int
    next: int
    blocks: dict[Key, Block] = field(default_factory=dict)
    complete: dict[Key, Job] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Open:
    """Blocks that are handed over as they are now: for this time, or for the last time."""

    blocks: Sequence[Block]
    jobs: Sequence[Job]
    n_before: int
    is_last: bool


class Intake:
    """Takes frames for a stream, whose lock its caller holds.

    next        by camera, the frame that its next `append` fills, in acquisition order
    after       the frame that `append` fills after that one: frames that were there when the stream went on stay
    unfinished  whether a call was interrupted: `recover` comes before anything else then
    """

    def __init__(
        self, plan: LayoutPlan, route: Route, gate: Gate, writer: Writer, counters: Counters, *, in_order: bool
    ) -> None:
        self._plan = plan
        self._locate = route.locate
        self._places, self._n_lanes = plan.places, plan.places.n_cameras
        self._checksums = plan.settings.checksums
        self._drops = plan.settings.on_full == "drop"
        self._in_order = in_order
        self._gate = gate
        self._writer = writer
        self._counters = counters
        patience: Patience = "block" if plan.settings.on_full == "block" else "raise"
        self._assembler = Assembler(plan, partial(writer.borrow, patience), partial(writer.lend, patience))
        # In order, no more than planned can wait.
        self._ledger = Ledger(plan) if plan.halves_z and not in_order else None
        self._taken: _Frame | _Gap | _Open | None = None
        self._out: tuple[int, list[Job]] = (0, [])  # jobs that the writer has, and those that it gets next
        self.unfinished = False
        self.next = list(range(self._n_lanes))
        self.after = gate.after

    def restore(self, dataset: Dataset, delivery: Delivery) -> None:
        """Go on with what is there. Raises DatasetError when it cannot be read, MemoryLimitError when it does not fit.

        Unfinished blocks are held again, with their frames; and so is what waits for the next plane along z.
        """
        blocks = Blocks(dataset, self._plan)
        history = dataset.history
        for number in history.numbers[history.are("skipped", "dropped")].tolist():
            self._gate.gone.add(number)
        for number in blocks.settled():
            self._gate.restore(number)
        written = history.numbers[history.are("written")]
        self._counters.newest = int(written.max(initial=-1))
        for lane in range(self._n_lanes):
            self._counters.newest_of[lane] = int(written[written % self._n_lanes == lane].max(initial=-1))
        for number, image, index, frame in blocks.unfinished():
            self._assembler.restore(number, image, index, frame)
        for image, origin, pixels in blocks.waiting():
            delivery.restore(image, origin, pixels)
            if self._ledger is not None:
                self._ledger.add(image, origin)
        self.next = [self._gate.first(lane) for lane in range(self._n_lanes)]

    def put(
        self,
        number: int,
        lane: int,
        after: int,
        frame: np.ndarray,
        metadata: Mapping[str, Any] | None,
        started: int,
        copy: bool,
    ) -> None:
        """Take the frame of that number, by a call that began at `started`; `next` of its lane is `after` then."""
        frame = self._gate.frame(frame, number, self._counters.frames_in)
        self._gate.place(number)
        text = None if metadata is None else to_json(metadata, "the frame was not consumed")
        record = Record(number, time(), text, self._checksum(frame, copy))
        try:
            self._take(record, lane, after, frame, started, copy)
            self._send()
        except BaseException:
            self.recover()
            raise
        self.unfinished = False

    def extend(
        self, frames: np.ndarray, metadata: Sequence[str | None], lane: int, started: int, *, copy: bool
    ) -> None:
        """Take the next frames of a camera, which the gate has checked."""
        now, n_together = time(), self._writer.n_together
        try:
            for frame, text in zip(frames, metadata, strict=True):
                if len(self._out[1]) >= n_together:
                    self._send()
                number = self.next[lane]
                record = Record(number, now, text, self._checksum(frame, copy))
                self._take(record, lane, self.after(number), frame, started, copy)
            self._send()
        except BaseException:
            self.recover()
            raise
        self.unfinished = False

    def skip(self, n: int, reason: str | None, lane: int) -> None:
        """The next `n` frames of a camera will not come, but for those that came already. `reason` is JSON.

        The gate has checked that there are so many.
        """
        first, taken = self.next[lane], self._gate.taken
        try:
            while n:
                numbers = self._places.ahead(first, min(n, _SKIPPED_AT_ONCE))
                left = [number for number in numbers if number not in taken]
                after = self.after(numbers[-1])
                gone = numbers if len(left) == len(numbers) else left
                self._leave_out(gone, "skipped", reason, lane, after)
                self._send()
                if self._writer.queue_depth > _SKIPPED_AT_ONCE:  # places without a frame wait for no memory
                    self._writer.drain()
                n -= len(numbers)
                first = self._places.first_from(numbers[-1] + self._n_lanes)
        except BaseException:
            self.recover()
            raise
        self.unfinished = False

    def skip_at(self, numbers: Sequence[int], reason: str | None) -> None:
        """These frames will not come, but for those that came already; `next` stays. `reason` is JSON."""
        taken = self._gate.taken
        try:
            for first in range(0, len(numbers), _SKIPPED_AT_ONCE):
                left = [number for number in numbers[first : first + _SKIPPED_AT_ONCE] if number not in taken]
                self._leave_out(left, "skipped", reason, 0, self.next[0])
                self._send()
                if self._writer.queue_depth > _SKIPPED_AT_ONCE:
                    self._writer.drain()
        except BaseException:
            self.recover()
            raise
        self.unfinished = False

    def store_open(self) -> None:
        """Return when the backend has every frame that is in. Unfinished blocks come again when they are complete."""
        unstored = [] if self._in_order else self._assembler.unstored()
        self._hand_over([block for block, _ in unstored], [job for _, job in unstored], is_last=False)

    def finish(self) -> None:
        """Hand every open block over for the last time; does not wait for them."""
        self.recover()
        self._hand_over([], self._assembler.last(), is_last=True)

    def recover(self) -> None:
        """Finish what an interrupt has stopped, if anything."""
        self._settle()
        self._send()
        if self.unfinished:
            self._writer.recount(self._assembler.n_buffers)
            self.unfinished = False

    # -- before it is in --------------------------------------------------------------------------------------------

    def _checksum(self, frame: np.ndarray, copy: bool) -> int | None:
        """Of a frame that is copied, unless it is taken with the copy; that of a lent one is left to who stores it."""
        if not self._checksums or (not copy and self._assembler.can_lend(frame)) or self._assembler.sums(frame):
            return None
        return crc32c(frame)

    def _take(self, record: Record, lane: int, after: int, frame: np.ndarray, started: int, copy: bool) -> None:
        """Take a frame that was checked; raises before it is in."""
        number = record.number
        image, index = self._locate(number)
        if self._ledger is not None:
            self._ledger.check(image, index)
        self.unfinished = True
        try:
            piece = self._assembler.add(image, index, frame, record, copy=copy)
        except StreamFullError:
            self.unfinished = False
            if not self._drops:
                raise
            self._leave_out([number], "dropped", '"the disk was behind the camera"', lane, after)
            return
        except (MemoryLimitError, WriteError):
            self.unfinished = False  # nothing was borrowed
            raise
        n_submitted, waiting = self._out
        frames_in = self._counters.frames_in + 1
        n_before = n_submitted + len(waiting)
        taken = (number, image, index, piece, started, frames_in, n_before, lane, after)
        self._taken = taken  # it is in
        self._settle_frame(taken)

    def _leave_out(
        self, numbers: Sequence[int], status: Literal["skipped", "dropped"], reason: str | None, lane: int, after: int
    ) -> None:
        n_submitted, waiting = self._out
        n_gone = len(numbers) + (
            self._counters.frames_skipped if status == "skipped" else self._counters.frames_dropped
        )
        gap = _Gap(Gone(numbers, time(), status, reason), n_gone, n_submitted + len(waiting), lane, after)
        self.unfinished = True
        self._taken = gap
        self._settle()

    def _hand_over(self, blocks: Sequence[Block], jobs: Sequence[Job], *, is_last: bool) -> None:
        n_submitted, waiting = self._out
        self.unfinished = True
        try:
            self._taken = _Open(blocks, jobs, n_submitted + len(waiting), is_last)
            self._settle()
        except BaseException:
            self.recover()
            raise
        self.unfinished = False

    # -- once it is in: everything from here on may be done again ---------------------------------------------------

    def _settle(self) -> None:
        taken = self._taken
        if isinstance(taken, _Gap):
            self._settle_gap(taken)
        elif isinstance(taken, _Open):
            self._settle_open(taken)
        elif taken is not None:
            self._settle_frame(taken)

    def _settle_frame(self, taken: _Frame) -> None:
        number, image, index, piece, started, frames_in, n_before, lane, after = taken
        self.next[lane] = after
        self._counters.accepted(number, started, frames_in, piece)
        self._gate.took(number, image, index)
        job = piece if isinstance(piece, Job) else self._assembler.settle(piece)
        if job is not None:
            self._pass_on(job, n_before)
        self._taken = None

    def _settle_gap(self, gap: _Gap) -> None:
        if gap.gone.numbers:
            self._pass_on(Job(0, (), None, [], None, gone=gap.gone), gap.n_before)
        for number in gap.gone.numbers:
            image, index = self._locate(number)
            self._gate.gone.add(number)
            self._gate.took(number, image, index)
            self._assembler.leave_out(number, image, index, gap.blocks, gap.complete)
        for n_before, job in enumerate(gap.complete.values(), gap.n_before + 1):
            self._pass_on(job, n_before)
        if gap.gone.status == "skipped":
            self._counters.frames_skipped = gap.n_gone
        else:
            self._counters.frames_dropped = gap.n_gone
        self.next[gap.lane] = gap.next
        self._taken = None

    def _settle_open(self, taken: _Open) -> None:
        for n_before, job in enumerate(taken.jobs, taken.n_before):
            self._pass_on(job, n_before)
        self._send()
        if taken.is_last:
            self._assembler.clear()
        else:
            self._writer.drain()  # blocks that are stored before they are final must not be written to meanwhile
            self._assembler.stored(taken.blocks)
        self._taken = None

    def _pass_on(self, job: Job, n_before: int) -> None:
        """A job for the writer, before which there were so many; once, however often it is passed on."""
        n_submitted, waiting = self._out
        if n_submitted + len(waiting) == n_before:
            if self._ledger is not None and job.is_final and job.gone is None:
                self._ledger.add(job.image, job.origin)
            waiting.append(job)

    def _send(self) -> None:
        n_submitted, waiting = self._out
        if waiting:
            self._writer.submit(waiting, n_submitted)
            self._out = (n_submitted + len(waiting), [])
