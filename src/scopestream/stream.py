"""`open_stream` and the stream: append, write, skip, flush, close."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from os import getpid
from threading import RLock, get_ident
from time import perf_counter_ns
from types import TracebackType
from typing import Any, Literal, NoReturn, cast

import numpy as np

from scopestream.checkpoint import Checkpoints
from scopestream.closing import Closing, check_timeout, to_the_end
from scopestream.contract import Backend, ResumingBackend
from scopestream.dataset import Dataset
from scopestream.delivery import Delivery
from scopestream.diskspace import check_space
from scopestream.errors import MemoryLimitError, NotDurableError, StreamClosedError, StreamFullError, WriteError
from scopestream.events import Events, EventThread
from scopestream.failures import Failures
from scopestream.folder import NewRoot, OldRoot, settled
from scopestream.framelog import FrameLog
from scopestream.gate import Gate
from scopestream.intake import Intake
from scopestream.jsontext import text_to_json
from scopestream.live import LiveFrames
from scopestream.metadata import MetadataWriter
from scopestream.plan import LayoutPlan, WriteUnit
from scopestream.pool import Pool
from scopestream.registry import resolve
from scopestream.reporter import Reporter, check_report
from scopestream.restore import Blocks, keep_lengths
from scopestream.route import Route
from scopestream.settings import AcquisitionSettings
from scopestream.stats import Counters, Stats
from scopestream.view import View
from scopestream.writer import Task, Writer


def open_stream(
    settings: AcquisitionSettings, *, on_stats: Callable[[Stats], object] | None = None, stats_interval_s: float = 1.0
) -> Stream:
    """Start an acquisition: choose the backend, check everything, then write the empty dataset.

    on_stats          called with a `Stats` about every `stats_interval_s` seconds (0.01 at least) while the stream is
                      open, and a last time at the end of `close` with the final figures. All calls come from a thread
                      of its own, so that it never holds the camera up; if it raises, it is not called again, and a
                      RuntimeWarning says why. `close` waits for it, but not for more than ten seconds
    Raises PlanError, MemoryLimitError, BackendNotFoundError, DatasetExistsError, DatasetBusyError or DiskSpaceError
    before anything is written, and TypeError or ValueError when `on_stats` or its interval cannot be; with
    `on_exists="resume"` also ResumeError, or DatasetError when what is there cannot be continued. Warns
    (RuntimeWarning) when the disk has no room for all frames.
    """
    check_report(on_stats, stats_interval_s)
    resolution = resolve(settled(settings))
    check_space(resolution.plan)
    return Stream(resolution.plan, resolution.backend, on_stats, stats_interval_s)


class Stream:
    """One acquisition that is being written. A context manager; `open_stream` makes it.

    Methods may be called from several threads; calls take turns. The first error of a writer thread is raised by the
    next call of any method, and again by `close`. After KeyboardInterrupt `next_frame` says whether the frame is in,
    and the stream can go on or be closed. A process that is forked from this one has no part in the stream.
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
        self._can_sync = backend.capabilities.durable
        self._lock = RLock()
        self._process, self._thread = getpid(), get_ident()
        route = self._route
        in_order = not backend.capabilities.any_order
        self._gate = Gate(plan, route, in_order=in_order)
        # What `camera` is where there are none; with cameras it is something that nobody says.
        self._no_camera: object = object() if plan.settings.cameras else None
        self._metadata = MetadataWriter(plan)
        counters = self._counters = Counters([array.frame_bytes for array in plan.finest], plan.places.n_cameras)
        self._failures = Failures(plan, counters)
        before: Dataset | None = None
        root: NewRoot | OldRoot
        with ExitStack() as opened:
            if plan.settings.on_exists == "resume" and plan.root.exists():
                root = OldRoot(plan.settings)
                opened.callback(root.undo)
                before = root.mend(plan)
            else:
                root = NewRoot(plan.settings)
                opened.callback(root.undo)
                self._metadata.create()
            log = FrameLog(plan, route)
            opened.callback(log.close)
            sink = backend.open(plan) if before is None else cast(ResumingBackend, backend).reopen(plan)
            opened.callback(sink.close)
            if before is not None:  # should it come to nothing, arrays are as long as they were
                opened.callback(keep_lengths, sink, plan, before.lengths())
            self._delivery = Delivery(plan, route, backend, sink, log, counters, self._failures, self._metadata.sync)
            was_promised = before is not None and bool(before.history.synced.any())
            if self._can_sync and (was_promised or plan.settings.durability == "disk"):
                self._delivery.be_careful()
            one_thread = in_order or not backend.capabilities.concurrent
            n_threads = 1 if one_thread else plan.n_threads
            pool = Pool(
                n_threads=n_threads,
                n_buffers=plan.n_buffers,
                buffer_bytes=plan.buffer_bytes,
                n_expected=plan.n_blocks,
                aligned=plan.settings.direct_io,
                slow=plan.settings.codec.name != "none" or plan.unit is WriteUnit.SHARD,
            )
            writer = self._writer = Writer(
                self._delivery.store, self._delivery.publish, self._failures, pool, n_threads=n_threads
            )
            opened.callback(writer.close)
            self._live = LiveFrames(
                plan, route, self._gate, counters, self._failures, writer, live_read=backend.capabilities.live_read
            )
            self._events = self._new_events()
            self._intake = Intake(plan, route, self._gate, writer, counters, in_order=in_order)
            if before is not None:
                self._intake.restore(before, self._delivery)
                Blocks(before, plan).sample(self._delivery.contrast)
                self._metadata.go_on(before.attributes)

            def read() -> Stats:  # does not refer to the stream, which the thread would keep alive
                return counters.snapshot(writer.queue_depth, writer.queue_peak)

            reporter = None if on_stats is None else Reporter(read, on_stats, stats_interval_s)
            checkpoints = None
            if (interval_s := plan.settings.checkpoint_interval_s) is not None:
                checkpoints = Checkpoints(plan, self._lock, self._intake, self._delivery, self._failures, interval_s)
            opened.pop_all()  # from here on `close` looks after them
        self._closing = Closing(
            plan, self._lock, intake=self._intake, gate=self._gate, writer=writer, delivery=self._delivery, log=log,
            metadata=self._metadata, counters=counters, failures=self._failures, reporter=reporter,
            checkpoints=checkpoints, lock_of_dataset=root.lock, live=self._live, events=self._events,
            is_resumed=before is not None,
        )  # fmt: skip
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
        """A snapshot of counts, rates and times; cheap, from any thread, also after `close`."""
        if self._process != getpid():
            self._refuse()
        return self._counters.snapshot(self._writer.queue_depth, self._writer.queue_peak)

    @property
    def error(self) -> BaseException | None:
        """The first error of a writer thread, None while all is well."""
        return self._failures.first

    @property
    def events(self) -> Events:
        """Signals to connect callbacks to: a frame was written, the extent grew, statistics, an error, the end.

        The first use starts the thread that calls back. After `close` nothing is emitted any more, not even `closed`,
        to those who connect only then.
        """
        if self._process != getpid():
            self._refuse()
        self._delivery.on_stored = self._events.stored
        self._events.start()
        return self._events.events

    @property
    def next_frame(self) -> int | None:
        """Number, in acquisition order, of the frame that the next `append` fills; None when all have come.

        With cameras it is the lowest of those of all cameras. After KeyboardInterrupt it says whether the frame is in
        that was being taken.
        """
        return min((number for number in self._next_of_all() if number is not None), default=None)

    @property
    def next_frames(self) -> dict[str, int | None]:
        """`next_frame` of each camera by name; empty without cameras."""
        return dict(zip(self._gate.lanes, self._next_of_all(), strict=False))

    def _next_of_all(self) -> list[int | None]:
        if self._process != getpid():
            self._refuse()
        with self._lock:
            self._intake.recover()
            end = self._plan.places.end
            return [number if number < end else None for number in self._intake.next]

    def was_there(self, index: Mapping[str, int | str]) -> bool:
        """Whether the place at `index`, as for `write`, was taken when the stream went on with a dataset.

        By a frame, or because none was to come; `write` refuses it then. Raises FrameIndexError for no place.
        """
        if self._process != getpid():
            self._refuse()
        return self._gate.was_taken(self._gate.number_at(index))

    def view(self, camera: str | None = None) -> View:
        """All frames as one array in acquisition order, while they come and after `close`.

        camera  whose frames, by name; without it those of all cameras, which must not differ in shape or dtype then
        It reads what is still in memory, then the disk, without a lock that the camera waits for; but it takes its
        share of the interpreter, which a loop of reads without a pause makes `append` feel. It may be used from any
        thread, for as long as anybody likes: it does not keep the stream open.
        """
        if self._process != getpid():
            self._refuse()
        view = View(self._plan, self._route, self._live, camera)
        self._live.keep()
        return view

    # -- frames -----------------------------------------------------------------------------------------------------

    def append(
        self,
        frame: np.ndarray,
        metadata: Mapping[str, Any] | None = None,
        *,
        camera: str | None = None,
        copy: bool = True,
    ) -> None:
        """Take the next frame in acquisition order.

        frame     (Y, X) of the planned dtype, in any memory layout or byte order; it is copied before this returns
        camera    which one it comes from, by name, where there are cameras: each has a next frame of its own
        metadata  anything that JSON can hold, for the frame log; delta_t, exposure_time (seconds), position_x,
                  position_y and position_z (units as of `Position`) also become planes of the OME-XML
        copy      False hands the memory over: the stream keeps it until the frame is stored, and nobody may write to
                  it any more, unless `flush` or `close` returned since. Frames that are not C-contiguous and native,
                  and backends that collect blocks of several frames, copy all the same
        Raises FrameMismatchError, FrameIndexError or MetadataError, and StreamFullError with `on_full="raise"`; then
        the frame keeps its slot. Raises WriteError when an earlier frame could not be stored.
        """
        started = perf_counter_ns()
        if self._process != getpid():
            self._refuse()
        with self._lock:
            self._begin()
            intake = self._intake
            lane = 0 if camera is self._no_camera else self._gate.lane(camera)
            number = intake.next[lane]
            intake.put(number, lane, intake.after(number), frame, metadata, started, copy)
            self._counters.latencies.add(perf_counter_ns() - started)

    def extend(
        self,
        frames: np.ndarray,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        *,
        camera: str | None = None,
        copy: bool = True,
    ) -> None:
        """Take the next frames in acquisition order: as many calls of `append`, checked and handed over at once.

        frames    (n, Y, X) of the planned dtype; with `copy=False` the stream keeps the memory, as `append` does
        metadata  one mapping, or None, for each frame
        camera    as for `append`; all of them come from that one
        Raises as `append` does, and then none of the frames was taken, unless StreamFullError or MemoryLimitError says
        after how many there was no more room; those keep their slots.
        """
        started = perf_counter_ns()
        if self._process != getpid():
            self._refuse()
        with self._lock:
            self._begin()
            lane = 0 if camera is self._no_camera else self._gate.lane(camera)
            counters = self._counters
            frames, texts = self._gate.stack(frames, self._intake.next[lane], metadata, counters.frames_in)
            before = counters.frames_in + counters.frames_dropped
            try:
                self._intake.extend(frames, texts, lane, started, copy=copy)
            except (StreamFullError, MemoryLimitError, WriteError) as error:
                n_taken = counters.frames_in + counters.frames_dropped - before
                error.add_note(f"The first {n_taken} of {len(frames)} frames were taken.")
                raise
            finally:
                n_taken = counters.frames_in + counters.frames_dropped - before
                if n_taken:
                    counters.latencies.add(perf_counter_ns() - started, n_taken)

    def write(
        self,
        frame: np.ndarray,
        *,
        index: Mapping[str, int | str],
        metadata: Mapping[str, Any] | None = None,
        copy: bool = True,
    ) -> None:
        """Take a frame by its coordinates, in any order that the backend can store.

        index  an integer, or the name of a channel, position or label, for every dimension before the frame, and
               "camera" where there are cameras; dimensions with one item may be left out
        copy   as for `append`
        Raises as `append` does, and FrameIndexError for a place that is not there, is taken, or comes too late for a
        backend that stores in order. The place of the next `append` stays as it is.
        """
        started = perf_counter_ns()
        if self._process != getpid():
            self._refuse()
        with self._lock:
            self._begin()
            number = self._gate.number_at(index)
            lane = number % self._plan.places.n_cameras
            self._intake.put(number, lane, self._intake.next[lane], frame, metadata, started, copy)
            self._counters.latencies.add(perf_counter_ns() - started)

    def skip(
        self,
        n: int | None = None,
        *,
        index: Mapping[str, int | str] | None = None,
        camera: str | None = None,
        reason: str | None = None,
    ) -> None:
        """The next `n` frames in acquisition order (or one) will not come; they read as zeros, and the log says so.

        index   the frames at these coordinates instead, given as for `write`; a dimension that is left out stands for
                all of its items. The place of the next `append` stays as it is
        camera  as for `append`, with `n`
        Frames among them that came already stay as they are. Raises FrameIndexError when there are not so many, or no
        such place, MetadataError when the reason is no text, and TypeError for both `n` and `index`; then nothing was
        skipped.
        """
        if self._process != getpid():
            self._refuse()
        because = None if reason is None else text_to_json(reason, "The reason", "nothing was skipped")
        if n is not None and index is not None:
            raise TypeError("skip takes a number of frames or an index, not both. Nothing was skipped.")
        with self._lock:
            self._begin()
            if index is not None:
                self._intake.skip_at(self._gate.numbers_at(index), because)
                return
            n_frames = 1 if n is None else n
            lane = 0 if camera is self._no_camera else self._gate.lane(camera)
            self._gate.check_skip(n_frames, self._intake.next[lane])
            self._intake.skip(n_frames, because, lane)

    def flush(self, *, durable: bool = False) -> None:
        """Return when other programs can read every accepted frame (for backends with `live_read`).

        Where whole shards are stored, an unfinished shard is stored as it is now and again when it is complete.

        durable  return when these frames survive a power loss as well. From then on the stream is careful: nothing that
                 it does later can make them unreadable
        Raises NotDurableError, before anything is done, when the backend cannot do that, and WriteError when a frame
        could not be stored or synced.
        """
        if self._process != getpid():
            self._refuse()
        with self._lock:
            self._begin()
            if durable and not self._can_sync:
                raise NotDurableError(
                    f"Backend {self._plan.backend!r} cannot make frames survive a power loss; nothing was done. Call "
                    f"flush() without durable=True, or choose another backend (`scopestream backends` lists them)."
                )
            self._intake.store_open()
            publish = Task(self._delivery.sync if durable else self._delivery.publish)
            to_the_end(lambda: self._writer.run(publish))
            self._failures.check()

    def set_metadata(self, namespace: str, mapping: Mapping[str, Any]) -> None:
        """Keep `mapping` (anything that JSON can hold) in the root document, under `attributes[namespace]`."""
        if self._process != getpid():
            self._refuse()
        with self._lock:
            self._begin()
            self._metadata.set_metadata(namespace, mapping)

    # -- the end ----------------------------------------------------------------------------------------------------

    def close(self, timeout: float | None = None, *, ended_early: bool = False) -> None:
        """Finalise what arrived; returns when that is done. Idempotent.

        timeout      seconds to wait at the most; without one it takes as long as it takes
        ended_early  whether more would have come, had it not been cancelled: a dataset with count=None then says
                     "incomplete", as it does when an error leaves the `with` block. Others know it by themselves
        Raises WriteError when any frame or document could not be stored, and CloseTimeoutError, which says what is
        stuck, when it takes longer: then the work goes on in the background, and `close` may be called again to wait
        for it. In a process that was forked from the one that opened the stream it does nothing.
        """
        check_timeout(timeout)
        if self._process == getpid():
            if ended_early and not self._closing.is_closed:
                self._closing.is_early = True
            self._closing.close(timeout)

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        try:
            # Ctrl-C is how those without an end are ended.
            self.close(ended_early=isinstance(error, Exception))
        except Exception as at_close:
            if error is None:
                raise
            error.add_note(f"Closing {self.path} failed as well: {at_close}")
        return False

    def __del__(self) -> None:
        if hasattr(self, "_closing"):
            self._closing.abandoned()

    def __repr__(self) -> str:
        state = "closed" if self._closing.is_closed else "open"
        return f"<Stream {self.path!r} {state}, {self._counters.frames_in} frames, backend {self._plan.backend!r}>"

    # -- inside -----------------------------------------------------------------------------------------------------

    def _new_events(self) -> EventThread:
        """The thread does not refer to the stream, which it would keep alive."""
        cameras = [camera.name for camera in self._settings.cameras]
        view = View(self._plan, self._route, self._live, cameras[0] if len(self._plan.finest) > 1 else None)
        route, writer, counters, failures = self._route, self._writer, self._counters, self._failures
        return EventThread(
            index=lambda number: dict(zip(route.names, route.coords(number), strict=True)),
            shape=lambda: view.shape,
            stats=lambda: counters.snapshot(writer.queue_depth, writer.queue_peak),
            error=lambda: failures.first,
        )

    def _refuse(self) -> NoReturn:
        """In a forked process, before any lock is taken, which a thread may hold for ever that does not exist here."""
        raise StreamClosedError(
            f"The stream to {self.path} belongs to process {self._process}, from which this one ({getpid()}) was "
            f"forked; nothing was written. Open a stream of its own here, or send the frames to that process."
        )

    def _begin(self) -> None:
        """With the lock held, before all else: finish what an interrupt has stopped, then see whether all is well."""
        if self._thread != get_ident():
            self._closing.is_shared = True
        if self._closing.is_closed:
            raise StreamClosedError(f"The stream to {self.path} is closed; nothing was written.")
        if self._intake.unfinished:
            self._intake.recover()
        if self._failures.first is not None:
            self._failures.check()
