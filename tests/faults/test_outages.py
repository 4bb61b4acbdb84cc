"""Real file systems are shut down while frames are written; then every frame that was safe is there."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scopestream.testing import read_array, stamped_frame
from scopestream.testing.levels import next_level
from scopestream.testing.readers import READERS
from tests.faults.mounts import CannotMountError
from tests.faults.outages import machine
from tests.faults.results import Numbers, Results

SHAPE = (96, 128)
_TILES = {"y": 32, "x": 32}
LAYOUTS: dict[str, dict[str, Any]] = {
    "shards": {"count": 1000, "chunks": _TILES, "shards": {"t": 8}},
    "unbounded": {"count": None, "chunks": _TILES, "shards": {"t": 8}, "levels": 2},
    "deep chunks": {"count": None, "chunks": {"t": 2, **_TILES}, "shards": {"t": 8}},
    "files of chunks": {"count": None, "chunks": {"y": 96, "x": 128}, "shards": None},
}
BACKENDS = ("inplace", "tensorstore", "zarr-python", "zarrs")

# Prints how many frames are safe, until the disk is gone; then what the library said.
WRITER = """
import itertools, json, sys
from scopestream import AcquisitionSettings, ScopestreamError, open_stream
from scopestream.testing import stamped_frame

settings = AcquisitionSettings(**json.loads(sys.argv[1]))
every = int(sys.argv[2])
frames = [stamped_frame(number, (96, 128), "uint16") for number in range(1000)]
try:
    with open_stream(settings) as stream:
        print("0", flush=True)
        for number, frame in enumerate(frames):
            stream.append(frame)
            if number % every == every - 1:
                stream.flush(durable=True)
                print(number + 1, flush=True)
except (ScopestreamError, OSError) as error:
    print(type(error).__name__, flush=True)
"""


def write_until_the_power_is_gone(
    tmp_path: Path, kind: str, settings: dict[str, Any], results: Results, *, every: int, after: int
) -> None:
    """Shut the file system down after `after` promises, start it again, and read all that was promised."""
    try:
        with machine(tmp_path / "disk", kind) as computer:
            path = computer.folder / "a.ome.zarr"
            command = [sys.executable, "-c", WRITER, json.dumps({**settings, "path": str(path)}), str(every)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
                assert writer.stdout is not None
                said = [writer.stdout.readline().strip() for _ in range(after)]
                time.sleep(after % 7 / 300)
                computer.lose_power()
                said += [line.strip() for line in writer.stdout]
            assert writer.returncode == 0
            assert said[-1] == "WriteError"
            n_safe = int(said[-2])
            computer.start_again()
            if n_safe == 0 and settings["durability"] == "process":
                return  # nothing was promised, not even a dataset
            held = False
            try:
                check(path, settings.get("levels", 1), n_safe)
                held = True
            finally:  # of a check that fails nobody knows how many frames it cost: all of them, at the most
                numbers = Numbers(n_safe, 0 if held else n_safe, n_safe, n_safe if held else 0)
                results.add(f"power loss, {kind}", settings["backend"], str(settings), opened=held, numbers=numbers)
    except CannotMountError as error:
        pytest.skip(str(error))


def check(path: Path, n_levels: int, n_safe: int) -> None:
    for document in path.rglob("zarr.json"):
        assert json.loads(document.read_bytes())["zarr_format"] == 3
    expected = np.array([stamped_frame(number, SHAPE, "uint16") for number in range(n_safe)]).reshape(-1, *SHAPE)
    for level in range(n_levels):
        expected = next_level(expected, "mean", None) if level else expected
        for reader in READERS:
            found = read_array(path / str(level), reader)
            np.testing.assert_array_equal(found[:n_safe], expected, err_msg=f"level {level}, {reader}")


def settings(layout: str, codec: str, backend: str, durability: str) -> dict[str, Any]:
    rest = dict(LAYOUTS[layout])
    dimensions = [
        {"name": "t", "count": rest.pop("count")},
        *({"name": n, "count": c} for n, c in zip("yx", SHAPE, strict=True)),
    ]
    fields = {"dtype": "uint16", "codec": codec, "backend": backend, "durability": durability}
    return {"dimensions": dimensions, **rest, **fields}


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
@pytest.mark.parametrize(
    ("layout", "codec", "backend", "durability"),
    [
        ("shards", "none", "inplace", "process"),
        ("unbounded", "zstd", "inplace", "disk"),
        ("files of chunks", "none", "inplace", "process"),
        ("unbounded", "none", "tensorstore", "process"),
        ("deep chunks", "blosc-lz4", "zarrs", "disk"),
    ],
)
def test_frames_that_were_safe_survive_a_power_loss(
    tmp_path: Path, layout: str, codec: str, backend: str, durability: str, kind: str, results: Results
) -> None:
    acquisition = settings(layout, codec, backend, durability)
    write_until_the_power_is_gone(tmp_path, kind, acquisition, results, every=5, after=4)


@pytest.mark.campaign
@pytest.mark.timeout(600)
@pytest.mark.parametrize("after", [1, 2, 7, 20])
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
@pytest.mark.parametrize("durability", ["process", "disk"])
@pytest.mark.parametrize("codec", ["none", "zstd"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_many_power_losses(
    tmp_path: Path, layout: str, codec: str, backend: str, durability: str, kind: str, after: int, results: Results
) -> None:
    acquisition = settings(layout, codec, backend, durability)
    write_until_the_power_is_gone(tmp_path, kind, acquisition, results, every=3, after=after)
