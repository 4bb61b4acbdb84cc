"""`open_stream` and the stream: append, write, skip, flush, close."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from time import perf_counter_ns, time
from types import TracebackType
from typing import Any, Literal

import numpy as np

from scopestream.assemble import Assembler, Buffer
from scopestream.contract import Backend
from scopestream.delivery import Delivery
from scopestream.errors import FrameIndexError, FrameMismatchError, StreamClosedError, StreamFullError, WriteError
from scopestream.folder import NewRoot, settled
from scopestream.framelog import FrameLog, Record, read_frames
from scopestream.jsontext import to_json
from scopestream.locate import FrameSet, Locator
from scopestream.metadata import MetadataWriter
from scopestream.plan import LayoutPlan, block_bytes, max_threads
from scopestream.registry import resolve
from scopestream.route import Route
from scopestream.settings import AcquisitionSettings
from scopestream.stats import Counters, Stats
from scopestream.writer import Writer

_SKIPPED_AT_ONCE = 4096  # frames whose lines are logged by one write


def open_stream(settings: AcquisitionSettings) -> Stream:
    """Start an acquisition: choose the backend, check everything, then write the empty dataset.

    Raises PlanError, MemoryLimitError, BackendNotFoundError or DatasetExistsError before anything is written.
    """
    resolution = resolve(settled(settings))
    return Stream(resolution.plan, resolution.backend)


class Stream:
    """One acquisition that is being written. A context manager; `open_stream` makes it.

    Methods may be called from several threads; calls take turns. The first error of a writer thread is raised by the
    next call of any method, and again by `close`.
    """

    def __init__(self, plan: LayoutPlan, backend: Backend) -> None:
        self._plan = plan
        self._settings = plan.settings
        self._route = Route(plan)
        self._n_frames = plan.n_frames
        self._locator = Locator(plan)
        self._shape, self._dtype = plan.arrays[0].frame_shape, plan.arrays[0].dtype
        self._in_order = not backend.capabilities.any_order
        self._last_of_image = [-1] * len(plan.images)
        self._next = 0
        self._taken = FrameSet()
        self._lengths = [0] * len(plan.images)
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
            self._counters = Counters()
            self._delivery = Delivery(plan, self._route, self._sink, self._log, self._counters)
            buffer_bytes = block_bytes(plan.arrays[0], plan.unit)
            self._writer = Writer(
                self._delivery.store,
                self._delivery.publish,
                n_threads=max_threads(plan.arrays[0]) if backend.capabilities.concurrent else 1,
                n_buffers=(int(plan.settings.memory_limit) - plan.held_bytes) // buffer_bytes,
                buffer_bytes=buffer_bytes,
            )
            opened.pop_all()  # from here on `close` looks after them
        root.keep()
        self._assembler = Assembler(plan, self._borrow)

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

    def append(self, frame: np.ndarray, metadata: Mapping[str, Any] | None = None) -> None:
        """Take the next frame in acquisition order.

        frame     (Y, X) of the planned dtype, in any memory layout or byte order; it is copied before this returns
        metadata  anything that JSON can hold, for the frame log; delta_t, exposure_time (seconds), position_x,
                  position_y and position_z (units of the axes) also become planes of the OME-XML
        Raises FrameMismatchError, FrameIndexError or MetadataError, and StreamFullError with `on_full="raise"`; then
        the frame keeps its slot. Raises WriteError when an earlier frame could not be stored.
        """
        started = perf_counter_ns()
        with self._lock:
            self._check_open()
            self._put(self._next, frame, metadata)
            self._next += 1  # last, so that a frame that was refused keeps its slot and can be sent again
            self._counters.latencies.add(perf_counter_ns() - started)

    def write(
        self, frame: np.ndarray, *, index: Mapping[str, int | str], metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Take a frame by its coordinates, in any order that the backend can store.

        index  an integer, or the name of a channel, position or label, for every dimension before the frame;
               dimensions with one item may be left out
        Raises as `append` does, and FrameIndexError for a place that is not there, is taken, or comes too late for a
        backend that stores in order. The place of the next `append` stays as it is.
        """
        started = perf_counter_ns()
        with self._lock:
            self._check_open()
            self._put(self._route.number_at(self._locator.coords(index)), frame, metadata)
            self._counters.latencies.add(perf_counter_ns() - started)

    def skip(self, n: int = 1, *, reason: str | None = None) -> None:
        """The next `n` frames in acquisition order will not come; they read as zeros, and the log says so.

        Frames among them that `write` has placed stay as they are.
        """
        with self._lock:
            self._check_open()
            if n < 0:
                raise FrameIndexError(f"Cannot skip {n} frames.")
            total = self._n_frames
            if total is not None and self._next + n > total:
                raise FrameIndexError(
                    f"Cannot skip {n} frames: only {total - self._next} of {total} are left. Nothing was skipped."
                )
            end = self._next + n
            while self._next < end:
                stop = min(self._next + _SKIPPED_AT_ONCE, end)
                numbers = [number for number in range(self._next, stop) if number not in self._taken]
                self._leave_out(numbers, "skipped", reason)
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
                    self._writer.submit(job)
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
        with self._lock:
            if not self._closed:
                self._closed = True
                self._finish()
            if (error := self._writer.error) is not None:
                raise self._write_error(error) from error

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

    def _put(self, number: int, frame: np.ndarray, metadata: Mapping[str, Any] | None) -> None:
        if not isinstance(frame, np.ndarray) or frame.shape != self._shape or frame.dtype != self._dtype:
            frame = self._checked(frame, number)
        self._check_place(number)
        record = Record(number, time(), None if metadata is None else to_json(metadata, "the frame was not consumed"))
        image, index = self._route.locate(number)
        try:
            job = self._assembler.add(image, index, frame, record)
        except StreamFullError:
            if self._settings.on_full != "drop":
                raise
            self._leave_out([number], "dropped", "the disk was behind the camera")
            self._counters.frames_dropped += 1
            return
        self._took(number, image, index)
        self._counters.frames_in += 1
        self._counters.bytes_in += frame.nbytes
        if job is not None:
            self._writer.submit(job)

    def _checked(self, frame: object, number: int) -> np.ndarray:
        """The frame as an array, when only its byte order differs from the plan."""
        array = np.asarray(frame)
        if array.shape == self._shape and array.dtype.newbyteorder("=") == self._dtype:
            return array
        y, x = self._shape
        raise FrameMismatchError(
            f"Frame {number} for {self._locator.text(self._route.coords(number))} is {array.shape} {array.dtype}, the "
            f"plan says ({y}, {x}) {self._dtype}. It was not written; the {self._counters.frames_in} frames before it "
            f"are safe. Set the camera to that size and type, or start a new acquisition."
        )

    def _check_place(self, number: int) -> None:
        total = self._n_frames
        if total is not None and number >= total:
            raise FrameIndexError(
                f"All {total} frames of the plan have come. This one was not written; close the stream. For an open "
                f"end, give the first dimension count=None."
            )
        if number in self._taken:
            raise FrameIndexError(
                f"There is a frame at {self._locator.text(self._route.coords(number))} already; every place is written "
                f"once. This frame was not written. `skip` moves `append` past places that `write` has filled."
            )
        if self._in_order:
            last = self._last_of_image[self._route.locate(number)[0]]
            if number <= last:
                raise FrameIndexError(
                    f"Frame {number} comes after frame {last} of the same image, but backend {self._plan.backend!r} "
                    f"stores frames in acquisition order only. It was not written. Use another backend for any order."
                )

    def _took(self, number: int, image: int, index: tuple[int, ...]) -> None:
        self._taken.add(number)
        self._last_of_image[image] = max(number, self._last_of_image[image])
        if index and index[0] >= self._lengths[image]:
            self._lengths[image] = index[0] + 1

    def _leave_out(self, numbers: list[int], status: Literal["skipped", "dropped"], reason: str | None) -> None:
        now = time()
        self._log.add([Record(number, now, None) for number in numbers], status, reason)
        for number in numbers:
            image, index = self._route.locate(number)
            self._took(number, image, index)
            job = self._assembler.leave_out(image, index)
            if job is not None:
                self._writer.submit(job)

    def _borrow(self) -> Buffer:
        return self._writer.borrow("block" if self._settings.on_full == "block" else "raise")

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
        steps = (self._hand_over, self._writer.close, self._close_arrays, self._log.close, self._write_documents)
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
            self._writer.submit(job)

    def _close_arrays(self) -> None:
        try:
            if self._plan.arrays[0].growable:
                for number, array in enumerate(self._plan.arrays):
                    self._sink.extend(number, self._lengths[array.image])
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
        missing = 0 if total is None else total - sum(counts.values())
        whole = self._writer.error is None and not stats.frames_dropped and not missing
        self._metadata.finish(
            status="complete" if whole else "incomplete",
            counts={**counts, "missing": missing},
            lengths=dict(enumerate(self._lengths)),
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
