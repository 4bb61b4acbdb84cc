"""Display windows from a cheap running sample of the frames, so that the first look in a viewer is not black."""

from __future__ import annotations

import numpy as np

_SAMPLE_SIDE = 64
_PERCENTILES = (1.0, 99.8)


class Contrast:
    """The window of every channel: the darkest 1st and the brightest 99.8th percentile of the sampled frames."""

    def __init__(self, n_channels: int, frame_shape: tuple[int, int]) -> None:
        self._steps = tuple(max(1, side // _SAMPLE_SIDE) for side in frame_shape)
        self._seen = [0] * n_channels
        self._windows: list[tuple[float, float] | None] = [None] * n_channels

    def sample(self, channel: int, frame: np.ndarray) -> None:
        """Look at one (Y, X) frame: at the first, second, fourth, ... of its channel, and at every 64th."""
        seen = self._seen[channel] = self._seen[channel] + 1
        if seen & (seen - 1) and seen % 64:
            return
        pixels = frame[:: self._steps[0], :: self._steps[1]].astype(np.float64)
        pixels = pixels[np.isfinite(pixels)]
        if pixels.size == 0:
            return
        low, high = (float(value) for value in np.percentile(pixels, _PERCENTILES))
        old = self._windows[channel]
        self._windows[channel] = (low, high) if old is None else (min(low, old[0]), max(high, old[1]))

    @property
    def windows(self) -> tuple[tuple[float, float] | None, ...]:
        """(start, end) for each channel, None where nothing was seen; end is above start."""
        return tuple(None if w is None else (w[0], w[1] if w[1] > w[0] else w[0] + 1.0) for w in self._windows)
