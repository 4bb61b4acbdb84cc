"""Threads that store blocks behind the camera's back, and the one place where memory is counted.

Only the threads of this module are safe from Ctrl-C, which interrupts the main thread between any two steps. So what
the caller's thread does here may be done again after an interrupt and comes to the same, it holds no lock while it
waits, and whatever must not stop half-way is a `Task` of the threads. (`threading.Condition` and `threading.Event` keep
their lock for ever when an interrupt comes at a bad moment, so the caller's thread waits for neither.)
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Literal

import numpy as np

from scopestream.assemble import Buffer, Job
from scopestream.errors import MemoryLimitError, StreamFullError
from scopestream.failures import Failures
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


@dataclass(slots=True, eq=False)
class Task:
    """What one thread does when nothing waits to be stored and nothing is being stored."""

    run: Callable[[], None]
    is_begun: bool = False
    is_done: bool = False


class Writer:
    """A pool of equal buffers and a queue of jobs, both bounded by the number of buffers.

    Its methods are for one thread at a time, `n_lent` and the like aside: the stream's lock sees to that.

    store      called from a writer thread with jobs in the order in which they came
    idle       called from a writer thread when nothing came for a while after a job
    failures   gets what they raise
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
        failures: Failures,
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
        self._failures = failures
        self._n_buffers = n_buffers
        self._buffer_bytes = buffer_bytes
        # Zeros, since tiles leave out what lies past the edges.
        self._new_buffer: Callable[[int], Buffer] = page_aligned if aligned else partial(np.zeros, dtype=np.uint8)
        self._batch = max(1, BATCH_BYTES // buffer_bytes)  # jobs that one thread stores at once
        first_bytes = _FIRST_BYTES_SLOW if slow else _FIRST_BYTES
        n_first = min((2 * n_threads + 1) * self._batch, first_bytes // buffer_bytes)
        self._allowed = min(n_buffers, max(2, n_first))
        self._patience_s = self._batch * buffer_bytes / (_SLOW_BYTES_PER_S if slow else _FAST_BYTES_PER_S)
        self._lock = threading.Lock()  # for what follows
        self._work = threading.Condition(self._lock)  # where the threads wait for work
        self._waiting: list[tuple[Callable[[], bool], threading.Lock]] = []  # who waits for the threads: until when
        self._queue: deque[Job] = deque()
        self._n_begun = 0  # jobs that left the queue
        self._busy: list[list[Job]] = [[] for _ in range(n_threads)]  # what each thread stores
        self._n_busy = 0
        self._tasks: deque[Task] = deque()
        self._task_runs = False
        self._free: list[Buffer] = []  # last in, first out: memory that is warm, and no more of it than is needed
        self._n_made = 0  # buffers, free ones included
        self._n_lent = 0  # frames of the caller that are not stored yet
        self._in_a_hurry = False
        self._published = True
        self._ending = False
        self.queue_peak = 0
        n_warm = min(self._allowed, first_bytes // buffer_bytes)
        self._warm_up(n_warm if n_expected is None else min(n_warm, n_expected))
        self._threads = [
            threading.Thread(target=self._run, args=(busy,), name=f"scopestream-writer-{number}", daemon=True)
            for number, busy in enumerate(self._busy)
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

    @property
    def is_own_thread(self) -> bool:
        """Whether one of the writer threads asks."""
        return threading.current_thread() in self._threads

    # -- for the caller's thread ------------------------------------------------------------------------------------

    def borrow(self, on_full: Patience) -> Buffer:
        """Memory for one block; it comes back when its job is stored.

        Raises StreamFullError when all is in use and `on_full` is "raise", MemoryLimitError when none can come back
        because no job is under way, and WriteError when it had to wait and something failed.
        """
        while True:
            with self._lock:
                if self._n_held < self._allowed:
                    if self._free:
                        return self._free.pop()
                    buffer = self._new_buffer(self._buffer_bytes)
                    self._n_made += 1
                    return buffer
            self._make_room(on_full)

    def lend(self, on_full: Patience) -> None:
        """Count a frame that stays in the caller's memory until its job is stored. Raises as `borrow` does."""
        while True:
            with self._lock:
                if self._n_held < self._allowed:
                    if self._free and self._n_made + self._n_lent >= self._allowed:
                        self._free.pop()
                        self._n_made -= 1
                    self._n_lent += 1
                    return
            self._make_room(on_full)

    def submit(self, jobs: Sequence[Job], n_before: int) -> None:
        """Queue jobs; never waits, since the number of buffers bounds the queue.

        n_before  jobs that were ever submitted before these; so the same ones may be submitted again
        """
        with self._lock:
            before = len(self._queue)
            if self._n_begun + before != n_before:  # they were queued by a call that an interrupt ended
                self._work.notify_all()
                return
            self._queue.extend(jobs)
            after = len(self._queue)
            self.queue_peak = max(self.queue_peak, after + self._n_busy)
            # Whoever waits is woken by the first job, and then only when there are enough for one more thread.
            if (not before and after) or before // self._batch != after // self._batch:
                self._work.notify()

    def recount(self, n_in_blocks: int) -> None:
        """Count the memory anew: what an interrupted call had borrowed is in nobody's hands.

        n_in_blocks  buffers that blocks hold which were not submitted for the last time
        """
        with self._lock:
            jobs = [*self._queue, *chain.from_iterable(self._busy)]
            self._n_made = len(self._free) + n_in_blocks + sum(job.buffer is not None for job in jobs)
            self._n_lent = sum(job.is_lent for job in jobs)

    def drain(self) -> None:
        """Return when every job so far was stored, or failed."""
        with self._lock:
            self._in_a_hurry = True
            self._work.notify_all()
        self._wait(lambda: not self.queue_depth)

    def begin(self, task: Task) -> None:
        """Let a thread do it once everything is stored that was submitted. The same task may be begun again."""
        with self._lock:
            if not task.is_begun and task not in self._tasks:
                self._tasks.append(task)
            self._in_a_hurry = True
            self._work.notify_all()

    def run(self, task: Task) -> None:
        """Return when a thread has done it. The same task may be run again after an interrupt, and is done once."""
        self.begin(task)
        self.wait_for(task)

    def wait_for(self, task: Task, timeout_s: float | None = None) -> bool:
        """Return whether the task was done within that time."""
        return self._wait(lambda: task.is_done, timeout_s)

    def end(self, last: Task) -> None:
        """Let the threads end when everything is stored and `last` is done; does not wait. May be called again."""
        self.begin(last)
        with self._lock:
            self._ending = True
            self._work.notify_all()

    def join(self) -> None:
        """Return when the threads have ended, which they are about to do once their last task is done."""
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        """Store everything, then end the threads."""
        self.end(Task(lambda: None))
        self.join()

    # -- inside, on the caller's thread -----------------------------------------------------------------------------

    def _make_room(self, on_full: Patience) -> None:
        """Wait until it is worth while to look again whether one more block may be held.

        Who waits with small blocks is woken when several came back, not for each of them. Up to the cap more memory is
        used only when none came back within the time that storing takes on a fast disk: memory that is warm is worth
        that little patience, since fresh memory costs more than the copy into it, and a camera that is slower than the
        disk never needs more than the first few buffers.
        """
        if self._allowed == self._n_buffers:
            self._check_full(on_full)
            self._wait(lambda: self._has_room() or not self.queue_depth or self._failures.first is not None)
        elif not self.queue_depth or not self._wait(self._has_room, self._patience_s):
            self._allowed = min(self._n_buffers, self._allowed + self._batch)
        self._failures.check()

    def _has_room(self) -> bool:
        return self._n_held <= self._allowed - max(1, min(self._allowed // 4, self._batch))

    def _check_full(self, on_full: Patience) -> None:
        depth = self.queue_depth
        if not depth and self._n_held >= self._allowed:
            raise MemoryLimitError(
                f"All {self._n_buffers} blocks of {self._buffer_bytes} bytes that memory_limit allows are "
                f"open, and none of them is complete. This frame was not accepted. Write frames in "
                f"acquisition order, raise memory_limit, make shards smaller, or use a backend that "
                f"stores single frames."
            )
        if depth and on_full == "raise":
            raise StreamFullError(
                f"The disk is behind the camera: {depth} blocks of {self._buffer_bytes} bytes wait, "
                f"and memory_limit allows no more. This frame was not accepted; send it again later."
            )

    @property
    def _n_held(self) -> int:
        return self._n_made - len(self._free) + self._n_lent

    def _wait(self, until: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Return whether `until` became true within that time. No lock is held meanwhile."""
        bell = threading.Lock()
        bell.acquire()
        waiter = (until, bell)
        with self._lock:
            if until():
                return True
            self._waiting.append(waiter)
        if bell.acquire(timeout=-1 if timeout_s is None else min(float(timeout_s), threading.TIMEOUT_MAX)):
            return True
        with self._lock:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            return until()

    # -- the threads ------------------------------------------------------------------------------------------------

    def _warm_up(self, n_buffers: int) -> None:
        """Touch the memory of the first buffers before the camera starts; what it costs is the first touch."""
        for _ in range(n_buffers):
            buffer = self._new_buffer(self._buffer_bytes)
            buffer.fill(0)
            self._free.append(buffer)
            self._n_made += 1

    def _run(self, busy: list[Job]) -> None:
        """Whatever is raised, the thread lives on: nobody may wait for a thread that is dead."""
        goes_on = True
        while goes_on:
            try:
                goes_on = self._turn(busy)
            except BaseException as error:
                self._failures.add(error)
                with self._lock:
                    self._tell()
            if busy:
                self._done(busy)

    def _turn(self, busy: list[Job]) -> bool:
        """Do what comes next: some jobs, which are in `busy` then, a task, or publishing. False at the end."""
        task = None
        with self._lock:
            if not self._has_work:
                self._work.wait(None if self._published else _IDLE_S)
            if 0 < len(self._queue) < self._batch and not self._in_a_hurry:
                self._work.wait(_GATHER_S)
            if self._queue:
                self._take(busy)
            elif self._has_task:
                task = self._tasks.popleft()
            elif self._ending and not self._tasks:
                return False
            elif not self._published and not self._task_runs:
                task, self._published = Task(self._idle), True
            if task is not None:
                task.is_begun = self._task_runs = True
        if busy:
            self._store(busy)
        elif task is not None:
            self._do(task)
        return True

    def _take(self, busy: list[Job]) -> None:
        while self._queue and len(busy) < self._batch:
            self._n_busy += 1  # before it leaves the queue: who asks without the lock never finds too few jobs
            busy.append(self._queue.popleft())
            self._n_begun += 1

    def _done(self, busy: list[Job]) -> None:
        with self._lock:
            for job in busy:
                if job.buffer is not None:
                    self._free.append(job.buffer)
                self._n_lent -= job.is_lent
            self._n_busy -= len(busy)
            busy.clear()
            self._published = False
            self._tell()

    def _do(self, task: Task) -> None:
        try:
            task.run()
        except BaseException as error:
            self._failures.add(error)
        with self._lock:
            task.is_done, self._task_runs = True, False
            self._tell()

    def _tell(self) -> None:
        """Something was done: wake whom it concerns."""
        if not self.queue_depth:
            self._in_a_hurry = False
            if self._tasks or self._ending:
                self._work.notify_all()
        for waiter in list(self._waiting):
            until, bell = waiter
            if until():
                self._waiting.remove(waiter)
                bell.release()

    @property
    def _has_work(self) -> bool:
        return bool(self._queue) or self._has_task or (self._ending and not self._tasks)

    @property
    def _has_task(self) -> bool:
        return bool(self._tasks) and not self._n_busy and not self._task_runs
