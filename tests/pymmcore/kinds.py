"""Sequences of every kind: those that fill a box, and those that do not."""

from __future__ import annotations

from typing import Any

import useq
from useq import MDASequence

TIMES = {"interval": 0, "loops": 3}
CHANNELS = ["DAPI", "FITC"]
PLANES = {"range": 2, "step": 1}
POSITIONS = [useq.Position(x=0, y=0, z=0, name="left"), useq.Position(x=20, y=10, z=1, name="right")]
GRID = {"rows": 1, "columns": 2}
FOUR_WELLS: dict[str, Any] = {"plate": "96-well", "a1_center_xy": (0, 0), "selected_wells": ([0, 1], [0, 11])}


def sequence(**plans: Any) -> MDASequence:
    return MDASequence(**{"channels": CHANNELS, **plans})


def with_own(**plans: Any) -> MDASequence:
    """Two positions, one of which has plans of its own."""
    own = useq.Position(x=20, y=10, z=1, name="right", sequence=MDASequence(**plans))
    return sequence(time_plan=TIMES, z_plan=PLANES, stage_positions=[POSITIONS[0], own], axis_order="tpgcz")


REGULAR = {
    "t, c and z": sequence(time_plan=TIMES, z_plan=PLANES, axis_order="tcz"),
    "z before c before t": sequence(time_plan=TIMES, z_plan=PLANES, axis_order="zct"),
    "two positions": sequence(time_plan=TIMES, stage_positions=POSITIONS),
    "a grid": sequence(grid_plan={"rows": 2, "columns": 2}),
    "a grid at each of two positions": sequence(stage_positions=POSITIONS, grid_plan=GRID),
    "the grid before the positions": sequence(
        stage_positions=POSITIONS, grid_plan=GRID, axis_order="gptcz", z_plan=PLANES
    ),
    "several phases of time": sequence(time_plan=[{"interval": 0, "loops": 2}, {"interval": 0.05, "loops": 3}]),
    "planes from above": sequence(z_plan={"top": 2, "bottom": 0, "step": 1, "go_up": False}),
    "a plate with three fields in each well": sequence(
        stage_positions=useq.WellPlatePlan(**FOUR_WELLS, well_points_plan=useq.GridRowsColumns(rows=1, columns=3))
    ),
    "positions and grid that are not neighbours": sequence(
        stage_positions=POSITIONS, grid_plan=GRID, axis_order="tpczg", z_plan=PLANES
    ),
    "a plate with a grid plan": sequence(stage_positions=useq.WellPlatePlan(**FOUR_WELLS), grid_plan=GRID),
}
# Places of the box that no event comes to.
WITH_HOLES = {
    "a channel without a stack (`do_stack=False`)": sequence(
        channels=["DAPI", {"config": "FITC", "do_stack": False}], z_plan=PLANES, time_plan=TIMES
    ),
    "a channel that is taken now and then (`acquire_every=3`)": sequence(
        channels=["DAPI", {"config": "FITC", "acquire_every": 3}], time_plan={"interval": 0, "loops": 5}
    ),
}
RAGGED = {
    "a position with its own z plan": with_own(z_plan={"range": 6, "step": 1.5}),
    "a position with its own channels": with_own(channels=["Cy5"], z_plan=PLANES),
    "a position with its own grid": with_own(grid_plan=GRID),
    "a position with its own times": with_own(time_plan={"interval": 0, "loops": 2}),
    "a position with all of its own": with_own(
        channels=["Cy5"], z_plan={"range": 4, "step": 1}, time_plan={"interval": 0, "loops": 2}, grid_plan=GRID
    ),
}
