"""What survives a power loss: what is promised, in which order it is done, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest

from scopestream import (
    AcquisitionSettings,
    NotDurableError,
    PlanError,
    Stream,
    StreamClosedError,
    WriteError,
    durable,
    open_stream,
    read_frames,
)
from scopestream.dataset import open_dataset
from scopestream.info import inspect
from scopestream.testing import read_array, stamped_frame
from scopestream_backends import _shards
from scopestream_backends import inplace as inplace_backend

SHAPE = (64, 48)
PATIENCE_S = 30.0


def settings(tmp_path: Path, **fields: Any) -> AcquisitionSettings:
    base: dict[str, Any] = {
        "path": tmp_path / "a.ome.zarr",
        "dtype": "uint16",
        "dimensions": [{"name": "t", "count": None}, {"name": "y", "count": 64}, {"name": "x", "count": 48}],
        "chunks": {"y": 32, "x": 32},
        "shards": {"t": 8},
        "backend": "inplace",
    }
    return AcquisitionSettings(**{**base, **fields})


def frame(number: int) -> np.ndarray:
    return stamped_frame(number, SHAPE, "uint16")


def log_lines(stream: Stream) -> list[dict[str, Any]]:
    lines = (stream.plan.root / "scopestream" / "frames.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def marks(stream: Stream) -> list[dict[str, Any]]:
    return [line for line in log_lines(stream) if "synced" in line]


def wait_until(condition: Callable[[], bool]) -> None:
    end = monotonic() + PATIENCE_S
    while not condition():
        assert monotonic() < end, "it never happened"
        sleep(0.005)


class Calls:
    """Every sync, cut and renaming of this process, with the file it was for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[str, str]] = []
        for name in ("fsync", "fdatasync", "ftruncate", "pwrite", "pwritev"):
            monkeypatch.setattr(os, name, self._noting(name, getattr(os, name)))
        replace = os.replace

        def noted_replace(source: Any, target: Any) -> None:
            self.seen.append(("replace", str(target)))
            replace(source, target)

        monkeypatch.setattr(os, "replace", noted_replace)

    def _noting(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(file: int, *arguments: Any) -> Any:
            self.seen.append((name, str(Path(f"/proc/self/fd/{file}").readlink())))
            return call(file, *arguments)

        return noted

    def of(self, ending: str) -> list[str]:
        return [name for name, path in self.seen if path.endswith(ending)]


on_linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system does not name open files")


# -- settings and refusals ------------------------------------------------------------------------------------------


def test_a_backend_that_cannot_sync_says_so_before_anything_is_done(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path, backend="acquire-zarr")) as stream:
        stream.append(frame(0))
        with pytest.raises(NotDurableError, match=r"'acquire-zarr' cannot make frames survive.*choose another backend"):
            stream.flush(durable=True)
        stream.append(frame(1))  # the stream goes on
    assert stream.stats.frames_written == 2


def test_durability_on_disk_is_refused_where_it_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"cannot make frames survive a power loss \(durability\)"):
        settings(tmp_path, backend="acquire-zarr", durability="disk").plan()
    with pytest.raises(PlanError, match=r"nothing that it stored can be read before the end \(checkpoint_s\)"):
        settings(tmp_path, backend="acquire-zarr", checkpoint_s=5).plan()
    plan = settings(tmp_path, backend="auto", durability="disk").plan()
    fits = {fit.name: fit.problems for fit in plan.fits}
    assert fits["acquire-zarr"]
    assert plan.backend == "inplace"


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf"), "often"])
def test_an_interval_is_a_number_of_seconds(tmp_path: Path, interval: Any) -> None:
    with pytest.raises(ValueError, match="checkpoint_s"):
        settings(tmp_path, checkpoint_s=interval)


def test_the_disk_is_synced_every_second_unless_the_settings_say_otherwise(tmp_path: Path) -> None:
    assert settings(tmp_path).checkpoint_interval_s is None
    assert settings(tmp_path, durability="disk").checkpoint_interval_s == 1.0
    assert settings(tmp_path, durability="disk", checkpoint_s=9).checkpoint_interval_s == 9


# -- the log tells what is safe -------------------------------------------------------------------------------------


def test_the_log_says_which_frames_were_synced(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path)) as stream:
        for number in range(3):
            stream.append(frame(number))
        stream.flush(durable=True)
        stream.append(frame(3))
        stream.flush()
        (mark,) = marks(stream)
        log = (stream.plan.root / "scopestream" / "frames.jsonl").read_bytes()
        assert log[: mark["synced"]].count(b'"status":"written"') == 3
        assert open_dataset(stream.plan.root).history.synced.tolist() == [True, True, True, False]
    assert open_dataset(stream.plan.root).history.synced.all()  # `close` syncs as well, once it was asked for


