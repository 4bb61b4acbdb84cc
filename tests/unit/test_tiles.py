"""Frames in tiles: nothing moves, and large frames are summed up while they are cut."""

from __future__ import annotations

from pathlib import Path

import google_crc32c
import numpy as np
import pytest

from scopestream import AcquisitionSettings, open_stream, read_frames, verify
from scopestream.testing import read_array
from scopestream.tiles import Tiler

NOISE = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float64", "bool"])
@pytest.mark.parametrize(
    ("shape", "tile"),
    [
        ((700, 900), (256, 256)),
        ((700, 900), (700, 900)),
        ((701, 903), (128, 301)),
        ((4000, 3), (4000, 3)),
        ((3, 300_000), (2, 1000)),
        ((1, 1), (16, 16)),
    ],
)
def test_cutting_and_summing_is_the_same_as_one_after_the_other(
    shape: tuple[int, int], tile: tuple[int, int], dtype: str
) -> None:
    frame = NOISE.integers(0, 2 if dtype == "bool" else 200, shape).astype(dtype)
    tiler = Tiler(shape, tile)
    expected, found, joined = np.zeros(tiler.shape, dtype), np.zeros(tiler.shape, dtype), np.empty(shape, dtype)
    tiler.cut(frame, expected)
    for _ in range(2):
        assert tiler.cut_and_sum(frame, found) == google_crc32c.value(frame.tobytes())
        assert np.array_equal(found, expected)
    tiler.join(found, joined)
    assert np.array_equal(joined, frame)


def test_large_frames_are_logged_with_the_checksum_that_they_arrived_with(tmp_path: Path) -> None:
    shape = (1100, 1024)
    settings = AcquisitionSettings(
        path=tmp_path / "a.ome.zarr", dtype="uint16", backend="inplace",
        dimensions=[{"name": "t", "count": 5}, {"name": "y", "count": shape[0]}, {"name": "x", "count": shape[1]}],
        chunks={"y": 256, "x": 256}, shards={"t": 4},
    )  # fmt: skip
    frames = NOISE.integers(0, 60_000, (5, *shape), np.uint16)
    sent = [frames[0], frames[1].astype(">u2"), np.asfortranarray(frames[2]), frames[3], frames[4]]
    with open_stream(settings) as stream:
        for number, frame in enumerate(sent):
            stream.append(frame, copy=number != 3)
    checksums = {record["frame"]: record["crc32c"] for record in read_frames(stream.path)}
    assert checksums == {number: google_crc32c.value(frame.tobytes()) for number, frame in enumerate(frames)}
    assert np.array_equal(read_array(tmp_path / "a.ome.zarr" / "0", "tensorstore"), frames)
    assert verify(stream.path).sound
