"""The stream as control software uses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scopestream import (
    AcquisitionSettings,
    DatasetExistsError,
    FrameIndexError,
    FrameMismatchError,
    MemoryLimitError,
    MetadataError,
    StreamFullError,
    WriteError,
    open_stream,
    read_frames,
)
from scopestream.testing import acquire, expected_images, read_array, stamped_frame
from scopestream.testing.disks import FaultyBackend

Y, X = 24, 40


def settings(tmp_path: Path, **fields: Any) -> AcquisitionSettings:
    base: dict[str, Any] = {
        "path": tmp_path / "a.ome.zarr",
        "dtype": "uint16",
        "dimensions": [
            {"name": "t", "count": 3},
            {"name": "p", "coords": ["left", "right"]},
            {"name": "c", "coords": ["DAPI", "GFP"]},
            {"name": "y", "count": Y},
            {"name": "x", "count": X},
        ],
        "backend": "inplace",
    }
    return AcquisitionSettings(**{**base, **fields})


def frame(number: int) -> np.ndarray:
    return stamped_frame(number, (Y, X), "uint16")


def test_frames_may_be_byte_swapped_read_only_strided_or_fortran_ordered(tmp_path: Path) -> None:
    swapped = frame(0).astype(">u2")
    read_only = frame(1)
    read_only.flags.writeable = False
    strided = np.repeat(np.repeat(frame(2), 2, axis=0), 2, axis=1)[::2, ::2]
    with open_stream(settings(tmp_path)) as stream:
        for given in (swapped, read_only, strided, np.asfortranarray(frame(3)), frame(4)[::-1]):
            stream.append(given)
    frames = {0: frame(0), 1: frame(1), 2: frame(2), 3: frame(3), 4: frame(4)[::-1]}
    for image, expected in enumerate(expected_images(stream.plan, frames)):
        np.testing.assert_array_equal(read_array(stream.plan.root / str(image) / "0", "zarr"), expected)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((Y, X + 1), np.uint16),
        np.zeros((X, Y), np.uint16),
        np.zeros((1, Y, X), np.uint16),
        np.zeros((Y, X), np.int16),
        np.zeros((Y, X), np.uint8),
        np.zeros((Y, X), np.float32),
        np.zeros(Y * X, np.uint16),
    ],
    ids=lambda array: f"{array.shape} {array.dtype}",
)
def test_another_shape_or_dtype_is_never_cast_or_broadcast(tmp_path: Path, wrong: np.ndarray) -> None:
    with open_stream(settings(tmp_path)) as stream:
        with pytest.raises(
            FrameMismatchError, match=r"Frame 0 for t=0 p=left c=DAPI .* the plan says \(24, 40\) uint16"
        ):
            stream.append(wrong)
        assert stream.stats.frames_in == 0


def test_a_frame_is_placed_by_names_and_numbers(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path)) as stream:
        stream.write(frame(7), index={"t": 2, "p": "right", "c": "GFP"})
        stream.write(frame(8), index={"t": np.int64(0), "p": 0, "c": 1})  # type: ignore[dict-item]
    right = read_array(stream.plan.root / "1" / "0", "zarr")
    np.testing.assert_array_equal(right[2, 1], frame(7))
    left = read_array(stream.plan.root / "0" / "0", "zarr")
    np.testing.assert_array_equal(left[0, 1], frame(8))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"t": 3, "p": 0, "c": 0}, "'t' has no item 3"),
        ({"t": -1, "p": 0, "c": 0}, "'t' has no item -1"),
        ({"t": 0, "p": "middle", "c": 0}, r"'p' has no item 'middle' \(it has left, right\)"),
        ({"t": 1.9, "p": 0, "c": 0}, "'t' is 1.9, which is neither a whole number nor a name"),
        ({"t": 0, "p": 0}, "'c' is missing"),
        ({"t": 0, "p": 0, "c": 0, "z": 0}, "no dimension 'z'"),
        ({"t": 9, "p": "middle"}, "'t' has no item 9.*'middle'.*'c' is missing"),
    ],
)
def test_a_place_that_is_not_there_is_refused(tmp_path: Path, index: dict[str, int | str], message: str) -> None:
    with open_stream(settings(tmp_path)) as stream, pytest.raises(FrameIndexError, match=message):
        stream.write(frame(0), index=index)
    assert list(read_frames(stream.path)) == []


def test_a_place_is_written_once(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path)) as stream:
        stream.append(frame(0))
        with pytest.raises(FrameIndexError, match="at t=0 p=left c=DAPI already"):
            stream.write(frame(1), index={"t": 0, "p": 0, "c": 0})
        stream.write(frame(1), index={"t": 0, "p": 0, "c": 1})
        with pytest.raises(FrameIndexError, match="already"):
            stream.append(frame(1))
        stream.skip()  # the place that `write` has filled stays as it is
        stream.append(frame(2))
    assert stream.stats.frames_skipped == 0
    np.testing.assert_array_equal(read_array(stream.plan.root / "0" / "0", "zarr")[0, 1], frame(1))
    np.testing.assert_array_equal(read_array(stream.plan.root / "1" / "0", "zarr")[0, 0], frame(2))


def test_more_frames_than_planned_are_refused(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path)) as stream:
        acquire(stream.plan.settings, stream=stream)
        with pytest.raises(FrameIndexError, match="All 12 frames of the plan have come"):
            stream.append(frame(0))
        with pytest.raises(FrameIndexError, match="only 0 of 12 are left"):
            stream.skip()


def test_metadata_is_kept_with_each_frame(tmp_path: Path) -> None:
    given = {"delta_t": np.float32(0.5), "stage": np.array([1, 2]), "nested": {"ok": True}, "temperature": float("nan")}
    with open_stream(settings(tmp_path)) as stream:
        stream.append(frame(0), metadata=given)
        stream.append(frame(1))
    first, second = sorted(read_frames(stream.path), key=lambda record: record["frame"])
    assert first["metadata"] == {"delta_t": 0.5, "stage": [1, 2], "nested": {"ok": True}, "temperature": "NaN"}
    assert "metadata" not in second


@pytest.mark.parametrize(
    "metadata", [{"raw": b"bytes"}, {"object": object()}, {(1, 2): "key"}, {"z": 1j}, ["list"], "text"]
)
def test_metadata_that_json_cannot_hold_is_refused_with_its_frame(tmp_path: Path, metadata: Any) -> None:
    with open_stream(settings(tmp_path)) as stream:
        with pytest.raises(MetadataError, match="the frame was not consumed"):
            stream.append(frame(0), metadata=metadata)
        stream.append(frame(0))
    assert [record["frame"] for record in read_frames(stream.path)] == [0]


def test_metadata_of_the_acquisition_is_in_the_root_document(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path)) as stream:
        stream.set_metadata("microscope", {"objective": "60x", "na": np.float64(1.4)})
        with pytest.raises(MetadataError, match="'ome' is not free"):
            stream.set_metadata("ome", {})
    attributes = json.loads((stream.plan.root / "zarr.json").read_text())["attributes"]
    assert attributes["microscope"] == {"objective": "60x", "na": 1.4}


def test_the_root_document_says_whether_the_dataset_is_whole(tmp_path: Path) -> None:
    def state(path: str) -> dict[str, Any]:
        own: dict[str, Any] = json.loads((Path(path) / "zarr.json").read_text())["attributes"]["scopestream"]
        return own

    stream = open_stream(settings(tmp_path))
    assert state(stream.path)["status"] == "recording"
    acquire(stream.plan.settings, 5, skipped={2}, stream=stream)
    stream.close()
    assert state(stream.path)["status"] == "incomplete"
    assert state(stream.path)["frames"] == {"written": 4, "skipped": 1, "dropped": 0, "failed": 0, "missing": 7}
    whole = acquire(settings(tmp_path, path=tmp_path / "b.ome.zarr"), skipped={2})
    assert state(whole.settings.path)["status"] == "complete"


def test_an_error_in_the_body_finalises_what_came_and_stays_itself(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="shutter"), open_stream(settings(tmp_path)) as stream:  # noqa: PT012
        stream.append(frame(0))
        raise KeyError("shutter")
    np.testing.assert_array_equal(read_array(stream.plan.root / "0" / "0", "zarr")[0, 0], frame(0))


def test_the_dataset_stays_where_it_is_when_the_program_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with open_stream(settings(tmp_path, path="a.ome.zarr", shards={"t": 1, "c": 1})) as stream:
        stream.append(frame(0))
        monkeypatch.chdir("elsewhere")
        for number in range(1, 12):
            stream.append(frame(number))
    assert list((tmp_path / "elsewhere").iterdir()) == []
    frames = {number: frame(number) for number in range(12)}
    for image, expected in enumerate(expected_images(stream.plan, frames)):
        np.testing.assert_array_equal(read_array(tmp_path / "a.ome.zarr" / str(image) / "0", "zarr"), expected)


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path, path=(tmp_path / "a b.ome.zarr").as_uri())) as stream:
        assert Path(stream.path) == tmp_path / "a b.ome.zarr"


# -- something is there already --------------------------------------------------------------------------------------


def test_a_dataset_that_exists_is_not_touched(tmp_path: Path) -> None:
    plan = acquire(settings(tmp_path))
    before = sorted(path.relative_to(plan.root) for path in plan.root.rglob("*"))
    with pytest.raises(DatasetExistsError, match="exists already; nothing was changed"):
        open_stream(settings(tmp_path))
    assert sorted(path.relative_to(plan.root) for path in plan.root.rglob("*")) == before


def test_increment_finds_a_new_name(tmp_path: Path) -> None:
    paths = [acquire(settings(tmp_path, on_exists="increment")).root.name for _ in range(3)]
    assert paths == ["a.ome.zarr", "a_1.ome.zarr", "a_2.ome.zarr"]


def test_overwrite_replaces_a_dataset_and_nothing_else(tmp_path: Path) -> None:
    acquire(settings(tmp_path), 5)
    again = acquire(settings(tmp_path, on_exists="overwrite"), 1)
    assert len(list(read_frames(again.root))) == 1
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    with pytest.raises(DatasetExistsError, match="not a Zarr v3 dataset"):
        open_stream(settings(tmp_path, path=precious, on_exists="overwrite"))
    link = tmp_path / "link"
    link.symlink_to(again.root)
    with pytest.raises(DatasetExistsError, match="a symbolic link"):
        open_stream(settings(tmp_path, path=link, on_exists="overwrite"))
    assert (precious / "thesis.txt").exists()
    assert (again.root / "zarr.json").exists()


def test_a_backend_that_does_not_open_leaves_everything_as_it_was(tmp_path: Path, faulty: FaultyBackend) -> None:
    acquire(settings(tmp_path), 5)
    faulty.error_at_open = OSError(5, "Input/output error")
    for path in ("a.ome.zarr", "new.ome.zarr"):
        with pytest.raises(OSError, match="Input/output"):
            open_stream(settings(tmp_path, path=tmp_path / path, backend="faulty", on_exists="overwrite"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.ome.zarr"]
    assert len(list(read_frames(tmp_path / "a.ome.zarr"))) == 5


# -- a slow or failing disk ------------------------------------------------------------------------------------------


THREE_FRAMES = 3 * Y * X * 2


def test_a_slow_disk_blocks_the_camera_and_loses_nothing(tmp_path: Path, faulty: FaultyBackend) -> None:
    faulty.delay_s = 0.01
    stream = open_stream(settings(tmp_path, backend="faulty", memory_limit=THREE_FRAMES))
    acquire(stream.plan.settings, stream=stream)
    assert stream.stats.queue_peak <= 3
    stream.close()
    assert stream.stats.frames_written == 12


def test_a_slow_disk_raises_and_the_frame_can_be_sent_again(tmp_path: Path, faulty: FaultyBackend) -> None:
    with (
        faulty.held(),
        open_stream(settings(tmp_path, backend="faulty", memory_limit=THREE_FRAMES, on_full="raise")) as stream,
    ):
        for number in range(3):
            stream.append(frame(number))
        with pytest.raises(StreamFullError, match="behind the camera"):
            stream.append(frame(3))
        faulty.release()
        stream.flush()
        stream.append(frame(3))
    np.testing.assert_array_equal(read_array(stream.plan.root / "1" / "0", "zarr")[0, 1], frame(3))


def test_a_slow_disk_drops_frames_and_shifts_nothing(tmp_path: Path, faulty: FaultyBackend) -> None:
    with (
        faulty.held(),
        open_stream(settings(tmp_path, backend="faulty", memory_limit=THREE_FRAMES, on_full="drop")) as stream,
    ):
        for number in range(5):
            stream.append(frame(number))
        faulty.release()
        stream.flush()
        for number in range(5, 12):
            stream.append(frame(number))
            stream.flush()
    assert stream.stats.frames_dropped == 2
    log = {record["frame"]: record["status"] for record in read_frames(stream.path)}
    assert [number for number, status in log.items() if status == "dropped"] == [3, 4]
    came = {number: frame(number) for number in (0, 1, 2, *range(5, 12))}
    for image, expected in enumerate(expected_images(stream.plan, came)):
        np.testing.assert_array_equal(read_array(stream.plan.root / str(image) / "0", "zarr"), expected)


def test_random_order_beyond_the_memory_is_refused_before_it_is_consumed(tmp_path: Path) -> None:
    dimensions = [
        {"name": "c", "count": 500},
        {"name": "t", "count": 3},
        {"name": "y", "count": Y},
        {"name": "x", "count": X},
    ]
    fields = {"dimensions": dimensions, "codec": "zstd", "chunks": {"t": 3}, "memory_limit": "1MB"}
    with open_stream(settings(tmp_path, **fields)) as stream:
        with pytest.raises(MemoryLimitError, match="none of them is complete"):  # noqa: PT012
            for channel in range(500):
                stream.write(frame(channel), index={"t": 0, "c": channel})
        accepted = stream.stats.frames_in
        assert accepted > 0
    assert stream.stats.frames_written == accepted


def test_the_first_error_of_the_disk_is_raised_at_the_next_call_and_at_close(
    tmp_path: Path, faulty: FaultyBackend
) -> None:
    stream = open_stream(settings(tmp_path, backend="faulty"))
    stream.append(frame(0))
    stream.flush()
    faulty.error = OSError(28, "No space left on device")
    stream.append(frame(1))
    with pytest.raises(WriteError, match=r"No space left on device.*1 of 2 accepted frames are safe"):
        stream.flush()
    with pytest.raises(WriteError, match="No space left"):
        stream.append(frame(2))
    assert isinstance(stream.error, OSError)
    with pytest.raises(WriteError, match="No space left"):
        stream.close()
    np.testing.assert_array_equal(read_array(stream.plan.root / "0" / "0", "zarr")[0, 0], frame(0))
    assert [record["status"] for record in read_frames(stream.path)] == ["written", "failed"]
    state = json.loads((stream.plan.root / "zarr.json").read_text())["attributes"]["scopestream"]
    assert state["status"] == "incomplete"


def test_an_error_at_close_does_not_hide_the_one_in_the_body(tmp_path: Path, faulty: FaultyBackend) -> None:
    with pytest.raises(KeyError) as caught, open_stream(settings(tmp_path, backend="faulty")) as stream:  # noqa: PT012
        faulty.error = OSError(5, "Input/output error")
        stream.append(frame(0))
        raise KeyError("shutter")
    assert "Input/output error" in "".join(caught.value.__notes__)