def test_marks_are_no_frames(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path, durability="disk")) as stream:
        for number in range(3):
            stream.append(frame(number))
            stream.flush(durable=True)
    assert [record["frame"] for record in read_frames(stream.path)] == [0, 1, 2]
    info = inspect(Path(stream.path))
    assert info.log == {"written": 3}
    assert not info.problems


def test_nothing_is_synced_unless_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[object] = []
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, synced.append, raising=False)
    monkeypatch.setattr(durable, "_syncfs", lambda: synced.append)
    with open_stream(settings(tmp_path, codec="zstd")) as stream:
        for number in range(20):
            stream.append(frame(number))
        stream.flush()
    assert not synced
    assert not marks(stream)


def test_a_second_sync_of_nothing_new_does_nothing(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path)) as stream:
        stream.append(frame(0))
        for _ in range(3):
            stream.flush(durable=True)
        assert len(marks(stream)) == 1


# -- order ----------------------------------------------------------------------------------------------------------


@on_linux
def test_chunks_and_their_index_are_synced_before_the_file_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_stream(settings(tmp_path, codec="zstd", durability="disk", checkpoint_s=60)) as stream:
        stream.append(frame(0))
        stream.flush(durable=True)
        calls = Calls(monkeypatch)
        stream.append(frame(1))
        stream.flush(durable=True)
        assert calls.of("0/c/0/0/0") == ["pwritev", "pwrite", "fdatasync", "ftruncate", "fsync"]


@on_linux
def test_a_new_file_and_a_new_document_are_synced_before_they_get_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_stream(settings(tmp_path, durability="disk", checkpoint_s=60)) as stream:
        for number in range(8):
            stream.append(frame(number))
        stream.flush(durable=True)
        calls = Calls(monkeypatch)
        stream.append(frame(8))
        stream.flush(durable=True)
    array = str(stream.plan.root / "0")
    for made, name in (
        (f"{array}/c/1/0/.0.tmp", f"{array}/c/1/0/0"),
        (f"{array}/.zarr.json.tmp", f"{array}/zarr.json"),
    ):
        named_at = calls.seen.index(("replace", name))
        assert calls.seen.index(("fsync", made)) < named_at
        assert calls.seen.index(("fsync", str(Path(name).parent))) > named_at
    assert {("fsync", f"{array}{folder}") for folder in ("", "/c", "/c/1", "/c/1/0")} <= set(calls.seen)


@on_linux
def test_the_log_is_synced_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_stream(settings(tmp_path, durability="disk", checkpoint_s=60)) as stream:
        stream.append(frame(0))
        calls = Calls(monkeypatch)
        stream.flush(durable=True)
        assert calls.seen[-1][1].endswith("frames.jsonl")
        before_close = len(calls.seen)
    syncs = [path for name, path in calls.seen[before_close:] if name in ("fsync", "fdatasync")]
    log = str(stream.plan.root / "scopestream" / "frames.jsonl")
    document = str(stream.plan.root / ".zarr.json.tmp")
    assert syncs.index(log) < syncs.index(document)  # which says "complete"
    assert syncs[-1] == str(stream.plan.root)


# -- checkpoints ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["inplace", "tensorstore", "zarr-python"])
def test_a_checkpoint_lets_others_read_what_arrived_without_being_asked(tmp_path: Path, backend: str) -> None:
    with open_stream(settings(tmp_path, backend=backend, checkpoint_s=0.05)) as stream:
        for number in range(3):
            stream.append(frame(number))

        def all_there() -> bool:
            found = read_array(stream.plan.root / "0", "zarr")
            return len(found) >= 3 and all(np.array_equal(found[number], frame(number)) for number in range(3))

        wait_until(all_there)
        assert not marks(stream)  # read, but not synced


@pytest.mark.parametrize("codec", ["none", "zstd"])
@pytest.mark.parametrize("backend", ["inplace", "zarrs"])
def test_with_durability_on_disk_a_checkpoint_syncs(tmp_path: Path, backend: str, codec: str) -> None:
    fields: dict[str, Any] = {"backend": backend, "codec": codec, "durability": "disk", "checkpoint_s": 0.05}
    with open_stream(settings(tmp_path, **fields)) as stream:
        for number in range(3):
            stream.append(frame(number))
        wait_until(lambda: open_dataset(stream.plan.root).history.synced.tolist() == [True] * 3)
        stream.append(frame(3))
    for reader in ("zarr", "tensorstore"):
        np.testing.assert_array_equal(read_array(stream.plan.root / "0", reader), [frame(n) for n in range(4)])


def test_a_camera_that_pauses_makes_no_checkpoints(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path, durability="disk", checkpoint_s=0.01)) as stream:
        stream.append(frame(0))
        wait_until(lambda: bool(marks(stream)))
        sleep(0.2)
        assert len(marks(stream)) <= 2  # one more, when it fell between the pixels and their line


