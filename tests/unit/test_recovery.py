"""`recover` makes whole what a crash left, keeps every frame that can be found, and says what it did."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scopestream import (
    AcquisitionSettings,
    DatasetBusyError,
    DatasetError,
    Recovery,
    open_stream,
    read_frames,
    recover,
    verify,
)
from scopestream.plan import LayoutPlan
from scopestream.shardindex import index_bytes
from scopestream.testing import expected_images, read_array, stamped_frame
from scopestream.testing.levels import next_level
from scopestream.testing.readers import describe_mismatch
from tests.unit.crashes import crash, damage

Y, X = 70, 97
TILES = {"y": 32, "x": 32}
FRAME = [{"name": "y", "count": Y}, {"name": "x", "count": X}]
CASES: Mapping[str, Mapping[str, Any]] = {
    "time": {"dimensions": [{"name": "t", "count": 11}, *FRAME], "chunks": TILES, "shards": {"t": 4}},
    "unbounded": {"dimensions": [{"name": "t", "count": None}, *FRAME], "chunks": TILES, "shards": {"t": 8}},
    "without shards": {"dimensions": [{"name": "t", "count": None}, *FRAME], "chunks": TILES, "shards": None},
    "deep chunks": {
        "dimensions": [{"name": "t", "count": 11}, *FRAME],
        "chunks": {"t": 2, **TILES},
        "shards": {"t": 8},
    },
    "several files a frame": {
        "dimensions": [{"name": "t", "count": 11}, *FRAME],
        "chunks": TILES,
        "shards": {"t": 8, "y": 64, "x": 64},
    },
    "levels": {"dimensions": [{"name": "t", "count": 11}, *FRAME], "chunks": TILES, "shards": {"t": 8}, "levels": 3},
    "levels along z": {
        "dimensions": [
            {"name": "t", "count": 2},
            {"name": "p", "coords": ["a", "b"]},
            {"name": "z", "count": 5},
            *FRAME,
        ],
        "chunks": TILES,
        "shards": {"z": 4},
        "levels": 3,
        "downscale_z": True,
    },
    "deep levels along z": {
        "dimensions": [{"name": "t", "count": 2}, {"name": "z", "count": 7}, *FRAME],
        "chunks": {"z": 2, **TILES},
        "shards": {"z": 4},
        "levels": 3,
        "downscale_z": True,
    },
}
CODECS = ("none", "zstd", "blosc-lz4")


@pytest.fixture(autouse=True)
def no_index_until_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """The moment at which a kill costs most: chunks are stored, and the index names none of them yet."""
    monkeypatch.setattr("scopestream_backends.inplace._PUBLISH_EVERY_S", math.inf)
    monkeypatch.setattr("scopestream.writer._IDLE_S", 3600.0)


def crashed(tmp_path: Path, n_frames: int, *, skipped: int = 1, **settings: Any) -> Path:
    """A dataset of stamped frames, one of them skipped, whose process was killed."""
    base = {"path": tmp_path / "open.ome.zarr", "dtype": "uint16", "backend": "inplace", **settings}
    with open_stream(AcquisitionSettings(**base)) as stream:
        for number in range(n_frames):
            if number == skipped:
                stream.skip(reason="left out")
            else:
                stream.append(stamped_frame(number, (Y, X), "uint16"), metadata={"delta_t": float(number)})
        return crash(stream, tmp_path / "crashed.ome.zarr")


def check_pixels(path: Path, plan: LayoutPlan, numbers: set[int], skipped: set[int]) -> None:
    """Exactly these frames are there, at every level, by two libraries."""
    frames = {number: stamped_frame(number, (Y, X), "uint16") for number in numbers}
    for image, expected in zip(plan.images, expected_images(plan, frames, skipped), strict=True):
        pixels = expected
        for level, array in enumerate(image.arrays):
            pixels = next_level(pixels, "mean", plan.settings.halved_z) if level else pixels
            for reader in ("tensorstore", "zarr"):
                found = read_array(path / plan.arrays[array].path, reader)
                assert not (wrong := describe_mismatch(pixels, found)), f"level {level} by {reader}: {wrong}"


def status(path: Path) -> dict[str, Any]:
    attributes: dict[str, Any] = json.loads((path / "zarr.json").read_bytes())["attributes"]["scopestream"]
    return attributes


def written(path: Path) -> set[int]:
    return {record["frame"] for record in read_frames(path) if record["status"] == "written"}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("case", CASES)
def test_every_frame_that_was_stored_is_there_after_recovery(tmp_path: Path, case: str, codec: str) -> None:
    path = crashed(tmp_path, 6, codec=codec, **CASES[case])
    stored = written(path)
    outcome = recover(path)
    assert outcome.was == "recording"
    assert outcome.lost == ()
    assert outcome.frames["written"] == len(stored)
    assert outcome.frames["skipped"] == 1
    check_pixels(path, AcquisitionSettings(**_settings(path)).plan(), stored, {1})
    assert verify(path).sound
    assert status(path)["status"] == "incomplete"
    assert status(path)["frames"]["written"] == len(stored)


def _settings(path: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((path / "scopestream" / "settings.json").read_bytes())
    return settings


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("case", CASES)
def test_recovering_again_changes_nothing(tmp_path: Path, case: str, codec: str) -> None:
    path = crashed(tmp_path, 6, codec=codec, **CASES[case])
    recover(path)
    before = _contents(path)
    outcome = recover(path)
    assert not outcome.changed
    assert _contents(path) == before


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("case", CASES)
def test_a_dry_run_changes_nothing_and_says_what_would_be_done(tmp_path: Path, case: str, codec: str) -> None:
    path = crashed(tmp_path, 6, codec=codec, **CASES[case])
    before = _contents(path)
    planned = recover(path, dry_run=True)
    assert _contents(path) == before
    done = recover(path)
    for field in ("was", "status", "lost", "n_levels"):
        assert getattr(planned, field) == getattr(done, field)
    assert dict(planned.frames) == dict(done.frames)
    assert planned.repairs.salvaged == done.repairs.salvaged


def test_a_dry_run_counts_no_levels_of_frames_that_are_lost(tmp_path: Path) -> None:
    path = crashed(tmp_path, 6, codec="zstd", checksums=False, **CASES["levels"])
    for level in "01":
        (path / level / "c" / "0" / "0" / "0").unlink()
    planned = recover(path, dry_run=True)
    assert planned.lost == (0, 2, 3, 4, 5)
    assert planned.n_levels == recover(path).n_levels == 0


def _contents(path: Path) -> dict[str, bytes]:
    """Every file but the lock, which tells who was there."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != "lock"
    }


