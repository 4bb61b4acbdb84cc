"""Threads that store blocks behind the camera's back, and the one place where memory is counted."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Literal

import numpy as np

from scopestream.assemble import Buffer, Job
from scopestream.errors import MemoryLimitError, StreamFullError
from scopestream.memory import page_aligned
from scopestream.plan import BATCH_BYTES

# A pause of the camera this long lets the backend publish what it has, so that live readers see the last frames.
_IDLE_S = 0.1
# How long a thread that finds few small blocks waits for more of them: handing over each by itself would cost more
# than the work.
_GATHER_S = 0.0005
# Memory that is used without waiting for a block to come back: no more than keeps all threads busy, so small frames
# stay in the caches of the processor; of large blocks two, one that fills and one that is stored. And how fast blocks
# come back where all is well. More work than writing takes longer, and threads end at less even times.
_FIRST_BYTES, _FIRST_BYTES_SLOW = 2**25, 2**26
_FAST_BYTES_PER_S, _SLOW_BYTES_PER_S = 2e9, 1e9
Patience = Literal["block", "raise"]


class Writer:
    """A pool of equal buffers and a queue of jobs, both bounded by the number of buffers.

    store      called from a writer thread with jobs in the order in which they came
    idle       called from a writer thread when nothing came for a while after a job
    n_threads  1 keeps jobs in order
    n_buffers  of `buffer_bytes` each; that product is the cap on memory
    n_expected blocks that will come at the most, as far as is known
    aligned    whether the memory of each buffer starts at a page
    slow       whether `store` has more work than writing: compressing, or the copies of a library for whole shards
    """

    def __init__(
        self,
        store: Callable[[Sequence[Job]], None],
        idle: Callable[[], None],
        *,
        n_threads: int,
        n_buffers: int,
        buffer_bytes: int,
        n_expected: int | None = None,
        aligned: bool = False,
        slow: bool = False,
    ) -> None:
        self._store = store
        self._idle = idle
        self._n_buffers = n_buffers
        self._buffer_bytes = buffer_bytes
        # Zeros, since tiles leave out what lies past the edges.
        self._new_buffer: Callable[[int], Buffer] = page_aligned if aligned else partial(np.zeros, dtype=np.uint8)
        self._batch = max(1, BATCH_BYTES // buffer_bytes)  # jobs that one thread stores at once
        first_bytes = _FIRST_BYTES_SLOW if slow else _FIRST_BYTES
        n_first = min((2 * n_threads + 1) * self._batch, first_bytes // buffer_bytes)
        self._allowed = min(n_buffers, max(2, n_first))
        self._patience_s = self._batch * buffer_bytes / (_SLOW_BYTES_PER_S if slow else _FAST_BYTES_PER_S)
        lock = threading.Lock()
        self._work = threading.Condition(lock)  # jobs came, or the writer closes
        self._room = threading.Condition(lock)  # jobs were stored
        self._queue: deque[Job] = deque()
        self._free: list[Buffer] = []  # last in, first out: memory that is warm, and no more of it than is needed
        self._n_made = 0  # buffers, free ones included
        self._n_lent = 0  # frames of the caller that are not stored yet
        self._n_busy = 0  # jobs being stored
        self._n_draining = 0
        self._published = True
        self._closing = False
        self.queue_peak = 0
        self.error: BaseException | None = None
        n_warm = min(self._allowed, first_bytes // buffer_bytes)
        self._warm_up(n_warm if n_expected is None else min(n_warm, n_expected))
        self._threads = [
            threading.Thread(target=self._run, name=f"scopestream-writer-{number}", daemon=True)
            for number in range(n_threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def n_together(self) -> int:
        """Jobs that may wait outside the queue, to be submitted at once."""
        return max(1, min(self._batch, self._n_buffers // 4))

    @property
    def queue_depth(self) -> int:
        """Jobs that wait or are being stored."""
        return len(self._queue) + self._n_busy

    def borrow(self, on_full: Patience) -> Buffer:
        """Memory for one block; it comes back when its job is stored.

        Raises StreamFullError when all is in use and `on_full` is "raise", and MemoryLimitError when none can come
        back because no job is under way.
        """
        with self._work:
            self._make_room(on_full)
            if self._free:
                return self._free.pop()
            self._n_made += 1
            return self._new_buffer(self._buffer_bytes)

    def lend(self, on_full: Patience) -> None:
        """Count a frame that stays in the caller's memory until its job is stored. Raises as `borrow` does."""
        with self._work:
            self._make_room(on_full)
            if self._free and self._n_made + self._n_lent >= self._allowed:
                self._free.pop()
                self._n_made -= 1
            self._n_lent += 1

    def submit(self, jobs: Iterable[Job]) -> None:
        """Queue jobs; never waits, since the number of buffers bounds the queue."""
        with self._work:
            before = len(self._queue)
            self._queue.extend(jobs)
            after = len(self._queue)
            self.queue_peak = max(self.queue_peak, after + self._n_busy)
            # Whoever waits is woken by the first job, and then only when there are enough for one more thread.
            if (not before and after) or before // self._batch != after // self._batch:
                self._work.notify()

    def drain(self) -> None:
        """Return when every job so far was stored, or failed."""
        with self._work:
            self._n_draining += 1
            self._work.notify_all()
            try:
                self._room.wait_for(lambda: not self.queue_depth)
            finally:
                self._n_draining -= 1

    def close(self) -> None:
        """Drain, then end the threads."""
        self.drain()
        with self._work:
            self._closing = True
            self._work.notify_all()
        for thread in self._threads:
            thread.join()

    def fail(self, error: BaseException) -> None:
        """Keep the first error; the stream raises it at its next call."""
        with self._work:
            self.error = self.error or error

    # -- inside, with the lock held ---------------------------------------------------------------------------------

    def _make_room(self, on_full: Patience) -> None:
        """Return when one more block may be held.

        Who waits with small blocks is woken when several came back, not for each of them. Up to the cap more memory is
        used only when none came back within the time that storing takes on a fast disk: memory that is warm is worth
        that little patience, since fresh memory costs more than the copy into it, and a camera that is slower than the
        disk never needs more than the first few buffers.
        """
        while self._n_held >= self._allowed:
            if self._allowed == self._n_buffers:
                self._check_full(on_full)
                self._room.wait_for(lambda: self._has_room() or not self.queue_depth)
                continue
            if not self.queue_depth or not self._room.wait_for(self._has_room, self._patience_s):
                self._allowed = min(self._n_buffers, self._allowed + self._batch)

    def _has_room(self) -> bool:
        return self._n_held <= self._allowed - max(1, min(self._allowed // 4, self._batch))

    def _check_full(self, on_full: Patience) -> None:
        if not self.queue_depth:
            raise MemoryLimitError(
                f"All {self._n_buffers} blocks of {self._buffer_bytes} bytes that memory_limit allows are "
                f"open, and none of them is complete. This frame was not accepted. Write frames in "
                f"acquisition order, raise memory_limit, make shards smaller, or use a backend that "
                f"stores single frames."
            )
        if on_full == "raise":
            raise StreamFullError(
                f"The disk is behind the camera: {self.queue_depth} blocks of {self._buffer_bytes} bytes wait, "
                f"and memory_limit allows no more. This frame was not accepted; send it again later."
            )

    @property
    def _n_held(self) -> int:
        return self._n_made - len(self._free) + self._n_lent

    # -- the threads ------------------------------------------------------------------------------------------------

    def _warm_up(self, n_buffers: int) -> None:
        """Touch the memory of the first buffers before the camera starts; what it costs is the first touch."""
        for _ in range(n_buffers):
            buffer = self._new_buffer(self._buffer_bytes)
            buffer.fill(0)
            self._free.append(buffer)
            self._n_made += 1

    def _run(self) -> None:
        while jobs := self._next():
            try:
                self._store(jobs)
            except BaseException as error:
                self.fail(error)
            with self._work:
                self._n_busy -= len(jobs)
                self._published = False
                for job in jobs:
                    if job.buffer is not None:
                        self._free.append(job.buffer)
                    self._n_lent -= job.is_lent
                del job, jobs  # or the frames that they hold would live until the next ones come
                self._room.notify_all()

    def _next(self) -> list[Job]:
        """The next jobs, none when the writer closes; publishes when it had to wait long for one."""
        while True:
            with self._work:
                if not self._queue and not self._closing:
                    self._work.wait(None if self._published else _IDLE_S)
                if 0 < len(self._queue) < self._batch and not self._n_draining:
                    self._work.wait(_GATHER_S)
                if self._queue:
                    jobs = [self._queue.popleft() for _ in range(min(self._batch, len(self._queue)))]
                    self._n_busy += len(jobs)
                    return jobs
                if self._closing:
                    return []
                publish, self._published = not self._published, True
            if publish:
                try:
                    self._idle()
                except BaseException as error:
                    self.fail(error)
