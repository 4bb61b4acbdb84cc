"""An acquisition larger than its disk: told at a later call and by `close`, and what was safe before stays safe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from scopestream.testing import reader_other_than
from tests.faults.acquisition import Outcome, Trial
from tests.faults.dataset import Dataset, python_reader, unreadable, written
from tests.faults.mounts import CannotMountError, ext4, tmpfs
from tests.faults.results import Numbers, Results
from tests.faults.worker import Worker

MIB = 2**20
N_FRAMES = 500  # of 128 KiB
SHARD = 16
BACKENDS = ("inplace", "tensorstore", "zarr-python", "zarrs", "acquire-zarr")


def disk_of(kind: str, folder: Path) -> AbstractContextManager[Path]:
    if kind == "ext4":
        return ext4(folder, 32 * MIB)
    return tmpfs(folder, 32 * MIB) if kind == "tmpfs" else tmpfs(folder, 128 * MIB, n_files=300)


@pytest.fixture(params=["tmpfs", "ext4", "few-files"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    try:
        with disk_of(request.param, tmp_path / "disk") as folder:
            yield folder
    except CannotMountError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("codec", ["none", "blosc-lz4"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_full_disk_is_told_and_costs_nothing_that_was_stored(
    backend: str, codec: str, disk: Path, worker: Worker, results: Results, request: pytest.FixtureRequest
) -> None:
    kind = request.node.callspec.params["disk"]
    outcome, dataset = fill(backend, codec, disk, worker, shards=None if kind == "few-files" else {"t": SHARD})
    assert "open" not in outcome.errors
    assert outcome.errors["call"][0], "an OSError"
    assert outcome.errors["close"][0], "an OSError"
    if dataset.is_live:  # acquire-zarr itself says "Internal error"
        assert "No space left" in outcome.errors["call"][1]
    assert dataset.broken_documents() == []
    assert dataset.status() in ("recording", "incomplete")
    arrays = dataset.read(python_reader(reader_other_than(backend)))
    log = dataset.logged()
    promised = set(range(outcome.flushed)) | set(written(log)) if dataset.is_live else complete_shards(dataset)
    exact = dataset.exact(arrays, range(outcome.accepted))
    numbers = Numbers.of(promised, exact, outcome.accepted)
    results.add("full disk", backend, f"{kind}, {codec}", opened=not unreadable(arrays), numbers=numbers)
    assert unreadable(arrays) == []
    assert len(promised) > 2 * SHARD
    assert promised <= exact
    assert set(log) <= set(range(outcome.accepted))
    if dataset.is_live:
        assert set(range(outcome.flushed)) <= set(written(log))


def fill(backend: str, codec: str, disk: Path, worker: Worker, shards: Any) -> tuple[Outcome, Dataset]:
    dimensions = [{"name": "t", "count": N_FRAMES}, {"name": "y", "count": 256}, {"name": "x", "count": 256}]
    settings = {
        "path": str(disk / "a.ome.zarr"), "dtype": "uint16", "dimensions": dimensions, "backend": backend,
        "codec": codec, "chunks": {"t": 1}, "shards": shards,
    }  # fmt: skip
    outcome = worker.run(Trial(settings=settings, n_frames=N_FRAMES, flush_every=20), timeout_s=100)
    return outcome, Dataset(settings)


def complete_shards(dataset: Dataset) -> set[int]:
    """Frames of the files that are there: what acquire-zarr keeps."""
    depth = dataset.plan.arrays[0].file_shape[0]
    files = (dataset.root / dataset.plan.arrays[0].path / "c").glob("[0-9]*/0/0")
    return {number for file in files for number in frames_of(int(file.parts[-3]), depth)}


def frames_of(shard: int, depth: int) -> range:
    return range(shard * depth, (shard + 1) * depth)
