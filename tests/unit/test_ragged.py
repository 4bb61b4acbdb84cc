"""Positions may have counts, scales and channels of their own; then each image has a shape of its own."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ome_types import from_xml
from pydantic import ValidationError

from scopestream import (
    AcquisitionSettings,
    Channel,
    Dimension,
    FrameIndexError,
    Plate,
    Position,
    ResumeError,
    Stream,
    open_stream,
    read_frames,
    recover,
    verify,
)
from scopestream.places import places_of
from scopestream.testing import acquire, frame_numbers, mismatch, reader_other_than, stamped_frame, stamped_frames
from tests.unit.crashes import crash

Y, X = 8, 12
FRAME = [Dimension(name="y", count=Y, scale=0.1, unit="um"), Dimension(name="x", count=X, scale=0.1, unit="um")]
T, Z = Dimension(name="t", count=3, scale=2.0, unit="s"), Dimension(name="z", count=4, scale=0.5, unit="um")
CHANNELS = Dimension(name="c", coords=[Channel(name="DAPI", color="#0000ff"), "GFP"])
SHORT = Position(name="short", counts={"t": 1, "z": 2})
FLAT = Position(name="flat", counts={"z": 1}, scales={"t": 10.0}, channels=["GFP"])
WHOLE = Position(name="whole")
ALL = Dimension(name="p", coords=[SHORT, FLAT, WHOLE])


def settings(path: Path, *dimensions: Dimension, **changes: Any) -> AcquisitionSettings:
    loop = dimensions or (T, ALL, CHANNELS, Z)
    return AcquisitionSettings(path=path / "a.ome.zarr", dtype="uint16", dimensions=[*loop, *FRAME], **changes)


def check(plan: Any, came: Any = None) -> None:
    frames = stamped_frames(plan, frame_numbers(plan) if came is None else came)
    assert not (wrong := mismatch(plan, frames, reader_other_than(plan.backend))), wrong


def places(stream: Stream) -> list[dict[str, int]]:
    """Where frames go that come by `append`, as the log has it."""
    while (number := stream.next_frame) is not None:
        stream.append(stamped_frame(number, (Y, X), "uint16"))
    stream.close()
    return [record["index"] for record in sorted(read_frames(stream.path), key=lambda record: record["frame"])]


def group(root: Path, path: str) -> Any:
    return json.loads((root / path / "zarr.json").read_text())["attributes"]["ome"]


# -- shapes and places ----------------------------------------------------------------------------------------------


def test_every_image_has_the_shape_that_its_position_has(tmp_path: Path) -> None:
    plan = settings(tmp_path, levels=2).plan()
    assert [plan.arrays[image.arrays[0]].shape for image in plan.images] == [
        (1, 2, 2, Y, X),
        (3, 1, 1, Y, X),
        (3, 2, 4, Y, X),
    ]
    assert [plan.arrays[image.arrays[1]].shape for image in plan.images] == [
        (1, 2, 2, Y // 2, X // 2),
        (3, 1, 1, Y // 2, X // 2),
        (3, 2, 4, Y // 2, X // 2),
    ]
    assert plan.n_frames == 4 + 3 + 24
    assert plan.payload_bytes == (4 + 3 + 24) * (Y * X + Y * X // 4) * 2
    assert "t=1..3 c=1..2 z=1..4 y=8 x=12" in str(plan)


def test_chunks_and_shards_are_the_same_in_all_images(tmp_path: Path) -> None:
    plan = settings(tmp_path, chunks={"z": 2, "y": 4, "x": 4}, shards={"t": 2, "z": 4}).plan()
    assert len({(array.chunks, array.shards) for array in plan.arrays}) == 1


@pytest.mark.parametrize("backend", ["inplace", "tensorstore", "zarr-python", "zarrs", "acquire-zarr"])
def test_a_shard_file_is_no_longer_than_its_image_needs(tmp_path: Path, backend: str) -> None:
    positions = Dimension(name="p", coords=[Position(name="thin", counts={"z": 1}), WHOLE])
    plan = acquire(settings(tmp_path, T, positions, Z, backend=backend, shards={"t": 3, "z": 4}))
    thin, whole = (plan.root / image / "0" / "c" / "0" / "0" / "0" / "0" for image in ("0", "1"))
    index = 12 * 16 + 4
    assert whole.stat().st_size == 12 * Y * X * 2 + index
    assert thin.stat().st_size <= 9 * Y * X * 2 + index  # the last chunk is number 8
    check(plan)
    assert not recover(plan.root).changed


def test_counts_that_are_those_of_the_dimensions_change_nothing(tmp_path: Path) -> None:
    same = Dimension(name="p", coords=[Position(name="short", counts={"t": 3}), WHOLE])
    assert settings(tmp_path, T, same, Z).plan().is_regular


@pytest.mark.parametrize("order", [(T, ALL, CHANNELS, Z), (ALL, T, CHANNELS, Z), (T, CHANNELS, Z, ALL)])
def test_append_goes_through_the_places_that_are_there_in_nested_order(
    tmp_path: Path, order: tuple[Dimension, ...]
) -> None:
    counts = {0: {"t": 1, "z": 2}, 1: {"z": 1, "c": 1}, 2: {}}
    names = [dimension.name for dimension in order]
    box = (dict(zip(names, at, strict=True)) for at in product(*[range(d.count or 0) for d in order]))
    expected = [at for at in box if all(at[name] < count for name, count in counts[at["p"]].items())]
    stream = open_stream(settings(tmp_path, *order))
    assert places(stream) == expected
    check(stream.plan)


def test_numbers_of_frames_are_those_of_the_full_box(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path)) as stream:
        numbers = [stream.next_frame]
        for _ in range(4):
            stream.append(np.ones((Y, X), "uint16"))
            numbers.append(stream.next_frame)
    # t=0 p=0: c=0 z=0, c=0 z=1, c=1 z=0, c=1 z=1; then t=0 p=1 c=0 z=0
    assert numbers == [0, 1, 4, 5, 8]


def test_a_stack_of_frames_runs_from_position_to_position(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path)) as stream:
        numbers = frame_numbers(stream.plan)
        frames = np.stack([stamped_frame(number, (Y, X), "uint16") for number in numbers])
        stream.extend(frames[:5])
        with pytest.raises(FrameIndexError, match="All 31 frames"):
            stream.extend(np.concatenate([frames[5:], frames[:1]]))
        stream.extend(frames[5:])
        assert stream.next_frame is None
        with pytest.raises(FrameIndexError, match="All 31 frames"):
            stream.append(frames[0])
    check(stream.plan)


def test_a_frame_may_be_written_to_any_place_that_is_there(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path)) as stream:
        stream.write(stamped_frame(5, (Y, X), "uint16"), index={"t": 0, "p": "short", "c": "GFP", "z": 1})
        stream.write(stamped_frame(8, (Y, X), "uint16"), index={"t": 0, "p": "flat", "c": "GFP", "z": 0})
    check(stream.plan, [5, 8])


@pytest.mark.parametrize(
    ("index", "problem"),
    [
        ({"t": 1, "p": "short", "c": 0, "z": 0}, "'t' has no item 1 (position 'short' has 1)"),
        ({"t": 0, "p": 0, "c": 0, "z": 3}, "'z' has no item 3 (position 'short' has 2)"),
        ({"t": 0, "p": "flat", "c": "DAPI", "z": 0}, "'c' has no item 'DAPI' (position 'flat' has GFP)"),
        ({"t": 0, "p": "whole", "c": 0, "z": 4}, "'z' has no item 4 (it has 4)"),
        ({"t": 5, "p": "nowhere"}, "'p' has no item 'nowhere'"),
    ],
)
def test_a_place_that_is_not_there_is_refused_with_what_the_position_has(
    tmp_path: Path, index: dict[str, int | str], problem: str
) -> None:
    with open_stream(settings(tmp_path)) as stream:
        with pytest.raises(FrameIndexError) as refused:
            stream.write(np.ones((Y, X), "uint16"), index=index)
        assert problem in str(refused.value)
        assert stream.next_frame == 0
    assert list(read_frames(stream.path)) == []


def test_skip_counts_places_that_are_there(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path)) as stream:
        stream.skip(5, reason="left out")
        assert stream.next_frame == 16  # the first of p=2
        with pytest.raises(FrameIndexError, match="only 26 of 31 are left"):
            stream.skip(27)
        stream.skip(26)
        assert stream.next_frame is None
    assert [record["frame"] for record in read_frames(stream.path)] == frame_numbers(stream.plan)


def test_frames_that_do_not_come_read_as_zeros_and_are_missing(tmp_path: Path) -> None:
    plan = acquire(settings(tmp_path), 10, skipped={1, 4})
    check(plan, set(frame_numbers(plan, 10)) - {1, 4})
    frames = json.loads((plan.root / "zarr.json").read_text())["attributes"]["scopestream"]["frames"]
    assert frames == {"written": 8, "skipped": 2, "dropped": 0, "failed": 0, "missing": 21}


def test_an_unbounded_axis_goes_with_counts_of_other_axes(tmp_path: Path) -> None:
    endless = Dimension(name="t", count=None)
    positions = Dimension(name="p", coords=[Position(name="flat", counts={"z": 1}), WHOLE])
    with open_stream(settings(tmp_path, endless, positions, Z)) as stream:
        acquire(stream.plan.settings, 12, stream=stream)
        assert stream.next_frame == 21  # t=2 p=1 z=1
    check(stream.plan, frame_numbers(stream.plan, 12))
    lengths = [json.loads((stream.plan.root / f"{n}/0/zarr.json").read_text())["shape"][0] for n in (0, 1)]
    assert lengths == [3, 3]


@st.composite
def boxes(draw: st.DrawFn) -> tuple[list[Dimension], list[dict[str, int]], int]:
    """Dimensions with a position among them, what each position has, and how many cameras there are."""
    names = draw(st.permutations(["t", "c", "z"]))[: draw(st.integers(0, 3))]
    counts = {name: draw(st.integers(1, 4)) for name in names}
    own = [{n: draw(st.integers(1, count)) for n, count in counts.items()} for _ in range(draw(st.integers(1, 4)))]
    positions = [Position(name=str(number), counts=one) for number, one in enumerate(own)]
    loop = [Dimension(name=name, count=count) for name, count in counts.items()]
    loop.insert(draw(st.integers(0, len(loop))), Dimension(name="p", coords=positions))
    return loop, own, draw(st.integers(1, 3))


@given(box=boxes(), data=st.data())
def test_places_are_those_below_all_counts(
    box: tuple[list[Dimension], list[dict[str, int]], int], data: st.DataObject
) -> None:
    loop, own, n_cameras = box
    at = [dimension.name for dimension in loop].index("p")
    expected = []
    for number, coords in enumerate(product(*[range(dimension.count or 0) for dimension in loop], range(n_cameras))):
        limits = own[coords[at]]
        if all(i < limits.get(dimension.name, 99) for i, dimension in zip(coords, loop, strict=False)):
            expected.append(number)
    found = places_of(loop, n_cameras)
    assert [number for number in range(found.end + 2) if found.has(number)] == expected
    start = data.draw(st.integers(0, found.end - 1))
    rest = [number for number in expected if number >= start and number % n_cameras == start % n_cameras]
    first = found.first_from(start)
    assert first == rest[0] if rest else first >= found.end
    if not found.has(start):
        assert found.n_from(first) == len(rest)
    else:
        assert found.n_from(start) == len(rest)
        assert list(found.ahead(start, 5)) == rest[:5]
        assert list(found.ahead(start, 999)) == rest


# -- what the documents say -----------------------------------------------------------------------------------------


def test_every_image_tells_its_own_channels(tmp_path: Path) -> None:
    plan = acquire(settings(tmp_path))
    labels = [[one["label"] for one in group(plan.root, str(n))["omero"]["channels"]] for n in range(3)]
    assert labels == [["DAPI", "GFP"], ["GFP"], ["DAPI", "GFP"]]
    ome = from_xml((plan.root / "OME" / "METADATA.ome.xml").read_text())
    assert [[channel.name for channel in image.pixels.channels] for image in ome.images] == labels
    sizes = [(image.pixels.size_t, image.pixels.size_c, image.pixels.size_z) for image in ome.images]
    assert sizes == [(1, 2, 2), (3, 1, 1), (3, 2, 4)]


def test_a_channel_has_the_same_contrast_wherever_it_is(tmp_path: Path) -> None:
    one = Dimension(name="p", coords=[Position(name="both"), Position(name="one", channels=["GFP"])])
    with open_stream(settings(tmp_path, one, CHANNELS)) as stream:
        for place, value in (((0, "DAPI"), 10), ((0, "GFP"), 500), ((1, "GFP"), 900)):
            index: dict[str, int | str] = {"p": place[0], "c": place[1]}
            stream.write(np.full((Y, X), value, "uint16"), index=index)
    windows = [
        [(one["window"]["start"], one["window"]["end"]) for one in group(stream.plan.root, str(n))["omero"]["channels"]]
        for n in range(2)
    ]
    assert windows == [[(10, 11), (500, 900)], [(500, 900)]]


def test_every_image_tells_its_own_steps(tmp_path: Path) -> None:
    plan = acquire(settings(tmp_path, levels=2))
    scales = []
    for n in range(3):
        levels = group(plan.root, str(n))["multiscales"][0]["datasets"]
        scales.append([level["coordinateTransformations"][0]["scale"] for level in levels])
    assert scales[0] == scales[2] == [[2.0, 1.0, 0.5, 0.1, 0.1], [2.0, 1.0, 0.5, 0.2, 0.2]]
    assert scales[1] == [[10.0, 1.0, 0.5, 0.1, 0.1], [10.0, 1.0, 0.5, 0.2, 0.2]]
    ome = from_xml((plan.root / "OME" / "METADATA.ome.xml").read_text())
    assert [image.pixels.time_increment for image in ome.images] == [2.0, 10.0, 2.0]


def test_planes_of_every_image_are_halved_until_its_own_last_one_is_left(tmp_path: Path) -> None:
    plan = acquire(settings(tmp_path, levels=3, downscale_z=True))
    check(plan)
    steps = [
        [
            level["coordinateTransformations"][0]["scale"][2]
            for level in group(plan.root, str(n))["multiscales"][0]["datasets"]
        ]
        for n in range(3)
    ]
    assert steps == [[0.5, 1.0, 1.0], [0.5, 0.5, 0.5], [0.5, 1.0, 2.0]]


def test_fields_of_a_plate_may_differ(tmp_path: Path) -> None:
    wells = [
        Position(name="A1 first", row="A", column="1", counts={"z": 1}),
        Position(name="A1 second", row="A", column="1"),
        Position(name="B2", row="B", column="2", counts={"t": 2}),
    ]
    plan = acquire(settings(tmp_path, T, Dimension(name="p", coords=wells), Z, plate=Plate.standard(6)))
    assert [plan.arrays[image.arrays[0]].shape[:2] for image in plan.images] == [(3, 1), (3, 4), (2, 4)]
    check(plan)
    assert verify(plan.root).sound


# -- what follows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["inplace", "tensorstore"])
@pytest.mark.parametrize("codec", ["none", "blosc-lz4"])
def test_a_crash_costs_nothing_that_was_flushed(tmp_path: Path, backend: str, codec: str) -> None:
    chosen = settings(
        tmp_path, backend=backend, codec=codec, levels=2, shards={"t": 2, "z": 2}, downscale_z=True, memory_limit="2GB"
    )
    with open_stream(chosen) as stream:
        acquire(chosen, 9, skipped={4}, stream=stream)
        stream.flush()
        left = crash(stream, tmp_path / "left.ome.zarr")
    numbers = frame_numbers(stream.plan)
    assert recover(left, dry_run=True).frames["missing"] == 22
    assert dict(recover(left).frames) == {"written": 8, "skipped": 1, "dropped": 0, "failed": 0, "missing": 22}
    assert not recover(left).changed
    again = chosen.model_copy(update={"path": str(left), "on_exists": "resume"})
    with open_stream(again) as stream:
        assert stream.next_frame == numbers[9]
        for number in numbers[9:]:
            stream.append(stamped_frame(number, (Y, X), "uint16"))
        assert stream.next_frame is None
    check(stream.plan, set(numbers) - {4})
    found = verify(left)
    assert found.sound
    assert found.status == "complete"
    counts = [(image.written, image.skipped, image.missing) for image in found.images]
    assert counts == [(3, 1, 0), (3, 0, 0), (24, 0, 0)]


def test_verify_counts_what_each_image_lacks(tmp_path: Path) -> None:
    plan = acquire(settings(tmp_path), 6)
    assert [image.missing for image in verify(plan.root).images] == [0, 2, 23]


def test_a_line_of_the_log_for_a_place_that_is_not_there_is_no_record(tmp_path: Path) -> None:
    plan = acquire(settings(tmp_path))
    log = plan.root / "scopestream" / "frames.jsonl"
    line = {"frame": 2, "image": "0", "index": {"t": 0, "p": 0, "c": 0, "z": 2}, "status": "written", "time": 1.0}
    log.write_text(log.read_text() + json.dumps(line) + "\n")
    found = verify(plan.root)
    assert found.problems == ["the frame log has 1 lines that are no records"]


def test_a_dataset_goes_on_only_with_the_same_counts(tmp_path: Path) -> None:
    acquire(settings(tmp_path), 3)
    other = Dimension(name="p", coords=[SHORT, FLAT, Position(name="whole", counts={"z": 3})])
    with pytest.raises(ResumeError, match="coords of dimension 'p'"):
        open_stream(settings(tmp_path, T, other, CHANNELS, Z, on_exists="resume"))


# -- settings -------------------------------------------------------------------------------------------------------


def test_settings_come_back_from_yaml(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    assert AcquisitionSettings.from_yaml(chosen.to_yaml()) == chosen


def test_everything_wrong_with_positions_is_said_at_once(tmp_path: Path) -> None:
    positions = [
        Position(name="a", counts={"t": 4, "q": 1, "p": 1, "angle": 1, "y": 1, "c": 2}, channels=["GFP"]),
        Position(name="b", channels=["1", "2", "3"], scales={"c": 2.0, "w": 1.0}),
    ]
    angle = Dimension(name="angle", coords=["0", "90"])
    with pytest.raises(ValidationError) as wrong:
        settings(tmp_path, T, angle, Dimension(name="p", coords=positions), CHANNELS)
    text = str(wrong.value)
    for problem in (
        "position 'a' has 4 of 't', but the dimension has only 3",
        "position 'a' has a count of 'q', which is no dimension",
        "position 'a' has a count of 'p', which tells images apart",
        "position 'a' has a count of 'angle', which tells images apart",
        "position 'a' has a count of 'y', but frames of one camera have one size",
        "position 'a' has 2 of 'c', but 1 channels",
        "position 'b' has 3 channels, but dimension 'c' has only 2",
        "position 'b' has a scale along 'c', which is no axis of its image that has one",
        "position 'b' has a scale along 'w', which is no dimension",
    ):
        assert problem in text


def test_a_position_has_at_least_one_item_of_each() -> None:
    with pytest.raises(ValidationError, match=r"has 0 of 'z'.*has scale -1\.0 along 't'.*channels is empty"):
        Position(name="a", counts={"z": 0}, scales={"t": -1.0}, channels=[])
    with pytest.raises(ValidationError, match="repeats channels 'GFP'"):
        Position(name="a", channels=["GFP", "GFP"])


def test_channels_need_a_channel_dimension(tmp_path: Path) -> None:
    one = Dimension(name="p", coords=[Position(name="a", channels=["GFP"])])
    with pytest.raises(ValidationError, match="position 'a' has channels, but its image has no channel dimension"):
        settings(tmp_path, T, one)


def test_nothing_is_less_than_unbounded(tmp_path: Path) -> None:
    one = Dimension(name="p", coords=[Position(name="a", counts={"t": 3})])
    with pytest.raises(ValidationError, match="position 'a' has a count of 't', which is unbounded"):
        settings(tmp_path, Dimension(name="t", count=None), one)


def test_of_many_wrong_positions_the_first_are_named(tmp_path: Path) -> None:
    many = Dimension(name="p", coords=[Position(name=str(n), counts={"z": 9}) for n in range(30)])
    with pytest.raises(ValidationError, match="positions have 20 more problems"):
        settings(tmp_path, many, Z)
