"""One runner on one case, in this process."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import psutil

from benchmarks.cases import Case
from benchmarks.runners import RefusedError, Runner, Session
from benchmarks.verify import sampled_frames_read_back
from benchmarks.watch import Watch
from scopestream.bench.camera import Frames, noisy_frames
from scopestream.bench.disk import warm_page_cache
from scopestream.bench.timing import Timing, flat_out

Row = dict[str, Any]
_N_QUANTILES = 200
_HELD_BYTES, _CACHED_BYTES = 4 * 10**9, 10**9


def measure(case: Case, runner: Runner, folder: Path, max_s: float) -> Row:
    """What was measured, as README.md explains it, or why not; all that was written is removed.

    max_s  of sending frames; those that were taken until then count
    """
    row: Row = {"case": case.name, "runner": runner.name, "kind": runner.kind}
    with tempfile.TemporaryDirectory(dir=folder, prefix="scopestream-bench-", ignore_cleanup_errors=True) as scratch:
        here = Path(scratch)
        try:
            _check_space(case, here)
            frames = noisy_frames(case.frame)
            _warm_up(case, runner, here, frames)
            # Memory that writers hold besides, which comes from the same free memory as the page cache.
            np.empty(min(4 * case.payload_bytes, _HELD_BYTES, _free_bytes()), np.uint8).fill(0)
            warm_bytes = case.payload_bytes + min(case.payload_bytes, _CACHED_BYTES)
            warm_page_cache(here, min(warm_bytes, _free_bytes()), case.frame_bytes)
            return row | _measured(case, runner, here, frames, max_s)
        except RefusedError as error:
            return row | {"refused": " ".join(str(error).split())}


def _free_bytes() -> int:
    return int(psutil.virtual_memory().available)


def _check_space(case: Case, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < 1.1 * case.payload_bytes:
        raise RefusedError(f"it needs {1.1 * case.payload_bytes / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free")


def _warm_up(case: Case, runner: Runner, folder: Path, frames: Frames) -> None:
    """A small acquisition, so that importing libraries and starting their threads is not measured."""
    small, place = case.scaled(0), folder / "warm-up"
    place.mkdir()
    flat_out(runner.open(small, place, frames), frames, min(small.n_frames, 2), max_s=60)
    shutil.rmtree(place, ignore_errors=True)  # some peers still write after their close


def _measured(case: Case, runner: Runner, folder: Path, frames: Frames, max_s: float) -> Row:
    place = folder / "run"
    place.mkdir()
    with Watch() as watch:
        before = perf_counter()
        session = runner.open(case, place, frames)
        open_s = perf_counter() - before
        timing = flat_out(session, frames, case.n_frames, max_s)
    payload = timing.n_frames * case.frame_bytes
    n_files = sum(1 for path in place.rglob("*") if path.is_file())
    return {
        "frames": timing.n_frames,
        "cut_short": timing.n_frames < case.n_frames,
        "payload_gb": payload / 1e9,
        "gb_per_s": payload / timing.total_s / 1e9,
        **_latencies(timing),
        "open_s": open_s,
        "close_s": timing.close_s,
        "peak_mib": watch.peak_mib,
        "written_per_payload": None if watch.written is None else watch.written / payload,
        "read_per_payload": None if watch.read is None else watch.read / payload,
        "n_files": n_files,
        "verified_frames": _verified(case, runner, session, frames, timing),
        "note": session.note,
        "memory": watch.timeline(),
    }


def _latencies(timing: Timing) -> Row:
    append_ms = timing.append_s * 1e3
    tenth = max(1, timing.n_frames // 10)
    return {
        "append_p50_ms": timing.append_ms(0.5),
        "append_p99_ms": timing.append_ms(0.99),
        "append_max_ms": timing.append_ms(1),
        "first_tenth_us": _mean_and_median_us(timing.append_s[:tenth]),
        "last_tenth_us": _mean_and_median_us(timing.append_s[-tenth:]),
        "append_quantiles_ms": [
            round(float(ms), 5) for ms in np.quantile(append_ms, np.linspace(0, 1, _N_QUANTILES))
        ],
    }  # fmt: skip


def _mean_and_median_us(seconds: np.ndarray) -> tuple[float, float]:
    return float(seconds.mean()) * 1e6, float(np.median(seconds)) * 1e6


def _verified(case: Case, runner: Runner, session: Session, frames: Frames, timing: Timing) -> int | str:
    try:
        return sampled_frames_read_back(case, runner, session, frames, timing.n_frames)
    except Exception as error:  # whatever a reader raises at what it was given, the rate was measured all the same
        return f"WRONG: {' '.join(str(error).split())[:300]}"
