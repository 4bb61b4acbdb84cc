"""Several cameras record at once: each with frames of its own size and dtype, and at its own pace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ome_types import from_xml
from pydantic import ValidationError

from scopestream import (
    AcquisitionSettings,
    Camera,
    Dimension,
    FrameIndexError,
    FrameMismatchError,
    MemoryLimitError,
    PlanError,
    Plate,
    Position,
    ResumeError,
    open_stream,
    read_frames,
    recover,
    verify,
)
from scopestream.plan import LayoutPlan, block_bytes
from scopestream.testing import (
    acquire,
    frame_numbers,
    mismatch,
    read_array,
    reader_other_than,
    stamped_frame,
    stamped_frames,
)
from tests.unit.crashes import crash

Y, X = 32, 48
FRAME = [Dimension(name="y", count=Y, scale=0.1, unit="um"), Dimension(name="x", count=X, scale=0.1, unit="um")]
T, C = Dimension(name="t", count=3, scale=1.0, unit="s"), Dimension(name="c", coords=["DAPI", "GFP"])
LEFT = Camera(name="left")
RIGHT = Camera(name="right", shape=(20, 30), dtype="uint8", scale=(0.2, 0.25))
SHAPES: dict[str, tuple[tuple[int, int], str]] = {"left": ((Y, X), "uint16"), "right": ((20, 30), "uint8")}
BACKENDS = ("inplace", "tensorstore", "zarr-python", "zarrs", "acquire-zarr")


def settings(path: Path, *dimensions: Dimension, **changes: Any) -> AcquisitionSettings:
    base: dict[str, Any] = {"dtype": "uint16", "cameras": [LEFT, RIGHT], **changes}
    return AcquisitionSettings(path=path / "a.ome.zarr", dimensions=[*(dimensions or (T, C)), *FRAME], **base)


def frame(camera: str, number: int) -> np.ndarray:
    return stamped_frame(number, *SHAPES[camera])


def check(plan: LayoutPlan, came: Any = None) -> None:
    frames = stamped_frames(plan, frame_numbers(plan) if came is None else came)
    assert not (wrong := mismatch(plan, frames, reader_other_than(plan.backend))), wrong


def group(root: Path, path: str) -> Any:
    return json.loads((root / path / "zarr.json").read_text())["attributes"]["ome"]


# -- images of their own --------------------------------------------------------------------------------------------


def test_every_camera_has_images_of_its_own_beside_each_position(tmp_path: Path) -> None:
    plan = settings(tmp_path, T, Dimension(name="p", coords=["one", "two"]), C).plan()
    assert [image.name for image in plan.images] == [
        "one camera=left", "one camera=right", "two camera=left", "two camera=right",
    ]  # fmt: skip
    arrays = [plan.arrays[image.arrays[0]] for image in plan.images]
    assert [(array.shape, array.dtype.name) for array in arrays] == [
        ((3, 2, Y, X), "uint16"), ((3, 2, 20, 30), "uint8"),
    ] * 2  # fmt: skip
    assert plan.n_frames == 3 * 2 * 2 * 2
    assert "shape, right" in str(plan)


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_camera_goes_at_its_own_pace(tmp_path: Path, backend: str) -> None:
    with open_stream(settings(tmp_path, backend=backend)) as stream:
        for number in range(0, 12, 2):
            stream.append(frame("left", number), camera="left")
            assert stream.next_frame == 1
        assert stream.next_frames == {"left": None, "right": 1}
        stream.extend(np.stack([frame("right", number) for number in (1, 3, 5)]), camera="right")
        stream.skip(camera="right", reason="the shutter was closed")
        assert stream.next_frame == 9
        stream.append(frame("right", 9), camera="right")
    check(stream.plan, {*range(0, 12, 2), 1, 3, 5, 9})


def test_a_frame_may_be_written_to_the_place_of_any_camera(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path)) as stream:
        stream.write(frame("right", 7), index={"t": 1, "c": "GFP", "camera": "right"})
        stream.write(frame("left", 6), index={"t": 1, "c": "GFP", "camera": 0})
        assert stream.next_frames == {"left": 0, "right": 1}
        with pytest.raises(FrameIndexError, match="'camera' is missing"):
            stream.write(frame("left", 0), index={"t": 0, "c": 0})
        with pytest.raises(FrameIndexError, match=r"'camera' has no item 'top' \(it has left, right\)"):
            stream.write(frame("left", 0), index={"t": 0, "c": 0, "camera": "top"})
    check(stream.plan, {6, 7})


def test_the_log_has_the_number_of_the_camera(tmp_path: Path) -> None:
    plan = acquire(settings(tmp_path, T))
    records = {record["frame"]: record for record in read_frames(plan.root)}
    assert records[3]["index"] == {"t": 1, "camera": 1}
    assert [records[number]["image"] for number in range(4)] == ["0", "1", "0", "1"]


def test_who_sends_a_frame_must_say_from_which_camera(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path)) as stream:
        for call in (stream.append, stream.extend):
            with pytest.raises(FrameIndexError, match=r"Which camera does it come from.*'left', 'right'"):
                call(frame("left", 0))
        with pytest.raises(FrameIndexError, match="no camera 'top'"):
            stream.append(frame("left", 0), camera="top")
        with pytest.raises(FrameIndexError, match="Which camera"):
            stream.skip()
        assert stream.next_frame == 0
    with open_stream(settings(tmp_path, cameras=[], on_exists="increment")) as stream:
        assert stream.next_frames == {}
        with pytest.raises(FrameIndexError, match="There are no cameras"):
            stream.append(frame("left", 0), camera="left")


def test_all_frames_of_a_camera_have_come(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path, T)) as stream:
        for number in (1, 3, 5):
            stream.append(frame("right", number), camera="right")
        with pytest.raises(FrameIndexError, match="All 3 frames of camera 'right' of the plan have come"):
            stream.append(frame("right", 7), camera="right")
        with pytest.raises(FrameIndexError, match="of camera 'left': only 3 of 3 are left"):
            stream.skip(4, camera="left")
    check(stream.plan, {1, 3, 5})


@pytest.mark.parametrize("shape", [(Y, X), (20, 31), (10, 30)])
def test_a_region_of_interest_that_changes_is_refused_and_the_camera_named(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    with open_stream(settings(tmp_path)) as stream:
        stream.append(frame("right", 1), camera="right")
        problem = rf"\({shape[0]}, {shape[1]}\) uint8, the plan says \(20, 30\) uint8 of camera 'right'"
        with pytest.raises(FrameMismatchError, match=problem):
            stream.append(np.ones(shape, "uint8"), camera="right")
        with pytest.raises(FrameMismatchError, match=r"\(n, 20, 30\) uint8 of camera 'right'"):
            stream.extend(np.ones((2, *shape), "uint8"), camera="right")
        stream.append(frame("right", 3), camera="right")
    check(stream.plan, {1, 3})


def test_a_dtype_that_is_not_that_of_the_camera_is_refused(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path)) as stream:
        with pytest.raises(FrameMismatchError, match=r"uint8, the plan says .* uint16 of camera 'left'"):
            stream.append(np.ones((Y, X), "uint8"), camera="left")
        with pytest.raises(FrameMismatchError, match=r"uint16, the plan says .* uint8 of camera 'right'"):
            stream.write(np.ones((20, 30), "uint16"), index={"t": 0, "c": 0, "camera": "right"})
    check(stream.plan, set())


@pytest.mark.parametrize("codec", ["none", "blosc-lz4"])
@pytest.mark.parametrize("copy", [True, False])
def test_memory_of_one_camera_leaves_nothing_in_frames_of_another(tmp_path: Path, codec: str, copy: bool) -> None:
    """Buffers are used again, for frames whose tiles reach past the edges elsewhere."""
    tiles = {"y": 16, "x": 32}
    many = Dimension(name="t", count=40)
    chosen = settings(tmp_path, many, chunks=tiles, shards={"t": 8}, codec=codec, levels=2)
    with open_stream(chosen) as stream:
        for number in range(80):
            camera = ("left", "right")[number % 2]
            stream.append(frame(camera, number), camera=camera, copy=copy)
    check(stream.plan)
    if codec == "none":  # the padding is on the disk as it is
        clean = acquire(settings(tmp_path, many, chunks=tiles, shards={"t": 8}, levels=2, on_exists="increment"))
        files = [path.relative_to(clean.root) for path in clean.root.glob("*/*/c/**/*") if path.is_file()]
        assert files
        assert all((clean.root / file).read_bytes() == (stream.plan.root / file).read_bytes() for file in files)


def test_an_unbounded_axis_ends_with_the_last_frame_of_each_camera(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path, Dimension(name="t", count=None), shards={"t": 4})) as stream:
        for number in range(0, 12, 2):
            stream.append(frame("left", number), camera="left")
        for number in (1, 3):
            stream.append(frame("right", number), camera="right")
    lengths = [json.loads((stream.plan.root / f"{n}/0/zarr.json").read_text())["shape"][0] for n in (0, 1)]
    assert lengths == [6, 2]
    check(stream.plan, {0, 1, 2, 3, 4, 6, 8, 10})


def test_bytes_are_counted_by_camera(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path, T)) as stream:
        stream.append(frame("left", 0), camera="left")
        stream.append(frame("right", 1), camera="right")
        stream.append(frame("right", 3), camera="right")
        assert stream.stats.bytes_in == Y * X * 2 + 2 * 20 * 30
    assert stream.stats.bytes_written == stream.stats.bytes_in


# -- what the documents say -----------------------------------------------------------------------------------------


def test_every_camera_tells_its_own_pixel_size(tmp_path: Path) -> None:
    plan = acquire(settings(tmp_path, levels=2))
    levels = [group(plan.root, str(n))["multiscales"][0]["datasets"] for n in (0, 1)]
    scales = [[level["coordinateTransformations"][0]["scale"][-2:] for level in one] for one in levels]
    assert scales == [[[0.1, 0.1], [0.2, 0.2]], [[0.2, 0.25], [0.4, 0.5]]]
    ome = from_xml((plan.root / "OME" / "METADATA.ome.xml").read_text())
    pixels = [image.pixels for image in ome.images]
    assert [(one.size_y, one.size_x, one.type.value) for one in pixels] == [(Y, X, "uint16"), (20, 30, "uint8")]
    assert [(one.physical_size_y, one.physical_size_x) for one in pixels] == [(0.1, 0.1), (0.2, 0.25)]


def test_every_camera_has_its_own_contrast(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path, T, C)) as stream:
        for camera, dark in (("left", 1000), ("right", 10)):
            shape, dtype = SHAPES[camera]
            for c in (0, 1):
                index: dict[str, int | str] = {"t": 0, "c": c, "camera": camera}
                stream.write(np.full(shape, dark + c, dtype), index=index)
    shown = [group(stream.plan.root, str(n))["omero"]["channels"] for n in (0, 1)]
    windows = [[(one["window"]["start"], one["window"]["max"]) for one in image] for image in shown]
    assert windows == [[(1000, 65535), (1001, 65535)], [(10, 255), (11, 255)]]


def test_fields_of_a_well_are_its_positions_times_the_cameras(tmp_path: Path) -> None:
    wells = [Position(name="A1 first", row="A", column="1"), Position(name="A1 second", row="A", column="1")]
    plan = acquire(settings(tmp_path, T, Dimension(name="p", coords=wells), plate=Plate.standard(6)))
    assert [(image.path, image.name) for image in plan.images] == [
        ("A/1/0", "A1 first camera=left"),
        ("A/1/1", "A1 first camera=right"),
        ("A/1/2", "A1 second camera=left"),
        ("A/1/3", "A1 second camera=right"),
    ]
    assert group(plan.root, "")["plate"]["field_count"] == 4
    check(plan)


def test_levels_are_as_many_as_the_frames_of_each_camera_need(tmp_path: Path) -> None:
    cameras = [Camera(name="large", shape=(1000, 600)), Camera(name="small", shape=(100, 100))]
    plan = acquire(settings(tmp_path, T, cameras=cameras, levels="auto"))
    assert [len(image.arrays) for image in plan.images] == [3, 1]
    assert "1 to 3 levels each" in str(plan)
    check(plan)
    assert verify(plan.root).sound


def test_cameras_may_have_chunks_and_shards_of_their_own(tmp_path: Path) -> None:
    small = Camera(name="right", shape=(20, 30), chunks={"y": 10, "x": 10}, shards={"t": 3})
    plan = acquire(settings(tmp_path, T, cameras=[LEFT, small], chunks={"y": 16, "x": 16}, shards={"t": 2}))
    assert [(array.chunks, array.shards) for array in plan.arrays] == [
        ((1, 16, 16), (2, 32, 48)), ((1, 10, 10), (3, 20, 30)),
    ]  # fmt: skip
    check(plan)


# -- memory ---------------------------------------------------------------------------------------------------------


def test_the_plan_counts_an_open_block_of_every_camera(tmp_path: Path) -> None:
    plan = settings(tmp_path, T, backend="tensorstore", shards={"t": 3}).plan()
    largest = block_bytes(plan.finest[0], plan.unit)
    assert plan.buffer_bytes == largest == 3 * Y * X * 2
    assert plan.peak_bytes - plan.held_bytes == (2 + 1) * largest


def test_frames_at_any_pace_fit_into_what_the_plan_says(tmp_path: Path) -> None:
    limit = settings(tmp_path, T, backend="tensorstore", shards={"t": 3}).plan().peak_bytes
    chosen = settings(tmp_path, T, backend="tensorstore", shards={"t": 3}, memory_limit=limit)
    with open_stream(chosen) as stream:
        stream.append(frame("left", 0), camera="left")
        for number in (1, 3, 5):
            stream.append(frame("right", number), camera="right")
        for number in (2, 4):
            stream.append(frame("left", number), camera="left")
    check(stream.plan)
    with pytest.raises(MemoryLimitError):
        settings(tmp_path, T, backend="tensorstore", shards={"t": 3}, memory_limit=limit - 1).plan()


# -- channels of one image ------------------------------------------------------------------------------------------


def test_cameras_may_be_channels_of_one_image(tmp_path: Path) -> None:
    plan = acquire(settings(tmp_path, T, cameras=["left", "right"], camera_axis="channels"))
    assert plan.kind == "image"
    assert [(array.axes, array.shape) for array in plan.arrays] == [(("t", "c", "y", "x"), (3, 2, Y, X))]
    assert [one["label"] for one in group(plan.root, "")["omero"]["channels"]] == ["left", "right"]
    records = {record["frame"]: record["index"] for record in read_frames(plan.root)}
    assert records[3] == {"t": 1, "camera": 1}
    check(plan)


def test_cameras_times_channels_are_channels(tmp_path: Path) -> None:
    chosen = settings(tmp_path, T, C, cameras=["left", "right"], camera_axis="channels")
    with open_stream(chosen) as stream:
        stream.write(np.full((Y, X), 7, "uint16"), index={"t": 1, "c": "DAPI", "camera": "right"})
        for _ in range(6):
            stream.append(np.full((Y, X), 9, "uint16"), camera="left")
    labels = [one["label"] for one in group(stream.plan.root, "")["omero"]["channels"]]
    assert labels == ["left DAPI", "left GFP", "right DAPI", "right GFP"]
    values = {(t, c): 9 for t in range(3) for c in range(2)} | {(1, 2): 7}
    pixels = read_array(stream.plan.root / "0", "tensorstore")
    for index in np.ndindex(3, 4):
        assert (pixels[index] == values.get(index, 0)).all()


def test_a_backend_that_needs_order_refuses_channels_that_do_not_come_in_order(tmp_path: Path) -> None:
    chosen = settings(
        tmp_path, T, C, cameras=["left", "right"], camera_axis="channels", backend="acquire-zarr"
    )  # fmt: skip
    with pytest.raises(PlanError, match="merged dimensions"):
        open_stream(chosen)


# -- what follows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["inplace", "zarrs"])
@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_a_crash_costs_nothing_that_was_flushed(tmp_path: Path, backend: str, codec: str) -> None:
    chosen = settings(tmp_path, backend=backend, codec=codec, levels=2, shards={"t": 2})
    with open_stream(chosen) as stream:
        for number in range(0, 10, 2):
            stream.append(frame("left", number), camera="left")
        stream.append(frame("right", 1), camera="right")
        stream.flush()
        left = crash(stream, tmp_path / "left.ome.zarr")
    assert dict(recover(left).frames) == {"written": 6, "skipped": 0, "dropped": 0, "failed": 0, "missing": 6}
    with open_stream(chosen.model_copy(update={"path": str(left), "on_exists": "resume"})) as stream:
        assert stream.next_frames == {"left": 10, "right": 3}
        stream.append(frame("left", 10), camera="left")
        for number in range(3, 12, 2):
            stream.append(frame("right", number), camera="right")
    check(stream.plan)
    found = verify(left)
    assert found.sound
    assert [(image.name, image.written) for image in found.images] == [("camera=left", 6), ("camera=right", 6)]


def test_a_dataset_goes_on_with_the_shards_that_each_camera_has(tmp_path: Path) -> None:
    chosen = settings(tmp_path, T, backend="tensorstore", memory_limit="300MB")
    before = acquire(chosen, 2)
    with open_stream(chosen.model_copy(update={"backend": "inplace", "on_exists": "resume"})) as stream:
        assert [array.shards for array in stream.plan.arrays] == [array.shards for array in before.arrays]
        for number in (2, 3, 4, 5):
            camera = ("left", "right")[number % 2]
            stream.append(frame(camera, number), camera=camera)
    check(stream.plan)


@pytest.mark.parametrize(
    ("cameras", "problem"),
    [
        ([LEFT], "cameras are left, and were left, right"),
        ([RIGHT, LEFT], "cameras are right, left, and were left, right"),
        ([LEFT, RIGHT.model_copy(update={"shape": (20, 31)})], r"shape of camera 'right' is \(20, 31\)"),
        ([], "cameras are none"),
    ],
)
def test_a_dataset_goes_on_only_with_its_cameras(tmp_path: Path, cameras: list[Camera], problem: str) -> None:
    acquire(settings(tmp_path, T), 3)
    with pytest.raises(ResumeError, match=problem):
        open_stream(settings(tmp_path, T, cameras=cameras, on_exists="resume"))


# -- settings -------------------------------------------------------------------------------------------------------


def test_settings_come_back_from_yaml(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    assert AcquisitionSettings.from_yaml(chosen.to_yaml()) == chosen


def test_cameras_that_differ_cannot_share_an_image(tmp_path: Path) -> None:
    with pytest.raises(ValidationError) as wrong:
        settings(tmp_path, camera_axis="channels")
    for problem in ("cameras differ in shape", "cameras differ in dtype", "cameras differ in scale"):
        assert problem in str(wrong.value)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"cameras": ["left", "left"]}, "there are two cameras 'left'"),
        ({"cameras": [{"name": "left", "shape": (0, 5)}]}, "at least one pixel"),
        ({"cameras": [{"name": "left", "scale": (0.0, 1.0)}]}, "pixel sizes must be finite and greater than 0"),
        ({"cameras": [{"name": "left", "dtype": "complex64"}]}, "dtype 'complex64' is not one"),
        ({"cameras": [{"name": ""}]}, "at least 1 character"),
        ({"cameras": [], "camera_axis": "channels"}, "there are no cameras"),
        ({"cameras": [{"name": "a", "dtype": "float32"}], "downscale": "mode"}, "float32 pixels are hardly ever equal"),
        ({"cameras": [{"name": "a", "chunks": {"q": 1}}]}, "camera 'a': there is no stored dimension 'q'"),
        ({"cameras": [{"name": "a", "chunks": {"y": 64}}]}, "camera 'a': a chunk of 64 along 'y' is larger"),
        ({"cameras": [{"name": "a", "shards": {"t": 1}}], "shards": None}, "camera 'a': it has shards"),
        (
            {"cameras": [{"name": "a", "shards": {"y": 20}}], "chunks": {"y": 16}},
            "camera 'a': chunks of 16 do not divide shards of 20",
        ),
    ],
)
def test_what_is_wrong_with_cameras_is_said(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        settings(tmp_path, **changes)


def test_no_dimension_may_be_called_camera_beside_cameras(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="has the name that the dimension of the cameras gets"):
        settings(tmp_path, T, Dimension(name="Camera", count=2))
    settings(tmp_path, T, Dimension(name="Camera", count=2), cameras=[])
