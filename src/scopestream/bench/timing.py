"""Frames sent as fast as they are taken, or at the pace of a camera, with the time of every call."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from time import perf_counter, sleep
from typing import Protocol

import numpy as np

from scopestream.bench.camera import Frames


class Recording(Protocol):
    """Anything that takes frames and is closed in the end."""

    def append(self, frame: np.ndarray, /) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long it took.

    append_s  of each frame that was sent, in order
    close_s   of `close`
    total_s   from the first `append` to the end of `close`
    late_s    how long after the time of each frame the one before it was taken; empty when there was no pace
    """

    append_s: np.ndarray
    close_s: float
    total_s: float
    late_s: np.ndarray

    @property
    def n_frames(self) -> int:
        return len(self.append_s)

    def append_ms(self, quantile: float) -> float:
        """A quantile, 0 to 1, of the milliseconds that `append` took."""
        return float(np.quantile(self.append_s, quantile)) * 1e3 if self.n_frames else 0.0


def flat_out(recording: Recording, frames: Frames, n_frames: int, max_s: float) -> Timing:
    """Send `n_frames`, or fewer when `max_s` seconds of sending are over, and close."""
    append, n_different = recording.append, len(frames)
    append_s = np.full(n_frames, np.nan)  # touched now, so that its memory does not count as the writer's
    sent = 0
    start = before = perf_counter()
    try:
        while sent < n_frames:
            append(frames[sent % n_different])
            now = perf_counter()
            append_s[sent] = now - before
            sent += 1
            before = now
            if now - start > max_s:
                break
    finally:
        closing = perf_counter()
        recording.close()
        end = perf_counter()
    return Timing(append_s=append_s[:sent], close_s=end - closing, total_s=end - start, late_s=np.empty(0))


def paced(recording: Recording, frames: Frames, frames_per_s: float, max_s: float) -> Timing:
    """Send frames at the pace of a camera for `max_s` seconds, and close.

    A frame that cannot be sent in time is sent as soon as possible, as from the buffer of a camera.
    """
    append, n_different = recording.append, len(frames)
    n_frames = max(1, ceil(frames_per_s * max_s))
    append_s, late_s = np.full(n_frames, np.nan), np.full(n_frames, np.nan)
    sent = 0
    start = now = perf_counter()
    try:
        while sent < n_frames:
            due = start + sent / frames_per_s
            if (early := due - perf_counter()) > 0:
                sleep(early)
            late_s[sent] = max(now - due, 0)  # a timer that sleeps too long is no fault of who records
            before = perf_counter()
            append(frames[sent % n_different])
            now = perf_counter()
            append_s[sent] = now - before
            sent += 1
            if now - start > 2 * max_s:  # hopelessly behind
                break
    finally:
        closing = perf_counter()
        recording.close()
        end = perf_counter()
    return Timing(append_s=append_s[:sent], close_s=end - closing, total_s=end - start, late_s=late_s[:sent])
