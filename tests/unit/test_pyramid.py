"""Frames at the next level of the pyramid, against plain models, and the steps from tiles to tiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from scopestream import AcquisitionSettings
from scopestream.levels import next_levels
from scopestream.planning import make_plan
from scopestream.pyramid import STRIP_BYTES, Halver
from scopestream.registry import load_backend
from scopestream.settings import Downscale
from scopestream.testing.frames import stamped_frame
from scopestream.testing.levels import next_level
from scopestream.tiles import Tiler

NUMBERS = ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
FLOATS = ("float32", "float64")


def halve(*planes: np.ndarray, downscale: Downscale = "mean") -> np.ndarray:
    y, x = planes[0].shape[-2:]
    out = np.empty((*planes[0].shape[:-2], -(-y // 2), -(-x // 2)), planes[0].dtype)
    Halver(out.dtype, downscale).halve(planes, out)
    return out


def by_pixel(planes: tuple[np.ndarray, ...], pick: Callable[[list[int]], int]) -> np.ndarray:
    """One pixel at a time, in reading order, by Python's unbounded integers."""
    y, x = planes[0].shape
    halved = np.empty((-(-y // 2), -(-x // 2)), planes[0].dtype)
    for row, column in np.ndindex(halved.shape):
        rows, columns = (min(2 * at + 1, size - 1) for at, size in ((row, y), (column, x)))
        cell = [int(plane[i, j]) for plane in planes for i in (2 * row, rows) for j in (2 * column, columns)]
        halved[row, column] = pick(cell)
    return halved


PICK: dict[Downscale, Callable[[list[int]], int]] = {
    "mean": lambda cell: (sum(cell) + len(cell) // 2) // len(cell),
    "nearest": lambda cell: cell[0],
    "mode": lambda cell: max(cell, key=cell.count),  # the first of several
}


def small_frames(dtypes: tuple[str, ...], n_planes: int | None = None) -> st.SearchStrategy[np.ndarray]:
    """(Y, X), or that many of them, of any pixels or of few kinds."""
    before = () if n_planes is None else (n_planes,)
    shapes = st.tuples(*[st.integers(1, 7)] * 2).map(lambda frame: (*before, *frame))
    few = st.integers(0, 1)
    return st.tuples(st.sampled_from(dtypes), st.booleans()).flatmap(
        lambda drawn: npst.arrays(drawn[0], shapes, elements=few if drawn[1] and drawn[0] != "bool" else None)
    )


@pytest.mark.parametrize("downscale", PICK)
@given(frame=small_frames(NUMBERS))
def test_every_pixel_is_picked_of_two_by_two(downscale: Downscale, frame: np.ndarray) -> None:
    found = halve(frame, downscale=downscale)
    assert found.dtype == frame.dtype
    np.testing.assert_array_equal(found, by_pixel((frame,), PICK[downscale]))
    np.testing.assert_array_equal(found, next_level(frame, downscale))


@pytest.mark.parametrize("downscale", PICK)
@given(planes=small_frames(NUMBERS, n_planes=2))
def test_two_planes_become_one(downscale: Downscale, planes: np.ndarray) -> None:
    found = halve(*planes, downscale=downscale)
    np.testing.assert_array_equal(found, by_pixel(tuple(planes), PICK[downscale]))


@pytest.mark.parametrize(("dtype", "value"), [(d, e) for d in NUMBERS if d != "bool" for e in ("min", "max")])
def test_the_mean_of_the_largest_pixels_does_not_overflow(dtype: str, value: str) -> None:
    frame = np.full((3, 4), getattr(np.iinfo(dtype), value), dtype)
    np.testing.assert_array_equal(halve(frame), frame[:2, :2])
    np.testing.assert_array_equal(halve(frame, frame), frame[:2, :2])


def test_the_mean_of_two_planes_is_not_that_of_their_rounded_means() -> None:
    first, second = np.array([[0, 0], [0, 2]], np.uint8), np.array([[0, 0], [0, 1]], np.uint8)
    assert (halve(first), halve(second), halve(first, second)) == (1, 0, 0)  # 2/4, 1/4, 3/8


@given(small_frames(FLOATS))
def test_floats_are_averaged_in_their_own_precision(frame: np.ndarray) -> None:
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(halve(frame), next_level(frame))


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_mean_of_floats_overflows_only_where_it_is_too_large(dtype: str) -> None:
    largest = np.finfo(dtype).max
    np.testing.assert_array_equal(halve(np.full((2, 3), largest)), np.full((1, 2), largest))
    frame = stamped_frame(0, (7, 9), dtype)
    np.testing.assert_array_equal(halve(frame, frame), halve(frame))
    quarters = np.pad(frame.astype(np.float64), ((0, 1), (0, 1)), mode="edge").reshape(4, 2, 5, 2)
    np.testing.assert_allclose(halve(frame), quarters.mean(axis=(1, 3)), rtol=1e-5, atol=1e-6)


def test_of_booleans_two_of_four_are_enough() -> None:
    frame = np.array([[1, 1, 1, 0], [0, 0, 0, 0]], bool)
    np.testing.assert_array_equal(halve(frame), [[True, False]])


@pytest.mark.parametrize("shape", [(2, 3, 6, 7), (2, 3, 5, 8), (3, 1, 1), (1, 2, 4)])
@pytest.mark.parametrize("dtype", NUMBERS + FLOATS)
def test_leading_axes_are_frames(dtype: str, shape: tuple[int, ...]) -> None:
    frames = stamped_frame(0, (shape[-2] * 6, shape[-1]), dtype)[: np.prod(shape[:-1])].reshape(shape)
    np.testing.assert_array_equal(halve(frames), next_level(frames))


@pytest.mark.parametrize("dtype", NUMBERS + FLOATS)
@pytest.mark.parametrize("odd", [0, 1])
def test_frames_of_many_strips_are_halved_like_small_ones(dtype: str, odd: int) -> None:
    frame = stamped_frame(1, (2 * STRIP_BYTES // 1000 + 31, 1000 + odd), dtype)
    np.testing.assert_array_equal(halve(frame), next_level(frame))


def test_rows_longer_than_a_strip_are_halved_too() -> None:
    frame = stamped_frame(1, (3, STRIP_BYTES + 1), "uint8")
    np.testing.assert_array_equal(halve(frame), next_level(frame))


@pytest.mark.parametrize(
    ("dtype", "downscale"), [(d, m) for d in NUMBERS + FLOATS for m in PICK if d not in FLOATS or m != "mode"]
)
def test_a_halver_may_be_used_for_frames_of_any_size_in_turn(dtype: str, downscale: Downscale) -> None:
    halver = Halver(np.dtype(dtype), downscale)
    for number, shape in enumerate([(9, 9), (300, 400), (1, 1), (301, 401), (2, 2)]):
        frame = stamped_frame(number, shape, dtype)
        out = np.empty(((shape[0] + 1) // 2, (shape[1] + 1) // 2), dtype)
        halver.halve([frame], out)
        np.testing.assert_array_equal(out, next_level(frame, downscale))


@given(
    frame=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    tile=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    kind=st.sampled_from([("uint16", "mean"), ("int8", "mode"), ("float32", "mean"), ("bool", "nearest")]),
)
def test_tiles_become_the_tiles_of_the_next_level(
    frame: tuple[int, int], tile: tuple[int, int], kind: tuple[str, Downscale]
) -> None:
    dtype, downscale = kind
    chunks = {name: min(size, side) for name, size, side in zip("yx", tile, frame, strict=True)}
    dimensions: list[Any] = [{"name": name, "count": size} for name, size in zip("yx", frame, strict=True)]
    settings = AcquisitionSettings(
        path="a.ome.zarr", dtype=dtype, dimensions=dimensions, chunks=chunks, levels=4, downscale=downscale
    )
    plan = make_plan(settings, load_backend("inplace"))
    tilers = [Tiler(array.frame_shape, array.tile) for array in plan.arrays]
    steps = next_levels(plan)
    tiles = np.zeros(tilers[0].shape, dtype)
    for number in range(2):  # the second time in the same memory
        expected = stamped_frame(number, frame, dtype)
        tilers[0].cut(expected, tiles)
        found = tiles
        for step, tiler in zip(steps, tilers[1:], strict=True):
            found, expected = step(found), next_level(expected, downscale)
            wanted = np.zeros(tiler.shape, dtype)
            tiler.cut(expected, wanted)
            np.testing.assert_array_equal(found, wanted)
        again = np.zeros(tilers[0].shape, dtype)
        tilers[0].cut(stamped_frame(number, frame, dtype), again)
        np.testing.assert_array_equal(tiles, again)  # what lies past the edges is zero as before
