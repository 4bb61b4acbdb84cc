"""The three layouts, opened by the libraries that people use and checked by two validators."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import ome_types
import ome_zarr_models.v05
import pytest
import yaozarrs
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader

from scopestream import AcquisitionSettings, Camera, Channel, Dimension, LayoutPlan, Plate, Position, open_stream
from scopestream.testing import acquire, expected_images, frame_numbers, stamped_frame, stamped_frames

Y, X = 48, 64
FRAME = [Dimension(name="y", count=Y, scale=0.5, unit="um"), Dimension(name="x", count=X, scale=0.5, unit="um")]
TIME = Dimension(name="t", count=2, scale=1.5, unit="s")
CHANNELS = Dimension(name="c", coords=[Channel(name="DAPI", color="blue", emission_nm=461), "GFP"])
DEPTH = Dimension(name="z", count=3, scale=2.0, unit="um", origin=-2.0)
STAGE = Dimension(
    name="p", coords=[Position(name="left", x=10.0, y=20.0, z=5.0), Position(name="right", x=260.0, y=20.0)]
)
WELLS = Dimension(
    name="p",
    coords=[
        Position(name="A1-0", row="A", column="1", acquisition=0),
        Position(name="A1-1", row="A", column="1", acquisition=1),
        Position(name="C7-0", row="C", column="7", acquisition=0, x=1.0, y=2.0),
    ],
)
RAGGED = Dimension(
    name="p",
    coords=[
        Position(name="thin", x=0.0, y=0.0, counts={"z": 1}, scales={"z": 0.5}),
        Position(name="short", counts={"t": 1}, channels=["GFP"]),
        Position(name="whole"),
    ],
)
CAMERAS = [Camera(name="left"), Camera(name="right", shape=(20, 30), dtype="uint8", scale=(1.0, 1.25))]
PLATE = Plate.standard(96, name="screen").model_copy(
    update={
        "acquisitions": Plate(
            rows=("A",), columns=("1",), acquisitions=({"id": 0}, {"id": 1, "name": "second"})
        ).acquisitions
    }
)
LAYOUTS: dict[str, dict[str, Any]] = {
    "image": {"dimensions": [TIME, CHANNELS, DEPTH, *FRAME]},
    "image without channels": {"dimensions": [DEPTH, *FRAME]},
    "single frame": {"dimensions": FRAME, "dtype": "float32"},
    "positions": {"dimensions": [TIME, STAGE, CHANNELS, DEPTH, *FRAME]},
    "six axes": {"dimensions": [TIME, Dimension(name="angle", coords=[0, 90]), CHANNELS, DEPTH, *FRAME]},
    "plate": {"dimensions": [WELLS, CHANNELS, *FRAME], "plate": PLATE},
    "ragged": {"dimensions": [TIME, RAGGED, CHANNELS, DEPTH, *FRAME]},
    "two cameras": {"dimensions": [TIME, STAGE, CHANNELS, *FRAME], "cameras": CAMERAS},
    "plate, two cameras": {"dimensions": [WELLS, TIME, *FRAME], "plate": PLATE, "cameras": CAMERAS},
    "cameras as channels": {
        "dimensions": [TIME, CHANNELS, *FRAME], "cameras": ["left", "right"], "camera_axis": "channels"
    },
    "merged": {"dimensions": [TIME, Dimension(name="phase", count=3), CHANNELS, *FRAME], "merge": ("phase", "c")},
}  # fmt: skip


@pytest.fixture(params=LAYOUTS)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> LayoutPlan:
    fields = {"dtype": "uint16", "levels": 2, "backend": "inplace", **LAYOUTS[request.param]}
    return acquire(AcquisitionSettings(path=tmp_path / "a.ome.zarr", **fields))


def attributes(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "zarr.json").read_text())["attributes"]
    return document


def test_yaozarrs_validates_the_whole_store(written: LayoutPlan) -> None:
    yaozarrs.validate_zarr_store(str(written.root))


def test_ome_zarr_models_validates_every_group(written: LayoutPlan) -> None:
    root = zarr.open_group(str(written.root), mode="r")
    if written.kind == "plate":
        ome_zarr_models.v05.HCS.from_zarr(root)
    elif written.kind == "bioformats2raw":
        ome_zarr_models.v05.BioFormats2Raw.from_zarr(root)
    for image in written.images:
        group = zarr.open_group(str(written.root / image.path), mode="r")
        assert len(ome_zarr_models.v05.Image.from_zarr(group).ome_attributes.multiscales) == 1


def test_ome_zarr_py_reads_every_image_exactly(written: LayoutPlan) -> None:
    frames = stamped_frames(written, frame_numbers(written))
    for image, expected in zip(written.images, expected_images(written, frames), strict=True):
        location = parse_url(str(written.root / image.path))
        assert location is not None
        (node,) = list(Reader(location)())
        assert [level.shape for level in node.data] == [written.arrays[number].shape for number in image.arrays]
        np.testing.assert_array_equal(np.asarray(node.data[0]), expected)


def test_ome_xml_lists_the_images_in_series_order(written: LayoutPlan) -> None:
    if written.kind == "image":
        assert not (written.root / "OME").exists()
        return
    document = ome_types.from_xml((written.root / "OME" / "METADATA.ome.xml").read_text())
    assert [image.name for image in document.images] == [image.name for image in written.images]
    assert [image.id for image in document.images] == [f"Image:{number}" for number in range(len(written.images))]
    assert attributes(written.root / "OME")["ome"]["series"] == [image.path for image in written.images]
    for image, planned in zip(document.images, written.images, strict=True):
        sizes = dict(zip(written.arrays[0].axes, written.arrays[planned.arrays[0]].shape, strict=True))
        found = {name: getattr(image.pixels, f"size_{name}") for name in "tczyx"}
        assert found == {name: sizes.get(name, 1) for name in "tczyx"}


def test_every_level_starts_where_its_first_pixel_lies(tmp_path: Path) -> None:
    settings = AcquisitionSettings(
        path=tmp_path / "a.ome.zarr", dtype="uint16", dimensions=[STAGE, DEPTH, *FRAME], levels=3, backend="inplace"
    )
    plan = acquire(settings)
    left = attributes(plan.root / "0")["ome"]["multiscales"][0]
    assert left["name"] == "left"
    assert [axis["unit"] for axis in left["axes"]] == ["micrometer"] * 3
    # The stage gives x, y and z; the pixels of level n are 2^n as large, and begin where those of level 0 do.
    transforms = [[step[step["type"]] for step in level["coordinateTransformations"]] for level in left["datasets"]]
    assert transforms == [
        [[2.0, 0.5, 0.5], [5.0, 20.0, 10.0]],
        [[2.0, 1.0, 1.0], [5.0, 20.25, 10.25]],
        [[2.0, 2.0, 2.0], [5.0, 20.75, 10.75]],
    ]
    right = attributes(plan.root / "1")["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][1]
    assert right["translation"] == [-2.0, 20.0, 260.0]  # z has no stage coordinate there: the origin of the axis


def test_planes_of_levels_are_thicker_until_one_is_left(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"dimensions": [STAGE, DEPTH, *FRAME], "levels": 4, "downscale_z": True}
    plan = acquire(AcquisitionSettings(path=tmp_path / "a.ome.zarr", dtype="uint16", backend="inplace", **fields))
    assert [array.shape[0] for array in plan.arrays[:4]] == [3, 2, 1, 1]
    yaozarrs.validate_zarr_store(str(plan.root))
    for image, origin in (("0", 5.0), ("1", -2.0)):
        multiscale = attributes(plan.root / image)["ome"]["multiscales"][0]
        transforms = [
            [step[step["type"]][0] for step in level["coordinateTransformations"]] for level in multiscale["datasets"]
        ]
        assert transforms == [[2.0, origin], [4.0, origin + 1.0], [8.0, origin + 3.0], [8.0, origin + 3.0]]
        assert "2 x 2 x 2 pixels" in multiscale["metadata"]["description"]
    assert "mean of 2 x 2 x 2" in str(plan)


@pytest.mark.parametrize(
    ("downscale", "words"),
    [("mean", "rounded half up"), ("nearest", "first of 2 x 2"), ("mode", "most frequent of 2 x 2")],
)
def test_the_document_says_how_levels_were_made(tmp_path: Path, downscale: str, words: str) -> None:
    fields: dict[str, Any] = {"dimensions": [TIME, *FRAME], "levels": 2, "downscale": downscale}
    plan = acquire(AcquisitionSettings(path=tmp_path / "a.ome.zarr", dtype="uint16", backend="inplace", **fields))
    multiscale = attributes(plan.root)["ome"]["multiscales"][0]
    assert multiscale["type"] == downscale
    assert words in multiscale["metadata"]["description"]
    assert f"(2 levels each, {downscale} of 2 x 2)" in str(plan)


def test_channels_have_color_and_a_window_from_the_data_seen(tmp_path: Path) -> None:
    settings = AcquisitionSettings(
        path=tmp_path / "a.ome.zarr", dtype="uint16", dimensions=[TIME, CHANNELS, *FRAME], backend="inplace"
    )
    with open_stream(settings) as stream:
        before = attributes(stream.plan.root)["ome"]["omero"]["channels"]
        for _ in range(2):
            stream.append(np.full((Y, X), 100, np.uint16))
            stream.append(np.linspace(1000, 4000, Y * X, dtype=np.uint16).reshape(Y, X))
    after = attributes(stream.plan.root)["ome"]["omero"]["channels"]
    assert [channel["window"]["end"] for channel in before] == [65535.0, 65535.0]
    assert [(channel["label"], channel["color"]) for channel in after] == [("DAPI", "0000FF"), ("GFP", "FF00FF")]
    assert after[0]["window"] == {"min": 0.0, "max": 65535.0, "start": 100.0, "end": 101.0}
    assert 1000 <= after[1]["window"]["start"] < 1100
    assert 3900 < after[1]["window"]["end"] <= 4000


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "float32"])
def test_every_dtype_has_a_window(tmp_path: Path, dtype: str) -> None:
    plan = acquire(AcquisitionSettings(path=tmp_path / "a.ome.zarr", dtype=dtype, dimensions=FRAME, backend="inplace"))
    window = attributes(plan.root)["ome"]["omero"]["channels"][0]["window"]
    assert window["min"] <= window["start"] < window["end"] <= window["max"]


def test_a_sparse_plate_has_groups_for_imaged_wells_only(tmp_path: Path) -> None:
    settings = AcquisitionSettings(path=tmp_path / "a.ome.zarr", dtype="uint16", backend="inplace", **LAYOUTS["plate"])
    plan = acquire(settings)
    plate = attributes(plan.root)["ome"]["plate"]
    assert [well["path"] for well in plate["wells"]] == ["A/1", "C/7"]
    assert (len(plate["rows"]), len(plate["columns"]), plate["field_count"], plate["name"]) == (8, 12, 2, "screen")
    assert plate["acquisitions"] == [
        {"id": 0, "maximumfieldcount": 1},
        {"id": 1, "maximumfieldcount": 1, "name": "second"},
    ]
    well = attributes(plan.root / "A" / "1")["ome"]["well"]
    assert well["images"] == [{"path": "0", "acquisition": 0}, {"path": "1", "acquisition": 1}]
    assert sorted(path.name for path in plan.root.iterdir() if path.is_dir()) == ["A", "C", "OME", "scopestream"]
    document = ome_types.from_xml((plan.root / "OME" / "METADATA.ome.xml").read_text())
    assert [(well.row, well.column) for well in document.plates[0].wells] == [(0, 0), (2, 6)]


def test_planes_carry_what_the_frames_brought(tmp_path: Path) -> None:
    settings = AcquisitionSettings(
        path=tmp_path / "a.ome.zarr", dtype="uint16", dimensions=[STAGE, DEPTH, *FRAME], backend="inplace"
    )
    with open_stream(settings) as stream:
        for number in range(6):
            metadata = (
                {"delta_t": 0.25 * number, "exposure_time": 0.02, "position_z": 5.0 + number} if number < 3 else None
            )
            stream.append(stamped_frame(number, (Y, X), "uint16"), metadata=metadata)
    left, right = ome_types.from_xml((stream.plan.root / "OME" / "METADATA.ome.xml").read_text()).images
    assert [(plane.the_z, plane.delta_t, plane.exposure_time, plane.position_z) for plane in left.pixels.planes] == [
        (0, 0.0, 0.02, 5.0),
        (1, 0.25, 0.02, 6.0),
        (2, 0.5, 0.02, 7.0),
    ]
    assert left.pixels.planes[0].position_x == 10.0  # from the plan, where the frame did not say
    assert [plane.position_x for plane in right.pixels.planes] == [260.0]
    # The stage was planned to go up by the step of the z axis, where a frame did not say where it was.
    assert [plane.position_z for plane in right.pixels.planes] == [None]
    assert str(left.pixels.planes[0].position_x_unit.value) == "\u00b5m"


def test_planned_planes_rise_with_z_and_stage_axes_go_by_their_role(tmp_path: Path) -> None:
    dimensions = [
        Dimension(name="p", coords=[Position(name="a", x=10.0, y=20.0, z=5.0)]),
        Dimension(name="depth", count=3, scale=2.0, unit="um"),
        Dimension(name="row", count=Y, scale=0.5, unit="um"),
        Dimension(name="col", count=X, scale=0.5, unit="um"),
    ]
    settings = AcquisitionSettings(
        path=tmp_path / "a.ome.zarr", dtype="uint16", dimensions=dimensions, backend="inplace"
    )
    with open_stream(settings) as stream:
        for number in range(3):
            stream.append(stamped_frame(number, (Y, X), "uint16"), metadata={"delta_t": 0.1 * number})
    (image,) = ome_types.from_xml((stream.plan.root / "OME" / "METADATA.ome.xml").read_text()).images
    assert [plane.position_z for plane in image.pixels.planes] == [5.0, 7.0, 9.0]
    assert [plane.position_x for plane in image.pixels.planes] == [10.0] * 3
    steps = attributes(stream.plan.root / "0")["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    assert steps[1]["translation"] == [5.0, 20.0, 10.0]


def test_fields_of_a_plate_with_one_acquisition_are_of_it(tmp_path: Path) -> None:
    wells = [Position(name=str(number), row="A", column=1) for number in range(4)]
    plate = Plate(rows=("A",), columns=("1",), acquisitions=({"id": 7},))
    plan = acquire(
        AcquisitionSettings(
            path=tmp_path / "a.ome.zarr",
            dtype="uint16",
            dimensions=[Dimension(name="p", coords=wells), *FRAME],
            plate=plate,
            backend="inplace",
        )
    )
    assert attributes(plan.root)["ome"]["plate"]["acquisitions"] == [{"id": 7, "maximumfieldcount": 4}]
    fields = attributes(plan.root / "A" / "1")["ome"]["well"]["images"]
    assert [field["acquisition"] for field in fields] == [7] * 4
