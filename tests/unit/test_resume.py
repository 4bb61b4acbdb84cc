"""`on_exists="resume"` goes on with a dataset that was closed or killed, as if nothing had happened in between."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scopestream import (
    AcquisitionSettings,
    DatasetBusyError,
    DatasetError,
    FrameIndexError,
    PlanError,
    ResumeError,
    Stream,
    open_stream,
    read_frames,
    verify,
)
from scopestream.testing import read_array, stamped_frame
from scopestream.testing.disks import FaultyBackend
from tests.unit.crashes import crash, damage
from tests.unit.test_recovery import CASES, CODECS, FRAME, TILES, X, Y, check_pixels


def settings(path: Path, **changes: Any) -> AcquisitionSettings:
    base: dict[str, Any] = {"dtype": "uint16", "on_exists": "resume", **CASES["time"]}
    return AcquisitionSettings(path=path, **{**base, **changes})


def frame(number: int) -> np.ndarray:
    return stamped_frame(number, (Y, X), "uint16")


def send(stream: Stream, numbers: Iterable[int], *, skipped: Iterable[int] = ()) -> None:
    for number in numbers:
        assert stream.next_frame == number
        if number in skipped:
            stream.skip(reason="left out")
        else:
            stream.append(frame(number))


def go_on(stream: Stream) -> set[int]:
    """Send what is still to come, of an unbounded acquisition up to frame 12; returns all numbers."""
    end = stream.plan.n_frames or 13
    while (number := stream.next_frame) is not None and number < end:
        stream.append(frame(number))
    return set(range(end))


@pytest.mark.parametrize(
    ("backend", "codec"),
    [
        *(("inplace", codec) for codec in CODECS),
        ("tensorstore", "zstd"),
        ("zarr-python", "none"),
        ("zarrs", "blosc-lz4"),
    ],
)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("was", ["closed", "killed"])
def test_the_result_is_that_of_an_uninterrupted_run(
    tmp_path: Path, was: str, case: str, codec: str, backend: str
) -> None:
    first = settings(tmp_path / "a.ome.zarr", **CASES[case], codec=codec, backend=backend)
    with open_stream(first) as stream:
        send(stream, range(6), skipped={1})
        path = crash(stream, tmp_path / "killed.ome.zarr")
    if was == "closed":
        path = stream.plan.root
    with open_stream(first.model_copy(update={"path": str(path)})) as stream:
        everything = go_on(stream)
    check_pixels(path, stream.plan, everything - {1}, {1})
    assert verify(path).sound
    state = json.loads((path / "zarr.json").read_bytes())["attributes"]["scopestream"]
    assert state["status"] == "complete"
    assert state["frames"] == {"written": len(everything) - 1, "skipped": 1, "dropped": 0, "failed": 0, "missing": 0}


@pytest.mark.parametrize("codec", ["none", "blosc-lz4"])
@pytest.mark.parametrize("case", ["time", "deep chunks", "levels along z"])
@pytest.mark.parametrize(
    ("first", "second"), [("tensorstore", "inplace"), ("inplace", "zarrs"), ("acquire-zarr", "inplace")]
)
def test_another_backend_may_go_on(tmp_path: Path, case: str, codec: str, first: str, second: str) -> None:
    begun = settings(tmp_path / "a.ome.zarr", **CASES[case], codec=codec, backend=first, on_exists="error")
    with open_stream(begun) as stream:
        send(stream, range(6))
    with open_stream(begun.model_copy(update={"backend": second, "on_exists": "resume"})) as stream:
        send(stream, range(6, stream.plan.n_frames or 0))
    check_pixels(stream.plan.root, stream.plan, set(range(stream.plan.n_frames or 0)), set())


def test_frames_that_are_there_are_not_written_again(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path / "a.ome.zarr")) as stream:
        send(stream, range(4))
    shard = tmp_path / "a.ome.zarr" / "0" / "c" / "0" / "0" / "0"
    before = shard.stat()
    with open_stream(settings(tmp_path / "a.ome.zarr")) as stream:
        with pytest.raises(FrameIndexError, match="a frame at t=2 already"):
            stream.write(frame(2), index={"t": 2})
        send(stream, range(4, 11))
    assert (shard.stat().st_ino, shard.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert sum(record["status"] == "written" for record in read_frames(stream.plan.root)) == 11


def test_append_fills_the_holes_first(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path / "a.ome.zarr")) as stream:
        for number in (0, 2, 3, 7):
            stream.write(frame(number), index={"t": number})
    with open_stream(settings(tmp_path / "a.ome.zarr")) as stream:
        for number in (1, 4, 5, 6, 8):
            assert stream.next_frame == number
            stream.append(frame(number))
        stream.extend(np.stack([frame(number) for number in (9, 10)]))
        assert stream.next_frame is None
    check_pixels(stream.plan.root, stream.plan, set(range(11)), set())


@pytest.mark.parametrize(("backend", "codec"), [("inplace", "zstd"), ("tensorstore", "blosc-lz4"), ("zarrs", "none")])
def test_damage_in_an_unfinished_block_costs_the_frames_that_it_hit(tmp_path: Path, backend: str, codec: str) -> None:
    deep = settings(tmp_path / "a.ome.zarr", **CASES["deep chunks"], codec=codec, backend=backend)
    with open_stream(deep) as stream:
        send(stream, range(5))
    shard = tmp_path / "a.ome.zarr" / "0" / "c" / "0" / "0" / "0"
    damaged = damage(shard, stream.plan.arrays[0], (4, 0, 0))
    with open_stream(deep) as stream:
        assert stream.next_frame == 4  # the only frame of its chunk
        everything = go_on(stream)
    check_pixels(stream.plan.root, stream.plan, everything, set())
    assert verify(stream.plan.root).sound
    assert shard.with_name(".0.damaged").read_bytes() == damaged
    said = [record for record in read_frames(stream.plan.root) if record["frame"] == 4]
    assert [record["status"] for record in said] == ["written", "failed", "written"]
    assert said[1]["reason"] == "damaged"


def test_damage_in_a_plane_that_waits_for_the_next_one_costs_that_plane(tmp_path: Path) -> None:
    stacks = settings(tmp_path / "a.ome.zarr", **CASES["levels along z"], codec="zstd")
    with open_stream(stacks) as stream:
        send(stream, range(3))
    image = stream.plan.root / stream.plan.images[0].path
    damage(image / "0" / "c" / "0" / "0" / "0" / "0", stream.plan.arrays[0], (0, 2, 0, 0))
    with open_stream(stacks) as stream:
        assert stream.next_frame == 2
        everything = go_on(stream)
    check_pixels(stream.plan.root, stream.plan, everything, set())


def test_without_a_dataset_it_starts_one(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path / "a.ome.zarr")) as stream:
        send(stream, range(11))
    check_pixels(stream.plan.root, stream.plan, set(range(11)), set())


def test_a_third_stream_may_go_on_as_well(tmp_path: Path) -> None:
    every = settings(tmp_path / "a.ome.zarr", **CASES["unbounded"], codec="zstd", levels=2)
    for first in range(0, 15, 3):
        with open_stream(every) as stream:
            send(stream, range(first, first + 3))
    check_pixels(stream.plan.root, stream.plan, set(range(15)), set())


def test_a_complete_acquisition_takes_no_more(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path / "a.ome.zarr")) as stream:
        send(stream, range(11))
    with open_stream(settings(tmp_path / "a.ome.zarr")) as stream:
        assert stream.next_frame is None
        with pytest.raises(FrameIndexError, match="All 11 frames"):
            stream.append(frame(0))
    check_pixels(stream.plan.root, stream.plan, set(range(11)), set())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": "uint8"}, "dtype is 'uint8', and was 'uint16'"),
        ({"codec": "zstd"}, "codec is"),
        ({"levels": 2}, "levels is 2, and was 1"),
        ({"shards": {"t": 2}}, "shards is"),
        ({"dimensions": [{"name": "t", "count": 12}, *FRAME]}, "count of dimension 't' is 12, and was 11"),
        ({"dimensions": [{"name": "t", "count": 11, "scale": 2.0}, *FRAME]}, "scale of dimension 't' is 2.0"),
        ({"dimensions": [{"name": "z", "count": 11}, *FRAME], "shards": {"z": 4}}, "dimensions are z, y, x"),
    ],
)
def test_other_settings_are_refused_and_nothing_is_changed(
    tmp_path: Path, change: Mapping[str, Any], words: str
) -> None:
    with open_stream(settings(tmp_path / "a.ome.zarr")) as stream:
        send(stream, range(4))
    before = {file: file.read_bytes() for file in (tmp_path / "a.ome.zarr").rglob("*") if file.is_file()}
    with pytest.raises(ResumeError) as error:
        open_stream(settings(tmp_path / "a.ome.zarr", **change))
    assert words in str(error.value)
    assert before == {file: file.read_bytes() for file in (tmp_path / "a.ome.zarr").rglob("*") if file.is_file()}


def test_how_frames_come_to_the_disk_may_change(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path / "a.ome.zarr")) as stream:
        send(stream, range(4))
    other = {"memory_limit": "200MB", "on_full": "raise", "checksums": False, "chunks": "auto", "shards": "auto"}
    with open_stream(settings(tmp_path / "a.ome.zarr", **other)) as stream:
        assert stream.plan.arrays[0].chunks == (1, 32, 32)
        send(stream, range(4, 11))
    check_pixels(stream.plan.root, stream.plan, set(range(11)), set())


def test_a_dataset_that_is_being_written_is_not_resumed(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path / "a.ome.zarr")) as stream:
        send(stream, range(4))
        with pytest.raises(DatasetBusyError):
            open_stream(settings(tmp_path / "a.ome.zarr"))
        send(stream, range(4, 11))
    check_pixels(stream.plan.root, stream.plan, set(range(11)), set())


def test_what_scopestream_did_not_write_is_not_resumed(tmp_path: Path) -> None:
    (tmp_path / "a.ome.zarr").mkdir()
    with pytest.raises(DatasetError):
        open_stream(settings(tmp_path / "a.ome.zarr"))
    assert list((tmp_path / "a.ome.zarr").iterdir()) == []


def test_a_backend_that_cannot_go_on_is_refused_from_the_start(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="cannot go on with a dataset"):
        open_stream(settings(tmp_path / "a.ome.zarr", backend="acquire-zarr"))
    assert not (tmp_path / "a.ome.zarr").exists()


def test_after_a_full_disk_the_frames_that_failed_may_be_sent_again(tmp_path: Path, faulty: FaultyBackend) -> None:
    stream = open_stream(settings(tmp_path / "a.ome.zarr", backend="faulty", on_exists="error"))
    send(stream, range(4))
    stream.flush()
    faulty.error = OSError(28, "No space left on device")
    stream.append(frame(4))
    with pytest.raises(OSError, match="No space left"):
        stream.flush()
    with pytest.raises(OSError, match="No space left"):
        stream.close()
    with open_stream(settings(tmp_path / "a.ome.zarr")) as stream:
        send(stream, range(4, 11))
    check_pixels(stream.plan.root, stream.plan, set(range(11)), set())
    assert verify(stream.path).sound


def test_a_moved_dataset_is_resumed_where_it_is(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path / "a.ome.zarr")) as stream:
        send(stream, range(4))
    Path(stream.path).rename(tmp_path / "b.ome.zarr")
    with open_stream(settings(tmp_path / "b.ome.zarr")) as stream:
        send(stream, range(4, 11))
    assert read_array(tmp_path / "b.ome.zarr" / "0", "tensorstore").all(axis=(1, 2)).all()
    assert not (tmp_path / "a.ome.zarr").exists()


def test_metadata_of_users_and_of_frames_stays(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path / "a.ome.zarr")) as stream:
        stream.set_metadata("my-lab", {"operator": "Ada"})
        stream.append(frame(0), metadata={"delta_t": 0.5})
    with open_stream(settings(tmp_path / "a.ome.zarr")) as stream:
        stream.append(frame(1), metadata={"delta_t": 1.5})
    attributes = json.loads((tmp_path / "a.ome.zarr" / "zarr.json").read_bytes())["attributes"]
    assert attributes["my-lab"] == {"operator": "Ada"}
    assert [record["metadata"]["delta_t"] for record in read_frames(stream.path)] == [0.5, 1.5]


def test_a_block_that_waits_for_frames_is_bounded_by_the_memory_limit(tmp_path: Path) -> None:
    """Unfinished shards of a backend that stores whole ones are held again when the stream goes on."""
    sizes = {"chunks": TILES, "shards": {"t": 11}, "backend": "tensorstore"}
    with open_stream(settings(tmp_path / "a.ome.zarr", **sizes)) as stream:
        send(stream, range(4))
    with open_stream(settings(tmp_path / "a.ome.zarr", **sizes)) as stream:
        assert stream.plan.peak_bytes <= stream.plan.settings.memory_limit
        send(stream, range(4, 11))
    check_pixels(stream.plan.root, stream.plan, set(range(11)), set())


def test_a_resume_that_fails_leaves_a_closed_dataset_as_it_was(tmp_path: Path, faulty: FaultyBackend) -> None:
    every = settings(tmp_path / "a.ome.zarr", **CASES["unbounded"])
    with open_stream(every) as stream:
        send(stream, range(10))
    root = tmp_path / "a.ome.zarr"
    documents = {file: file.read_bytes() for file in root.rglob("zarr.json")}
    faulty.error_at_open = OSError(5, "Input/output error")
    with pytest.raises(OSError, match="Input/output"):
        open_stream(every.model_copy(update={"backend": "faulty"}))
    assert documents == {file: file.read_bytes() for file in root.rglob("zarr.json")}
    with open_stream(every) as stream:
        assert stream.next_frame == 10


def test_frames_that_failed_are_not_forgotten(tmp_path: Path, faulty: FaultyBackend) -> None:
    stream = open_stream(settings(tmp_path / "a.ome.zarr", backend="faulty", on_exists="error"))
    faulty.error = OSError(28, "No space left on device")
    stream.append(frame(0))
    with pytest.raises(OSError, match="No space left"):
        stream.close()
    with open_stream(settings(tmp_path / "a.ome.zarr")) as stream:
        for number in range(1, 11):
            stream.write(frame(number), index={"t": number})
    state = json.loads((tmp_path / "a.ome.zarr" / "zarr.json").read_bytes())["attributes"]["scopestream"]
    assert state["status"] == "incomplete"
    assert state["frames"]["failed"] == 1
