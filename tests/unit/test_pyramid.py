"""The mean of 2 x 2 pixels, exact for integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from scopestream.pyramid import halve


def exact_halve(frame: np.ndarray) -> np.ndarray:
    """The same by Python's unbounded integers, one pixel at a time."""
    padded = np.pad(frame.astype(object), [(0, frame.shape[0] % 2), (0, frame.shape[1] % 2)], mode="edge")
    total = padded[::2, ::2] + padded[1::2, ::2] + padded[::2, 1::2] + padded[1::2, 1::2]
    return np.vectorize(lambda s: (s + 2) // 4, otypes=[object])(total).astype(frame.dtype)


INTEGERS = st.sampled_from(["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"])


@given(INTEGERS.flatmap(lambda d: npst.arrays(d, npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7))))
def test_integers_are_rounded_half_up_without_overflow(frame: np.ndarray) -> None:
    found = halve(frame)
    assert found.dtype == frame.dtype
    np.testing.assert_array_equal(found, exact_halve(frame))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_are_averaged(dtype: str) -> None:
    frame = np.array([[1, 2], [3, 5]], dtype)
    np.testing.assert_array_equal(halve(frame), np.array([[2.75]], dtype))


def test_of_booleans_two_of_four_are_enough() -> None:
    frame = np.array([[1, 1, 1, 0], [0, 0, 0, 0]], bool)
    np.testing.assert_array_equal(halve(frame), [[True, False]])


def test_leading_axes_are_frames() -> None:
    frames = np.random.default_rng(0).integers(0, 65535, (2, 3, 5, 7), np.uint16)
    np.testing.assert_array_equal(halve(frames)[1, 2], halve(frames[1, 2]))
    assert halve(frames).flags.c_contiguous