def test_chunks_that_no_index_names_are_found_by_their_checksums(tmp_path: Path) -> None:
    path = crashed(tmp_path, 6, codec="zstd", **CASES["unbounded"])
    assert not read_array(path / "0", "tensorstore").any()
    outcome = recover(path)
    assert outcome.repairs.salvaged == 1
    assert outcome.frames["written"] == 5


@pytest.mark.parametrize("codec", CODECS)
def test_a_chunk_that_was_flushed_before_it_was_complete_is_not_taken_for_the_whole(tmp_path: Path, codec: str) -> None:
    settings = AcquisitionSettings(
        path=tmp_path / "open.ome.zarr", dtype="uint16", codec=codec, levels=2, **CASES["deep chunks"]
    )
    with open_stream(settings) as stream:
        for number in range(5):
            stream.append(stamped_frame(number, (Y, X), "uint16"))
        stream.flush()  # the index names a chunk with one frame of two
        stream.append(stamped_frame(5, (Y, X), "uint16"))
        path = crash(stream, tmp_path / "crashed.ome.zarr")
    stored = written(path)
    assert recover(path).lost == ()
    check_pixels(path, settings.plan(), stored, set())
    assert verify(path).sound


def test_without_checksums_every_chunk_is_named_at_once(tmp_path: Path) -> None:
    path = crashed(tmp_path, 6, codec="zstd", checksums=False, **CASES["unbounded"])
    outcome = recover(path)
    assert outcome.lost == ()
    assert outcome.repairs.salvaged == 0
    check_pixels(path, AcquisitionSettings(**_settings(path)).plan(), {0, 2, 3, 4, 5}, {1})


