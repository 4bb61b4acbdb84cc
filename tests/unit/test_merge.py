"""`merge` makes several dimensions one channel axis; without it, what is too many for an image tells images apart."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ome_types import from_xml
from pydantic import ValidationError

from scopestream import (
    AcquisitionSettings,
    Channel,
    Dimension,
    PlanError,
    Position,
    open_stream,
    read_frames,
    recover,
    verify,
)
from scopestream.plan import LayoutPlan, block_bytes
from scopestream.route import Route
from scopestream.testing import acquire, frame_numbers, mismatch, read_array, reader_other_than, stamped_frames
from tests.unit.crashes import crash

Y, X = 8, 12
FRAME = [Dimension(name="y", count=Y), Dimension(name="x", count=X)]
T, Z = Dimension(name="t", count=2), Dimension(name="z", count=3)
PHASE = Dimension(name="phase", count=3)
ANGLE = Dimension(name="angle", coords=["0", "90"])
CHANNELS = Dimension(name="c", coords=[Channel(name="DAPI", color="#0000ff", emission_nm=460), "GFP"])


def settings(path: Path, *dimensions: Dimension, **changes: Any) -> AcquisitionSettings:
    base = {"merge": ("phase", "c"), **changes}
    return AcquisitionSettings(path=path / "a.ome.zarr", dtype="uint16", dimensions=[*dimensions, *FRAME], **base)


def check(plan: LayoutPlan, came: Any = None) -> None:
    frames = stamped_frames(plan, frame_numbers(plan) if came is None else came)
    assert not (wrong := mismatch(plan, frames, reader_other_than(plan.backend))), wrong


def group(root: Path, path: str) -> Any:
    return json.loads((root / path / "zarr.json").read_text())["attributes"]["ome"]


# -- one axis -------------------------------------------------------------------------------------------------------


def test_merged_dimensions_are_one_channel_axis_slowest_first(tmp_path: Path) -> None:
    chosen = settings(tmp_path, T, PHASE, CHANNELS, Z)
    with open_stream(chosen) as stream:
        assert stream.plan.kind == "image"
        assert [(array.axes, array.shape) for array in stream.plan.arrays] == [
            (("t", "c", "z", "y", "x"), (2, 6, 3, Y, X))
        ]
        for t, phase, c, z in product(range(2), range(3), range(2), range(3)):
            stream.append(np.full((Y, X), 1000 * t + 100 * phase + 10 * c + z, "uint16"))
    pixels = read_array(stream.plan.root / "0", "tensorstore")[..., 0, 0]
    for t, phase, c, z in product(range(2), range(3), range(2), range(3)):
        assert pixels[t, 2 * phase + c, z] == 1000 * t + 100 * phase + 10 * c + z


def test_channels_are_named_after_their_combination_and_keep_what_is_known_of_them(tmp_path: Path) -> None:
    plan = acquire(settings(tmp_path, Dimension(name="p", count=1), PHASE, CHANNELS))
    channels = group(plan.root, "0")["omero"]["channels"]
    names = ["phase=0 DAPI", "phase=0 GFP", "phase=1 DAPI", "phase=1 GFP", "phase=2 DAPI", "phase=2 GFP"]
    assert [one["label"] for one in channels] == names
    assert [one["color"] for one in channels[::2]] == ["0000FF"] * 3
    ome = from_xml((plan.root / "OME" / "METADATA.ome.xml").read_text())
    found = ome.images[0].pixels.channels
    assert [channel.name for channel in found] == names
    assert [channel.emission_wavelength for channel in found] == [460, None] * 3


@pytest.mark.parametrize(
    ("dimensions", "merge", "name"),
    [
        ((T, PHASE, CHANNELS), ("phase", "c"), "c"),
        ((T, PHASE, CHANNELS), ("c", "phase"), "c"),
        ((T, PHASE, ANGLE), ("angle", "phase"), "c"),
        ((T, PHASE), ("phase",), "c"),
        ((Dimension(name="c", count=2, type="time"), PHASE, ANGLE), ("phase", "angle"), "angle"),
    ],
)
def test_the_axis_has_the_name_of_the_channels(
    tmp_path: Path, dimensions: tuple[Dimension, ...], merge: tuple[str, ...], name: str
) -> None:
    plan = acquire(settings(tmp_path, *dimensions, merge=merge))
    (array,) = plan.arrays
    assert (array.axes[1], array.types[1]) == (name, "channel")
    check(plan)


@pytest.mark.parametrize("order", [(PHASE, T, CHANNELS, Z), (CHANNELS, T, Z, PHASE), (T, Z, CHANNELS, PHASE)])
@pytest.mark.parametrize("backend", ["inplace", "tensorstore"])
def test_merged_dimensions_may_come_at_any_depth(tmp_path: Path, order: tuple[Dimension, ...], backend: str) -> None:
    chosen = settings(
        tmp_path, *order, backend=backend, chunks={"c": 2, "z": 2}, shards={"t": 2, "c": 4, "z": 2}, codec="zstd",
        levels=2, downscale_z=True,
    )  # fmt: skip
    limit = chosen.plan().peak_bytes
    plan = acquire(chosen.model_copy(update={"memory_limit": limit}), skipped={3, 7})
    check(plan, set(frame_numbers(plan)) - {3, 7})
    assert verify(plan.root).sound


def test_the_plan_counts_the_blocks_that_merged_dimensions_keep_open(tmp_path: Path) -> None:
    plan = settings(tmp_path, PHASE, Z, CHANNELS, backend="tensorstore", shards={"c": 4, "z": 1}).plan()
    # While phases go by, both blocks along c may be open, for each z.
    assert plan.peak_bytes - plan.held_bytes == (2 * 3 + 1) * block_bytes(plan.finest[0], plan.unit)


def test_a_frame_is_written_by_the_dimensions_of_the_acquisition(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path, T, PHASE, CHANNELS)) as stream:
        stream.write(np.full((Y, X), 9, "uint16"), index={"t": 1, "phase": 2, "c": "GFP"}, metadata={"delta_t": 3.0})
        number = Route(stream.plan).number(0, (1, 5))
    (record,) = read_frames(stream.path)
    assert (record["frame"], record["index"]) == (number, {"t": 1, "phase": 2, "c": 1})
    assert (read_array(stream.plan.root / "0", "tensorstore")[1, 5] == 9).all()


def test_planes_of_the_ome_xml_are_at_their_channel(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path, Dimension(name="p", count=1), T, PHASE, CHANNELS)) as stream:
        index: dict[str, int | str] = {"t": 1, "phase": 2, "c": "GFP"}
        stream.write(np.ones((Y, X), "uint16"), index=index, metadata={"delta_t": 3.0})
    ome = from_xml((stream.plan.root / "OME" / "METADATA.ome.xml").read_text())
    (plane,) = ome.images[0].pixels.planes
    assert (plane.the_t, plane.the_c, plane.the_z, plane.delta_t) == (1, 5, 0, 3.0)


def test_positions_may_have_fewer_of_what_is_merged(tmp_path: Path) -> None:
    positions = [Position(name="few", counts={"phase": 2}, channels=["GFP"]), Position(name="all")]
    plan = acquire(settings(tmp_path, PHASE, T, Dimension(name="p", coords=positions), CHANNELS, levels=2))
    assert [plan.arrays[image.arrays[0]].shape[:2] for image in plan.images] == [(2, 2), (2, 6)]
    labels = [one["label"] for one in group(plan.root, "0")["omero"]["channels"]]
    assert labels == ["phase=0 GFP", "phase=1 GFP"]
    check(plan)
    assert verify(plan.root).sound


@pytest.mark.parametrize("backend", ["inplace", "tensorstore"])
def test_a_crash_costs_nothing_that_was_flushed(tmp_path: Path, backend: str) -> None:
    chosen = settings(
        tmp_path, PHASE, T, CHANNELS, Z, backend=backend, codec="blosc-lz4", chunks={"c": 2}, shards={"c": 4, "z": 3},
        levels=2,
    )  # fmt: skip
    with open_stream(chosen) as stream:
        acquire(chosen, 17, stream=stream)
        stream.flush()
        left = crash(stream, tmp_path / "left.ome.zarr")
    assert recover(left).frames["written"] == 17
    with open_stream(chosen.model_copy(update={"path": str(left), "on_exists": "resume"})) as stream:
        for number in range(stream.next_frame or 0, 36):
            stream.append(stamped_frames(stream.plan, [number])[number])
    check(stream.plan)
    assert verify(left).status == "complete"


def test_a_backend_that_needs_order_writes_what_comes_in_order_and_refuses_the_rest(tmp_path: Path) -> None:
    check(acquire(settings(tmp_path, T, PHASE, CHANNELS, Z, backend="acquire-zarr")))
    for order in ((T, PHASE, Z, CHANNELS), (T, CHANNELS, PHASE)):
        with pytest.raises(PlanError, match=r"merged dimensions \(phase, c\) come in another"):
            open_stream(settings(tmp_path, *order, backend="acquire-zarr", on_exists="increment"))


@pytest.mark.parametrize(
    ("dimensions", "merge", "problem"),
    [
        ((T, PHASE, CHANNELS), ("phase", "q"), "merge names 'q', which is no dimension before the frame"),
        ((T, PHASE, CHANNELS), ("phase", "y", "c"), "merge names 'y', which is no dimension before the frame"),
        ((T, PHASE, CHANNELS), ("phase", "phase", "c"), "merge names 'phase' twice"),
        ((T, PHASE, CHANNELS), ("phase",), "an image has one channel axis, so merge must name 'c' as well"),
        ((Dimension(name="p", count=2), PHASE), ("p", "phase"), "merge names the positions 'p'"),
        ((Dimension(name="t", count=None), PHASE), ("t", "phase"), "merge names 't', which is unbounded"),
        ((Dimension(name="a", count=3000), Dimension(name="b", count=3000)), ("a", "b"), "9000000 channels are too"),
    ],
)
def test_what_cannot_be_merged_is_said(
    tmp_path: Path, dimensions: tuple[Dimension, ...], merge: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(ValidationError, match=problem):
        settings(tmp_path, *dimensions, merge=merge)


# -- more than five axes otherwise ----------------------------------------------------------------------------------


def test_what_is_too_many_for_an_image_tells_images_apart(tmp_path: Path) -> None:
    illumination = Dimension(name="illumination", coords=["left", "right"])
    plan = acquire(settings(tmp_path, T, ANGLE, illumination, PHASE, CHANNELS, Z, merge=()))
    assert plan.kind == "bioformats2raw"
    assert [image.name for image in plan.images] == [
        f"angle={angle} illumination={side} phase={phase}"
        for angle in ("0", "90") for side in ("left", "right") for phase in range(3)
    ]  # fmt: skip
    assert {array.axes for array in plan.arrays} == {("t", "c", "z", "y", "x")}
    check(plan)
    assert verify(plan.root).sound


def test_some_may_be_merged_and_others_tell_images_apart(tmp_path: Path) -> None:
    plan = acquire(settings(tmp_path, T, ANGLE, PHASE, CHANNELS, Z))
    assert [image.name for image in plan.images] == ["angle=0", "angle=90"]
    assert {array.shape for array in plan.arrays} == {(2, 6, 3, Y, X)}
    check(plan)


def test_cameras_and_merged_dimensions_are_channels_together(tmp_path: Path) -> None:
    chosen = settings(tmp_path, T, PHASE, CHANNELS, cameras=["left", "right"], camera_axis="channels")
    plan = acquire(chosen)
    assert plan.arrays[0].shape == (2, 12, Y, X)
    labels = [one["label"] for one in group(plan.root, "")["omero"]["channels"]]
    assert labels[:2] == ["left phase=0 DAPI", "left phase=0 GFP"]
    assert labels[-1] == "right phase=2 GFP"
    check(plan)
