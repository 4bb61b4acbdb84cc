"""Display windows from a cheap running sample of the frames, so that the first look in a viewer is not black."""

from __future__ import annotations

import numpy as np

_SAMPLE_SIDE = 64
_PERCENTILES = (1.0, 99.8)


class Contrast:
    """The window of every channel: the darkest 1st and the brightest 99.8th percentile of the sampled frames."""

    def __init__(self, n_channels: int) -> None:
        self._seen = [0] * n_channels
        self._windows: list[tuple[float, float] | None] = [None] * n_channels

    def wants(self, channel: int) -> bool:
        """Count a frame; whether to look at it: at the first, second, fourth, ... of a channel, and every 64th."""
        seen = self._seen[channel] = self._seen[channel] + 1
        return not seen & (seen - 1) or not seen % 64

    def add(self, channel: int, pixels: np.ndarray) -> None:
        """Take some pixels of a frame into account, those at every `sample_steps`."""
        values = pixels.astype(np.float64)
        values = values[np.isfinite(values)]
        if values.size == 0:
            return
        low, high = (float(value) for value in np.percentile(values, _PERCENTILES))
        if not np.isfinite(_above(high)):
            return  # no window that JSON can say
        old = self._windows[channel]
        self._windows[channel] = (low, high) if old is None else (min(low, old[0]), max(high, old[1]))

    @property
    def windows(self) -> tuple[tuple[float, float] | None, ...]:
        """(start, end) for each channel, None where nothing was seen; end is above start."""
        return tuple(None if w is None else (w[0], w[1] if w[1] > w[0] else _above(w[0])) for w in self._windows)


def sample_steps(frame_shape: tuple[int, int]) -> tuple[int, int]:
    """Along y and x, from one pixel of a frame that is looked at to the next."""
    return max(1, frame_shape[0] // _SAMPLE_SIDE), max(1, frame_shape[1] // _SAMPLE_SIDE)


def _above(low: float) -> float:
    """The least end of a window that starts there: one more, or the next number where that is no more."""
    return max(low + 1.0, float(np.nextafter(low, np.inf)))
