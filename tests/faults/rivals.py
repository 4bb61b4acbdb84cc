"""The same kill for scopestream and for ome-writers: `python -m tests.faults.rivals [FOLDER]` prints a table.

Each takes 307 frames of 1024 x 1024 pixels, 200 a second if it can, and is killed (SIGKILL) two seconds later, while it
waits for the next one; nobody calls `flush`. What counts are the frames that are then read back exactly, one by one, by
zarr-python or tensorstore, whichever did not write them.
"""

from __future__ import annotations

import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event
from time import perf_counter, sleep

import numpy as np
import tensorstore
import zarr

from benchmarks.cases import Case
from benchmarks.runners import RUNNERS, RefusedError
from scopestream.testing import reader_other_than
from tests.faults.victim import Moment, Seen, kill

_SENT, _FRAMES_PER_S, _PAUSE_S = 307, 200.0, 2.0
_SHAPE = (1024, 1024)
_TILES = {"y": 256, "x": 256}
_NOISE = np.random.default_rng(0).integers(0, 4000, _SHAPE, np.uint16)
CASES = (
    Case(
        name="tiles", what="tiles of 256 x 256, shards of 16 frames",
        frame=_SHAPE, loop=(("t", 400),), chunk=_TILES, shard={"t": 16},
    ),
    Case(
        name="tiles, lz4", what="the same with blosc-lz4",
        frame=_SHAPE, loop=(("t", 400),), chunk=_TILES, shard={"t": 16}, codec="blosc-lz4", level=5,
    ),
    Case(
        name="unbounded", what="chunks of a frame, shards of 64 frames, unbounded t",
        frame=_SHAPE, loop=(("t", 400),), chunk={"y": 1024, "x": 1024}, shard={"t": 64}, unbounded=True,
    ),
)  # fmt: skip
WRITERS = [name for name in RUNNERS if name.startswith(("scopestream/", "ome-writers/")) and "direct" not in name]


def frame(number: int) -> np.ndarray:
    """Noise of 12 bits, another for each number, in memory of its own."""
    return _NOISE + np.uint16(number)


def acquire(case: Case, writer: str, folder: Path, progress: Connection) -> None:
    """Send frames at the pace of the camera, or as fast as the writer takes them, and wait for the end."""
    progress.send(Seen())
    try:
        session = RUNNERS[writer].open(case, folder, [frame(0)])
    except RefusedError as error:
        (folder / "refused").write_text(str(error))
        return
    (folder / "array").write_text(str(session.arrays[0]))
    start = perf_counter()
    for number in range(_SENT):
        sleep(max(0.0, start + number / _FRAMES_PER_S - perf_counter()))
        session.append(frame(number))
        progress.send(Seen("recording", number + 1))
    Event().wait()


def row(case: Case, writer: str, folder: Path) -> str:
    """The outcome in cells of a table: opens, sent, exact."""
    seen = kill(acquire, (case, writer, folder), Moment(phase="recording", sent=_SENT, sleep_s=_PAUSE_S))
    if (folder / "refused").exists():
        return f"refused | | {(folder / 'refused').read_text()}"
    try:
        array = _open(Path((folder / "array").read_text()), reader_other_than(RUNNERS[writer].library))
    except Exception as error:  # each library has its own
        return f"no: {error} | {seen.sent} | 0"
    return f"yes | {seen.sent} | {sum(_is_exact(array, number) for number in range(seen.sent))}"


def _open(path: Path, reader: str) -> tensorstore.TensorStore | zarr.Array:
    if reader == "zarr":
        return zarr.open_array(str(path), mode="r")
    return tensorstore.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/"}}).result()


def _is_exact(array: tensorstore.TensorStore | zarr.Array, number: int) -> bool:
    try:
        return number < array.shape[0] and np.array_equal(np.asarray(array[number]), frame(number))
    except Exception:  # an open shard
        return False


def main(folder: str | None = None) -> None:
    print("| case | writer | opens | frames sent | read back exactly |\n| --- | --- | --- | ---: | ---: |")
    for case in CASES:
        for writer in WRITERS:
            with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as place:
                print(f"| {case.what} | {writer} | {row(case, writer, Path(place))} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