def test_the_log_says_which_frames_are_lost(tmp_path: Path) -> None:
    path = crashed(tmp_path, 6, **CASES["time"])
    (path / "0" / "c" / "0" / "0" / "0").unlink()
    assert recover(path).lost == (0, 2, 3)
    last = {record["frame"]: record for record in read_frames(path)}
    assert last[2]["status"] == "failed"
    assert "crash" in last[2]["reason"]
    assert verify(path).sound


@pytest.mark.parametrize("backend", ["inplace", "tensorstore", "zarr-python"])
@pytest.mark.parametrize("case", ["time", "without shards", "deep chunks", "several files a frame"])
def test_without_checksums_chunks_of_zeros_are_not_taken_for_lost(tmp_path: Path, case: str, backend: str) -> None:
    """Libraries leave them out."""
    path = tmp_path / "a.ome.zarr"
    half_black = stamped_frame(0, (Y, X), "uint16")
    half_black[:, X // 3 :] = 0
    with open_stream(
        AcquisitionSettings(path=path, dtype="uint16", backend=backend, checksums=False, **CASES[case])
    ) as stream:
        stream.extend(np.stack([half_black] * 3))
    outcome = recover(path)
    assert outcome.lost == ()
    assert outcome.frames["written"] == 3


@pytest.mark.parametrize("codec", ["zstd", "blosc-lz4"])
@pytest.mark.parametrize("checksums", [True, False])
def test_a_chunk_that_was_flushed_early_and_came_again_is_found_or_told(
    tmp_path: Path, checksums: bool, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index names the chunk of the flush, which lacks the frame that came later."""
    settings = AcquisitionSettings(
        path=tmp_path / "a.ome.zarr", dtype="uint16", codec=codec, checksums=checksums, **CASES["deep chunks"]
    )
    with open_stream(settings) as stream:
        stream.append(stamped_frame(0, (Y, X), "uint16"))
        stream.flush()
        with monkeypatch.context() as patch:
            patch.setattr("scopestream_backends._shards.TailShard.flush", lambda shard: None)
            stream.append(stamped_frame(1, (Y, X), "uint16"))
            path = crash(stream, tmp_path / "crashed.ome.zarr")
    assert written(path) == {0, 1}
    assert recover(path).lost == (() if checksums else (1,))
    check_pixels(path, stream.plan, {0, 1} if checksums else {0}, set())
    assert verify(path).sound


def test_a_chunk_with_a_frame_from_before_that_has_no_checksum_is_found(tmp_path: Path) -> None:
    settings = AcquisitionSettings(
        path=tmp_path / "a.ome.zarr", dtype="uint16", backend="inplace", codec="zstd", **CASES["deep chunks"]
    )
    with open_stream(settings.model_copy(update={"checksums": False})) as stream:
        stream.append(stamped_frame(0, (Y, X), "uint16"))
    with open_stream(settings.model_copy(update={"on_exists": "resume"})) as stream:
        stream.append(stamped_frame(1, (Y, X), "uint16"))
        path = crash(stream, tmp_path / "crashed.ome.zarr")
    assert recover(path).lost == ()
    check_pixels(path, stream.plan, {0, 1}, set())


@pytest.mark.parametrize("codec", CODECS)
def test_sparse_tails_are_trimmed(tmp_path: Path, codec: str) -> None:
    path = crashed(tmp_path, 3, codec=codec, **CASES["unbounded"])
    shard = path / "0" / "c" / "0" / "0" / "0"
    size = shard.stat().st_size
    outcome = recover(path)
    assert outcome.repairs.trimmed + outcome.repairs.salvaged == 1
    assert shard.stat().st_size < size // 2
    assert outcome.repairs.freed_bytes == pytest.approx(size - shard.stat().st_size, abs=8 * index_bytes(96))


@pytest.mark.parametrize("codec", CODECS)
def test_a_damaged_index_is_made_again_from_the_chunks(tmp_path: Path, codec: str) -> None:
    path = crashed(tmp_path, 6, codec=codec, **CASES["unbounded"])
    recover(path)
    shard = path / "0" / "c" / "0" / "0" / "0"
    _flip(shard, shard.stat().st_size - 10)
    assert not verify(path).sound
    outcome = recover(path)
    assert outcome.repairs.rebuilt == 1
    assert outcome.frames["written"] == 5
    assert verify(path).sound
    check_pixels(path, AcquisitionSettings(**_settings(path)).plan(), {0, 2, 3, 4, 5}, {1})


def test_a_shard_that_cannot_be_told_is_put_aside_and_its_bytes_stay(tmp_path: Path) -> None:
    settings = AcquisitionSettings(
        path=tmp_path / "a.ome.zarr", dtype="uint16", codec="zstd", checksums=False, **CASES["time"]
    )
    with open_stream(settings) as stream:
        for number in range(6):
            stream.append(stamped_frame(number, (Y, X), "uint16"))
    path = stream.plan.root
    shard = path / "0" / "c" / "0" / "0" / "0"
    content = bytearray(shard.read_bytes())
    _flip(shard, len(content) - 10)
    outcome = recover(path)
    assert outcome.repairs.set_aside == [shard]
    assert len(shard.with_name(".0.damaged").read_bytes()) == len(content)
    assert outcome.lost == (0, 1, 2, 3)
    pixels = read_array(path / "0", "tensorstore")
    assert not pixels[:4].any()
    assert pixels[4:6].all(axis=(1, 2)).all()


def test_a_damaged_shard_of_a_coarser_level_is_computed_again(tmp_path: Path) -> None:
    path = crashed(tmp_path, 6, codec="zstd", **CASES["levels"])
    recover(path)
    shard = path / "1" / "c" / "0" / "0" / "0"
    _flip(shard, shard.stat().st_size - 10)
    outcome = recover(path)
    assert outcome.n_levels == 5
    check_pixels(path, AcquisitionSettings(**_settings(path)).plan(), {0, 2, 3, 4, 5}, {1})


def test_a_coarser_shard_that_a_killed_recovery_put_aside_is_computed_again(tmp_path: Path) -> None:
    path = crashed(tmp_path, 6, codec="zstd", **CASES["levels"])
    recover(path)
    shard = path / "1" / "c" / "0" / "0" / "0"
    shard.rename(shard.with_name(".0.damaged"))
    assert recover(path, dry_run=True).n_levels == 5
    assert recover(path).n_levels == 5
    check_pixels(path, AcquisitionSettings(**_settings(path)).plan(), {0, 2, 3, 4, 5}, {1})
    assert not recover(path).changed


def test_a_damaged_plane_is_told_where_levels_are_computed_from_it(tmp_path: Path) -> None:
    path = crashed(tmp_path, 4, codec="zstd", **CASES["deep levels along z"])
    recover(path)
    plan = AcquisitionSettings(**_settings(path)).plan()
    damage(path / "0" / "c" / "0" / "0" / "0" / "0", plan.arrays[0], (0, 2, 0, 0))
    (shard,) = (path / "2").glob("c/0/0/0/0")
    shard.rename(shard.with_name(".0.damaged"))
    outcome = recover(path)
    assert outcome.lost == (2, 3)  # in one chunk
    assert outcome.frames["failed"] == 2
    assert verify(path).sound
    assert not recover(path).changed


def _flip(file: Path, offset: int) -> None:
    content = bytearray(file.read_bytes())
    content[offset] ^= 1
    file.write_bytes(content)


def test_documents_that_are_missing_are_written_again(tmp_path: Path) -> None:
    path = crashed(tmp_path, 12, **CASES["levels along z"])
    for document in (path / "1" / "0" / "zarr.json", path / "OME" / "zarr.json", path / "OME" / "METADATA.ome.xml"):
        document.unlink()
    outcome = recover(path)
    assert outcome.repairs.documents == 1
    assert (path / "OME" / "METADATA.ome.xml").read_text().count("DeltaT=") == 11
    check_pixels(path, AcquisitionSettings(**_settings(path)).plan(), set(range(12)) - {1}, {1})


def test_a_length_that_close_could_not_write_is_put_right(tmp_path: Path) -> None:
    path = crashed(tmp_path, 6, **CASES["unbounded"])
    recover(path)
    document = path / "0" / "zarr.json"
    before = json.loads(document.read_text())
    document.write_text(json.dumps({**before, "shape": [8, Y, X]}))
    assert recover(path, dry_run=True).changed
    assert recover(path).repairs.documents == 1
    assert json.loads(document.read_text()) == before
    assert not recover(path).changed


def test_what_a_user_kept_in_the_root_document_stays(tmp_path: Path) -> None:
    settings = AcquisitionSettings(path=tmp_path / "a.ome.zarr", dtype="uint16", **CASES["time"])
    with open_stream(settings) as stream:
        stream.set_metadata("my-lab", {"operator": "Ada"})
        stream.append(stamped_frame(0, (Y, X), "uint16"))
        path = crash(stream, tmp_path / "crashed.ome.zarr")
    recover(path)
    assert json.loads((path / "zarr.json").read_bytes())["attributes"]["my-lab"] == {"operator": "Ada"}


def test_unfinished_files_are_removed(tmp_path: Path) -> None:
    path = crashed(tmp_path, 3, **CASES["time"])
    leftovers = [path / "0" / "c" / "0" / "0" / ".1.tmp", path / ".zarr.json.tmp", path / "0" / "c.0.0.0"]
    for leftover in leftovers:
        leftover.write_bytes(b"half a file")
    assert recover(path).repairs.leftovers == len(leftovers)
    assert not any(leftover.exists() for leftover in leftovers)


@pytest.mark.parametrize("piece", [b'{"frame":2,"image":"","ind', b"\0" * 300, b"\xff\xfe{}"])
def test_pieces_of_lines_in_the_log_become_spaces(tmp_path: Path, piece: bytes) -> None:
    path = crashed(tmp_path, 4, **CASES["time"])
    log = path / "scopestream" / "frames.jsonl"
    before = log.read_bytes()
    log.write_bytes(before[:-1] + b"\n" + piece + b"\n" + before.splitlines(keepends=True)[-1] + piece)
    spoiled = log.read_bytes()
    assert recover(path, dry_run=True).repairs.log_lines == 2
    assert recover(path).repairs.log_lines == 2
    records = [json.loads(line) for line in log.read_bytes().splitlines() if line.strip()]
    assert records == [json.loads(line) for line in (before + before.splitlines()[-1]).splitlines()]
    assert log.with_name(".frames.jsonl.damaged").read_bytes() == spoiled
    assert verify(path).sound
    assert not recover(path).changed


def test_a_dataset_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    settings = AcquisitionSettings(path=tmp_path / "a.ome.zarr", dtype="uint16", **CASES["time"])
    with open_stream(settings) as stream:
        for dry_run in (False, True):
            with pytest.raises(DatasetBusyError, match=f"process {os.getpid()}"):
                recover(stream.path, dry_run=dry_run)
        stream.append(stamped_frame(0, (Y, X), "uint16"))


def test_after_a_power_failure_frames_are_compared_with_their_checksums(tmp_path: Path) -> None:
    path = crashed(tmp_path, 6, **CASES["time"])
    _pretend_power_failure(path)
    shard = path / "0" / "c" / "0" / "0" / "0"
    content = bytearray(shard.read_bytes())
    content[: 3 * 4 * 32 * 32 * 2] = bytes(3 * 4 * 32 * 32 * 2)  # pages of frame 0 that did not reach the disk
    shard.write_bytes(content)
    outcome = recover(path)
    assert outcome.lost == (0,)
    assert outcome.frames["failed"] == 1
    assert verify(path).sound


def _pretend_power_failure(path: Path) -> None:
    lock = path / "scopestream" / "lock"
    lock.write_text(json.dumps({**json.loads(lock.read_text()), "run": "another run of the system"}))


def test_what_scopestream_did_not_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.zarr").mkdir()
    (tmp_path / "other.zarr" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    with pytest.raises(DatasetError, match="scopestream did not write it"):
        recover(tmp_path / "other.zarr")
    with pytest.raises(DatasetError, match="nothing at"):
        recover(tmp_path / "nowhere.zarr")


def test_a_closed_dataset_needs_no_recovery(tmp_path: Path) -> None:
    settings = AcquisitionSettings(path=tmp_path / "a.ome.zarr", dtype="uint16", codec="zstd", **CASES["levels"])
    with open_stream(settings) as stream:
        for number in range(11):
            stream.append(stamped_frame(number, (Y, X), "uint16"))
    outcome: Recovery = recover(stream.path)
    assert not outcome.changed
    assert outcome.status == "complete"


def test_a_recovery_that_is_killed_can_be_done_again(tmp_path: Path) -> None:
    """At every system call of it that changes something."""
    n_calls = 0
    while True:
        folder = tmp_path / str(n_calls)
        folder.mkdir()
        path = crashed(folder, 6, codec="zstd", **CASES["levels along z"])
        stored = written(path)
        if not _dies_at(n_calls, path):
            break
        outcome = recover(path)
        assert outcome.lost == ()
        check_pixels(path, AcquisitionSettings(**_settings(path)).plan(), stored, {1})
        n_calls += 5
    assert n_calls > 20


class _DiedError(BaseException):
    pass


def _dies_at(n: int, path: Path) -> bool:
    """Recover, but stop for good before the n-th call; whether it came to that."""
    left = [n]

    def dying(call: Any) -> Any:
        def wrapped(*args: Any, **options: Any) -> Any:
            if not left[0]:
                raise _DiedError
            left[0] -= 1
            return call(*args, **options)

        return wrapped

    with pytest.MonkeyPatch.context() as patch:
        for name in ("pwrite", "ftruncate", "replace", "write"):
            patch.setattr(os, name, dying(getattr(os, name)))
        try:
            recover(path)
        except _DiedError:
            return True
        return False


def test_chunks_that_others_have_put_beside_stay(tmp_path: Path) -> None:
    path = crashed(tmp_path, 3, **CASES["time"])
    labels = path / "labels" / "cells"
    labels.mkdir(parents=True)
    for name in ("zarr.json", "c.0.0.0", "c.1.0.0"):
        (labels / name).write_bytes(b"of somebody else")
    recover(path)
    assert sorted(file.name for file in labels.iterdir()) == ["c.0.0.0", "c.1.0.0", "zarr.json"]


def test_without_a_log_nothing_is_changed(tmp_path: Path) -> None:
    path = crashed(tmp_path, 6, **CASES["unbounded"])
    (path / "scopestream" / "frames.jsonl").unlink()
    before = _contents(path)
    for dry_run in (True, False):
        with pytest.raises(DatasetError, match="nobody knows which frames are there"):
            recover(path, dry_run=dry_run)
    assert _contents(path) == before


def test_what_others_noted_in_a_document_stays_when_it_is_mended(tmp_path: Path) -> None:
    path = crashed(tmp_path, 3, **CASES["time"])
    noted = {**json.loads((path / "0" / "zarr.json").read_bytes()), "attributes": {"note": "mine"}}
    (path / "0" / "zarr.json").write_text(json.dumps({**noted, "data_type": "uint8"}))
    recover(path)
    assert json.loads((path / "0" / "zarr.json").read_bytes()) == noted


@pytest.mark.parametrize("codec", ["zstd", "blosc-lz4"])
def test_a_torn_chunk_does_not_let_recovery_walk_the_hole_behind_it(tmp_path: Path, codec: str) -> None:
    path = crashed(tmp_path, 3, codec=codec, **CASES["unbounded"])
    shard = path / "0" / "c" / "0" / "0" / "0"
    magic = {"zstd": b"\x28\xb5\x2f\xfd\x00", "blosc-lz4": b"\x02\x01\x21\x02" + b"\xff" * 12}[codec]
    with shard.open("r+b") as file:
        file.write(magic + bytes(100_000))
    outcome = recover(path)
    assert set(outcome.lost) == {0, 2}
