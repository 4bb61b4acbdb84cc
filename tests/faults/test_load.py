"""A slow disk under a fast camera: memory stays within its limit, every frame is in its place or said to be lost.

The disk is slow where the system is asked to write, so that the library of the backend waits as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scopestream.testing import reader_other_than
from tests.faults.acquisition import Outcome, Trial
from tests.faults.dataset import Dataset, Planes, digest, python_reader
from tests.faults.shim import Mode, Op
from tests.faults.worker import Worker

MIB = 2**20
Y, X = 256, 512  # 256 KiB a frame
N_FRAMES = 240  # 60 MiB, and the camera sends them many times as fast as the disk takes them
WRITE_S = {"inplace": 0.02, "inplace-lz4": 0.02, "tensorstore": 0.08, "zarr-python": 0.08}  # of a frame, or of a shard
# What the limit does not count: stacks and objects of a few threads, what the allocator keeps, and the frames that the
# camera itself holds; 0.4 MiB were seen with "inplace". Without a limit some 40 MiB more would be held.
SLACK_BYTES = 8 * MIB
CASES = {
    "inplace": {"backend": "inplace", "memory_limit": 16 * MIB},
    "inplace-lz4": {"backend": "inplace", "codec": "blosc-lz4", "memory_limit": 16 * MIB},
    # 64 MiB of these are for the library.
    "tensorstore": {"backend": "tensorstore", "memory_limit": 80 * MIB},
    "zarr-python": {"backend": "zarr-python", "memory_limit": 80 * MIB},
}


@pytest.mark.parametrize("on_full", ["block", "raise", "drop"])
@pytest.mark.parametrize("case", CASES)
def test_a_slow_disk_costs_no_more_memory_than_allowed_and_moves_no_frame(
    case: str, on_full: str, fresh: Worker, tmp_path: Path
) -> None:
    settings = {
        **CASES[case], "path": str(tmp_path / "a.ome.zarr"), "dtype": "uint16", "on_full": on_full,
        "dimensions": [{"name": "t", "count": N_FRAMES}, {"name": "y", "count": Y}, {"name": "x", "count": X}],
        "chunks": {"t": 1}, "shards": {"t": 4},
    }  # fmt: skip
    warm_up(settings, tmp_path, fresh)
    outcome = overrun(settings, WRITE_S[case], fresh)
    dataset = Dataset(settings)
    assert outcome.errors == {}
    assert outcome.peak_bytes <= dataset.plan.settings.memory_limit + SLACK_BYTES
    log = dataset.logged()
    dropped = {number for number, status in log.items() if status == "dropped"}
    assert set(log) == set(range(N_FRAMES))
    assert set(log.values()) <= {"written", "dropped"}
    assert outcome.dropped == len(dropped)
    assert bool(dropped) == (on_full == "drop"), "the disk was fast enough"
    assert bool(outcome.refused) == (on_full == "raise")
    arrays = dataset.read(python_reader(reader_other_than(dataset.settings.backend)))
    assert dataset.exact(arrays, range(N_FRAMES)) == set(range(N_FRAMES)) - dropped
    assert isinstance(arrays[0], Planes)
    empty = digest(np.zeros((Y, X), np.uint16))
    assert {arrays[0].digests[number] for number in dropped} <= {empty}


@pytest.fixture
def fresh(shim_library: Path, tmp_path: Path) -> Iterator[Worker]:
    """A process of its own, since memory that an earlier trial gave back would be used again, and not be seen."""
    worker = Worker(tmp_path, shim_library)
    yield worker
    worker.close()


def warm_up(settings: dict[str, Any], folder: Path, worker: Worker) -> None:
    """Libraries are loaded at the first acquisition, here one of tiny frames, and take memory of their own."""
    tiny = [{"name": "t", "count": 8}, {"name": "y", "count": 8}, {"name": "x", "count": 8}]
    first = {**settings, "path": str(folder / "first.ome.zarr"), "dimensions": tiny}
    assert worker.run(Trial(settings=first, n_frames=8)).errors == {}


def overrun(settings: dict[str, Any], write_s: float, worker: Worker) -> Outcome:
    slow = {"operations": [Op.WRITE], "match": "/c", "mode": Mode.DELAY, "delay_us": int(write_s * 1e6)}
    return worker.run(Trial(settings=settings, n_frames=N_FRAMES, flush_every=N_FRAMES + 1, fault=slow))
