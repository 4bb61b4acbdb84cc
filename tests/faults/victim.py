"""A process that acquires until it is killed, and how to kill it. Forked from one in which all libraries are loaded."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from time import sleep
from typing import Any

import acquire_zarr  # noqa: F401
import tensorstore  # noqa: F401
import zarr  # noqa: F401
import zarrs  # noqa: F401

from scopestream import AcquisitionSettings, open_stream, recover
from scopestream.testing import stamped_frame

CAN_FORK = "forkserver" in multiprocessing.get_all_start_methods()


@dataclass(frozen=True, slots=True)
class Seen:
    """What a process said last.

    phase    "starting", "recording" (the stream is open), "closing" or "closed"
    sent     frames that `append` took
    flushed  frames that `flush` returned for
    """

    phase: str = "starting"
    sent: int = 0
    flushed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When the process is killed: `sleep_s` after that phase and that many frames."""

    phase: str
    sent: int
    sleep_s: float

    def came(self, seen: Seen) -> bool:
        rank = _PHASES.index
        return rank(seen.phase) > rank(self.phase) or (seen.phase == self.phase and seen.sent >= self.sent)


_PHASES = ("starting", "recording", "closing", "closed")


def acquire(settings: dict[str, Any], n_frames: int, flush_every: int, pace_s: float, progress: Connection) -> None:
    """Send the stamped frames below `n_frames` that are still to come, about one each `pace_s` seconds, and say so."""
    progress.send(Seen())
    stream = open_stream(AcquisitionSettings(**settings))
    shape, dtype = stream.plan.settings.frame_shape, stream.plan.settings.dtype
    flushed, pause = 0, random.Random(n_frames)
    while (number := stream.next_frame) is not None and number < n_frames:
        stream.append(stamped_frame(number, shape, dtype))
        if (number + 1) % flush_every == 0:
            stream.flush()
            flushed = number + 1
        progress.send(Seen("recording", number + 1, flushed))
        sleep(2 * pace_s * pause.random())
    progress.send(Seen("closing", n_frames, flushed))
    stream.close()
    progress.send(Seen("closed", n_frames, n_frames))


def mend(path: str, progress: Connection) -> None:
    """Recover the dataset at `path`."""
    progress.send(Seen())
    recover(path)
    progress.send(Seen("closed"))


def kill(target: Callable[..., None], arguments: tuple[Any, ...], moment: Moment) -> Seen:
    """Start `target(*arguments, progress)` in a process, and end it with SIGKILL at that moment, if it still runs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with _pipe(context) as (progress, its_end):
        process = context.Process(target=target, args=(*arguments, its_end), daemon=True)
        process.start()
        its_end.close()
        seen = None
        try:
            while seen is None or not moment.came(seen):
                seen = progress.recv()
            sleep(moment.sleep_s)
        except EOFError as error:
            process.join()
            if process.exitcode:
                raise AssertionError(f"the process failed by itself after {seen}") from error
        process.kill()
        process.join()
        process.close()
        return _last(progress, seen or Seen())


@contextmanager
def _pipe(context: Any) -> Iterator[tuple[Connection, Connection]]:
    ours, its = context.Pipe(duplex=False)
    with ours, its:
        yield ours, its


def _last(progress: Connection, seen: Seen) -> Seen:
    """It went on for a moment."""
    try:
        while True:
            seen = progress.recv()
    except (EOFError, OSError):
        return seen
