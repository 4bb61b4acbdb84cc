"""Every single call by which a crashed dataset is recovered, or a stream goes on with it, fails.

Whatever the call: nothing that was stored gets lost. Once the disk is well, the dataset is recovered, and what a stream
makes of it that goes on to the end is the dataset of an acquisition that nothing interrupted.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from scopestream import AcquisitionSettings, open_stream, recover, verify
from scopestream.testing import acquire, stamped_frame
from tests.faults.acquisition import Outcome, Trial
from tests.faults.dataset import Dataset, differing, differing_known, python_reader, written
from tests.faults.results import Numbers, Results
from tests.faults.shim import Mode
from tests.faults.test_io_errors import FAULTS
from tests.faults.worker import DiedError, Worker
from tests.unit.crashes import copy, crash

N_BEFORE, N_FRAMES = 8, 15  # the crash comes in the middle of a stack, with a plane that waits for its pair
Y, X = 24, 40
READER = python_reader("tensorstore")
Crashed = Callable[[str], Path]


class Case(NamedTuple):
    action: str  # "recover" or "resume"
    codec: str
    step: int = 1  # every call, or only some of them


def settings(path: Path, codec: str) -> dict[str, Any]:
    sizes = {"t": None, "z": 5, "y": Y, "x": X}
    return {
        "path": str(path), "dtype": "uint16", "backend": "inplace", "codec": codec, "levels": 2, "downscale_z": True,
        "dimensions": [{"name": name, "count": count} for name, count in sizes.items()],
        "chunks": {"x": 20}, "shards": {"t": 2, "z": 4}, "on_exists": "resume",
    }  # fmt: skip


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Crashed:
    """What a kill leaves when it comes before any index names what was stored."""
    folder = tmp_path_factory.mktemp("crashed")

    def make(codec: str) -> Path:
        path = folder / f"{codec}.ome.zarr"
        if not path.exists():
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("scopestream_backends.inplace._PUBLISH_EVERY_S", math.inf)
                patch.setattr("scopestream.writer._IDLE_S", 3600.0)
                with open_stream(AcquisitionSettings(**settings(folder / f"{codec}-open.ome.zarr", codec))) as stream:
                    acquire(stream.plan.settings, N_BEFORE, stream=stream)
                    crash(stream, path)
        return path

    return make


def short_cases() -> Iterator[Any]:
    for fault in ("EIO", "ENOSPC-for-good"):
        yield Case("recover", "zstd", step=3), fault
        yield Case("resume", "none", step=3), fault


def campaign_cases() -> Iterator[Any]:
    for action, codec, fault in product(("recover", "resume"), ("none", "zstd", "blosc-lz4"), FAULTS):
        yield Case(action, codec), fault


def named(cases: Iterator[Any]) -> list[Any]:
    return [pytest.param(case, fault, id="-".join(map(str, (*case, fault)))) for case, fault in cases]


@pytest.mark.parametrize(("case", "fault"), named(short_cases()))
def test_a_call_that_fails_while_a_dataset_is_mended_costs_no_frame(
    case: Case, fault: str, shimmed: Worker, crashed: Crashed, tmp_path: Path, results: Results
) -> None:
    every_call(case, fault, shimmed, crashed(case.codec), tmp_path / "a.ome.zarr", results)


@pytest.mark.campaign
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("case", "fault"), named(campaign_cases()))
def test_any_call_that_fails_while_a_dataset_is_mended(
    case: Case, fault: str, shimmed: Worker, crashed: Crashed, tmp_path: Path, results: Results
) -> None:
    every_call(case, fault, shimmed, crashed(case.codec), tmp_path / "a.ome.zarr", results)


def every_call(case: Case, name: str, worker: Worker, crashed: Path, path: Path, results: Results) -> None:
    n_calls = attempt(case, name, None, worker, crashed, path).seen
    assert n_calls, "the shim sees none of the calls"
    problems = []
    for nth in range(1, n_calls + 1, case.step):
        try:
            outcome = attempt(case, name, nth, worker, crashed, path)
            found, numbers = judge(outcome, name, case.codec, path)
        except DiedError as error:
            problems.append(f"call {nth}: {error}")
            continue
        except Exception as error:  # each is a finding, and the other calls have some as well
            problems.append(f"call {nth}: {type(error).__name__}: {error} {outcome}")
            continue
        results.add(f"I/O error in {case.action}", "inplace", name, opened=not found, numbers=numbers)
        problems += [f"call {nth}: {problem} {outcome}" for problem in found]
    assert not problems, f"{len(problems)} of {n_calls} calls: " + "\n".join(problems[:10])


def attempt(case: Case, name: str, nth: int | None, worker: Worker, crashed: Path, path: Path) -> Outcome:
    """What is done with the crashed dataset, with that call tampered with; with None the calls are only counted."""
    shutil.rmtree(path, ignore_errors=True)
    copy(crashed, path)
    fault = FAULTS[name]
    mode = Mode.COUNT if nth is None else fault.mode
    arguments = {"operations": fault.operations, "mode": mode, "nth": nth or 0, "error": fault.error}
    is_recovered = case.action == "recover"
    trial = Trial(settings=settings(path, case.codec), n_frames=N_FRAMES, fault=arguments, recover=is_recovered)
    return worker.run(trial)


def judge(outcome: Outcome, name: str, codec: str, path: Path) -> tuple[list[str], Numbers]:
    """Now that the disk is well."""
    problems = [f"{text} is no OSError" for is_os_error, text in outcome.errors.values() if not is_os_error]
    if outcome.errors and FAULTS[name].harmless:
        problems.append("an error that nobody needs to know of")
    dataset = Dataset(settings(path, codec))
    promised = set(written(dataset.logged())) | set(range(max(N_BEFORE, outcome.flushed)))
    recovery = recover(path)
    if recovery.lost:
        problems.append(f"lost {recovery.lost}")
    kept = set(written(dataset.logged()))
    everything = dataset.expected(range(N_FRAMES), range(N_FRAMES))
    arrays = dataset.read(READER)
    # A plane of level 1 of which one half failed waits for that to come again.
    problems += differing_known(
        dataset.expected(kept, kept), everything, arrays, halves_may_lack="call" in outcome.errors
    )
    exact = dataset.exact(arrays, range(N_FRAMES))
    with open_stream(dataset.settings) as stream:
        while (number := stream.next_frame) is not None and number < N_FRAMES:
            if number in promised:
                problems.append(f"frame {number} has to be sent again")
            stream.append(stamped_frame(number, (Y, X), "uint16"))
    problems += differing(everything, dataset.read(READER))
    if not verify(path).sound:
        problems.append(f"not sound after all: {verify(path)}")
    if dataset.status() != "complete":
        problems.append(f"in the end the dataset says {dataset.status()}")
    return problems, Numbers.of(promised, exact, N_FRAMES)
