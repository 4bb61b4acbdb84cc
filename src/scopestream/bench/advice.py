"""What was measured, as a table, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from scopestream.bench.camera import Camera
from scopestream.bench.trials import Trial

_SAFE_MARGIN = 1.5
_WORTH_IT = 0.8  # of the bytes, at the most, before compression is recommended
NOTES = """
margin   what it takes flat out, times what the camera sends
queue    most blocks that waited for the backend, at the camera's rate
late     frames that append took only after the next one was due
stored   bytes on disk by bytes of frames"""


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Largest margin first."""
    return sorted(trials, key=lambda trial: -trial.margin)


def trials_table(trials: Sequence[Trial]) -> Table:
    """A row for each that was measured, by margin."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    left = ("backend", "codec")
    for header in (*left, "shard", "GB/s", "margin", "p50 ms", "p99 ms", "max ms", "queue", "late", "stored"):
        table.add_column(header, justify="left" if header in left else "right", no_wrap=True)
    for trial in ranked([trial for trial in trials if not trial.problem]):
        pace = trial.pace
        paced = [""] * 5
        if pace is not None:
            times = (pace.append_p50_ms, pace.append_p99_ms, pace.append_max_ms)
            paced = [*(f"{ms:.2f}" for ms in times), str(pace.queue_peak), str(pace.n_late)]
        style = "green" if trial.keeps_up else "red" if trial.margin < 1 else "yellow" if pace is not None else ""
        table.add_row(
            trial.candidate.backend,
            trial.candidate.codec,
            str(trial.shard_frames),
            f"{trial.bytes_per_s / 1e9:.2f}",
            Text(f"{trial.margin:.2f}", style=style),
            *paced,
            f"{trial.stored:.2f}",
        )
    return table


def advice(trials: Sequence[Trial], camera: Camera, disk_bytes_per_s: float) -> tuple[str, str]:
    """One sentence, and lines for a settings file (empty when nothing keeps up)."""
    good = [trial for trial in ranked(trials) if trial.keeps_up]
    if not good:
        return _nothing_keeps_up(ranked(trials), camera), ""
    best = _choice(good, is_slow_disk=disk_bytes_per_s < camera.bytes_per_s)
    sentence = f"Use {_name(best)}: it takes {best.margin:.1f} times what the camera sends"
    if best.stored < _WORTH_IT:
        sentence += f", and stores {best.stored:.0%} of its bytes"
    if best.margin < _SAFE_MARGIN:
        sentence += "; that is tight, so try it for as long as the acquisition will take"
    if disk_bytes_per_s < camera.bytes_per_s * best.stored:
        sentence += (
            f"; but the disk itself takes {disk_bytes_per_s / 1e9:.2f} GB/s, less than what comes, "
            f"so that long acquisitions will fall behind when memory is full"
        )
    return sentence + ".", best.candidate.yaml()


def _choice(good: Sequence[Trial], *, is_slow_disk: bool) -> Trial:
    """The fastest; where the disk is the bottleneck, what stores least with a margin that is safe."""
    safe = [trial for trial in good if trial.margin >= _SAFE_MARGIN]
    return min(safe, key=lambda trial: trial.stored) if is_slow_disk and safe else good[0]


def _nothing_keeps_up(trials: Sequence[Trial], camera: Camera) -> str:
    best = next((trial for trial in trials if not trial.problem), None)
    if best is None:
        return "Nothing could be measured; the reasons are above."
    behind = [(trial.pace.behind, number) for number, trial in enumerate(trials) if trial.pace is not None]
    if behind:
        n_frames, number = min(behind)
        return (
            f"Nothing keeps up without late frames; nearest is {_name(trials[number])}, with {n_frames} frames that "
            f"the camera's own buffer must hold, and {trials[number].margin:.1f} times its rate flat out."
        )
    return (
        f"Nothing keeps up: {_name(best)} is the fastest, and takes {best.margin * camera.frames_per_s:.4g} frames/s. "
        f"Use a faster disk, a smaller region, binning, or fewer frames."
    )


def _name(trial: Trial) -> str:
    one = trial.candidate
    return f"{one.backend!r} with codec {one.codec!r} and shards of {trial.shard_frames} frames"
