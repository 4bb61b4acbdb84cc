"""Threads that store blocks behind the camera's back, and how the camera waits for them.

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
from itertools import chain
from typing import Literal

from scopestream.assemble import Buffer, Job
from scopestream.failures import Failures
from scopestream.pool import Pool

# A pause of the camera this long lets the backend publish what it has, so that live readers see the last frames.
_IDLE_S = 0.1
# How long a thread that finds few small blocks waits for more of them: handing over each by itself would cost more
# than the work.
_GATHER_S = 0.0005
Patience = Literal["block", "raise"]


@dataclass(slots=True, eq=False)
class Task:
    """What one thread does when nothing waits to be stored and nothing is being stored."""

    run: Callable[[], None]
    is_begun: bool = False
    is_done: bool = False


class Writer:
    """A queue of jobs, and the threads that store them.

    Its methods are for one thread at a time, which the lock of the stream sees to; properties are for any.

    store     called from a writer thread with jobs in the order in which they came
    idle      called from a writer thread when nothing came for a while after a job
    failures  gets what they raise
    n_threads 1 keeps jobs in order
    pool      of the buffers, which bounds the queue
    """

    def __init__(
        self,
        store: Callable[[Sequence[Job]], None],
        idle: Callable[[], None],
        failures: Failures,
        pool: Pool,
        *,
        n_threads: int,
    ) -> None:
        self._store = store
        self._idle = idle
        self._failures = failures
        self._batch = pool.batch
        self._lock = threading.Lock()  # for what follows
        self._work = threading.Condition(self._lock)  # where the threads wait for work
        self._waiting: list[tuple[Callable[[], bool], threading.Lock]] = []  # who waits for the threads: until when
        self._queue: deque[Job] = deque()
        self._n_begun = 0  # jobs that left the queue
        self._busy: list[list[Job]] = [[] for _ in range(n_threads)]  # what each thread stores
        self._n_busy = 0
        self._tasks: deque[Task] = deque()
        self._soon: Task | None = None  # what is done before the next job
        self._task_runs = False
        self._pool = pool
        self._in_a_hurry = False
        self._published = True
        self._ending = False
        self.queue_peak = 0
        self._threads = [
            threading.Thread(target=self._run, args=(busy,), name=f"scopestream-writer-{number}", daemon=True)
            for number, busy in enumerate(self._busy)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def n_together(self) -> int:
        """Jobs that may wait outside the queue, to be submitted at once."""
        return max(1, min(self._batch, self._pool.n_buffers // 4))

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
                buffer = self._pool.take()
            if buffer is not None:
                return buffer
            self._make_room(on_full)

    def lend(self, on_full: Patience) -> None:
        """Count a frame that stays in the caller's memory until its job is stored. Raises as `borrow` does."""
        while True:
            with self._lock:
                if self._pool.lend():
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
            self._pool.recount(chain(self._queue, *self._busy), n_in_blocks)

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

    def publish_soon(self) -> Task:
        """Let a thread publish before it stores anything more. From any thread; does not wait."""
        with self._lock:
            if self._soon is None:
                self._soon = Task(self._idle)
                self._work.notify()
            return self._soon

    def keep(self) -> None:
        """As `Pool.keep`. From any thread."""
        with self._lock:
            self._pool.keep()

    def kept(self, number: int) -> Job | None:
        """The job that has stored that frame, while nobody else uses its memory. From any thread; takes no lock."""
        return self._pool.kept.get(number)

    def run(self, task: Task) -> None:
        """Return when a thread has done it. The same task may be run again after an interrupt, and is done once."""
        self.begin(task)
        self.wait_for(task)

    def wait_for(self, task: Task, timeout_s: float | None = None) -> bool:
        """Return whether the task was done within that time. From any thread."""
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
        pool = self._pool
        if pool.is_at_the_cap:
            pool.check(self.queue_depth, may_wait=on_full == "block")
            self._wait(lambda: pool.has_room() or not self.queue_depth or self._failures.first is not None)
        elif not self.queue_depth or not self._wait(pool.has_room, pool.patience_s):
            pool.grow()
        self._failures.check()

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
            if self._has_soon:
                task, self._soon, self._published = self._soon, None, True
            elif self._queue:
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
            self._pool.give_back(busy)
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
        return bool(self._queue) or self._has_soon or self._has_task or (self._ending and not self._tasks)

    @property
    def _has_soon(self) -> bool:
        return self._soon is not None and not self._task_runs

    @property
    def _has_task(self) -> bool:
        return bool(self._tasks) and not self._n_busy and not self._task_runs
