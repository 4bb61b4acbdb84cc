"""`scopestream.useq`: what a sequence comes to, without any microscope."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import useq
from useq import MDASequence

from scopestream import AcquisitionSettings, Dimension, FrameIndexError
from scopestream.useq import color_of, layout_of, plan_sequence, settings_from, takes_image
from scopestream.useq.layout import _from_events, _from_plans
from scopestream.useq.places import Places

POSITIONS = [useq.Position(x=0, y=0, z=3, name="left"), useq.Position(x=20, y=10, z=4, name="right")]


def settings(sequence: MDASequence, pixel_size: float | None = 0.5, **more: Any) -> AcquisitionSettings:
    return settings_from(sequence, 64, 32, "uint16", pixel_size, path="cells.ome.zarr", **more)


def dimensions(sequence: MDASequence, pixel_size: float | None = 0.5, **more: Any) -> dict[str, Dimension]:
    return {dimension.name: dimension for dimension in settings(sequence, pixel_size, **more).dimensions}


def test_plans_become_dimensions_in_the_order_of_the_sequence() -> None:
    plan = MDASequence(
        axis_order="zpct",
        time_plan={"interval": 1.5, "loops": 4},
        channels=["DAPI", "GFP"],
        z_plan={"range": 4, "step": 0.5},
        stage_positions=POSITIONS,
    )
    found = dimensions(plan)
    assert list(found) == ["z", "p", "c", "t", "y", "x"]
    assert (found["t"].count, found["t"].scale, found["t"].unit) == (4, 1.5, "second")
    assert (found["z"].count, found["z"].scale, found["z"].unit) == (9, 0.5, "micrometer")
    assert [(channel.name, channel.color) for channel in found["c"].channels] == [
        ("DAPI", "#0000ff"),
        ("GFP", "#00ff00"),
    ]
    assert (found["y"].count, found["y"].scale, found["y"].unit) == (32, 0.5, "micrometer")
    assert found["x"].count == 64
    assert [(at.name, at.x, at.y, at.z) for at in found["p"].positions] == [
        ("left", 0, 0, 1.0),
        ("right", 20, 10, 2.0),
    ]


def test_further_settings_are_passed_on() -> None:
    made = settings(MDASequence(channels=["DAPI"]), codec="zstd", levels=2, on_exists="increment")
    assert (made.codec.name, made.levels, made.on_exists) == ("zstd", 2, "increment")


@pytest.mark.parametrize("pixel_size", [None, 0, 0.0])
def test_a_pixel_of_unknown_size_has_no_unit(pixel_size: float | None) -> None:
    y = dimensions(MDASequence(channels=["DAPI"]), pixel_size)["y"]
    assert (y.scale, y.unit) == (1.0, None)


def test_phases_have_their_mean_interval() -> None:
    t = dimensions(MDASequence(time_plan=[{"interval": 1, "loops": 3}, {"interval": 4, "loops": 3}]))["t"]
    assert (t.count, t.scale) == (5, (1 + 1 + 4 + 4) / 4)


def test_time_points_as_fast_as_they_come_have_no_unit() -> None:
    t = dimensions(MDASequence(time_plan={"interval": 0, "loops": 5}))["t"]
    assert (t.count, t.scale, t.unit) == (5, 1.0, None)


def test_a_duration_without_an_interval_is_unbounded() -> None:
    assert dimensions(MDASequence(time_plan={"interval": 0, "duration": 10}))["t"].count is None


@pytest.mark.parametrize(
    ("plan", "origin", "scale", "count"),
    [
        ({"top": 10, "bottom": 4, "step": 2}, 4, 2, 4),
        ({"top": 10, "bottom": 4, "step": 2, "go_up": False}, 4, 2, 4),
        ({"absolute": [3, 1, 2]}, 1, 1, 3),
        ({"relative": [-1, 0, 1]}, -1, 1, 3),
        ({"above": 3, "below": 1, "step": 1}, -1, 1, 5),
    ],
)
def test_a_z_plan_begins_at_its_lowest_plane(plan: dict[str, Any], origin: float, scale: float, count: int) -> None:
    z = dimensions(MDASequence(z_plan=plan))["z"]
    assert (z.origin, z.scale, z.count) == (origin, scale, count)


@pytest.mark.parametrize("own", [False, True], ids=["for all positions", "of a position"])
def test_planes_that_are_not_evenly_spaced_have_the_mean_step_with_a_warning(own: bool) -> None:
    plan = MDASequence(z_plan={"absolute": [1, 2, 4]})
    if own:
        plan = MDASequence(stage_positions=[useq.Position(x=0, y=0, z=0, sequence=plan)])
    with pytest.warns(RuntimeWarning, match=r"mean step of 1\.5 um"):
        z = dimensions(plan)["z"]
    assert (z.scale, z.count) == (1.5, 3)


@pytest.mark.parametrize(
    ("plan", "places"),
    [
        ({"top": 10, "bottom": 4, "step": 2, "go_up": False}, [3, 2, 1, 0]),
        ({"relative": [2, 0, 1]}, [2, 0, 1]),
        ({"top": 10, "bottom": 4, "step": 2}, [0, 1, 2, 3]),
    ],
)
def test_planes_are_placed_from_the_lowest_up_however_they_are_taken(plan: dict[str, Any], places: list[int]) -> None:
    sequence = MDASequence(z_plan=plan, stage_positions=POSITIONS)
    place = plan_sequence(sequence, 64, 32, "uint16", path="cells.ome.zarr").place
    assert [place(event)["z"] for event in sequence] == places * 2


def test_a_grid_is_as_wide_as_the_field_of_view_and_the_sequence_stays_as_it_is() -> None:
    plan = MDASequence(stage_positions=POSITIONS, grid_plan={"rows": 1, "columns": 2})
    positions = dimensions(plan, 0.5)["p"].positions
    assert [(at.name, at.x, at.y) for at in positions] == [
        ("left_0000", -16, 0),
        ("left_0001", 16, 0),
        ("right_0000", 4, 10),
        ("right_0001", 36, 10),
    ]
    assert plan.grid_plan is not None
    assert plan.grid_plan.fov_width is None
    plan.grid_plan.fov_width, plan.grid_plan.fov_height = 10, 10  # what an engine does before it asks for the events
    assert [event.x_pos for event in plan] == [-5, 5, 15, 25]


def test_a_grid_of_which_only_the_edges_are_known_needs_the_field_of_view() -> None:
    plan = MDASequence(grid_plan={"top": 0, "left": 0, "bottom": -30, "right": 60})
    assert dimensions(plan, 0.5)["p"].count == 2 * 2


def test_points_drawn_at_random_have_no_place_on_the_stage_yet() -> None:
    points = useq.RandomPoints(num_points=3, max_width=100, max_height=100)
    assert [(at.x, at.y) for at in dimensions(MDASequence(grid_plan=points))["p"].positions] == [(None, None)] * 3
    own = useq.Position(x=5, y=5, sequence=MDASequence(grid_plan=points))
    positions = dimensions(MDASequence(stage_positions=[(1, 2), own]))["p"].positions
    assert [(at.x, at.y) for at in positions] == [(1, 2), (None, None), (None, None), (None, None)]
    seeded = points.model_copy(update={"random_seed": 1})
    assert all(at.x is not None for at in dimensions(MDASequence(grid_plan=seeded))["p"].positions)


def test_wells_of_a_plate_have_rows_columns_and_fields() -> None:
    points = useq.GridRowsColumns(rows=1, columns=2, fov_width=100, fov_height=100)
    wells = useq.WellPlatePlan(
        plate="96-well", a1_center_xy=(0, 0), selected_wells=([0, 7], [1, 11]), well_points_plan=points
    )
    made = settings(MDASequence(stage_positions=wells, channels=["DAPI"]))
    assert made.plate is not None
    assert (made.plate.rows[0], made.plate.rows[-1], len(made.plate.columns)) == ("A", "H", 12)
    positions = made.dimensions[0].positions
    assert [(at.row, at.column) for at in positions] == [("A", "2"), ("A", "2"), ("H", "12"), ("H", "12")]
    assert [at.name for at in positions] == ["A2_0000", "A2_0001", "H12_0000", "H12_0001"]
    assert [at.x for at in positions] == pytest.approx([8950, 9050, 98950, 99050])
    assert [image.path for image in made.plan().images] == ["A/2/0", "A/2/1", "H/12/0", "H/12/1"]


def test_a_plate_of_another_size_is_named_by_its_rows_and_columns() -> None:
    plate = useq.WellPlate(rows=1, columns=5, well_spacing=9, well_size=6, name="strip")
    wells = useq.WellPlatePlan(plate=plate, a1_center_xy=(0, 0), selected_wells=([0], [4]))
    found = settings(MDASequence(stage_positions=wells)).plate
    assert found is not None
    assert (found.rows, found.columns, found.name) == (("A",), ("1", "2", "3", "4", "5"), "strip")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a/b", "a:b"], ["a_b_0", "a_b_1"]),
        (["pos", "pos", "Pos"], ["pos_0", "pos_1", "Pos_2"]),
        ([None, None], ["p0", "p1"]),
        (["CON", " spaced. "], ["CON_", "spaced_"]),
    ],
)
def test_any_name_becomes_one_that_no_other_has_and_that_is_safe(names: list[str | None], expected: list[str]) -> None:
    plan = MDASequence(stage_positions=[useq.Position(x=0, y=0, name=name) for name in names])
    assert [at.name for at in dimensions(plan)["p"].positions] == expected


def test_a_preset_of_two_groups_gives_two_channels() -> None:
    plan = MDASequence(channels=["DAPI", {"config": "DAPI", "group": "Camera"}])
    assert [channel.name for channel in dimensions(plan)["c"].channels] == ["DAPI (Channel)", "DAPI (Camera)"]


@pytest.mark.parametrize(
    ("name", "color"),
    [
        ("DAPI", "#0000ff"), ("mCherry", "#ff0000"), ("Alexa 488", "#00ff00"), ("AF647", "#ff00ff"),
        ("Confocal GFP", "#00ff00"), ("Far Red", "#ff00ff"), ("BF", "#ffffff"), ("488nm", "#00ff00"),
        ("Laser 561", "#ff8000"), ("640", "#ff00ff"), ("my channel", None), ("grid", None), ("1405", None),
    ],
)  # fmt: skip
def test_a_name_tells_the_colour(name: str, color: str | None) -> None:
    assert color_of(name) == color


IRREGULAR = {
    "own planes": {"sequence": MDASequence(z_plan={"range": 6, "step": 2})},
    "own times": {"sequence": MDASequence(time_plan={"interval": 0.5, "loops": 4})},
    "own channels": {"sequence": MDASequence(channels=["Cy5"])},
    "more channels": {"sequence": MDASequence(channels=["Cy5", "Cy3", "BF"], z_plan={"range": 4, "step": 1})},
    "own grid": {"sequence": MDASequence(grid_plan={"rows": 2, "columns": 1})},
    "all of its own": {
        "sequence": MDASequence(
            channels=["Cy5"],
            z_plan={"range": 4, "step": 1},
            time_plan={"interval": 0.5, "loops": 2},
            grid_plan={"rows": 2, "columns": 2},
        )
    },
    "nothing in it": {"sequence": MDASequence()},
    "own autofocus": {
        "sequence": MDASequence(
            z_plan={"range": 4, "step": 1}, autofocus_plan=useq.AxesBasedAF(autofocus_motor_offset=1, axes=("p",))
        )
    },
}
OUTER: dict[str, dict[str, Any]] = {
    "channels": {"channels": ["DAPI", "FITC"]},
    "times": {"channels": ["DAPI"], "time_plan": {"interval": 3, "loops": 3}},
    "planes": {"channels": ["DAPI", "FITC"], "z_plan": {"range": 2, "step": 1}},
    "all": {"channels": ["DAPI", "FITC"], "z_plan": {"range": 2, "step": 1}, "time_plan": {"interval": 3, "loops": 2},
            "grid_plan": {"rows": 1, "columns": 2}},
    "with holes": {"channels": [{"config": "DAPI", "do_stack": False}, {"config": "FITC", "acquire_every": 2}],
                   "z_plan": {"range": 2, "step": 1}, "time_plan": {"interval": 3, "loops": 5}},
    "nothing": {},
}  # fmt: skip


@pytest.mark.parametrize("outer", OUTER)
@pytest.mark.parametrize("inner", IRREGULAR)
@pytest.mark.filterwarnings("ignore:.*skipped frames detected")
def test_every_event_of_any_sequence_has_a_place_of_its_own_and_the_others_a_reason(inner: str, outer: str) -> None:
    plan = MDASequence(**OUTER[outer], stage_positions=[(0, 0, 0), useq.Position(x=1, y=1, z=1, **IRREGULAR[inner])])
    layout = layout_of(plan)
    places = Places(layout)
    taken: set[frozenset[tuple[str, int]]] = set()
    holes: list[frozenset[tuple[str, int]]] = []
    n_before: Counter[frozenset[tuple[str, int]]] = Counter()
    for event in filter(takes_image, plan):
        key = frozenset(event.index.items())
        place = places(event, n_before[key])
        n_before[key] += 1
        holes += [frozenset(hole.items()) for hole, _ in places.passed(place)]
        counts = layout.fields[place.get("p", 0)].stack.counts
        assert all(number < (counts.get(axis, 1) or 0) for axis, number in place.items() if axis != "p")
        assert frozenset(place.items()) not in taken
        taken.add(frozenset(place.items()))
    holes += [frozenset(hole.items()) for hole, _ in places.left()]
    assert len(set(holes)) == len(holes)
    assert not taken & set(holes)
    if all(field.stack.is_exact for field in layout.fields):
        n_places = 0
        for field in layout.fields:
            product = 1
            for count in field.stack.counts.values():
                product *= count or 0
            n_places += product
        assert len(taken) + len(holes) == n_places


@pytest.mark.parametrize("order", ["tpgcz", "tpcgz", "gptcz", "ptgcz", "tcpgz", "zctpg", "cgptz"])
@pytest.mark.parametrize("where", [{}, {"stage_positions": POSITIONS}, {"grid_plan": {"rows": 2, "columns": 2}},
                                   {"stage_positions": POSITIONS, "grid_plan": {"rows": 2, "columns": 2}}])  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*skipped frames detected")
def test_plans_say_the_same_as_events(order: str, where: dict[str, Any]) -> None:
    plan = MDASequence(
        axis_order=order,
        channels=["DAPI", {"config": "FITC", "do_stack": False}, {"config": "Cy5", "acquire_every": 3}],
        z_plan={"absolute": [1, 2, 3, 4, 5]},
        time_plan=[{"interval": 1, "loops": 3}, {"interval": 5, "loops": 4}],
        **where,
    )
    assert _from_plans(plan) == _from_events(plan)


def test_a_million_time_points_are_planned_in_little_memory() -> None:
    inner = useq.Position(x=1, y=1, sequence=MDASequence(z_plan={"range": 4, "step": 1}))
    plan = MDASequence(
        channels=["DAPI", "FITC"], time_plan={"interval": 1, "loops": 1_000_000}, z_plan={"range": 2, "step": 1},
        stage_positions=[(0, 0, 0), inner],
    )  # fmt: skip
    tracemalloc.start()
    try:
        layout = layout_of(plan)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [field.stack.counts for field in layout.fields] == [
        {"t": 1_000_000, "c": 2, "z": 3},
        {"t": 1_000_000, "c": 2, "z": 5},
    ]
    assert peak < 5_000_000


def test_positions_that_differ_say_how() -> None:
    own = MDASequence(channels=["Cy5"], z_plan={"range": 6, "step": 2}, time_plan={"interval": 0.5, "loops": 2})
    plan = MDASequence(
        channels=["DAPI", "FITC"],
        time_plan={"interval": 3, "loops": 5},
        z_plan={"range": 2, "step": 1},
        stage_positions=[useq.Position(x=0, y=0, z=0), useq.Position(x=1, y=1, z=10, name="own", sequence=own)],
    )
    found = dimensions(plan)
    assert [found[axis].count for axis in "tcz"] == [10, 2, 4]
    plain, other = found["p"].positions
    assert (plain.counts, plain.scales, plain.channels) == ({"t": 5, "z": 3}, None, None)
    assert (other.counts, other.scales) == (None, {"t": 0.5, "z": 2.0})
    assert [channel.name for channel in other.channels or ()] == ["Cy5"]
    assert other.z == 10 - 3


def test_an_event_of_another_sequence_has_no_place() -> None:
    place = plan_sequence(MDASequence(stage_positions=POSITIONS), 8, 8, "uint8", path="a.zarr").place
    with pytest.raises(FrameIndexError, match="no position"):
        place(useq.MDAEvent(index={"p": 2}))


def test_the_settings_of_any_regular_sequence_go_to_yaml_and_back() -> None:
    made = settings(MDASequence(stage_positions=POSITIONS, channels=["DAPI"], z_plan={"range": 2, "step": 1}))
    assert AcquisitionSettings.from_yaml(made.to_yaml()) == made
    assert made.plan().root == Path("cells.ome.zarr")
