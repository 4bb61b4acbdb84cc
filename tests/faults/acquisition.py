"""One acquisition of stamped frames that goes on until it fails, and what the program under test saw of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from benchmarks.watch import Watch
from scopestream import AcquisitionSettings, Stream, StreamFullError, open_stream, recover
from scopestream.testing import stamped_frame
from tests.faults.shim import Control, mark

_PATIENCE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is acquired, and which calls are tampered with meanwhile.

    settings     of the acquisition
    n_frames     up to which they are sent, from the first that is not there on; with `on_full="raise"` again until
                 they are taken
    flush_every  frames between two calls of `flush`
    fault        arguments of `Control.set`, which take effect below the dataset, or with "parent" in the folder in
                 which it lies; None leaves all calls alone
    trace        a file to which all calls below the dataset are recorded, with a mark "flushed N" after each `flush`
    recover      the dataset of the settings is recovered, and nothing is acquired
    """

    settings: dict[str, Any]
    n_frames: int
    flush_every: int = 3
    fault: dict[str, Any] | None = None
    trace: str | None = None
    recover: bool = False


@dataclass(kw_only=True)
class Outcome:
    """What the program under test saw.

    errors      of the steps "open", "call" and "close", or "recover": (is it an OSError, its type and text)
    accepted    frames that `append` took or dropped
    flushed     frames that the last `flush` that returned had covered
    refused     how often `append` said that it is full
    seen, hits  calls that matched, and those that were tampered with
    peak_bytes  resident memory above that before `open_stream`, at the most
    """

    errors: dict[str, tuple[bool, str]] = field(default_factory=dict)
    accepted: int = 0
    flushed: int = 0
    refused: int = 0
    dropped: int = 0
    seen: int = 0
    hits: int = 0
    peak_bytes: int = 0


def run(trial: Trial, control: Control | None) -> dict[str, Any]:
    """Acquire in this process. Every error is part of the outcome."""
    outcome = Outcome()
    settings = AcquisitionSettings(**trial.settings)
    with Watch() as watch:
        try:
            if control is not None:
                _tamper(trial, control)
            if trial.recover:
                _recover(settings.path, outcome)
            else:
                _acquire(settings, trial, outcome)
        finally:
            if control is not None:
                outcome.seen, outcome.hits = control.seen, control.hits
                control.off()
    outcome.peak_bytes = int(watch.peak_mib * 2**20)
    return asdict(outcome)


def _tamper(trial: Trial, control: Control) -> None:
    path = Path(trial.settings["path"])
    if trial.fault is not None:
        fault = dict(trial.fault)
        control.set(path.parent if fault.pop("parent", False) else path, **fault)
    if trial.trace is not None:
        control.record(path, Path(trial.trace))


def _recover(path: str, outcome: Outcome) -> None:
    try:
        recover(path)
    except Exception as error:
        outcome.errors["recover"] = _told(error)


def _acquire(settings: AcquisitionSettings, trial: Trial, outcome: Outcome) -> None:
    try:
        stream = open_stream(settings)
    except Exception as error:
        outcome.errors["open"] = _told(error)
        return
    try:
        _send_all(stream, trial, outcome)
    except Exception as error:
        outcome.errors["call"] = _told(error)
    try:
        stream.close()
    except Exception as error:
        outcome.errors["close"] = _told(error)
    outcome.dropped = stream.stats.frames_dropped


def _send_all(stream: Stream, trial: Trial, outcome: Outcome) -> None:
    settings = stream.plan.settings
    while (number := stream.next_frame) is not None and number < trial.n_frames:
        frame = stamped_frame(number, settings.frame_shape, settings.dtype)
        give_up = monotonic() + _PATIENCE_S
        while True:
            try:
                stream.append(frame, metadata={"delta_t": float(number)})
                break
            except StreamFullError:
                outcome.refused += 1
                if monotonic() > give_up:
                    raise
                sleep(0.001)
        outcome.accepted = number + 1
        if outcome.accepted % trial.flush_every == 0:
            stream.flush()
            outcome.flushed = outcome.accepted
            if trial.trace is not None:
                mark(f"flushed {outcome.flushed}")


def _told(error: Exception) -> tuple[bool, str]:
    return isinstance(error, OSError), f"{type(error).__name__}: {error}"