def test_what_a_checkpoint_could_not_do_is_the_error_of_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = open_stream(settings(tmp_path, durability="disk", checkpoint_s=0.01))
    with monkeypatch.context() as broken:
        for name in ("fsync", "fdatasync"):
            broken.setattr(os, name, _no_disk, raising=False)
        stream.append(frame(0))
        wait_until(lambda: stream.error is not None)
    with pytest.raises(WriteError, match="the disk is gone"):
        stream.append(frame(1))
    with pytest.raises(WriteError):
        stream.close()


def test_no_thread_is_left_after_close(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path, durability="disk", checkpoint_s=0.01)) as stream:
        stream.append(frame(0))
    assert not [thread for thread in threading.enumerate() if thread.name == "scopestream-checkpoint"]
    with pytest.raises(StreamClosedError):
        stream.flush(durable=True)


# -- errors ---------------------------------------------------------------------------------------------------------


def _no_disk(_: int) -> int:
    raise OSError(errno.EIO, "the disk is gone")


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_what_could_not_be_synced_is_never_promised_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    stream = open_stream(settings(tmp_path, codec=codec))
    stream.append(frame(0))
    stream.flush(durable=True)
    stream.append(frame(1))
    with monkeypatch.context() as broken:
        for name in ("fsync", "fdatasync"):
            broken.setattr(os, name, _no_disk, raising=False)
        with pytest.raises(WriteError, match="the disk is gone"):
            stream.flush(durable=True)
    with pytest.raises(WriteError):  # although the disk is back
        stream.flush(durable=True)
    with pytest.raises(WriteError):
        stream.close()
    assert open_dataset(stream.plan.root).history.synced.tolist() == [True, False]
    np.testing.assert_array_equal(read_array(stream.plan.root / "0", "tensorstore")[0], frame(0))


# -- systems without --------------------------------------------------------------------------------------------------


def test_without_a_sync_of_the_file_system_every_file_and_folder_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "_syncfs", lambda: None)
    synced: set[int] = set()
    fsync = os.fsync

    def noted(file: int) -> None:
        synced.add(os.fstat(file).st_ino)
        fsync(file)

    monkeypatch.setattr(os, "fsync", noted)
    with open_stream(settings(tmp_path)) as stream:
        for number in range(10):
            stream.append(frame(number))
        stream.flush(durable=True)
        there = [stream.plan.root, stream.plan.root.parent, *stream.plan.root.rglob("*")]
        assert {path.stat().st_ino for path in there} <= synced


def test_more_files_than_are_worth_remembering_are_synced_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_syncs: list[int] = []
    monkeypatch.setattr(durable, "_MAX_NAMES", 10)
    monkeypatch.setattr(durable, "_MAX_NAMES_WITHOUT_SYNCFS", 10)
    everything = durable.sync_everything

    def noted(root: Path) -> None:
        n_syncs.append(1)
        everything(root)

    monkeypatch.setattr(durable, "sync_everything", noted)
    with open_stream(settings(tmp_path, shards=None)) as stream:
        stream.append(frame(0))
        stream.flush(durable=True)
        assert len(n_syncs) == 1
        for number in range(1, 6):
            stream.append(frame(number))
        stream.flush(durable=True)
        assert len(n_syncs) == 2
        stream.append(frame(6))
        stream.flush(durable=True)
        assert len(n_syncs) == 2
    np.testing.assert_array_equal(read_array(stream.plan.root / "0", "zarr"), [frame(n) for n in range(7)])


@pytest.mark.filterwarnings("ignore:The file system of .* stores the holes")
@pytest.mark.parametrize("codec", ["none", "zstd"])
@pytest.mark.parametrize("durability", ["process", "disk"])
def test_where_holes_take_space_synced_frames_can_be_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str, durability: str
) -> None:
    monkeypatch.setattr(inplace_backend, "supports_sparse_files", lambda folder: False)
    with open_stream(settings(tmp_path, codec=codec, durability=durability, checkpoint_s=60)) as stream:
        for number in range(11):
            stream.append(frame(number))
            if number % 2:
                stream.flush(durable=True)
            if number > 1:  # chunks that came since hide nothing
                found = read_array(stream.plan.root / "0", "tensorstore")
                n_safe = number // 2 * 2
                np.testing.assert_array_equal(found[:n_safe], [frame(n) for n in range(n_safe)])
    np.testing.assert_array_equal(read_array(stream.plan.root / "0", "zarr"), [frame(n) for n in range(11)])


def test_an_index_without_room_to_walk_moves_to_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init = _shards.TailShard.__init__

    def cramped(self: Any, *arguments: Any, **fields: Any) -> None:
        init(self, *arguments, **{**fields, "n_publish": 2})

    monkeypatch.setattr(_shards.TailShard, "__init__", cramped)
    with open_stream(settings(tmp_path, codec="zstd", shards={"t": 40})) as stream:
        for number in range(20):
            stream.append(frame(number))
            stream.flush(durable=number > 9)
            found = read_array(stream.plan.root / "0", "tensorstore")
            np.testing.assert_array_equal(found[: number + 1], [frame(n) for n in range(number + 1)])
