"""Every single call that touches the dataset fails, is interrupted or comes half way, one after the other.

Whatever the call: the program is told, at the latest by `close`, or all frames are stored. What `flush` had covered is
exact, so is what the frame log calls written, and the dataset does not say that it is complete when it is not.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from scopestream.contract import WriteUnit
from scopestream.testing import reader_other_than
from tests.faults.acquisition import Outcome, Trial
from tests.faults.dataset import Dataset, python_reader, unreadable, written
from tests.faults.results import Numbers, Results
from tests.faults.shim import CHANGING, GROWING, INTERRUPTIBLE, Mode, Op
from tests.faults.worker import DiedError, Worker

N_FRAMES = 10
Y, X = 24, 40


class Fault(NamedTuple):
    """harmless  the program must not notice: to go on after such a call is the duty of whoever calls"""

    mode: Mode
    operations: tuple[Op, ...]
    error: int = 0
    harmless: bool = False


FAULTS = {
    "EIO": Fault(Mode.FAIL_ONCE, CHANGING, errno.EIO),
    "EIO-for-good": Fault(Mode.FAIL_FROM, CHANGING, errno.EIO),
    "ENOSPC": Fault(Mode.FAIL_ONCE, GROWING, errno.ENOSPC),
    "ENOSPC-for-good": Fault(Mode.FAIL_FROM, GROWING, errno.ENOSPC),
    "EINTR": Fault(Mode.FAIL_ONCE, INTERRUPTIBLE, errno.EINTR, harmless=True),
    "short": Fault(Mode.SHORT, (Op.WRITE,), harmless=True),
}
# Libraries in C++ that take an interrupted call for a failed one. It costs what a failed call costs: nothing unsaid.
NEVER_REPEAT = ("tensorstore", "acquire-zarr")
LAYOUTS: dict[str, list[dict[str, Any]]] = {
    "image": [{"name": "t", "count": N_FRAMES}],
    "unbounded": [{"name": "t", "count": None}],
    "positions": [{"name": "t", "count": None}, {"name": "p", "count": 2}],
}


class Case(NamedTuple):
    backend: str
    codec: str = "none"
    layout: str = "unbounded"
    depth: int = 1  # frames in a chunk
    sharded: bool = True
    step: int = 1  # every call, or only some of them

    def settings(self, path: Path) -> dict[str, Any]:
        dimensions = [*LAYOUTS[self.layout], {"name": "y", "count": Y}, {"name": "x", "count": X}]
        return {
            "path": str(path), "dtype": "uint16", "dimensions": dimensions, "backend": self.backend,
            "codec": self.codec, "chunks": {"t": self.depth, "x": 20},
            "shards": {"t": 4} if self.sharded else None,
        }  # fmt: skip


def short_cases() -> Iterator[Any]:
    """Every call of the default backend, and some of the others."""
    for fault in FAULTS:
        yield Case("inplace"), fault
        yield Case("inplace", "blosc-lz4", layout="image"), fault
    for fault in ("EIO", "ENOSPC-for-good", "short"):
        yield Case("inplace", layout="positions", sharded=False, step=5), fault
        yield Case("inplace", "zstd", depth=2, step=5), fault
        for backend in ("tensorstore", "zarr-python", "zarrs", "acquire-zarr"):
            yield Case(backend, layout="positions", step=9), fault


def campaign_cases() -> Iterator[Any]:
    for fault, layout in product(FAULTS, ("unbounded", "positions")):
        for codec, (depth, sharded) in product(("none", "blosc-lz4", "zstd"), ((1, True), (2, True), (1, False))):
            yield Case("inplace", codec, layout, depth, sharded), fault
        for backend, codec in product(("tensorstore", "zarr-python", "zarrs", "acquire-zarr"), ("none", "blosc-lz4")):
            yield Case(backend, codec, layout, step=3), fault


def named(cases: Iterator[Any]) -> list[Any]:
    return [pytest.param(case, fault, id="-".join(map(str, (*case, fault)))) for case, fault in cases]


@pytest.mark.parametrize(("case", "fault"), named(short_cases()))
def test_a_call_that_fails_is_told_and_costs_no_frame_that_was_promised(
    case: Case, fault: str, shimmed: Worker, tmp_path: Path, results: Results
) -> None:
    every_call(case, fault, shimmed, tmp_path, results)


@pytest.mark.campaign
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("case", "fault"), named(campaign_cases()))
def test_any_call_that_fails_with_any_backend(
    case: Case, fault: str, shimmed: Worker, tmp_path: Path, results: Results
) -> None:
    every_call(case, fault, shimmed, tmp_path, results)


def test_an_open_that_fails_leaves_the_dataset_that_it_would_have_replaced(shimmed: Worker, tmp_path: Path) -> None:
    before = Case("inplace").settings(tmp_path / "a.ome.zarr")
    after = {**before, "on_exists": "overwrite", "codec": "zstd"}
    fault, nth, opened = FAULTS["EIO"], 0, False
    while not opened:
        nth += 1
        shutil.rmtree(tmp_path / "a.ome.zarr", ignore_errors=True)
        shimmed.run(Trial(settings=before, n_frames=N_FRAMES))
        arguments = {"operations": fault.operations, "mode": fault.mode, "nth": nth, "error": fault.error}
        outcome = shimmed.run(Trial(settings=after, n_frames=0, fault={**arguments, "parent": True}))
        opened = "open" not in outcome.errors
        if not opened:
            dataset = Dataset(before)
            numbers = range(N_FRAMES)
            exact = dataset.exact(dataset.read(python_reader("zarr")), numbers)
            assert exact == set(numbers), f"call {nth}: {outcome}"
            assert [path.name for path in tmp_path.iterdir()] == ["a.ome.zarr"], f"call {nth}: {outcome}"


def every_call(case: Case, name: str, worker: Worker, folder: Path, results: Results) -> None:
    fault = FAULTS[name]
    if fault.error == errno.EINTR and case.backend in NEVER_REPEAT:
        fault = fault._replace(harmless=False)
    settings = case.settings(folder / "a.ome.zarr")
    problems = []
    counted = attempt(settings, fault, None, worker)
    assert counted.seen, "the shim sees none of the calls"
    for nth in range(1, counted.seen + 1, case.step):
        try:
            outcome = attempt(settings, fault, nth, worker)
        except DiedError as error:
            problems.append(f"call {nth}: {error}")
            continue
        verdict = judge(settings, outcome, fault)
        if verdict.numbers is not None:
            results.add("I/O error", case.backend, name, opened=verdict.opened, numbers=verdict.numbers)
        problems += [f"call {nth}: {problem} {outcome}" for problem in verdict.problems]
    assert not problems, f"{len(problems)} of {counted.seen} calls: " + "\n".join(problems[:10])


def attempt(settings: dict[str, Any], fault: Fault, nth: int | None, worker: Worker) -> Outcome:
    """The acquisition with that call tampered with; with None the calls are only counted."""
    shutil.rmtree(settings["path"], ignore_errors=True)
    mode = Mode.COUNT if nth is None else fault.mode
    arguments = {"operations": fault.operations, "mode": mode, "nth": nth or 0, "error": fault.error}
    return worker.run(Trial(settings=settings, n_frames=N_FRAMES, fault=arguments))


class Verdict(NamedTuple):
    problems: list[str]
    opened: bool = False
    numbers: Numbers | None = None  # where there is a dataset


def judge(settings: dict[str, Any], outcome: Outcome, fault: Fault) -> Verdict:
    problems = [f"{text} is no OSError" for is_os_error, text in outcome.errors.values() if not is_os_error]
    if outcome.errors and fault.harmless:
        problems.append("an error that nobody needs to know of")
    if "call" in outcome.errors and "close" not in outcome.errors:
        problems.append("close() did not repeat the error")
    dataset = Dataset(settings)
    if "open" in outcome.errors:
        if dataset.root.exists() and (dataset.root / "zarr.json").exists():
            problems += [] if dataset.status() == "recording" else ["a dataset that nobody opened says more than that"]
        return Verdict(problems)
    problems += dataset.broken_documents()
    arrays = dataset.read(python_reader(reader_other_than(dataset.settings.backend)))
    if dataset.is_live or not outcome.errors:
        problems += unreadable(arrays)
    log = dataset.logged()
    in_log = set(written(log))
    expected, exact = promised(dataset, outcome, fault, in_log), dataset.exact(arrays, range(N_FRAMES))
    if lost := expected - exact:
        problems.append(f"lost {sorted(lost)} of {len(expected)}, of which flushed were {outcome.flushed}")
    if missing := set(range(outcome.flushed)) - in_log:
        problems.append(f"the log lacks {sorted(missing)}")
    if outcome.errors and dataset.status() == "complete":
        problems.append("the dataset says that it is complete")
    if not outcome.errors and dataset.status() != "complete":
        problems.append(f"nobody was told, and the dataset says {dataset.status()}")
    return Verdict(problems, not unreadable(arrays), Numbers.of(expected, exact, outcome.accepted))


def promised(dataset: Dataset, outcome: Outcome, fault: Fault, in_log: set[int]) -> set[int]:
    """Frames that must be there."""
    if not outcome.errors:
        return set(range(N_FRAMES))
    if not dataset.is_live:
        return set()  # acquire-zarr keeps complete shards, and which those are only it knows
    flushed = set(range(outcome.flushed))
    is_appended = dataset.plan.unit is not WriteUnit.SHARD and dataset.settings.codec.name != "none"
    if fault.mode is Mode.FAIL_FROM and is_appended:
        return flushed  # the index of compressed chunks is written after them, and now it cannot be
    return flushed | in_log
