"""What the levels of a pyramid must be, said as plainly as NumPy can."""

from __future__ import annotations

from itertools import product

import numpy as np

from scopestream.settings import Downscale


def next_level(pixels: np.ndarray, downscale: Downscale = "mean", z: int | None = None) -> np.ndarray:
    """(..., Y, X) -> (..., ceil(Y / 2), ceil(X / 2)), with axis `z` halved too. What is odd at the end counts twice."""
    if z is not None and pixels.shape[z] == 1:
        z = None
    corners = _corners(pixels, ([] if z is None else [z]) + [pixels.ndim - 2, pixels.ndim - 1])
    if downscale == "nearest":
        return corners[0]
    if downscale == "mode":
        counts = [np.sum([corner == other for other in corners], axis=0) for corner in corners]
        most: np.ndarray = np.take_along_axis(np.stack(corners), np.argmax(counts, axis=0)[None], axis=0)[0]
        return most
    return _mean_of_floats(corners) if pixels.dtype.kind == "f" else _mean_of_integers(corners)


def _mean_of_integers(corners: list[np.ndarray]) -> np.ndarray:
    """Rounded half up; by Python's own integers where no wider type exists."""
    dtype = corners[0].dtype
    wide = [corner.astype(object if dtype.itemsize == 8 else np.int64) for corner in corners]
    return np.asarray((sum(wide) + len(wide) // 2) // len(wide)).astype(dtype)


def _mean_of_floats(corners: list[np.ndarray]) -> np.ndarray:
    """Parts are added in the precision of the pixels: rows, then columns, then planes."""
    parts = [corner * corner.dtype.type(1 / len(corners)) for corner in corners]
    planes = [(parts[n] + parts[n + 2]) + (parts[n + 1] + parts[n + 3]) for n in range(0, len(parts), 4)]
    mean: np.ndarray = planes[0] if len(planes) == 1 else planes[0] + planes[1]
    return mean


def _corners(pixels: np.ndarray, axes: list[int]) -> list[np.ndarray]:
    """The 2 x 2 (x 2) pixels of each pixel of the next level, in reading order."""
    padding = [(0, size % 2 if axis in axes else 0) for axis, size in enumerate(pixels.shape)]
    padded = np.pad(pixels, padding, mode="edge")
    corners = []
    for corner in product((0, 1), repeat=len(axes)):
        picked = [slice(None)] * pixels.ndim
        for axis, offset in zip(axes, corner, strict=True):
            picked[axis] = slice(offset, None, 2)
        corners.append(padded[tuple(picked)])
    return corners
