"""Sequences of every kind, acquired by the demo camera: what `frameReady` saw is on disk, at its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import useq
from pymmcore_plus import CMMCorePlus

from tests.pymmcore.acquisition import acquire, check, left_out, root_attributes

TIMES = {"interval": 0, "loops": 3}
CHANNELS = ["DAPI", "FITC"]
PLANES = {"range": 2, "step": 1}
POSITIONS = [useq.Position(x=0, y=0, z=0, name="left"), useq.Position(x=20, y=10, z=1, name="right")]
FIELDS = useq.GridRowsColumns(rows=1, columns=3)
WELLS = useq.WellPlatePlan(
    plate="96-well", a1_center_xy=(0, 0), selected_wells=([0, 1], [0, 11]), well_points_plan=FIELDS
)


def sequence(**plans: Any) -> useq.MDASequence:
    return useq.MDASequence(**{"channels": CHANNELS, **plans})


REGULAR = {
    "t, c and z": sequence(time_plan=TIMES, z_plan=PLANES, axis_order="tcz"),
    "z before c before t": sequence(time_plan=TIMES, z_plan=PLANES, axis_order="zct"),
    "two positions": sequence(time_plan=TIMES, stage_positions=POSITIONS),
    "a grid": sequence(grid_plan={"rows": 2, "columns": 2}),
    "a grid at each of two positions": sequence(stage_positions=POSITIONS, grid_plan={"rows": 2, "columns": 2}),
    "the grid first": sequence(
        stage_positions=POSITIONS, grid_plan={"rows": 2, "columns": 2}, axis_order="gptcz", z_plan=PLANES
    ),
    "three fields in each of four wells": sequence(stage_positions=WELLS),
    "several phases": sequence(time_plan=[{"interval": 0, "loops": 2}, {"interval": 0.05, "loops": 3}]),
    "planes from above": sequence(z_plan={"top": 2, "bottom": 0, "step": 1, "go_up": False}),
    "p and g that are not neighbours": sequence(
        stage_positions=POSITIONS, grid_plan={"rows": 1, "columns": 2}, axis_order="tpczg", z_plan=PLANES
    ),
    "a grid in each well": sequence(
        stage_positions=useq.WellPlatePlan(plate="96-well", a1_center_xy=(0, 0), selected_wells=([0, 1], [0, 1])),
        grid_plan={"rows": 1, "columns": 2},
    ),
}


@pytest.mark.parametrize("name", REGULAR)
def test_a_sequence_that_fills_a_box_does(core: CMMCorePlus, tmp_path: Path, name: str) -> None:
    sink, seen = acquire(core, REGULAR[name], tmp_path / "cells.ome.zarr")
    assert len(seen) == len(list(REGULAR[name])) > 0
    places = check(sink.path, seen)
    assert left_out(sink.path) == {}
    assert root_attributes(sink.path)["scopestream"]["status"] == "complete"
    for key, place in places.items():
        assert {axis: number for axis, number in key if axis in "tcz"} == {
            axis: number for axis, number in place.items() if axis in "tcz"
        }


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
