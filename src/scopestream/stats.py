"""What people at a microscope want to know while it runs."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from time import perf_counter


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """A snapshot. Bytes are uncompressed bytes of frames; times of `append` are in milliseconds.

    frames_in       accepted, and `bytes_in`
    frames_written  handed to the backend and logged, and `bytes_written` (all levels)
    frames_skipped  by `skip`, and `frames_dropped` by `on_full="drop"`
    frames_failed   accepted, but the backend could not store them
    queue_depth     blocks that wait for the backend now, and `queue_peak` the most there were
    """

    frames_in: int
    frames_written: int
    frames_skipped: int
    frames_dropped: int
    frames_failed: int
    bytes_in: int
    bytes_written: int
    queue_depth: int
    queue_peak: int
    append_p50_ms: float
    append_p99_ms: float
    append_max_ms: float
    seconds: float

    @property
    def mb_per_s(self) -> float:
        """Accepted megabytes (10^6 bytes) a second, since the stream was opened."""
        return self.bytes_in / self.seconds / 1e6 if self.seconds > 0 else 0.0


class Latencies:
    """A histogram with eight buckets to every doubling, so that a percentile is off by at most an eighth."""

    def __init__(self) -> None:
        self._counts = [0] * 512
        self._n = 0
        self.max_ns = 0

    def add(self, ns: int) -> None:
        doubling = max(ns.bit_length() - 4, 0)
        self._counts[8 * doubling + (ns >> doubling)] += 1
        self._n += 1
        if ns > self.max_ns:
            self.max_ns = ns

    def quantile_ms(self, q: float) -> float:
        """The upper edge of the bucket in which that quantile lies, 0 when nothing was added."""
        wanted, seen = q * self._n, 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                doubling = max(bucket // 8 - 1, 0)
                return min((bucket - 8 * doubling + 1) << doubling, self.max_ns) / 1e6
        return 0.0


class Counters:
    """Counts what happens; cheap, and safe to read from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started = perf_counter()
        self._stopped: float | None = None
        self.latencies = Latencies()
        self.frames_in = self.frames_skipped = self.frames_dropped = self.bytes_in = 0
        self._frames_written = self._frames_failed = self._bytes_written = 0

    def written(self, frames: int, n_bytes: int) -> None:
        with self._lock:  # writer threads, of which there may be several
            self._frames_written += frames
            self._bytes_written += n_bytes

    def failed(self, frames: int) -> None:
        with self._lock:
            self._frames_failed += frames

    def stop(self) -> None:
        """The clock stands still from now on."""
        self._stopped = perf_counter()

    def snapshot(self, queue_depth: int, queue_peak: int) -> Stats:
        latencies = self.latencies
        return Stats(
            frames_in=self.frames_in,
            frames_written=self._frames_written,
            frames_skipped=self.frames_skipped,
            frames_dropped=self.frames_dropped,
            frames_failed=self._frames_failed,
            bytes_in=self.bytes_in,
            bytes_written=self._bytes_written,
            queue_depth=queue_depth,
            queue_peak=queue_peak,
            append_p50_ms=latencies.quantile_ms(0.5),
            append_p99_ms=latencies.quantile_ms(0.99),
            append_max_ms=latencies.max_ns / 1e6,
            seconds=(self._stopped or perf_counter()) - self._started,
        )
