"""A killed process leaves a dataset that readers open, with every frame that `flush` returned for."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scopestream import read_frames
from scopestream.testing import read_array, stamped_frame
from scopestream.testing.readers import READERS

WRITER = """
import itertools, sys
from scopestream import AcquisitionSettings, open_stream
from scopestream.testing import stamped_frame

path, backend, codec, depth = sys.argv[1:]
dimensions = [{"name": "t", "count": None}, {"name": "y", "count": 96}, {"name": "x", "count": 128}]
settings = AcquisitionSettings(
    path=path, dtype="uint16", dimensions=dimensions, backend=backend, codec=codec,
    chunks={"t": int(depth), "y": 32, "x": 32}, shards={"t": 8},
)
stream = open_stream(settings)
for number in itertools.count():
    stream.append(stamped_frame(number, (96, 128), "uint16"))
    if number % 3 == 2:
        stream.flush()
        print(number + 1, flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
@pytest.mark.parametrize(
    ("backend", "codec", "depth"),
    [
        ("inplace", "none", 1),
        ("inplace", "none", 2),
        ("inplace", "blosc-lz4", 1),
        ("inplace", "zstd", 2),
        ("tensorstore", "none", 1),
        ("zarr-python", "none", 1),
        ("zarrs", "blosc-lz4", 1),
    ],
)
@pytest.mark.parametrize("after", [4, 11])
def test_flushed_frames_survive_a_kill(tmp_path: Path, backend: str, codec: str, depth: int, after: int) -> None:
    path = tmp_path / "a.ome.zarr"
    command = [sys.executable, "-c", WRITER, str(path), backend, codec, str(depth)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        flushed = 0
        for _ in range(after):
            flushed = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        for line in writer.stdout:  # it went on for a moment
            flushed = int(line)
    expected = [stamped_frame(number, (96, 128), "uint16") for number in range(flushed)]
    for reader in READERS:
        pixels = read_array(path / "0", reader)
        np.testing.assert_array_equal(pixels[:flushed], expected, err_msg=reader)
    logged = {record["frame"] for record in read_frames(path) if record["status"] == "written"}
    assert set(range(flushed)) <= logged
