"""`stream.skip(index=...)`: places that will not come, wherever they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scopestream import AcquisitionSettings, Dimension, FrameIndexError, Position, open_stream, read_frames
from scopestream.testing.readers import read_array, reader_other_than

FRAME = np.full((4, 6), 7, "uint16")


def settings(path: Path, **changes: Any) -> AcquisitionSettings:
    dimensions = [
        Dimension(name="t", count=3),
        Dimension(name="p", coords=[Position(name="left"), Position(name="right", counts={"z": 1})]),
        Dimension(name="z", count=2),
        Dimension(name="y", count=4),
        Dimension(name="x", count=6),
    ]
    values = {"path": path / "a.ome.zarr", "dtype": "uint16", "dimensions": dimensions}
    return AcquisitionSettings(**{**values, **changes})


def log(path: Path) -> dict[tuple[int, ...], tuple[str, str | None]]:
    return {
        tuple(record["index"].values()): (record["status"], record.get("reason"))
        for record in read_frames(path / "a.ome.zarr")
    }


def test_a_place_is_skipped_and_append_goes_on_where_it_was(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path)) as stream:
        stream.append(FRAME)
        stream.skip(index={"t": 2, "p": "left", "z": 1}, reason="the lamp was off")
        stream.append(FRAME)
        assert stream.next_frame == 2
    assert log(tmp_path) == {
        (0, 0, 0): ("written", None),
        (0, 0, 1): ("written", None),
        (2, 0, 1): ("skipped", "the lamp was off"),
    }


def test_dimensions_that_are_left_out_stand_for_all_items_that_a_position_has(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path)) as stream:
        stream.write(FRAME, index={"t": 1, "p": "left", "z": 0})
        stream.skip(index={"t": 1}, reason="no focus")
    assert log(tmp_path) == {
        (1, 0, 0): ("written", None),
        (1, 0, 1): ("skipped", "no focus"),
        (1, 1, 0): ("skipped", "no focus"),
    }


@pytest.mark.parametrize("index", [{"t": 3}, {"p": "right", "z": 1}, {"q": 0}])
def test_a_place_that_is_not_there_cannot_be_skipped(tmp_path: Path, index: dict[str, int | str]) -> None:
    with open_stream(settings(tmp_path)) as stream:
        with pytest.raises(FrameIndexError):
            stream.skip(index=index)
        assert stream.stats.frames_skipped == 0


def test_all_items_of_an_unbounded_dimension_cannot_be_skipped(tmp_path: Path) -> None:
    dimensions = [Dimension(name="t", count=None), Dimension(name="y", count=4), Dimension(name="x", count=6)]
    with open_stream(settings(tmp_path, dimensions=dimensions)) as stream:
        with pytest.raises(FrameIndexError, match="'t' is missing"):
            stream.skip(index={})
        stream.skip(index={"t": 4})
    assert log(tmp_path) == {(4,): ("skipped", None)}


def test_a_number_and_an_index_contradict_each_other(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path)) as stream, pytest.raises(TypeError, match="not both"):
        stream.skip(2, index={"t": 0})


def test_a_skipped_place_makes_its_block_complete(tmp_path: Path) -> None:
    pixels = np.arange(3, dtype="uint16")[:, None, None] + FRAME
    dimensions = [Dimension(name="t", count=3), Dimension(name="y", count=4), Dimension(name="x", count=6)]
    made = settings(tmp_path, dimensions=dimensions, chunks={"t": 3}, backend="tensorstore")
    with open_stream(made) as stream:
        stream.write(pixels[2], index={"t": 2})
        stream.skip(index={"t": 1})
        stream.write(pixels[0], index={"t": 0})
    found = read_array(tmp_path / "a.ome.zarr" / "0", reader_other_than("tensorstore"))
    np.testing.assert_array_equal(found, [pixels[0], np.zeros_like(FRAME), pixels[2]])
