"""From a complete block to the backend: every level of the pyramid, then the log, then the counters."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import prod
from typing import Any, TypeVar, cast

import numpy as np

from scopestream.assemble import Job
from scopestream.checksum import crc32c
from scopestream.contract import Backend, BatchSink, Block, DurableSink, Sink
from scopestream.contrast import Contrast
from scopestream.diskspace import SpaceWatch
from scopestream.failures import Failures
from scopestream.forms import Form, forms_of
from scopestream.framelog import FrameLog, Mark, Record
from scopestream.levels import NextLevel, next_levels
from scopestream.memory import page_aligned
from scopestream.plan import LayoutPlan
from scopestream.route import Route
from scopestream.stack import Stack
from scopestream.stats import Counters
from scopestream.windows import Windows
from scopestream.zsteps import Index

T = TypeVar("T")


class Delivery:
    """Stores jobs. `store` runs on writer threads, several at once where the backend allows it.

    sync_documents  brings the documents that are not of the sink to stable storage
    """

    def __init__(
        self,
        plan: LayoutPlan,
        route: Route,
        backend: Backend,
        sink: Sink,
        log: FrameLog,
        counters: Counters,
        failures: Failures,
        sync_documents: Callable[[], None],
    ) -> None:
        can = backend.capabilities
        self._plan = plan
        self._checksums = plan.settings.checksums
        self._sink = sink
        self._log = log
        self._counters = counters
        self._failures = failures
        self._locate = route.locate
        self._levels: Sequence[tuple[int, ...]] = [image.arrays for image in plan.images]
        self._growable = plan.finest[0].growable
        self._forms = forms_of(plan)
        self._takes_tiles = plan.tiled_on_arrival
        self._batches = can.batches and plan.tiled_on_arrival and max(map(len, self._levels)) == 1
        self._of_thread = threading.local()
        in_order = not can.any_order
        self._stack = Stack(plan, self._next_levels, self._write_coarse, in_order=in_order) if plan.halves_z else None
        self._windows = Windows(plan, route)
        self._window_step = self._windows.step or (1, 0)
        min_free = plan.settings.min_free
        self._space = None if min_free is None else SpaceWatch(plan.root, min_free)
        self._sync_documents = sync_documents
        self._careful = False
        self._publishing = threading.Lock()  # for what follows, and for the sink's flush, sync and close
        self._closed = False
        self._synced: Mark | None = None
        self.contrast = Contrast(plan.n_windows)

    def store(self, jobs: Sequence[Job]) -> None:
        """Store blocks at every level. A record is logged as written only after its pixels are with the backend.

        Raises the first error after all of them were tried, and DiskSpaceError before any of them.
        """
        if self._checksums:
            for job in jobs:
                if job.is_lent and job.data is not None:
                    job.records[:] = [record._replace(crc32c=crc32c(job.data)) for record in job.records]
        if self._space is not None:
            try:
                self._space.check()
            except OSError:
                for job in jobs:
                    self._failed(job.records)
                raise
        if self._batches and len(jobs) > 1 and all(job.is_tiled for job in jobs):
            try:
                n_bytes = self._write_together(jobs)
            except Exception:
                pass  # one by one it shows which of them cannot be stored
            else:
                self._stored(jobs, n_bytes)
                return
        first: BaseException | None = None
        for job in jobs:
            try:
                self._store_one(job)
            except BaseException as error:
                first = first or error
        if first is not None:
            raise first

    def publish(self) -> None:
        """Let other programs see what was stored; on a writer thread, for `flush` and when no frame comes."""
        with self._publishing:
            if not self._closed:
                self._sink.flush()

    def be_careful(self) -> None:
        """Let what is there survive a power loss, before anything comes: frames of before were promised to."""
        with self._publishing:
            self._sync_all()

    def sync(self) -> None:
        """Let what was stored survive a power loss, then log that it does; only for sinks that are `DurableSink`.

        Data comes before the documents, and these before the log, which so never promises too much. Frames that are
        stored meanwhile are left to the next time.
        """
        with self._publishing:
            if self._closed:
                return
            mark = self._log.mark()
            if self._synced is not None and self._synced.n_added == mark.n_added:
                return  # nothing came since
            self._sync_all()
            self._log.sync(mark)
            self._synced = mark

    def restore(self, image: int, origin: Index, data: np.ndarray | None) -> None:
        """A block that was stored before this stream, while others that its coarser levels need are still to come."""
        if self._stack is not None:
            self._stack.add(0, image, origin, data)

    def finish(self) -> None:
        """After the last job: levels of frames whose next one along z did not come."""
        if self._stack is not None:
            self._stack.finish()

    def close(self, lengths: Mapping[int, int]) -> None:
        """Close the sink. `lengths` are those of the first axis by array, where it is growable."""
        with self._publishing:
            self._closed = True
            mark = self._log.mark()
            try:
                for array, length in lengths.items():
                    self._sink.extend(array, length)
            finally:
                self._sink.close()
            if self._careful:
                self._log.sync(mark)

    def _sync_all(self) -> None:
        self._careful = True
        cast(DurableSink, self._sink).sync()
        self._sync_documents()

    def _store_one(self, job: Job) -> None:
        if job.gone is not None:
            numbers, time_s, status, reason = job.gone
            self._log.add([Record(number, time_s, None) for number in numbers], status, reason)
            return
        if job.data is None:
            assert self._stack is not None, "otherwise nobody waits for frames"
            self._stack.add(0, job.image, job.origin, None)
            return
        try:
            data = self._cut(job.image, job.data) if self._takes_tiles and not job.is_tiled else job.data
            n_bytes = self._write_levels(job.image, job.origin, data, final=job.is_final)
        except BaseException:
            self._failed(job.records)
            raise
        self._stored([job], n_bytes)

    def _stored(self, jobs: Sequence[Job], n_bytes: int) -> None:
        records = [record for job in jobs for record in job.records]
        try:
            self._log.add(records, "written")
        except BaseException:
            self._failed(records)
            raise
        self._counters.written(records, n_bytes)
        stride, count = self._window_step
        for job in jobs:
            for record in job.records:
                window = record.number // stride % count if count else self._windows.of(record.number)
                if self.contrast.wants(window):
                    self.contrast.add(window, self._pixels(job, record))

    def _failed(self, records: Sequence[Record]) -> None:
        self._counters.failed(records)
        self._failures.add_frames(records)
        with suppress(OSError):  # a full disk takes no lines either; the first error is the one to tell
            self._log.add(records, "failed")

    # -- pixels -----------------------------------------------------------------------------------------------------

    def _write_together(self, jobs: Sequence[Job]) -> int:
        blocks = [Block(self._levels[job.image][0], job.origin, job.data) for job in jobs if job.data is not None]
        if self._growable:
            lengths: dict[int, int] = {}
            for array, origin, _ in blocks:
                lengths[array] = max(lengths.get(array, 0), origin[0] + 1)
            for array, length in lengths.items():
                self._sink.extend(array, length)
        cast(BatchSink, self._sink).write_many(blocks)
        return sum([block.data.nbytes for block in blocks])

    def _write_levels(self, image: int, origin: Index, data: np.ndarray, *, final: bool) -> int:
        n_bytes = self._write(0, image, origin, data, final=final)
        if self._stack is not None:
            if final:
                self._stack.add(0, image, origin, data)
            return n_bytes
        for level in range(1, len(self._levels[image])):
            data = self._next_levels(image)[level - 1](data)
            n_bytes += self._write(level, image, origin, data, final=final)
        return n_bytes

    def _write_coarse(self, level: int, image: int, origin: Index, data: np.ndarray) -> None:
        self._counters.written([], self._write(level, image, origin, data, final=True))

    def _write(self, level: int, image: int, origin: Index, data: np.ndarray, *, final: bool) -> int:
        array = self._levels[image][level]
        if self._growable:
            self._sink.extend(array, origin[0] + (1 if self._takes_tiles else len(data)))
        self._sink.write(array, origin, data, final=final)
        return data.nbytes

    def _cut(self, image: int, data: np.ndarray) -> np.ndarray:
        """A single frame in tiles, in memory of this thread that the next call for that camera uses again."""
        form = self._forms[image]
        tiles = self._own("tiles", form.view, lambda: _new_tiles(form))
        form.tiler.cut(data[(0,) * (data.ndim - 2)], tiles)
        return tiles

    def _next_levels(self, image: int) -> Sequence[NextLevel]:
        """The steps of this thread, with memory that each of its blocks uses again."""
        return self._own("steps", self._plan.images[image].view, lambda: next_levels(self._plan, image))

    def _own(self, name: str, view: int, make: Callable[[], T]) -> T:
        """What this thread has of its own for the frames of a camera."""
        own: dict[str, Any] = self._of_thread.__dict__
        key = f"{name} {view}"
        if key not in own:
            own[key] = make()
        made: T = own[key]
        return made

    def _pixels(self, job: Job, record: Record) -> np.ndarray:
        """Some pixels of one frame of a block."""
        assert job.data is not None, "a frame that was stored has pixels"
        form = self._forms[job.image]
        y, x = form.sample_steps
        if job.is_tiled:
            return form.tiler.every(job.data, (y, x))
        _, index = self._locate(record.number)
        frame: np.ndarray = job.data[tuple([i - o for i, o in zip(index, job.origin, strict=False)])]
        return frame[::y, ::x]


def _new_tiles(form: Form) -> np.ndarray:
    memory = page_aligned(prod(form.tiler.shape) * form.dtype.itemsize)
    return np.ndarray(form.tiler.shape, form.dtype, memory)
