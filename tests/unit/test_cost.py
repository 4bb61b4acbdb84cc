"""What an acquisition costs in bytes and memory, which is exact: each backend in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    not hasattr(psutil.Process, "io_counters"), reason="this system does not count the bytes of a process"
)


def measured(case: str, backend: str, folder: Path, scale: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.run", case, f"scopestream/{backend}", str(folder), str(scale), "100"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize("backend", ["inplace", "tensorstore", "acquire-zarr", "zarr-python", "zarrs"])
def test_bytes_are_written_once_and_never_read_back(tmp_path: Path, backend: str) -> None:
    result = measured("small frames", backend, tmp_path, 0.25)  # two shards of 256 frames
    assert result["written_per_payload"] <= 1.02
    assert result["read_per_payload"] <= 0.01
    assert result["verified_frames"] == 5


def test_memory_stays_bounded_however_long_it_runs(tmp_path: Path) -> None:
    result = measured("tiles, 48 MB", "inplace", tmp_path, 1.0)  # 4 GiB
    assert result["peak_mib"] < 64
