"""What people at a microscope want to know while it runs."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns

from scopestream.framelog import Record

# The last second is looked at in tenths. A window is made of the whole tenths and of the one that has begun.
_TICK_NS = 100_000_000
_TICKS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """A snapshot. Bytes are uncompressed bytes of pixels, megabytes are 10^6 of them.

    frames_in       accepted, and `bytes_in`
    frames_written  handed to the backend and logged, and `bytes_written` (all levels)
    frames_skipped  by `skip`, and `frames_dropped` by `on_full="drop"`
    frames_failed   accepted, but the backend could not store them
    queue_depth     blocks that wait for the backend now, and `queue_peak` the most there were
    behind_s        seconds since the oldest frame that still waits was handed to `append`; 0 when none waits
    append_p50_ms   milliseconds that half of the calls of `append` and `write` stayed below, at most an eighth too
                    large; `append_p99_ms` the same of 99 in 100 calls, `append_max_ms` the longest of all. Of `extend`
                    each frame counts with its share of the time
    append_histogram  (milliseconds, calls that took less than that but not less than those of the entry before), in
                    ascending order; only buckets with calls in them, whose edges are the same in every acquisition
    seconds         since the stream was opened, until it was closed

    Over the last second (1.0 to 1.1 s; less when the stream is younger), and 0 after `close`:

    recent_frames_per_s      frames accepted
    recent_mb_per_s          megabytes accepted
    recent_written_mb_per_s  megabytes written, of all levels

    All counts of frames and bytes and `behind_s` are of one instant. The times of `append` may lack the calls that
    are under way, and those that an interrupt ended.
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
    behind_s: float
    append_p50_ms: float
    append_p99_ms: float
    append_max_ms: float
    append_histogram: tuple[tuple[float, int], ...]
    recent_frames_per_s: float
    recent_mb_per_s: float
    recent_written_mb_per_s: float
    seconds: float

    @property
    def frames_waiting(self) -> int:
        """Frames accepted, but neither written nor failed yet: in the queue, or in a block that still fills."""
        return self.frames_in - self.frames_written - self.frames_failed

    @property
    def frames_per_s(self) -> float:
        """Accepted frames a second, since the stream was opened."""
        return self._per_s(self.frames_in)

    @property
    def mb_per_s(self) -> float:
        """Accepted megabytes a second, since the stream was opened."""
        return self._per_s(self.bytes_in) / 1e6

    @property
    def written_mb_per_s(self) -> float:
        """Written megabytes (all levels) a second, since the stream was opened."""
        return self._per_s(self.bytes_written) / 1e6

    def summary(self) -> dict[str, float]:
        """What a dataset keeps of its acquisition: a few figures, in the units of the fields."""
        return {
            "seconds": round(self.seconds, 3),
            "mb_per_s": round(self.mb_per_s, 3),
            "append_p99_ms": round(self.append_p99_ms, 3),
            "append_max_ms": round(self.append_max_ms, 3),
            "queue_peak": self.queue_peak,
        }

    def _per_s(self, count: int) -> float:
        return count / self.seconds if self.seconds > 0 else 0.0


