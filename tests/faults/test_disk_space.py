"""Free space and open files: what is known before the first frame is said then, and what runs out harms no frame."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from pydantic import ValidationError

import scopestream.diskspace
from scopestream import AcquisitionSettings, DiskSpaceError, WriteError, open_stream, read_frames
from scopestream.testing import acquire, read_array, stamped_frame

KB = 1000


class Usage(NamedTuple):
    total: int
    used: int
    free: int


class Disk:
    """What the system says of the file system from now on."""

    def __init__(self) -> None:
        self.free = 10**12
        self.asked: list[Path] = []

    def usage(self, path: str | Path) -> Usage:
        self.asked.append(Path(path))
        return Usage(10**13, 0, self.free)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(shutil, "disk_usage", disk.usage)
    monkeypatch.setattr(scopestream.diskspace, "_CHECK_EVERY_S", 0.0)
    return disk


def settings(path: Path, n_frames: int | None = 10, **changes: Any) -> AcquisitionSettings:
    """Frames of 1000 bytes."""
    dimensions = [{"name": "t", "count": n_frames}, {"name": "y", "count": 20}, {"name": "x", "count": 50}]
    return AcquisitionSettings.model_validate(
        {"path": path, "dtype": "uint8", "dimensions": dimensions, "backend": "inplace", **changes}
    )


def frame(number: int) -> np.ndarray:
    return stamped_frame(number, (20, 50), "uint8")


# -- before the first frame -----------------------------------------------------------------------------------------


def test_without_min_free_a_warning_says_how_many_frames_fit(tmp_path: Path, disk: Disk) -> None:
    disk.free = 7_600
    with pytest.warns(RuntimeWarning, match="about 7 of 10 frames fit"):
        open_stream(settings(tmp_path / "a.ome.zarr")).close()


def test_the_levels_of_the_pyramid_count(tmp_path: Path, disk: Disk) -> None:
    disk.free = 10_000
    open_stream(settings(tmp_path / "a.ome.zarr")).close()
    with pytest.warns(RuntimeWarning, match="about 8 of 10 frames fit"):
        open_stream(settings(tmp_path / "b.ome.zarr", levels=2)).close()


def test_with_min_free_nothing_is_written_when_it_would_not_be_left(tmp_path: Path, disk: Disk) -> None:
    disk.free = 14_999
    with pytest.raises(DiskSpaceError, match="Nothing was written") as caught:
        open_stream(settings(tmp_path / "new" / "a.ome.zarr", min_free="5kB"))
    assert caught.value.errno == errno.ENOSPC
    assert isinstance(caught.value, OSError)
    assert list(tmp_path.iterdir()) == []
    assert set(disk.asked) == {tmp_path}, "the folder that is there is on the disk that counts"
    disk.free = 15_000
    open_stream(settings(tmp_path / "new" / "a.ome.zarr", min_free="5kB")).close()


@pytest.mark.parametrize("changes", [{"codec": "zstd"}, {"n_frames": None, "shards": {"t": 4}}])
def test_what_cannot_be_foreseen_needs_no_more_than_min_free(
    tmp_path: Path, disk: Disk, changes: dict[str, Any]
) -> None:
    disk.free = 5_000
    open_stream(settings(tmp_path / "a.ome.zarr", **changes)).close()
    open_stream(settings(tmp_path / "b.ome.zarr", min_free=5_000, **changes)).close()
    with pytest.raises(DiskSpaceError):
        open_stream(settings(tmp_path / "c.ome.zarr", min_free=5_001, **changes))


def test_the_space_of_the_dataset_that_is_replaced_counts_as_free(tmp_path: Path, disk: Disk) -> None:
    acquire(settings(tmp_path / "a.ome.zarr"))
    disk.free = 5_000
    open_stream(settings(tmp_path / "a.ome.zarr", on_exists="overwrite", min_free=KB)).close()


@pytest.mark.parametrize("min_free", [0, -1, "some"])
def test_min_free_is_a_size(tmp_path: Path, min_free: Any) -> None:
    with pytest.raises(ValidationError, match="min_free"):
        settings(tmp_path, min_free=min_free)


# -- while it runs --------------------------------------------------------------------------------------------------


def assert_first_frames_are_safe(path: str, n_safe: int) -> None:
    pixels = read_array(Path(path) / "0", "zarr")
    for number in range(n_safe):
        np.testing.assert_array_equal(pixels[number], frame(number))
    written = [record["frame"] for record in read_frames(path) if record["status"] == "written"]
    assert sorted(written) == list(range(n_safe))


@pytest.mark.parametrize("levels", [1, 2])
def test_when_min_free_is_reached_the_next_call_and_close_raise_and_all_before_is_safe(
    tmp_path: Path, disk: Disk, levels: int
) -> None:
    stream = open_stream(settings(tmp_path / "a.ome.zarr", n_frames=40, min_free="5kB", levels=levels))
    for number in range(3):
        stream.append(frame(number))
    stream.flush()
    disk.free = 4_999
    stream.append(frame(3))
    with pytest.raises(WriteError, match="min_free=5 kB") as caught:
        stream.flush()
    assert isinstance(caught.value.__cause__, DiskSpaceError)
    disk.free = 10**12
    with pytest.raises(WriteError):
        stream.append(frame(4))
    with pytest.raises(WriteError, match=r"3 of 4 accepted frames are\s+safe"):
        stream.close()
    assert_first_frames_are_safe(stream.path, 3)
    assert [record["frame"] for record in read_frames(stream.path) if record["status"] == "failed"] == [3]


def test_the_disk_is_not_asked_for_every_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk()
    monkeypatch.setattr(shutil, "disk_usage", disk.usage)
    monkeypatch.setattr(scopestream.diskspace, "_CHECK_EVERY_S", 3600.0)
    with open_stream(settings(tmp_path / "a.ome.zarr", n_frames=100, min_free="5kB")) as stream:
        for number in range(100):
            stream.append(frame(number))
            stream.flush()
    assert len(disk.asked) == 2, "once before the first frame, and once with it"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a tmpfs, on Linux")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_real_disk_keeps_its_min_free(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scopestream.diskspace, "_CHECK_EVERY_S", 0.0)
    dimensions = [{"name": "t", "count": None}, {"name": "y", "count": 256}, {"name": "x", "count": 256}]
    tight = settings(small_disk / "a.ome.zarr", dimensions=dimensions, min_free="2MB", shards=None)
    stream = open_stream(tight)

    def record() -> None:
        for number in range(60):
            stream.append(stamped_frame(number, (256, 256), "uint8"))
            stream.flush()

    with pytest.raises(WriteError, match="min_free=2 MB"):
        record()
    with pytest.raises(WriteError):
        stream.close()
    assert shutil.disk_usage(small_disk).free > 1_800_000
    pixels = read_array(small_disk / "a.ome.zarr" / "0", "tensorstore")
    n_safe = stream.stats.frames_written
    assert n_safe > 20
    for number in range(n_safe):
        np.testing.assert_array_equal(pixels[number], stamped_frame(number, (256, 256), "uint8"))
    with pytest.raises(DiskSpaceError):
        open_stream(settings(small_disk / "b.ome.zarr", min_free="2MB"))
    assert [path.name for path in small_disk.iterdir()] == ["a.ome.zarr"]


# -- open files -----------------------------------------------------------------------------------------------------

SCRIPT = """
import os, resource, sys
from scopestream import AcquisitionSettings, open_stream
from scopestream.testing import acquire
settings = AcquisitionSettings.from_yaml(sys.stdin.read())
settings.plan()  # all libraries are loaded
limit = len(os.listdir("/dev/fd")) - 1 + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
acquire(settings)
"""


def acquire_with_few_files(path: Path, n_left: int) -> subprocess.CompletedProcess[str]:
    dimensions = [{"name": "t", "count": 3}, {"name": "p", "count": 100}, *({"name": n, "count": 16} for n in "yx")]
    text = settings(path, dimensions=dimensions, shards={"t": 3}).to_yaml()
    command = [sys.executable, "-c", SCRIPT, str(n_left)]
    return subprocess.run(command, input=text, text=True, capture_output=True, timeout=100)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
def test_shards_stay_within_the_open_files_that_the_system_grants(tmp_path: Path) -> None:
    done = acquire_with_few_files(tmp_path / "a.ome.zarr", 24)
    assert done.returncode == 0, done.stderr
    for number in (0, 99):
        pixels = read_array(tmp_path / "a.ome.zarr" / str(number) / "0", "tensorstore")
        for t in range(3):
            np.testing.assert_array_equal(pixels[t], stamped_frame(100 * t + number, (16, 16), "uint8"))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
def test_too_few_open_files_are_refused_before_the_first_frame(tmp_path: Path) -> None:
    done = acquire_with_few_files(tmp_path / "a.ome.zarr", 12)
    assert done.returncode != 0
    assert "at least 16 are needed; raise the limit" in done.stderr
    assert list(tmp_path.iterdir()) == []
