"""Threads that store blocks behind the camera's back, and the one place where memory is counted."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Literal

import numpy as np

from scopestream.assemble import Buffer, Job
from scopestream.errors import MemoryLimitError, StreamFullError

# A pause of the camera this long lets the backend publish what it has, so that live readers see the last frames.
_IDLE_S = 0.1


# Buffers that are made without waiting for one to come back: so many bytes, but some of the largest blocks too.
_FIRST_BYTES, _FIRST_BUFFERS = 2**25, 4
_FAST_BYTES_PER_S = 2e9


class Writer:
    """A pool of equal buffers and a queue of jobs, both bounded by the number of buffers.

    store      called with each job, from a writer thread
    idle       called from a writer thread when nothing came for a while after a job
    n_threads  1 keeps jobs in order
    n_buffers  of `buffer_bytes` each; that product is the cap on memory
    """

    def __init__(
        self,
        store: Callable[[Job], None],
        idle: Callable[[], None],
        *,
        n_threads: int,
        n_buffers: int,
        buffer_bytes: int,
    ) -> None:
        self._store = store
        self._idle = idle
        self._n_buffers = n_buffers
        self._buffer_bytes = buffer_bytes
        self._changed = threading.Condition()
        self._queue: deque[Job] = deque()
        self._free: list[Buffer] = []  # last in, first out: memory that is warm, and no more of it than is needed
        self._n_made = 0
        self._n_busy = 0  # jobs being stored
        self._published = True
        self._closing = False
        self.queue_peak = 0
        self.error: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._run, name=f"scopestream-writer-{number}", daemon=True)
            for number in range(n_threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def queue_depth(self) -> int:
        """Jobs that wait or are being stored."""
        return len(self._queue) + self._n_busy

    def borrow(self, on_full: Literal["block", "raise"]) -> Buffer:
        """Memory for one block; it comes back when its job is stored.

        Raises StreamFullError when all is in use and `on_full` is "raise", and MemoryLimitError when none can come
        back because no job is under way.
        """
        with self._changed:
            while True:
                if self._free:
                    return self._free.pop()
                if self._n_made < self._n_buffers and not self._wait_for_one():
                    buffer = np.zeros(self._buffer_bytes, np.uint8)  # tiles leave out what lies past the edges
                    self._n_made += 1
                    return buffer
                if self._free:
                    continue
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
                self._changed.wait()

    def _wait_for_one(self) -> bool:
        """Whether a buffer came back within the time that storing one takes on a fast disk.

        Memory that is warm is worth that little patience: fresh memory costs more than the copy into it, and a camera
        that is slower than the disk never needs more than the first few buffers.
        """
        if self._n_made < max(_FIRST_BUFFERS, _FIRST_BYTES // self._buffer_bytes) or not self.queue_depth:
            return False
        return self._changed.wait_for(lambda: bool(self._free), self._buffer_bytes / _FAST_BYTES_PER_S)

    def submit(self, job: Job) -> None:
        """Queue a job; never waits, since the number of buffers bounds the queue."""
        with self._changed:
            self._queue.append(job)
            self.queue_peak = max(self.queue_peak, self.queue_depth)
            self._changed.notify()

    def drain(self) -> None:
        """Return when every job so far was stored, or failed."""
        with self._changed:
            self._changed.wait_for(lambda: not self.queue_depth)

    def close(self) -> None:
        """Drain, then end the threads."""
        self.drain()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def fail(self, error: BaseException) -> None:
        """Keep the first error; the stream raises it at its next call."""
        with self._changed:
            self.error = self.error or error

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._store(job)
            except BaseException as error:
                self.fail(error)
            with self._changed:
                self._n_busy -= 1
                self._published = False
                if job.buffer is not None:
                    self._free.append(job.buffer)
                del job
                self._changed.notify_all()

    def _next(self) -> Job | None:
        """The next job, None when the writer closes; publishes when it had to wait long for one."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing, None if self._published else _IDLE_S)
                if self._queue:
                    self._n_busy += 1
                    return self._queue.popleft()
                if self._closing:
                    return None
                publish, self._published = not self._published, True
            if publish:
                try:
                    self._idle()
                except BaseException as error:
                    self.fail(error)