class Latencies:
    """A histogram with eight buckets to every doubling, so that a percentile is off by at most an eighth.

    One thread adds at a time; any thread reads, and never sees a call that is longer than the longest.
    """

    def __init__(self) -> None:
        self._counts = [0] * 512
        self._max_ns = 0

    def add(self, ns: int, n_frames: int = 1) -> None:
        """Count a call that took so long; one with a stack as that many calls of its share, but for the longest."""
        if ns > self._max_ns:
            self._max_ns = ns  # before it is counted, so that nobody sees it the other way round
        share = ns // n_frames
        doubling = max(share.bit_length() - 4, 0)
        self._counts[8 * doubling + (share >> doubling)] += n_frames

    def read(self) -> tuple[list[tuple[int, int]], int]:
        """Upper edge in ns and count of every bucket that is not empty, and the longest time in ns."""
        counts = self._counts[:]
        buckets = []
        for number, count in enumerate(counts):
            if count:
                doubling = max(number // 8 - 1, 0)
                buckets.append(((number - 8 * doubling + 1) << doubling, count))
        return buckets, self._max_ns


def quantile_ns(buckets: list[tuple[int, int]], q: float) -> int:
    """The upper edge of the bucket in which that quantile lies, 0 without any."""
    wanted, seen = q * sum(count for _, count in buckets), 0
    for edge_ns, count in buckets:
        seen += count
        if seen >= wanted:
            return edge_ns
    return 0


class RecentTotal:
    """What a growing total was in the last second: an entry for each tenth of a second in which it grew."""

    def __init__(self) -> None:
        self._entries = [(-1, 0)] * (_TICKS + 1)  # (tick, total before it first grew in that tick), by tick
        self._tick_end_ns = 0

    def grows(self, now_ns: int, total: int) -> None:
        """Called before the total grows; cheap but for the first time in a tick."""
        if now_ns >= self._tick_end_ns:
            tick = now_ns // _TICK_NS
            self._entries[tick % len(self._entries)] = (tick, total)
            self._tick_end_ns = (tick + 1) * _TICK_NS

    def before(self, tick: int, total: int) -> int:
        """The total at the start of a tick; `total` is what it is now."""
        return min((then for at, then in self._entries if at >= tick), default=total)


class Counters:
    """Counts what happens; cheap, and safe from any thread.

    One lock makes a snapshot one of an instant. It is held for some additions at a time, never while anything waits.

    frame_bytes  of the frames of each camera, whose numbers take turns; of all frames where there is but one
    """

    def __init__(self, frame_bytes: Sequence[int]) -> None:
        self._lock = threading.Lock()
        self._frame_bytes = frame_bytes
        self._first_bytes = frame_bytes[0]
        self._is_mixed = len(set(frame_bytes)) > 1
        self._mixed_in = (0, 0)  # frames and bytes, where cameras differ in them
        self._recent_mixed = RecentTotal()
        self._opened_ns = perf_counter_ns()
        self._closed_ns: int | None = None
        self.latencies = Latencies()
        self.frames_in = self.frames_skipped = self.frames_dropped = 0
        self._frames_written = self._frames_failed = self._bytes_written = 0
        self._recent_in, self._recent_written = RecentTotal(), RecentTotal()
        self._handed_ns: dict[int, int] = {}  # frames that wait, oldest first: by number, when they were handed over

    def accepted(self, number: int, handed_ns: int, frames_in: int) -> None:
        """A frame came in, by a call that began at `handed_ns`. To be said before any thread can store it.

        frames_in  how many there are with it; the same frame may be said again, and counts once
        """
        with self._lock:
            if self.frames_in < frames_in:
                self._recent_in.grows(perf_counter_ns(), self.frames_in)
                if self._is_mixed and self._mixed_in[0] < frames_in:
                    n_bytes = self._mixed_in[1]
                    self._recent_mixed.grows(perf_counter_ns(), n_bytes)
                    self._mixed_in = (frames_in, n_bytes + self._frame_bytes[number % len(self._frame_bytes)])
                self._handed_ns[number] = handed_ns
                self.frames_in = frames_in

    def written(self, records: Iterable[Record], n_bytes: int) -> None:
        """These frames were stored and logged, `n_bytes` in all levels together."""
        with self._lock:
            self._recent_written.grows(perf_counter_ns(), self._bytes_written)
            self._frames_written += self._settle(records)
            self._bytes_written += n_bytes

    def failed(self, records: Iterable[Record]) -> None:
        """These frames could not be stored."""
        with self._lock:
            self._frames_failed += self._settle(records)

    def frames(self) -> tuple[int, int, int]:
        """How many came in, are written, and are neither written nor failed yet."""
        with self._lock:
            n_waiting = self.frames_in - self._frames_written - self._frames_failed
            return self.frames_in, self._frames_written, n_waiting

    def waiting(self) -> tuple[list[int], float]:
        """Numbers of the frames that wait, ascending, and seconds since the oldest of them was handed over."""
        with self._lock:
            handed_ns = list(self._handed_ns.items())
        if not handed_ns:
            return [], 0.0
        return sorted([number for number, _ in handed_ns]), (perf_counter_ns() - handed_ns[0][1]) / 1e9

    def stop(self) -> None:
        """The clock stands still from now on."""
        self._closed_ns = perf_counter_ns()

    def snapshot(self, queue_depth: int, queue_peak: int) -> Stats:
        """Everything as it is now. `queue_peak` was read after `queue_depth`."""
        with self._lock:
            closed = self._closed_ns is not None
            now_ns = self._closed_ns or perf_counter_ns()
            tick = now_ns // _TICK_NS - _TICKS
            frames_in, frames_before = self.frames_in, self._recent_in.before(tick, self.frames_in)
            bytes_in, bytes_before = frames_in * self._first_bytes, frames_before * self._first_bytes
            if self._is_mixed:
                bytes_in = self._mixed_in[1]
                bytes_before = self._recent_mixed.before(tick, bytes_in)
            bytes_written = self._bytes_written
            recent_written = self._recent_written.before(tick, bytes_written)
            frames_written, frames_failed = self._frames_written, self._frames_failed
            oldest_ns = next(iter(self._handed_ns.values()), now_ns)
        # A stream that was opened just now has no rate yet that means anything: a tenth of a second is the least.
        window_s = max(now_ns - max(tick * _TICK_NS, self._opened_ns), _TICK_NS) / 1e9
        per_s = 0.0 if closed else 1 / window_s
        buckets, max_ns = self.latencies.read()
        return Stats(
            frames_in=frames_in,
            frames_written=frames_written,
            frames_skipped=self.frames_skipped,
            frames_dropped=self.frames_dropped,
            frames_failed=frames_failed,
            bytes_in=bytes_in,
            bytes_written=bytes_written,
            queue_depth=min(queue_depth, queue_peak),
            queue_peak=queue_peak,
            behind_s=(now_ns - oldest_ns) / 1e9,
            append_p50_ms=min(quantile_ns(buckets, 0.5), max_ns) / 1e6,
            append_p99_ms=min(quantile_ns(buckets, 0.99), max_ns) / 1e6,
            append_max_ms=max_ns / 1e6,
            append_histogram=tuple([(edge_ns / 1e6, count) for edge_ns, count in buckets]),
            recent_frames_per_s=(frames_in - frames_before) * per_s,
            recent_mb_per_s=(bytes_in - bytes_before) * per_s / 1e6,
            recent_written_mb_per_s=(bytes_written - recent_written) * per_s / 1e6,
            seconds=(now_ns - self._opened_ns) / 1e9,
        )

    def _settle(self, records: Iterable[Record]) -> int:
        """How many of these frames waited until now; a frame counts once, however often its block comes."""
        n_before = len(self._handed_ns)
        for record in records:
            self._handed_ns.pop(record.number, None)
        return n_before - len(self._handed_ns)
