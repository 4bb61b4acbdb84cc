"""What no writer can beat: one write a frame, one copy a frame, all cores compressing."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import Case
from benchmarks.geometry import Geometry
from benchmarks.runners.session import RefusedError, Runner, Session
from scopestream.bench.camera import Frames
from scopestream.bench.disk import RawFile

_RING = 16


def _open_raw(case: Case, folder: Path, frames: Frames) -> Session:
    file = RawFile(folder / "raw.bin")
    return Session(file.append, file.close)


def _open_memcpy(case: Case, folder: Path, frames: Frames) -> Session:
    """Copies into buffers that were used before, so that memory is warm."""
    ring = cycle([np.ones(case.frame, np.uint16) for _ in range(_RING)])

    def append(frame: np.ndarray) -> None:
        np.copyto(next(ring), frame)

    return Session(append, lambda: None)


def _open_codec(case: Case, folder: Path, frames: Frames) -> Session:
    """One task a frame, whose chunks were cut before the clock started; as many tasks wait as there are cores."""
    if case.codec == "none":
        raise RefusedError("the case has no codec")
    from numcodecs import blosc

    blosc.use_threads = False  # its own threads would take turns on one lock; those of the pool do not
    name = case.codec.removeprefix("blosc-").encode()
    tiles = list(Geometry(case).tiles())
    cut = {id(frame): [np.ascontiguousarray(frame[tile]) for tile in tiles] for frame in frames}
    n_threads = os.cpu_count() or 1
    pool = ThreadPoolExecutor(n_threads)
    waiting: deque[Future[Any]] = deque()

    def compress(chunks: list[np.ndarray]) -> None:
        for chunk in chunks:
            blosc.compress(chunk, name, case.level, blosc.SHUFFLE)

    def append(frame: np.ndarray) -> None:
        waiting.append(pool.submit(compress, cut[id(frame)]))
        if len(waiting) > 2 * n_threads:
            waiting.popleft().result()

    def close() -> None:
        for task in waiting:
            task.result()
        pool.shutdown()

    return Session(append, close)


RUNNERS = (
    Runner("raw", "limit", "", _open_raw),
    Runner("memcpy", "limit", "", _open_memcpy),
    Runner("codec", "limit", "", _open_codec),
)
