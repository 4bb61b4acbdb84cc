"""Sequences of every kind, acquired by the demo camera: what `frameReady` saw is on disk, at its place."""

from __future__ import annotations

from pathlib import Path

import pytest
import useq
from pymmcore_plus import CMMCorePlus
from useq import MDASequence

from scopestream import PlanError, read_frames
from tests.pymmcore.acquisition import acquire, arrays_of, check, image_attributes, left_out, root_attributes
from tests.pymmcore.kinds import CHANNELS, PLANES, POSITIONS, RAGGED, REGULAR, TIMES, sequence


@pytest.mark.parametrize("name", REGULAR)
def test_a_sequence_that_fills_a_box_does(core: CMMCorePlus, tmp_path: Path, name: str) -> None:
    sink, seen = acquire(core, REGULAR[name], tmp_path / "cells.ome.zarr")
    assert len(seen) == len(list(REGULAR[name])) > 0
    check(sink.path, seen)
    assert left_out(sink.path) == {}
    assert root_attributes(sink.path)["scopestream"]["status"] == "complete"


@pytest.mark.parametrize("own", [False, True], ids=["for all positions", "of one position"])
def test_planes_from_above_are_stored_from_the_lowest_up(core: CMMCorePlus, tmp_path: Path, own: bool) -> None:
    down = {"top": 4, "bottom": 0, "step": 2, "go_up": False}
    channels = ["DAPI", {"config": "FITC", "do_stack": False}]
    at = useq.Position(x=20, y=10, z=1, name="right", sequence=MDASequence(z_plan=down) if own else None)
    plan = sequence(
        stage_positions=[POSITIONS[0], at], z_plan=PLANES if own else down, channels=channels, time_plan=TIMES
    )
    sink, seen = acquire(core, plan, tmp_path / "cells.ome.zarr")
    places = check(sink.path, seen, len(list(plan)))
    of_right = {dict(key)["z"]: place["z"] for key, place in places.items() if place["p"] == 1}
    assert of_right == {0: 2, 1: 1, 2: 0}
    assert all(place.get("z", 1) == dict(key)["z"] for key, place in places.items() if place["p"] == 0) == own
    scale, translation = _coordinates(sink.path, "1")
    assert (scale[2], translation[2]) == (2.0, 0.0)
    # The stack of the position is that of DAPI alone, since useq takes FITC in the middle of the other stack only.
    assert {dict(key)["z"] for key in left_out(sink.path) if dict(key)["p"] == 1} == (set() if own else {0, 2})
    assert root_attributes(sink.path)["scopestream"]["frames"]["missing"] == 0


def test_planes_that_are_not_evenly_spaced_have_the_mean_step_and_their_own_positions_in_the_log(
    core: CMMCorePlus, tmp_path: Path
) -> None:
    plan = sequence(stage_positions=POSITIONS[:1], z_plan={"relative": [5, 0, 1]}, channels=["DAPI"])
    with pytest.warns(RuntimeWarning, match=r"not evenly spaced.*mean step of 2\.5 um"):
        sink, seen = acquire(core, plan, tmp_path / "cells.ome.zarr")
    pixels = arrays_of(sink.path)["0"]
    for z, taken in enumerate([1, 2, 0]):
        assert (pixels[0, z] == seen.frames[taken][1]).all()
    logged = {record["index"]["z"]: record["metadata"]["position_z"] for record in read_frames(sink.path)}
    assert logged == pytest.approx({0: 0, 1: 1, 2: 5}, abs=0.01)
    scale, translation = _coordinates(sink.path, "0")
    assert (scale[1], translation[1]) == (2.5, 0.0)


def test_planes_from_above_are_refused_by_a_backend_that_stores_in_order_only(
    core: CMMCorePlus, tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match="stored from the lowest up, but backend 'acquire-zarr'"):
        acquire(core, REGULAR["planes from above"], tmp_path / "cells.ome.zarr", backend="acquire-zarr")
    assert list(tmp_path.iterdir()) == []


