"""A frame at the next level of the pyramid: the mean of 2 x 2 pixels, rounded half up, exact for integers."""

from __future__ import annotations

import numpy as np

METHOD = {
    "description": "Mean of 2 x 2 pixels, integers rounded half up; an odd last row or column counts twice.",
    "method": "scopestream.pyramid.halve",
}


def halve(frames: np.ndarray) -> np.ndarray:
    """(..., Y, X) -> (..., ceil(Y / 2), ceil(X / 2)), same dtype, new C-contiguous memory.

    Needs the memory of about two frames besides the result.
    """
    *before, y, x = frames.shape
    halved = np.empty((*before, (y + 1) // 2, (x + 1) // 2), frames.dtype)
    for index in np.ndindex(*before):
        halved[index] = _halve_frame(frames[index])
    return halved


def _halve_frame(frame: np.ndarray) -> np.ndarray:
    if frame.dtype.kind == "b":
        return _halve_frame(frame.view(np.uint8)).astype(bool)
    odd_y, odd_x = frame.shape[0] % 2, frame.shape[1] % 2
    if odd_y or odd_x:
        frame = np.pad(frame, [(0, odd_y), (0, odd_x)], mode="edge")
    quarters = [frame[y::2, x::2] for y in (0, 1) for x in (0, 1)]
    if frame.dtype.kind == "f":
        quarter = frame.dtype.type(0.25)
        mean: np.ndarray = sum((part * quarter for part in quarters[1:]), start=quarters[0] * quarter)
        return mean
    if frame.dtype.itemsize == 8:
        # No wider integer exists: the high parts and the remainders are summed apart.
        low = sum((part & 3 for part in quarters[1:]), start=quarters[0] & 3)
        high: np.ndarray = sum((part >> 2 for part in quarters[1:]), start=quarters[0] >> 2)
        high += (low + 2) >> 2
        return high
    wide = np.dtype(f"{frame.dtype.kind}{4 if frame.dtype.itemsize < 4 else 8}")
    rows = np.add(frame[0::2], frame[1::2], dtype=wide)
    sums: np.ndarray = rows[:, 0::2] + rows[:, 1::2]
    sums += 2
    sums >>= 2
    return sums
