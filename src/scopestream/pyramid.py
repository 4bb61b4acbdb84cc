"""A frame at the next level of the pyramid: the mean of 2 x 2 pixels, rounded half up, exact for integers."""

from __future__ import annotations

import numpy as np

METHOD = {
    "description": "Mean of 2 x 2 pixels, integers rounded half up; an odd last row or column counts twice.",
    "method": "scopestream.pyramid.halve",
}


def halve(frames: np.ndarray) -> np.ndarray:
    """(..., Y, X) -> (..., ceil(Y / 2), ceil(X / 2)), same dtype, new C-contiguous memory."""
    if frames.dtype.kind == "b":
        return halve(frames.view(np.uint8)).view(bool)
    odd_y, odd_x = frames.shape[-2] % 2, frames.shape[-1] % 2
    if odd_y or odd_x:
        frames = np.pad(frames, [(0, 0)] * (frames.ndim - 2) + [(0, odd_y), (0, odd_x)], mode="edge")
    quarters = [frames[..., y::2, x::2] for y in (0, 1) for x in (0, 1)]
    if frames.dtype.kind == "f":
        total = quarters[0] * 0.25
        for quarter in quarters[1:]:
            total += quarter * frames.dtype.type(0.25)
        return total.astype(frames.dtype, copy=False)
    if frames.dtype.itemsize == 8:
        # No wider integer exists: the high parts and the remainders are summed apart.
        low = sum((quarter & 3 for quarter in quarters[1:]), start=quarters[0] & 3)
        high = sum((quarter >> 2 for quarter in quarters[1:]), start=quarters[0] >> 2)
        return np.ascontiguousarray(high + ((low + frames.dtype.type(2)) >> 2))
    wide = np.dtype(f"{frames.dtype.kind}{4 if frames.dtype.itemsize < 4 else 8}")
    rows = np.add(frames[..., 0::2, :], frames[..., 1::2, :], dtype=wide)
    sums: np.ndarray = rows[..., 0::2] + rows[..., 1::2]
    sums += 2
    sums >>= 2
    return sums.astype(frames.dtype)
