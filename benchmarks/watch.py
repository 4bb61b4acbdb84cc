"""What a process uses while a block runs: bytes of system calls, and resident memory over time."""

from __future__ import annotations

import threading
from array import array
from time import perf_counter
from typing import Self

import psutil

_INTERVAL_S = 0.002
_N_POINTS = 200


class Watch:
    """A context manager; its results are there when the block is over.

    written, read  bytes of system calls, None where the system does not count them
    peak_mib       of resident memory, above what it was at the start
    """

    written: int | None = None
    read: int | None = None

    def __enter__(self) -> Self:
        self._process = psutil.Process()
        self._before = self._counters()
        self._base = self._process.memory_info().rss
        self._times, self._bytes = array("d"), array("q")
        self._start, self._over = perf_counter(), threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        after = self._counters()
        if self._before is not None and after is not None:
            self.read, self.written = (end - start for start, end in zip(self._before, after, strict=True))

    @property
    def peak_mib(self) -> float:
        return max(self._bytes) / 2**20

    def timeline(self) -> list[tuple[float, float]]:
        """At most 200 points of (seconds, MiB above the start), each the most of its share of the time."""
        n, step = len(self._times), max(1, -(-len(self._times) // _N_POINTS))
        return [(round(self._times[i], 4), round(max(self._bytes[i : i + step]) / 2**20, 2)) for i in range(0, n, step)]

    def _sample(self) -> None:
        while True:
            self._bytes.append(self._process.memory_info().rss - self._base)
            self._times.append(perf_counter() - self._start)
            if self._over.wait(_INTERVAL_S):
                return

    def _counters(self) -> tuple[int, int] | None:
        if not hasattr(self._process, "io_counters"):  # macOS
            return None
        counters = self._process.io_counters()
        if hasattr(counters, "read_chars"):  # Linux, where the others leave out what the page cache answers
            return counters.read_chars, counters.write_chars
        return counters.read_bytes, counters.write_bytes
