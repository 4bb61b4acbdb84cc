"""`Sink` by itself: what a runner of one's own calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import useq
from pymmcore_plus.mda import SkipEvent
from useq import MDAEvent

from scopestream import read_frames
from scopestream.pymmcore import Sink
from tests.pymmcore.acquisition import key_of, left_out

PLAN = useq.MDASequence(
    time_plan={"interval": 0, "loops": 3}, channels=["DAPI", "FITC"], stage_positions=[(0, 0), (1, 1)],
    autofocus_plan=useq.AxesBasedAF(autofocus_motor_offset=1, axes=("p",)),
)  # fmt: skip
SUMMARY: dict[str, Any] = {
    "image_infos": [{"camera_label": "Camera", "plane_shape": (8, 8), "width": 8, "height": 8, "dtype": "uint16"}]
}
IMAGE = np.ones((8, 8), "uint16")


def images(plan: useq.MDASequence = PLAN) -> list[MDAEvent]:
    return [event for event in plan if not isinstance(event.action, useq.HardwareAutofocus)]


def indices(path: Path) -> set[Any]:
    return {key_of(record["index"]) for record in read_frames(path) if record["status"] == "written"}


def test_frames_that_are_skipped_by_number_are_the_next_ones_of_the_sequence(tmp_path: Path) -> None:
    sink = Sink(tmp_path / "a.ome.zarr")
    sink.setup(PLAN, SUMMARY)
    gone = {0, 5, 6, 11}
    for number, event in enumerate(images()):
        if number in gone:
            sink.skip(frames=1)
        else:
            sink.append(IMAGE, event, {})
    sink.close()
    expected = [key_of(event.index) for event in images()]
    assert set(left_out(tmp_path / "a.ome.zarr")) == {expected[number] for number in gone}
    assert indices(tmp_path / "a.ome.zarr") == {key for number, key in enumerate(expected) if number not in gone}


def test_several_frames_are_skipped_at_once_with_the_reason_of_the_engine(tmp_path: Path) -> None:
    sink = Sink(tmp_path / "a.ome.zarr")
    sink.setup(PLAN, SUMMARY)
    events = images()
    sink.append(IMAGE, events[0], {})
    try:
        raise SkipEvent(num_frames=3, reason="the stage is slow")
    except SkipEvent as skipped:
        sink.skip(frames=skipped.num_frames)
    sink.append(IMAGE, events[4], {})
    sink.close()
    assert left_out(tmp_path / "a.ome.zarr") == {key_of(event.index): "the stage is slow" for event in events[1:4]}


def test_events_in_another_order_are_placed_by_their_index_all_the_same(tmp_path: Path) -> None:
    sink = Sink(tmp_path / "a.ome.zarr")
    sink.setup(PLAN, SUMMARY)
    for event in reversed(images()):
        sink.event_started(event)
        sink.append(IMAGE, event, {})
    sink.close()
    assert len(indices(tmp_path / "a.ome.zarr")) == 12
    assert left_out(tmp_path / "a.ome.zarr") == {}


def test_without_a_summary_the_first_image_tells_its_size(tmp_path: Path) -> None:
    sink = Sink(tmp_path / "a.ome.zarr")
    sink.setup(PLAN, None)
    for event in images():
        sink.event_started(event)
        sink.append(IMAGE, event, {})
    sink.close()
    assert sink.settings.frame_shape == (8, 8)
    assert len(indices(tmp_path / "a.ome.zarr")) == 12


def test_a_sink_that_never_began_closes_and_has_no_view(tmp_path: Path) -> None:
    sink = Sink(tmp_path / "a.ome.zarr")
    assert sink.get_view() is None
    sink.close()
    assert list(tmp_path.iterdir()) == []


def test_a_sink_has_one_acquisition(tmp_path: Path) -> None:
    sink = Sink(tmp_path / "a.ome.zarr")
    sink.setup(PLAN, SUMMARY)
    with pytest.raises(RuntimeError, match="has had its acquisition"):
        sink.setup(PLAN, SUMMARY)
    sink.close()


def test_settings_are_complete_or_a_path(tmp_path: Path) -> None:
    settings = Sink(tmp_path / "a.ome.zarr")
    settings.setup(PLAN, SUMMARY)
    settings.close()
    with pytest.raises(TypeError, match="with a path only"):
        Sink(settings.settings, codec="zstd")
