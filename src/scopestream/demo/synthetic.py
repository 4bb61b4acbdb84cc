"""A camera that needs no hardware: blobs that drift, blur out of focus and differ by channel, with photon noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from scopestream.settings import AcquisitionSettings

BACKGROUND = 120.0  # counts: offset and stray light
_N_BLOBS = 36
_DEPTH_OF_FOCUS = 1.4  # planes until a blob is half as bright


@dataclass(frozen=True, slots=True)
class SyntheticFrame:
    """One (Y, X) image, and its place: item numbers by dimension name."""

    pixels: np.ndarray
    index: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Blobs:
    """The sample at one position; one row for each blob. Lengths in pixels, depths in planes, brightness in counts."""

    center: np.ndarray  # (n, 2), Y and X
    velocity: np.ndarray  # (n, 2), pixels for each time point
    depth: np.ndarray  # (n,)
    radius: np.ndarray  # (n,)
    brightness: np.ndarray  # (n, channels)


class SyntheticCamera:
    """Makes frames of uint16 counts; the same seed and place always give the same frame.

    frame_shape  (Y, X) in pixels
    counts       of the dimensions "t", "p", "c" and "z"; one that is missing has one item
    """

    def __init__(self, frame_shape: tuple[int, int], counts: dict[str, int], seed: int = 0) -> None:
        self._shape = frame_shape
        self._seed = seed
        n_channels, n_planes = counts.get("c", 1), counts.get("z", 1)
        self._samples = [self._sample(p, n_channels, n_planes) for p in range(counts.get("p", 1))]

    def frame(self, *, t: int = 0, p: int = 0, c: int = 0, z: int = 0) -> np.ndarray:
        """The (Y, X) frame at that place."""
        mean = self._mean(self._samples[p], t, c, z)
        noise = np.random.default_rng((self._seed, t, p, c, z)).standard_normal(self._shape, dtype=np.float32)
        # Photons are Poisson; above a hundred that is a normal distribution of the same variance, and much faster.
        noise *= np.sqrt(mean)
        noise += mean
        np.rint(noise, out=noise)
        return np.clip(noise, 0, 65535, out=noise).astype(np.uint16)

    def frames(self, settings: AcquisitionSettings) -> Iterator[SyntheticFrame]:
        """Every frame of `settings`, in acquisition order."""
        loop = settings.dimensions[:-2]
        for place in product(*(range(dimension.count or 0) for dimension in loop)):
            index = {dimension.name: i for dimension, i in zip(loop, place, strict=True)}
            yield SyntheticFrame(self.frame(**index), index)

    def _sample(self, p: int, n_channels: int, n_planes: int) -> _Blobs:
        rng = np.random.default_rng((self._seed, p))
        side = min(self._shape)
        # Every blob has one channel that it is bright in, and shines a little through into the others.
        brightness = rng.uniform(20, 160, (_N_BLOBS, n_channels))
        brightness[np.arange(_N_BLOBS), rng.integers(0, n_channels, _N_BLOBS)] = rng.uniform(700, 3000, _N_BLOBS)
        return _Blobs(
            center=rng.uniform(0, self._shape, (_N_BLOBS, 2)),
            velocity=rng.normal(0, side / 60, (_N_BLOBS, 2)),
            depth=rng.uniform(0, max(n_planes - 1, 1), _N_BLOBS),
            radius=rng.uniform(side / 70, side / 25, _N_BLOBS),
            brightness=brightness,
        )

    def _mean(self, blobs: _Blobs, t: int, c: int, z: int) -> np.ndarray:
        """Expected counts: a sum of Gaussians, as one product of their profiles along Y and X."""
        blur = 1 + ((z - blobs.depth) / _DEPTH_OF_FOCUS) ** 2
        radius = blobs.radius * np.sqrt(blur)
        y, x = self._reflected(blobs.center + t * blobs.velocity).T
        down, across = (
            np.exp(-0.5 * ((np.arange(size)[None, :] - at[:, None]) / radius[:, None]) ** 2).astype(np.float32)
            for size, at in zip(self._shape, (y, x), strict=True)
        )
        peak = (blobs.brightness[:, c] / blur).astype(np.float32)
        profiles = np.ascontiguousarray((down * peak[:, None]).T)
        mean = np.empty(self._shape, np.float32)
        # In strips that BLAS finds too small for threads, which would fight the writer for the cores.
        for top in range(0, len(mean), 8):
            np.matmul(profiles[top : top + 8], across, out=mean[top : top + 8])
        mean += np.float32(BACKGROUND)
        return mean

    def _reflected(self, at: np.ndarray) -> np.ndarray:
        """Blobs turn around at the edges."""
        size = np.array(self._shape, float)
        reflected: np.ndarray = size - np.abs(at % (2 * size) - size)
        return reflected
