"""`scopestream bench`: which backend, codec and shard size keep up with a camera on this disk."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from scopestream.bench.advice import NOTES, advice, ranked, trials_table
from scopestream.bench.camera import BenchError, Camera, Frames, noisy_frames
from scopestream.bench.disk import RawFile, warm_page_cache
from scopestream.bench.timing import flat_out
from scopestream.bench.trials import Candidate, Trial, candidates, try_flat_out, try_pace
from scopestream.errors import ScopestreamError

_FLAT_OUT_S = 1.0
_LEAST_FRAMES = 16
_RAW_BYTES = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What the command line says. Of what is empty everything sensible is tried.

    seconds  that one run sends frames at the most; flat out it is one second at the most
    """

    camera: Camera
    seconds: float = 5.0
    folder: Path = Path()
    backends: Sequence[str] = ()
    codecs: Sequence[str] = ()
    shard_frames: Sequence[int] = ()


def run_bench(options: BenchOptions, console: Console) -> bool:
    """Measure, and print a table and advice; whether anything keeps up. Nothing of what was written stays.

    Raises BenchError or BackendNotFoundError for what cannot be tried.
    """
    camera, folder = options.camera, options.folder
    if not folder.is_dir():
        raise BenchError(f"--folder {folder} is not a folder")
    # Half of the disk for one run at a time: the rest of it belongs to others.
    max_bytes = shutil.disk_usage(folder).free // 2
    if max_bytes < _LEAST_FRAMES * camera.frame_bytes:
        raise BenchError(f"{folder} has too little space: {_LEAST_FRAMES} frames must fit into half of it")
    chosen = candidates(camera, options.backends, options.codecs, options.shard_frames)
    console.print(f"{camera}, on the disk of {folder.resolve()}", markup=False)
    frames = noisy_frames((camera.height, camera.width), camera.dtype)
    with tempfile.TemporaryDirectory(dir=folder, prefix="scopestream-bench-", ignore_cleanup_errors=True) as scratch:
        disk = _disk_rates(camera, frames, Path(scratch), min(options.seconds, _FLAT_OUT_S), max_bytes)
        console.print(
            f"The disk takes {disk[0] / 1e9:.2f} GB/s of plain writes, and {disk[1] / 1e9:.2f} GB/s with a sync "
            f"at the end.",
            markup=False,
        )
        trials = _all_trials(options, chosen, frames, Path(scratch), max_bytes, console)
    _print(trials, camera, disk[1], console)
    return any(trial.keeps_up for trial in trials)


def _disk_rates(camera: Camera, frames: Frames, folder: Path, max_s: float, max_bytes: int) -> tuple[float, float]:
    """Bytes a second of plain writes, into the page cache and onto the disk."""
    n_bytes = min(_RAW_BYTES, max_bytes, 4 * camera.bytes_per_s * max_s + _LEAST_FRAMES * camera.frame_bytes)
    warm_page_cache(folder, int(n_bytes), camera.frame_bytes)
    rates = []
    for sync in (False, True):
        path = folder / f"raw-{sync}.bin"
        timing = flat_out(RawFile(path, sync=sync), frames, ceil(n_bytes / camera.frame_bytes), max_s)
        rates.append(timing.n_frames * camera.frame_bytes / timing.total_s)
        path.unlink()
    return rates[0], rates[1]


def _all_trials(
    options: BenchOptions, chosen: Sequence[Candidate], frames: Frames, folder: Path, max_bytes: int, console: Console
) -> list[Trial]:
    """All flat out, then of each backend and codec the best that keeps up, at the camera's pace."""
    camera, flat_s = options.camera, min(options.seconds, _FLAT_OUT_S)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(chosen))
        trials: list[Trial] = []
        warm: set[str] = set()
        for number, candidate in enumerate(chosen):
            progress.update(task, description=f"flat out: {candidate.backend}, {candidate.codec}")
            place = folder / f"{number}.ome.zarr"
            if candidate.backend not in warm:  # imports and threads do not count
                warm.add(candidate.backend)
                try_flat_out(candidate, camera, frames, place, 0.0, 2 * camera.frame_bytes)
                shutil.rmtree(place, ignore_errors=True)
            trials.append(try_flat_out(candidate, camera, frames, place, flat_s, max_bytes))
            shutil.rmtree(place, ignore_errors=True)
            progress.advance(task)
        finalists = _finalists(trials)
        progress.update(task, total=len(finalists), completed=0)
        pace_s = min(options.seconds, max_bytes / camera.bytes_per_s)
        for number in finalists:
            trial = trials[number]
            progress.update(task, description=f"at {camera.frames_per_s:g} frames/s: {trial.candidate.backend}, "
                            f"{trial.candidate.codec}")  # fmt: skip
            place = folder / f"{number}.ome.zarr"
            try:
                trials[number] = replace(trial, pace=try_pace(trial.candidate, camera, frames, place, pace_s))
            except (ScopestreamError, OSError) as error:
                trials[number] = Trial(candidate=trial.candidate, problem=str(error))
            shutil.rmtree(place, ignore_errors=True)
            progress.advance(task)
    return trials


def _finalists(trials: Sequence[Trial]) -> list[int]:
    """Numbers of the best of each backend and codec, of those that are fast enough."""
    best: dict[tuple[str, str], int] = {}
    for trial in ranked(trials):
        if trial.margin >= 1:
            best.setdefault((trial.candidate.backend, trial.candidate.codec), trials.index(trial))
    return list(best.values())


def _print(trials: Sequence[Trial], camera: Camera, disk_bytes_per_s: float, console: Console) -> None:
    console.print(trials_table(trials))
    console.print(Text(NOTES.strip(), style="dim"))
    for trial in trials:
        if trial.problem:
            one = trial.candidate
            console.print(Text(f"{one.backend}, {one.codec}: {' '.join(trial.problem.split())}", style="yellow"))
    sentence, lines = advice(trials, camera, disk_bytes_per_s)
    console.print()
    console.print(Text(sentence, style="bold"))
    if lines:
        console.print(Text(lines))
    console.print(
        Text("The frames were noisy 12-bit images; how well and how fast yours compress is for yours to show.", "dim")
    )