def _coordinates(path: str, image: str) -> tuple[list[float], list[float]]:
    """Scale and translation of an image."""
    transformations = image_attributes(path, image)["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    scale, translation = (one[one["type"]] for one in transformations)
    return scale, translation


def test_a_channel_without_a_stack_has_its_middle_plane_and_the_others_say_why(
    core: CMMCorePlus, tmp_path: Path
) -> None:
    channels = ["DAPI", {"config": "FITC", "do_stack": False}]
    sink, seen = acquire(core, sequence(channels=channels, z_plan=PLANES, time_plan=TIMES), tmp_path / "a.ome.zarr")
    check(sink.path, seen)
    assert len(seen) == 3 * (3 + 1)
    reasons = left_out(sink.path)
    assert set(reasons) == {(("c", 1), ("t", t), ("z", z)) for t in range(3) for z in (0, 2)}
    assert set(reasons.values()) == {"channel FITC is taken in 1 of 3 planes only"}
    assert root_attributes(sink.path)["scopestream"]["status"] == "complete"


def test_a_channel_that_is_not_taken_every_time_is_missing_in_between_for_a_reason(
    core: CMMCorePlus, tmp_path: Path
) -> None:
    channels = ["DAPI", {"config": "FITC", "acquire_every": 3}]
    times = {"interval": 0, "loops": 5}
    sink, seen = acquire(core, sequence(channels=channels, time_plan=times), tmp_path / "a.ome.zarr")
    check(sink.path, seen)
    assert len(seen) == 5 + 2
    assert left_out(sink.path) == {
        (("c", 1), ("t", t)): "channel FITC is taken at every 3rd time point only" for t in (1, 2, 4)
    }
    assert root_attributes(sink.path)["scopestream"]["status"] == "complete"


@pytest.mark.parametrize("name", RAGGED)
def test_a_position_with_plans_of_its_own_has_an_image_of_its_own_shape(
    core: CMMCorePlus, tmp_path: Path, name: str
) -> None:
    sink, seen = acquire(core, RAGGED[name], tmp_path / "cells.ome.zarr")
    check(sink.path, seen, len(list(RAGGED[name])))
    assert len(seen) == sum(1 for _ in RAGGED[name])
    assert left_out(sink.path) == {}
    root = root_attributes(sink.path)["scopestream"]
    assert (root["status"], root["frames"]["missing"]) == ("complete", 0)


def test_each_position_has_the_planes_steps_and_channels_that_it_was_given(core: CMMCorePlus, tmp_path: Path) -> None:
    own = MDASequence(channels=["Cy5"], z_plan={"range": 6, "step": 1.5}, time_plan={"interval": 0.01, "loops": 2})
    plan = sequence(
        time_plan={"interval": 0.05, "loops": 3}, z_plan=PLANES,
        stage_positions=[POSITIONS[0], useq.Position(x=5, y=5, z=1, name="deep", sequence=own)],
    )  # fmt: skip
    sink, seen = acquire(core, plan, tmp_path / "cells.ome.zarr")
    check(sink.path, seen)
    shapes = {image: pixels.shape[:3] for image, pixels in arrays_of(sink.path).items()}
    assert shapes == {"0": (3, 2, 3), "1": (3 * 2, 1, 5)}  # times of its own come in every round anew
    multiscales, omero = (image_attributes(sink.path, "1")[key] for key in ("multiscales", "omero"))
    scale, translation = (step.popitem()[1] for step in multiscales[0]["datasets"][0]["coordinateTransformations"])
    assert scale[:3] == [0.01, 1.0, 1.5]
    assert translation[2] == 1 - 3
    assert [channel["label"] for channel in omero["channels"]] == ["Cy5"]


def test_frames_that_nobody_waits_for_hold_up_no_block(core: CMMCorePlus, tmp_path: Path) -> None:
    """With chunks over z, a block is complete when the planes have come that will come."""
    channels = ["DAPI", {"config": "FITC", "do_stack": False}]
    sink, seen = acquire(
        core, sequence(channels=channels, z_plan=PLANES, time_plan=TIMES), tmp_path / "a.ome.zarr",
        chunks={"z": 3}, backend="tensorstore",
    )  # fmt: skip
    check(sink.path, seen)


def test_autofocus_makes_no_frame_and_moves_none(core: CMMCorePlus, tmp_path: Path) -> None:
    focus = useq.AxesBasedAF(autofocus_motor_offset=1.0, axes=("p",))
    plan = sequence(stage_positions=POSITIONS, z_plan=PLANES, autofocus_plan=focus)
    assert any(isinstance(event.action, useq.HardwareAutofocus) for event in plan)
    sink, seen = acquire(core, plan, tmp_path / "cells.ome.zarr")
    check(sink.path, seen)
    assert left_out(sink.path) == {}


def test_triggered_sequences_arrive_at_the_speed_of_the_camera(core: CMMCorePlus, tmp_path: Path) -> None:
    core.setExposure(0.1)
    plan = useq.MDASequence(time_plan={"interval": 0, "loops": 500}, channels=[{"config": "DAPI", "exposure": 0.1}])
    sink, seen = acquire(core, plan, tmp_path / "burst.ome.zarr")
    assert all(meta["hardware_triggered"] for meta in seen.metas)
    check(sink.path, seen)
    assert len(seen) == 500


def test_bursts_at_each_position_are_triggered_one_after_another(core: CMMCorePlus, tmp_path: Path) -> None:
    plan = useq.MDASequence(
        axis_order="pct", time_plan={"interval": 0, "loops": 40}, channels=CHANNELS, stage_positions=POSITIONS
    )
    sink, seen = acquire(core, plan, tmp_path / "bursts.ome.zarr")
    assert sum(bool(meta.get("hardware_triggered")) for meta in seen.metas) == len(seen) == 160
    check(sink.path, seen)
