"""`open_stream` and the stream: append, write, skip, flush, close."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from time import perf_counter_ns, time
from types import TracebackType
from typing import Any, Literal

import numpy as np

from scopestream.assemble import Assembler, Buffer, Job
from scopestream.contract import Backend
from scopestream.delivery import Delivery
from scopestream.diskspace import check_space
from scopestream.errors import (
    FrameIndexError,
    MemoryLimitError,
    StreamClosedError,
    StreamFullError,
    WriteError,
)
from scopestream.folder import NewRoot, settled
from scopestream.framelog import FrameLog, Record, read_frames
from scopestream.gate import Gate
from scopestream.jsontext import text_to_json, to_json
from scopestream.ledger import Ledger
from scopestream.metadata import MetadataWriter
from scopestream.plan import LayoutPlan, WriteUnit, block_bytes, max_threads
from scopestream.registry import resolve
from scopestream.reporter import Reporter, check_report
from scopestream.route import Route
from scopestream.settings import AcquisitionSettings
from scopestream.stats import Counters, Stats
from scopestream.writer import Patience, Writer

_SKIPPED_AT_ONCE = 4096  # frames whose lines are logged by one write


def open_stream(
    settings: AcquisitionSettings, *, on_stats: Callable[[Stats], object] | None = None, stats_interval_s: float = 1.0
) -> Stream:
    """Start an acquisition: choose the backend, check everything, then write the empty dataset.

    on_stats          called with a `Stats` about every `stats_interval_s` seconds (0.01 at least) while the stream is
                      open, and a last time at the end of `close` with the final figures. All calls come from a thread
                      of its own, so that it never holds the camera up; if it raises, it is not called again, and a
                      RuntimeWarning says why. `close` waits for it, but not for more than ten seconds
    Raises PlanError, MemoryLimitError, BackendNotFoundError, DatasetExistsError or DiskSpaceError before anything is
    written, and TypeError or ValueError when `on_stats` or its interval cannot be. Warns (RuntimeWarning) when the disk
    has no room for all frames.
    """
    check_report(on_stats, stats_interval_s)
    resolution = resolve(settled(settings))
    check_space(resolution.plan)
    return Stream(resolution.plan, resolution.backend, on_stats, stats_interval_s)


class Stream:
    """One acquisition that is being written. A context manager; `open_stream` makes it.

    Methods may be called from several threads; calls take turns. The first error of a writer thread is raised by the
    next call of any method, and again by `close`.
    """

    def __init__(
        self,
        plan: LayoutPlan,
        backend: Backend,
        on_stats: Callable[[Stats], object] | None = None,
        stats_interval_s: float = 1.0,
    ) -> None:
        self._plan = plan
        self._settings = plan.settings
        self._route = Route(plan)
        self._in_order = not backend.capabilities.any_order
        self._gate = Gate(plan, self._route, in_order=self._in_order)
        self._next = 0
        self._lock = threading.RLock()
        self._closed = False
        self._metadata = MetadataWriter(plan)
        with ExitStack() as opened:
            root = NewRoot(plan.settings)
            opened.callback(root.undo)
            self._metadata.create()
            self._log = FrameLog(plan, self._route)
            opened.callback(self._log.close)
            self._sink = backend.open(plan)
            opened.callback(self._sink.close)
            self._counters = Counters(plan.arrays[0].frame_bytes)
            self._delivery = Delivery(plan, self._route, backend, self._sink, self._log, self._counters)
            one_thread = self._in_order or not backend.capabilities.concurrent
            self._waits: Patience = "block" if plan.settings.on_full == "block" else "raise"
            self._writer = Writer(
                self._delivery.store,
                self._delivery.publish,
                n_threads=1 if one_thread else max_threads(plan.arrays[0], plan.unit),
                n_buffers=plan.n_buffers,
                buffer_bytes=block_bytes(plan.arrays[0], plan.unit),
                n_expected=plan.n_blocks,
                aligned=plan.settings.direct_io,
                slow=plan.settings.codec.name != "none" or plan.unit is WriteUnit.SHARD,
            )
            opened.callback(self._writer.close)
            self._reporter = None if on_stats is None else Reporter(lambda: self.stats, on_stats, stats_interval_s)
            opened.pop_all()  # from here on `close` looks after them
        self._assembler = Assembler(plan, self._borrow, self._lend)
        # In order, no more than planned can wait.
        waits = bool(plan.z_steps) and not self._in_order
        self._ledger = Ledger(plan) if waits else None
        try:
            root.keep()
        except BaseException:  # an interrupt while a large dataset is deleted
            self.close()
            raise

    # -- what a user reads ------------------------------------------------------------------------------------------

    @property
    def plan(self) -> LayoutPlan:
        """The layout that is being written."""
        return self._plan

    @property
    def path(self) -> str:
        """Where the dataset really is, which `on_exists="increment"` may have changed."""
        return self._settings.path

    @property
    def stats(self) -> Stats:
        """A snapshot of counts, rates and times; cheap, from any thread."""
        return self._counters.snapshot(self._writer.queue_depth, self._writer.queue_peak)

    @property
    def error(self) -> BaseException | None:
        """The first error of a writer thread, None while all is well."""
        return self._writer.error

    # -- frames -----------------------------------------------------------------------------------------------------

    def append(self, frame: np.ndarray, metadata: Mapping[str, Any] | None = None, *, copy: bool = True) -> None:
        """Take the next frame in acquisition order.

        frame     (Y, X) of the planned dtype, in any memory layout or byte order; it is copied before this returns
        metadata  anything that JSON can hold, for the frame log; delta_t, exposure_time (seconds), position_x,
                  position_y and position_z (units of the axes) also become planes of the OME-XML
        copy      False hands the memory over: the stream keeps it until the frame is stored, and nobody may write to
                  it any more, unless `flush` or `close` returned since. Frames that are not C-contiguous and native,
                  and backends that collect blocks of several frames, copy all the same
        Raises FrameMismatchError, FrameIndexError or MetadataError, and StreamFullError with `on_full="raise"`; then
        the frame keeps its slot. Raises WriteError when an earlier frame could not be stored.
        """
        started = perf_counter_ns()
        with self._lock:
            self._check_open()
            self._put(self._next, frame, metadata, started, copy)
            self._next += 1  # last, so that a frame that was refused keeps its slot and can be sent again
            self._counters.latencies.add(perf_counter_ns() - started)

    def extend(
        self,
        frames: np.ndarray,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        *,
        copy: bool = True,
    ) -> None:
        """Take the next frames in acquisition order: as many calls of `append`, checked and handed over at once.

        frames    (n, Y, X) of the planned dtype; with `copy=False` the stream keeps the memory, as `append` does
        metadata  one mapping, or None, for each frame
        Raises as `append` does, and then none of the frames was taken, unless StreamFullError or MemoryLimitError says
        after how many there was no more room; those keep their slots.
        """
        started = perf_counter_ns()
        with self._lock:
            self._check_open()
            frames, texts = self._gate.stack(frames, self._next, metadata, self._counters.frames_in)
            before = self._next
            try:
                self._put_stack(frames, texts, started, copy)
            except (StreamFullError, MemoryLimitError) as error:
                error.add_note(f"The first {self._next - before} of {len(frames)} frames were taken.")
                raise
            finally:
                n_taken = self._next - before
                if n_taken:
                    self._counters.latencies.add(perf_counter_ns() - started, n_taken)

    def write(
        self,
        frame: np.ndarray,
        *,
        index: Mapping[str, int | str],
        metadata: Mapping[str, Any] | None = None,
        copy: bool = True,
    ) -> None:
        """Take a frame by its coordinates, in any order that the backend can store.

        index  an integer, or the name of a channel, position or label, for every dimension before the frame;
               dimensions with one item may be left out
        copy   as for `append`
        Raises as `append` does, and FrameIndexError for a place that is not there, is taken, or comes too late for a
        backend that stores in order. The place of the next `append` stays as it is.
        """
        started = perf_counter_ns()
        with self._lock:
            self._check_open()
            self._put(self._gate.number_at(index), frame, metadata, started, copy)
            self._counters.latencies.add(perf_counter_ns() - started)

    def skip(self, n: int = 1, *, reason: str | None = None) -> None:
        """The next `n` frames in acquisition order will not come; they read as zeros, and the log says so.

        Frames among them that `write` has placed stay as they are. Raises FrameIndexError when there are not that many,
        and MetadataError when the reason is no text; then nothing was skipped.
        """
        because = None if reason is None else text_to_json(reason, "The reason", "nothing was skipped")
        with self._lock:
            self._check_open()
            if n < 0:
                raise FrameIndexError(f"Cannot skip {n} frames.")
            total = self._plan.n_frames
            if total is not None and self._next + n > total:
                raise FrameIndexError(
                    f"Cannot skip {n} frames: only {total - self._next} of {total} are left. Nothing was skipped."
                )
            end = self._next + n
            while self._next < end:
                stop = min(self._next + _SKIPPED_AT_ONCE, end)
                numbers = [number for number in range(self._next, stop) if number not in self._gate.taken]
                self._writer.submit(self._leave_out(numbers, "skipped", because))
                if self._writer.queue_depth > _SKIPPED_AT_ONCE:  # places without a frame wait for no memory
                    self._writer.drain()
                self._counters.frames_skipped += len(numbers)
                self._next = stop

    def flush(self) -> None:
        """Return when other programs can read every accepted frame (for backends with `live_read`).

        Where whole shards are stored, an unfinished shard is stored as it is now and again when it is complete.
        """
        with self._lock:
            self._check_open()
            if not self._in_order:
                for job in self._assembler.partial():
                    self._writer.submit((job,))
            # Blocks that are stored before they are final must not be written to meanwhile.
            _to_the_end(self._writer.drain)
            self._delivery.publish()
            self._check_open()

    def set_metadata(self, namespace: str, mapping: Mapping[str, Any]) -> None:
        """Keep `mapping` (anything that JSON can hold) in the root document, under `attributes[namespace]`."""
        with self._lock:
            self._check_open()
            self._metadata.set_metadata(namespace, mapping)

    # -- the end ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Finalise what arrived. Idempotent; raises WriteError when any frame or document could not be stored."""
        try:
            with self._lock:
                if not self._closed:
                    self._closed = True
                    self._finish()
                if (error := self._writer.error) is not None:
                    raise self._write_error(error) from error
        finally:  # without the lock, which the callback may be waiting for
            if self._reporter is not None:
                self._reporter.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        try:
            self.close()
        except Exception as at_close:
            if error is None:
                raise
            error.add_note(f"Closing {self.path} failed as well: {at_close}")
        return False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<Stream {self.path!r} {state}, {self._counters.frames_in} frames, backend {self._plan.backend!r}>"

    # -- inside -----------------------------------------------------------------------------------------------------

    def _put(
        self, number: int, frame: np.ndarray, metadata: Mapping[str, Any] | None, started: int, copy: bool
    ) -> None:
        frame = self._gate.frame(frame, number, self._counters.frames_in)
        self._gate.place(number)
        record = Record(number, time(), None if metadata is None else to_json(metadata, "the frame was not consumed"))
        self._writer.submit(self._take(record, frame, started, copy))

    def _put_stack(self, frames: np.ndarray, metadata: Sequence[str | None], started: int, copy: bool) -> None:
        now, jobs = time(), list[Job]()
        try:
            for frame, text in zip(frames, metadata, strict=True):
                if len(jobs) >= self._writer.n_together:
                    ready, jobs = jobs, []  # before they are submitted, so that an interrupt never submits them twice
                    self._writer.submit(ready)
                jobs += self._take(Record(self._next, now, text), frame, started, copy)
                self._next += 1
        finally:
            self._writer.submit(jobs)

    def _take(self, record: Record, frame: np.ndarray, started: int, copy: bool) -> Sequence[Job]:
        """A frame that was checked; returns the blocks that are complete now, at most one for each place."""
        number = record.number
        image, index = self._route.locate(number)
        if self._ledger is not None:
            self._ledger.check(image, index)
        try:
            job = self._assembler.add(image, index, frame, record, copy=copy)
        except StreamFullError:
            if self._settings.on_full != "drop":
                raise
            jobs = self._leave_out([number], "dropped", '"the disk was behind the camera"')
            self._counters.frames_dropped += 1
            return jobs
        self._gate.took(number, image, index)
        self._counters.accepted(number, started)
        return self._completed(job)

    def _completed(self, job: Job | None) -> Sequence[Job]:
        if job is None:
            return ()
        if self._ledger is not None:
            self._ledger.add(job.image, job.origin)
        return (job,)

    def _leave_out(
        self, numbers: list[int], status: Literal["skipped", "dropped"], reason: str | None
    ) -> Sequence[Job]:
        """Frames that will not come; returns the blocks that are complete now.

        reason  as JSON
        """
        now, jobs = time(), list[Job]()
        self._log.add([Record(number, now, None) for number in numbers], status, reason)
        for number in numbers:
            image, index = self._route.locate(number)
            self._gate.took(number, image, index)
            jobs += self._completed(self._assembler.leave_out(image, index))
        return jobs

    def _borrow(self) -> Buffer:
        return self._writer.borrow(self._waits)

    def _lend(self) -> None:
        self._writer.lend(self._waits)

    def _check_open(self) -> None:
        if self._closed:
            raise StreamClosedError(f"The stream to {self.path} is closed; nothing was written.")
        if (error := self._writer.error) is not None:
            raise self._write_error(error) from error

    def _write_error(self, error: BaseException) -> WriteError:
        stats = self.stats
        return WriteError(
            f"Writing to {self.path} failed: {error}. {stats.frames_written} of {stats.frames_in} accepted frames are "
            f"safe, {stats.frames_failed} could not be stored; {self._plan.root / 'scopestream'} has a line for each. "
            f"Close the stream, make room or repair the disk, and start a new acquisition."
        )

    def _finish(self) -> None:
        """Every step is tried, whatever happened to the one before: what arrived must be as whole as it can be.

        An interrupt is raised after the last step.
        """
        interrupt: KeyboardInterrupt | None = None
        steps = (
            self._hand_over, self._writer.close, self._delivery.finish, self._close_arrays, self._log.close,
            self._write_documents,
        )  # fmt: skip
        for step in steps:
            try:
                _to_the_end(step)
            except KeyboardInterrupt as error:
                interrupt = error
            except Exception as error:
                self._writer.fail(error)
        self._counters.stop()
        if interrupt is not None:
            raise interrupt

    def _hand_over(self) -> None:
        for job in self._assembler.finish():
            self._writer.submit((job,))

    def _close_arrays(self) -> None:
        try:
            if self._plan.arrays[0].growable:
                for number, array in enumerate(self._plan.arrays):
                    self._sink.extend(number, self._gate.lengths[array.image])
        finally:
            self._sink.close()

    def _write_documents(self) -> None:
        stats = self.stats
        counts = {
            "written": stats.frames_written,
            "skipped": stats.frames_skipped,
            "dropped": stats.frames_dropped,
            "failed": stats.frames_failed,
        }
        total = self._plan.n_frames
        # Of an unbounded acquisition only what was accepted can be missing: an interrupt came in between.
        missing = stats.frames_waiting if total is None else total - sum(counts.values())
        whole = self._writer.error is None and not stats.frames_dropped and not missing
        self._metadata.finish(
            status="complete" if whole else "incomplete",
            counts={**counts, "missing": missing},
            statistics=stats.summary(),
            lengths=dict(enumerate(self._gate.lengths)),
            windows=self._delivery.contrast.windows,
            records=read_frames(self._plan.root),
        )


def _to_the_end(step: Callable[[], None]) -> None:
    """Do the step however often the user interrupts, then raise the interrupt."""
    interrupt: KeyboardInterrupt | None = None
    while True:
        try:
            step()
            break
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt
