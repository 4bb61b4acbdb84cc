"""The memory for blocks that wait: how much of it may be used, and what is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import partial

import numpy as np

from scopestream.assemble import Buffer, Job
from scopestream.errors import MemoryLimitError, StreamFullError
from scopestream.memory import page_aligned
from scopestream.plan import BATCH_BYTES

# Memory that is used without waiting for a block to come back: no more than keeps all threads busy, so small frames
# stay in the caches of the processor; of large blocks two, one that fills and one that is stored. And how fast blocks
# come back where all is well. More work than writing takes longer, and threads end at less even times.
_FIRST_BYTES, _FIRST_BYTES_SLOW = 2**25, 2**26
_FAST_BYTES_PER_S, _SLOW_BYTES_PER_S = 2e9, 1e9
_KEPT_JOBS, _KEPT_BYTES = 16, 2**26  # the last frame of each channel, in memory that is still warm


class Pool:
    """Equal buffers, and frames of the caller that count as much. Not safe from several threads: `Writer` has the lock.

    n_buffers   of `buffer_bytes` each; that product is the cap on memory
    batch       jobs that one thread stores at once
    kept        jobs that are stored and whose memory nobody uses yet, by the numbers of their frames; see `keep`
    patience_s  how long it is worth while to wait for a block to come back before more memory is used
    """

    def __init__(
        self, *, n_threads: int, n_buffers: int, buffer_bytes: int, n_expected: int | None, aligned: bool, slow: bool
    ) -> None:
        self.n_buffers = n_buffers
        self._buffer_bytes = buffer_bytes
        # Zeros, since tiles leave out what lies past the edges.
        self._new_buffer = page_aligned if aligned else partial(np.zeros, dtype=np.uint8)
        self.batch = max(1, BATCH_BYTES // buffer_bytes)
        self.patience_s = self.batch * buffer_bytes / (_SLOW_BYTES_PER_S if slow else _FAST_BYTES_PER_S)
        first_bytes = _FIRST_BYTES_SLOW if slow else _FIRST_BYTES
        n_first = min((2 * n_threads + 1) * self.batch, first_bytes // buffer_bytes)
        self._allowed = min(n_buffers, max(2, n_first))
        self._free: list[Buffer] = []  # last in, first out: memory that is warm, and no more of it than is needed
        self._n_made = 0  # buffers, free ones included
        self._n_lent = 0  # frames of the caller that are not stored yet
        self._n_keep = 0
        self.kept: dict[int, Job] = {}
        self._kept_jobs: deque[Job] = deque()  # the oldest first
        n_warm = min(self._allowed, first_bytes // buffer_bytes)
        self._warm_up(n_warm if n_expected is None else min(n_warm, n_expected))

    def take(self) -> Buffer | None:
        """Memory for one block, None when no more may be used now."""
        free = self._free
        if self._n_made - len(free) + self._n_lent >= self._allowed and not self._give_up_kept():
            return None
        if free:
            return free.pop()
        buffer: Buffer = self._new_buffer(self._buffer_bytes)
        self._n_made += 1
        return buffer

    def lend(self) -> bool:
        """Count a frame of the caller, unless no more may be used now."""
        free = self._free
        if self._n_made - len(free) + self._n_lent >= self._allowed and not self._give_up_kept():
            return False
        if free and self._n_made + self._n_lent >= self._allowed:
            free.pop()
            self._n_made -= 1
        self._n_lent += 1
        return True

    def give_back(self, jobs: Iterable[Job]) -> None:
        """What these jobs hold is free again."""
        for job in jobs:
            if job.buffer is not None:
                if self._n_keep:
                    self._keep(job)
                else:
                    self._free.append(job.buffer)
            self._n_lent -= job.is_lent

    def keep(self) -> None:
        """From now on the last few jobs keep their memory as long as there is other memory for new ones.

        Live views find the last frames there, which other programs may not see yet.
        """
        self._n_keep = min(_KEPT_JOBS, _KEPT_BYTES // self._buffer_bytes, self.n_buffers // 2)

    def recount(self, jobs: Iterable[Job], n_in_blocks: int) -> None:
        """Only what these jobs and so many blocks hold is in use, whatever was taken."""
        jobs = list(jobs)
        in_jobs = sum(job.buffer is not None for job in jobs)
        self._n_made = len(self._free) + len(self._kept_jobs) + n_in_blocks + in_jobs
        self._n_lent = sum(job.is_lent for job in jobs)

    def has_room(self) -> bool:
        """Whether so much is free that it is worth while to wake who waits for it."""
        return self._n_held <= self._allowed - max(1, min(self._allowed // 4, self.batch))

    @property
    def is_at_the_cap(self) -> bool:
        """Whether no more memory than now may ever be used."""
        return self._allowed == self.n_buffers

    def grow(self) -> None:
        """Use more memory, up to the cap."""
        self._allowed = min(self.n_buffers, self._allowed + self.batch)

    def check(self, n_under_way: int, *, may_wait: bool) -> None:
        """At the cap, with so many jobs under way: raise when none can come back, or when nobody wants to wait."""
        if not n_under_way and self._n_held >= self._allowed:
            raise MemoryLimitError(
                f"All {self.n_buffers} blocks of {self._buffer_bytes} bytes that memory_limit allows are "
                f"open, and none of them is complete. This frame was not accepted. Write frames in "
                f"acquisition order, raise memory_limit, make shards smaller, or use a backend that "
                f"stores single frames."
            )
        if n_under_way and not may_wait:
            raise StreamFullError(
                f"The disk is behind the camera: {n_under_way} blocks of {self._buffer_bytes} bytes wait, "
                f"and memory_limit allows no more. This frame was not accepted; send it again later."
            )

    @property
    def _n_held(self) -> int:
        return self._n_made - len(self._free) - len(self._kept_jobs) + self._n_lent

    def _keep(self, job: Job) -> None:
        self._kept_jobs.append(job)
        for record in job.records:
            self.kept[record.number] = job
        if len(self._kept_jobs) > self._n_keep:
            self._give_up_oldest()

    def _give_up_kept(self) -> bool:
        """Let all memory that is kept be free; whether there was any."""
        had_any = bool(self._kept_jobs)
        while self._kept_jobs:
            self._give_up_oldest()
        return had_any

    def _give_up_oldest(self) -> None:
        job = self._kept_jobs.popleft()
        for record in job.records:  # first, so that whoever still finds a frame here can be sure of its memory
            self.kept.pop(record.number, None)
        if job.buffer is not None:
            self._free.append(job.buffer)

    def _warm_up(self, n_buffers: int) -> None:
        """Touch the memory of the first buffers before the camera starts; what it costs is the first touch."""
        for _ in range(n_buffers):
            buffer = self._new_buffer(self._buffer_bytes)
            buffer.fill(0)
            self._free.append(buffer)
            self._n_made += 1
