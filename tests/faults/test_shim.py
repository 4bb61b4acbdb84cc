"""The instrument itself: a trace has all that happened, in order, and a call that matches is the one that fails."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from tests.faults.acquisition import Trial
from tests.faults.dataset import Dataset, python_reader
from tests.faults.replay import do_again
from tests.faults.shim import CHANGING, Mode, Op, read_trace
from tests.faults.worker import Worker

BACKENDS = ("inplace", "tensorstore", "zarr-python", "zarrs", "acquire-zarr")


def settings(path: Path, backend: str) -> dict[str, Any]:
    return {
        "path": str(path), "dtype": "uint16", "backend": backend, "codec": "blosc-lz4", "shards": {"t": 4},
        "dimensions": [{"name": "t", "count": None}, {"name": "y", "count": 24}, {"name": "x", "count": 40}],
    }  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_recorded_calls_make_the_same_dataset_again(backend: str, shimmed: Worker, tmp_path: Path) -> None:
    original, copy = tmp_path / "a.ome.zarr", tmp_path / "again"
    trial = Trial(settings=settings(original, backend), n_frames=10, trace=str(tmp_path / "trace"))
    assert shimmed.run(trial).errors == {}
    for call in read_trace(tmp_path / "trace"):
        do_again(call, copy)
    files = [path.relative_to(original) for path in sorted(original.rglob("*")) if path.is_file()]
    assert files == [path.relative_to(copy) for path in sorted(copy.rglob("*")) if path.is_file()]
    for file in files:
        assert (original / file).read_bytes() == (copy / file).read_bytes(), file


def test_marks_lie_between_the_calls_before_and_after_them(shimmed: Worker, tmp_path: Path) -> None:
    """What was there at each mark is what `flush` had promised by then."""
    wanted = settings(tmp_path / "a.ome.zarr", "inplace")
    shimmed.run(Trial(settings=wanted, n_frames=10, trace=str(tmp_path / "trace")))
    again = Dataset({**wanted, "path": str(tmp_path / "again")})
    marks = []
    for call in read_trace(tmp_path / "trace"):
        do_again(call, again.root)
        if call.op is Op.MARK:
            n_flushed = int(call.data.split()[1])
            assert again.exact(again.read(python_reader("zarr")), range(10)) >= set(range(n_flushed))
            marks.append(n_flushed)
    assert marks == [3, 6, 9]


def test_only_calls_that_match_are_counted_and_fail(shimmed: Worker, tmp_path: Path) -> None:
    wanted = settings(tmp_path / "a.ome.zarr", "inplace")
    fault = {"operations": CHANGING, "match": "frames.jsonl", "mode": Mode.FAIL_ONCE, "nth": 2, "error": errno.EDQUOT}
    outcome = shimmed.run(Trial(settings=wanted, n_frames=3, fault=fault))
    assert outcome.hits == 1
    assert "Disk quota exceeded" in outcome.errors["call"][1]
