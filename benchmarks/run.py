"""One runner on one case in this process: `python -m benchmarks.run CASE RUNNER FOLDER [N_FRAMES]` prints JSON."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import numpy as np
import psutil

from benchmarks.cases import CASES, Case
from scopestream import MemoryLimitError, PlanError

Frames = Sequence[np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was measured. Bytes are of this process's system calls; memory is the peak above the start."""

    case: str
    runner: str
    gb_per_s: float
    close_s: float
    append_p50_ms: float
    append_p99_ms: float
    append_max_ms: float
    peak_mib: float
    written_per_payload: float | None
    read_per_payload: float | None
    n_files: int
    verified_frames: int


def camera(case: Case) -> Frames:
    """Sixteen noisy 12-bit frames, made before the clock starts and sent over and over."""
    generator = np.random.default_rng(0)
    return [generator.poisson(200 + 20 * number, case.frame).astype(np.uint16) for number in range(16)]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Seconds that each frame and the close took, and how to check what was written."""

    append_s: list[float]
    close_s: float
    verify: Callable[[], int]


def run_raw(case: Case, folder: Path, frames: Frames) -> Outcome:
    """The limit: the same bytes by one `pwrite` a frame, into one file."""
    times = []
    file = os.open(folder / "raw", os.O_CREAT | os.O_WRONLY, 0o666)
    offset = 0
    for number in range(case.n_frames):
        before = perf_counter()
        data = memoryview(frames[number % len(frames)]).cast("B")
        while data:
            n = os.pwrite(file, data, offset)
            data, offset = data[n:], offset + n
        times.append(perf_counter() - before)
    before = perf_counter()
    os.close(file)
    return Outcome(times, perf_counter() - before, lambda: 0)


def run_scopestream(backend: str) -> Callable[[Case, Path, Frames], Outcome]:
    """One of our backends."""

    def run(case: Case, folder: Path, frames: Frames) -> Outcome:
        from scopestream import AcquisitionSettings, open_stream

        settings = AcquisitionSettings(**case.settings(str(folder / "a.ome.zarr"), backend))
        times = []
        stream = open_stream(settings)
        for number in range(case.n_frames):
            before = perf_counter()
            stream.append(frames[number % len(frames)])
            times.append(perf_counter() - before)
        before = perf_counter()
        stream.close()
        return Outcome(times, perf_counter() - before, lambda: _verify(case, stream.plan, frames, backend))

    return run


RUNNERS: dict[str, Callable[[Case, Path, Frames], Outcome]] = {
    "raw": run_raw,
    **{name: run_scopestream(name) for name in ("inplace", "tensorstore", "acquire-zarr", "zarr-python", "zarrs")},
}


def _verify(case: Case, plan: Any, frames: Frames, backend: str) -> int:
    """Read some frames back by another library; AssertionError when one differs."""
    from scopestream.route import Route
    from scopestream.testing import reader_other_than

    route = Route(plan)
    numbers = sorted({0, case.n_frames // 3, case.n_frames // 2, case.n_frames - 1})
    for number in numbers:
        image, index = route.locate(number)
        path = plan.root / plan.arrays[plan.images[image].arrays[0]].path
        if reader_other_than(backend) == "tensorstore":
            import tensorstore

            spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
            found = tensorstore.open(spec, read=True).result()[index].read().result()
        else:
            import zarr

            found = zarr.open_array(str(path), mode="r")[index]
        np.testing.assert_array_equal(found, frames[number % len(frames)])
    return len(numbers)


class _Watch:
    """Bytes of system calls and the peak of resident memory while the block runs."""

    def __enter__(self) -> _Watch:
        self._process = psutil.Process()
        self._before = self._process.io_counters() if hasattr(self._process, "io_counters") else None
        self._base = self.peak = self._process.memory_info().rss
        self._stop = False
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join()
        after = self._process.io_counters() if self._before is not None else None
        self.written = after and after.write_chars - self._before.write_chars
        self.read = after and after.read_chars - self._before.read_chars
        self.peak_mib = (self.peak - self._base) / 2**20

    def _sample(self) -> None:
        while not self._stop:
            self.peak = max(self.peak, self._process.memory_info().rss)
            sleep(0.002)


def measure(case: Case, runner: str, folder: Path) -> Result:
    """Run one runner in a new folder below `folder`, and remove what it wrote."""
    folder = folder / f"scopestream-bench-{os.getpid()}"
    folder.mkdir(parents=True)
    frames = camera(case)
    try:
        # A small run first, so that importing libraries and starting their threads is not measured.
        (folder / "warm-up").mkdir()
        RUNNERS[runner](replace(case, n_frames=min(case.n_frames, 2)), folder / "warm-up", frames)
        shutil.rmtree(folder / "warm-up")
        _warm_page_cache(folder / "warm-up", case.payload_bytes)
        with _Watch() as watch:
            outcome = RUNNERS[runner](case, folder, frames)
        n_files = sum(1 for path in folder.rglob("*") if path.is_file())
        verified = outcome.verify()
    finally:
        shutil.rmtree(folder)
    p50, p99 = np.percentile(outcome.append_s, [50, 99])
    payload = case.payload_bytes
    return Result(
        case=case.name,
        runner=runner,
        gb_per_s=payload / (sum(outcome.append_s) + outcome.close_s) / 1e9,
        close_s=outcome.close_s,
        append_p50_ms=p50 * 1e3,
        append_p99_ms=p99 * 1e3,
        append_max_ms=max(outcome.append_s) * 1e3,
        peak_mib=watch.peak_mib,
        written_per_payload=None if watch.written is None else watch.written / payload,
        read_per_payload=None if watch.read is None else watch.read / payload,
        n_files=n_files,
        verified_frames=verified,
    )


def _warm_page_cache(path: Path, n_bytes: int) -> None:
    """Write and remove as many bytes as will be written.

    A virtual machine gives free memory back to its host, and the first writes after that wait for it: ten times as
    long, for whoever comes first.
    """
    block = bytes(2**23)
    with path.open("wb", buffering=0) as file:
        for _ in range(n_bytes // len(block) + 1):
            file.write(block)
    path.unlink()


def main(arguments: Sequence[str]) -> None:
    case, runner, folder, *n_frames = arguments
    chosen = CASES[case]
    if n_frames:
        chosen = replace(chosen, n_frames=int(n_frames[0]), dimensions=(("t", int(n_frames[0])),))
    try:
        print(json.dumps(asdict(measure(chosen, runner, Path(folder)))))
    except (PlanError, MemoryLimitError) as error:  # it says beforehand that it cannot, which is a result as well
        print(json.dumps({"case": case, "runner": runner, "refused": str(error)}))


if __name__ == "__main__":
    main(sys.argv[1:])
