"""Ctrl-C before every single step of a call: a frame is in or it is not, and nothing else is lost, doubled or shifted.

The signal is set before the n-th bytecode of the call, for every n until the call has no more of them, in whatever
library that bytecode is. The interpreter then raises KeyboardInterrupt where it would raise it for a user.
"""

from __future__ import annotations

import _thread
import gc
import json
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from scopestream import (
    AcquisitionSettings,
    FrameIndexError,
    LayoutPlan,
    MemoryLimitError,
    Stream,
    open_stream,
    read_frames,
)
from scopestream.testing import expected_images, read_array, reader_other_than, stamped_frame
from scopestream.testing.disks import FaultyBackend
from scopestream.testing.levels import next_level

Y, X = 6, 10
N_FRAMES = 48  # of each stream: so many calls of it are interrupted


class CtrlC(int):
    """Sets a signal when `comes` is looked up, and runs no Python code, in which the interrupt would be raised."""

    comes = property(_thread.interrupt_main)


CTRL_C = CtrlC(signal.SIGINT)


@pytest.fixture(autouse=True)
def sigint_is_keyboard_interrupt() -> Iterator[None]:
    """And is not raised while garbage is collected, where Python only mentions it and goes on."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    signal.signal(signal.SIGINT, before)


def interrupted(n: int, call: Callable[[], object]) -> bool:
    """Whether the call has an n-th step, before which the user pressed Ctrl-C."""
    steps = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal steps
        frame.f_trace_opcodes = True
        if event == "opcode":
            steps += 1
            if steps == n:
                sys.settrace(None)  # or the interrupt would be raised in here
                CTRL_C.comes  # noqa: B018
        return trace

    try:
        sys.settrace(trace)
        try:
            call()
        finally:
            sys.settrace(None)
    except KeyboardInterrupt:
        pass
    return steps >= n


FRAME_DIMENSIONS = [{"name": "y", "count": Y}, {"name": "x", "count": X}]


def settings(path: Path, **fields: Any) -> AcquisitionSettings:
    base: dict[str, Any] = {
        "path": path,
        "dtype": "uint16",
        "dimensions": [{"name": "t", "count": N_FRAMES}, *FRAME_DIMENSIONS],
        "backend": "inplace",
        "memory_limit": "1GB",
    }
    return AcquisitionSettings(**{**base, **fields})


def frame(number: int) -> np.ndarray:
    return stamped_frame(number, (Y, X), "uint16")


def check(stream: Stream, *, came: set[int], skipped: set[int] = frozenset(), dropped: set[int] = frozenset()) -> None:  # type: ignore[assignment]
    """Every pixel of every level, one line for each frame, and the counts."""
    plan, stats = stream.plan, stream.stats
    reader = reader_other_than(plan.backend)
    images = expected_images(plan, {number: frame(number) for number in came}, skipped | dropped)
    for image, pixels in zip(plan.images, images, strict=True):
        for array, level in zip(image.arrays, expected_levels(plan, pixels), strict=True):
            np.testing.assert_array_equal(read_array(plan.root / plan.arrays[array].path, reader), level)
    lines = Counter((record["frame"], record["status"]) for record in read_frames(plan.root))
    expected = [
        *((number, "written") for number in came),
        *((number, "skipped") for number in skipped),
        *((number, "dropped") for number in dropped),
    ]
    assert lines == Counter(expected)
    assert (stats.frames_in, stats.frames_written, stats.frames_waiting) == (len(came), len(came), 0)
    assert (stats.frames_skipped, stats.frames_dropped) == (len(skipped), len(dropped))
    own = json.loads((plan.root / "zarr.json").read_text())["attributes"]["scopestream"]
    assert own["status"] == ("incomplete" if dropped or len(came) + len(skipped) < (plan.n_frames or 0) else "complete")


def expected_levels(plan: LayoutPlan, pixels: np.ndarray) -> Iterator[np.ndarray]:
    for _ in plan.images[0].arrays:
        yield pixels
        pixels = next_level(pixels, plan.settings.downscale, plan.settings.halved_z)


DEEP = {"chunks": {"t": 3, "y": Y, "x": X}, "shards": {"t": 6}, "codec": "blosc-lz4"}
Z = {
    "dimensions": [
        {"name": "t", "count": 6},
        {"name": "z", "count": 8, "type": "space"},
        *FRAME_DIMENSIONS,
    ],
    "levels": 3,
    "downscale_z": True,
}
LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {  # and after how many frames the same steps come again
    "single frames": (1, {"shards": {"t": 8}}),
    "single frames with a codec": (1, {"shards": {"t": 8}, "codec": "blosc-lz4"}),
    "single frames in tiles": (1, {"chunks": {"y": 4, "x": 4}, "shards": {"t": 8}}),
    "unbounded": (1, {"dimensions": [{"name": "t", "count": None}, *FRAME_DIMENSIONS]}),
    "deep chunks": (3, DEEP),
    "whole shards": (3, {"backend": "tensorstore", "shards": {"t": 3}}),
    "in order": (1, {"backend": "acquire-zarr", "shards": {"t": 8}}),
    "levels along z": (8, Z),
    "deep chunks and levels along z": (8, {**Z, "chunks": {"z": 2, "y": Y, "x": X}, "codec": "blosc-lz4"}),
}


class Steps:
    """Which step is interrupted next, of each kind of call."""

    def __init__(self) -> None:
        self._next: Counter[object] = Counter()
        self._too_short: Counter[object] = Counter()
        self._all_done = False

    def __iter__(self) -> Iterator[int]:
        """Numbers for streams, until every step of every call was interrupted."""
        number = 0
        while not self._all_done:
            self._all_done = True
            yield number
            number += 1
        assert sum(self._next.values()) > 100

    def interrupt(self, kind: object, call: Callable[[], object]) -> None:
        """Call it, and interrupt it before its next step, if there is one."""
        if self._too_short[kind] == 3:  # calls that had to wait have more steps than others
            call()
            return
        self._all_done = False
        if interrupted(self._next[kind] + 1, call):
            self._next[kind] += 1
        else:
            self._too_short[kind] += 1


def least_memory(fields: dict[str, Any]) -> int:
    """A limit with which few blocks may wait, so that a call that loses one is found out."""
    limit = 4 * Y * X * 2
    while True:
        try:
            settings(Path("any"), **fields, memory_limit=limit).plan()
        except MemoryLimitError:
            limit = limit * 5 // 4
        else:
            return limit


def small(layout: str) -> dict[str, Any]:
    fields = LAYOUTS[layout][1]
    return {**fields, "memory_limit": least_memory(fields)}


FRAMES = [frame(number) for number in range(N_FRAMES)]


@pytest.mark.parametrize(("layout", "copy"), [*((layout, True) for layout in LAYOUTS), ("single frames", False)])
def test_append(tmp_path: Path, layout: str, copy: bool) -> None:
    steps, fields = Steps(), small(layout)
    for run in steps:
        with open_stream(settings(tmp_path / f"{run}.ome.zarr", **fields)) as stream:
            while (number := stream.next_frame) is not None and number < N_FRAMES:
                kind = number % LAYOUTS[layout][0]
                steps.interrupt(kind, lambda at=number: stream.append(FRAMES[at], {"number": at}, copy=copy))
                assert stream.next_frame in (number, number + 1, None)
        check(stream, came=set(range(N_FRAMES)))
        ledger = stream._intake._ledger
        assert ledger is None or (ledger._waiting, ledger._held) == (set(), 0)


@pytest.mark.parametrize("layout", ["single frames", "deep chunks", "levels along z"])
def test_extend(tmp_path: Path, layout: str) -> None:
    steps, fields, stack = Steps(), small(layout), np.stack(FRAMES)
    for run in steps:
        with open_stream(settings(tmp_path / f"{run}.ome.zarr", **fields)) as stream:
            while (number := stream.next_frame) is not None and number < N_FRAMES:
                steps.interrupt("extend", lambda at=number: stream.extend(stack[at : at + 4]))
        check(stream, came=set(range(N_FRAMES)))


@pytest.mark.parametrize("layout", ["single frames", "deep chunks and levels along z"])
def test_write_in_any_order(tmp_path: Path, layout: str) -> None:
    fields = small(layout)
    names = [dimension.name for dimension in settings(tmp_path, **fields).dimensions[:-2]]
    counts = [dimension.count or N_FRAMES for dimension in settings(tmp_path, **fields).dimensions[:-2]]
    fields["memory_limit"] *= 40  # scattered frames keep many blocks open
    order = np.random.default_rng(0).permutation(N_FRAMES).tolist()
    steps = Steps()
    for run in steps:
        with open_stream(settings(tmp_path / f"{run}.ome.zarr", **fields)) as stream:
            for number in order:
                place = np.unravel_index(number, counts)
                index = dict(zip(names, map(int, place), strict=True))
                steps.interrupt("write", lambda at=number, to=index: stream.write(FRAMES[at], index=to))
                with suppress(FrameIndexError):  # it is in
                    stream.write(FRAMES[number], index=index)
            assert stream.next_frame == 0
        check(stream, came=set(range(N_FRAMES)))


@pytest.mark.parametrize("layout", ["unbounded", "deep chunks", "whole shards", "levels along z"])
def test_skip_and_flush(tmp_path: Path, layout: str) -> None:
    """Frames, then a gap that `write` has filled in part, then a flush, and so on; all of it interrupted."""
    steps, fields = Steps(), small(layout)
    fields["memory_limit"] *= 4
    is_plain = len(fields.get("dimensions", "tyx")) == 3
    for run in steps:
        skipped: set[int] = set()
        with open_stream(settings(tmp_path / f"{run}.ome.zarr", **fields)) as stream:
            while (number := stream.next_frame) is not None and number < N_FRAMES:
                if number % 6 == 3:
                    gap = {number, number + 1, number + 2} & set(range(N_FRAMES))
                    if is_plain:
                        with suppress(FrameIndexError):  # it was written before the interrupt
                            stream.write(FRAMES[number + 1], index={"t": number + 1})
                    n = len(gap)
                    steps.interrupt("skip", lambda n=n: stream.skip(n, reason="by the test"))
                    if stream.next_frame != number:
                        skipped |= gap - {number + 1} if is_plain else gap
                else:
                    stream.append(FRAMES[number])
                    steps.interrupt("flush", stream.flush)
        check(stream, came=set(range(N_FRAMES)) - skipped, skipped=skipped)


@pytest.mark.parametrize("layout", ["unbounded", "whole shards", "in order", "deep chunks and levels along z"])
def test_close(tmp_path: Path, layout: str) -> None:
    """With blocks that are not complete; the next call of `close` goes on where the first one was interrupted."""
    steps, fields, n_frames = Steps(), small(layout), 7
    for run in steps:
        stream = open_stream(settings(tmp_path / f"{run}.ome.zarr", **fields))
        for number in range(n_frames):
            stream.append(FRAMES[number])
        steps.interrupt("close", stream.close)
        stream.close()
        check(stream, came=set(range(n_frames)))


@pytest.mark.parametrize("layout", ["single frames", "levels along z"])
def test_append_that_drops(tmp_path: Path, layout: str, faulty: FaultyBackend) -> None:
    fields = {**LAYOUTS[layout][1], "backend": "faulty", "on_full": "drop"}
    fields["memory_limit"] = least_memory({**fields, "backend": "inplace"})
    steps = Steps()
    for run in steps:
        with faulty.held(), open_stream(settings(tmp_path / f"{run}.ome.zarr", **fields)) as stream:
            while (number := stream.next_frame) is not None:
                n_dropped = stream.stats.frames_dropped
                kind = "takes" if not n_dropped else "drops"
                steps.interrupt(kind, lambda at=number: stream.append(FRAMES[at]))
            n_in = stream.stats.frames_in
            faulty.release()
        check(stream, came=set(range(n_in)), dropped=set(range(n_in, N_FRAMES)))
