"""One writer at a time, and a crash keeps nobody out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scopestream import AcquisitionSettings, DatasetBusyError, open_stream, recover
from scopestream.lock import LOCK, DatasetLock
from scopestream.testing import stamped_frame

FRAME = (32, 32)


def settings(path: Path, on_exists: str) -> AcquisitionSettings:
    dimensions = [{"name": "t", "count": 5}, {"name": "y", "count": 32}, {"name": "x", "count": 32}]
    return AcquisitionSettings(path=path, dtype="uint16", dimensions=dimensions, on_exists=on_exists)


@pytest.mark.parametrize("on_exists", ["overwrite", "resume"])
def test_a_second_writer_is_refused_and_the_first_goes_on(tmp_path: Path, on_exists: str) -> None:
    with open_stream(settings(tmp_path / "a.ome.zarr", "error")) as stream:
        stream.append(stamped_frame(0, FRAME, "uint16"))
        with pytest.raises(DatasetBusyError, match=f"process {os.getpid()} .* nothing was changed"):
            open_stream(settings(tmp_path / "a.ome.zarr", on_exists))
        stream.append(stamped_frame(1, FRAME, "uint16"))
    with open_stream(settings(tmp_path / "a.ome.zarr", on_exists)) as stream:
        stream.append(stamped_frame(2, FRAME, "uint16"))


def test_a_stream_that_was_closed_leaves_no_owner(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path / "a.ome.zarr", "error")) as stream:
        owner = json.loads((tmp_path / "a.ome.zarr" / LOCK).read_text())
        assert owner["pid"] == os.getpid()
    assert (stream.plan.root / LOCK).read_bytes() == b""


CRASH = """
import os, signal, subprocess, sys, time
from pathlib import Path
from scopestream.lock import DatasetLock
lock = DatasetLock(Path(sys.argv[1]))
lock.claim()
if sys.argv[2] == "forks" and os.fork() == 0:
    print(os.getpid(), flush=True)
    time.sleep(60)
print("taken", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("what", ["alone", "forks"])
def test_a_killed_writer_keeps_nobody_out_though_its_children_live_on(tmp_path: Path, what: str) -> None:
    (tmp_path / "scopestream").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", CRASH, str(tmp_path), what], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline().strip() for _ in range(2 if what == "forks" else 1)]
        with pytest.raises(DatasetBusyError, match=f"process {writer.pid}"):
            DatasetLock(tmp_path)
        writer.kill()
        writer.wait()
        try:
            lock = DatasetLock(tmp_path)
            assert lock.previous["pid"] == writer.pid
            with pytest.raises(DatasetBusyError, match=f"process {os.getpid()}"):
                DatasetLock(tmp_path)
            lock.release()
            DatasetLock(tmp_path).release()
        finally:
            for child in said:
                if child.isdigit():
                    os.kill(int(child), signal.SIGKILL)


def test_a_full_disk_keeps_nobody_from_recovering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_stream(settings(tmp_path / "a.ome.zarr", "error")) as stream:
        stream.append(stamped_frame(0, FRAME, "uint16"))

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    assert not recover(tmp_path / "a.ome.zarr").changed
