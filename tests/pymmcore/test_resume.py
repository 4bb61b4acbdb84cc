"""An acquisition that was cancelled goes on: whole, or with the events that remain."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import useq
from pymmcore_plus import CMMCorePlus
from useq import MDAEvent, MDASequence

from scopestream import Dimension, FrameIndexError
from scopestream.pymmcore import remaining, run_mda
from tests.pymmcore.acquisition import Seen, acquire, check, key_of, root_attributes
from tests.pymmcore.kinds import GRID, PLANES, POSITIONS, TIMES, sequence, with_own

TCZ = sequence(time_plan=TIMES, z_plan=PLANES)
KINDS = {
    "t, c and z": TCZ,
    "a grid at each position": sequence(stage_positions=POSITIONS, grid_plan=GRID, time_plan=TIMES),
    "planes from above, a channel without a stack": sequence(
        time_plan=TIMES, z_plan={"top": 2, "bottom": 0, "step": 1, "go_up": False},
        channels=["DAPI", {"config": "FITC", "do_stack": False}],
    ),
}  # fmt: skip


def cancelled(core: CMMCorePlus, events: Iterable[MDAEvent], path: Path, n_frames: int = 7, **options: object) -> Seen:
    """What was seen of a run that was cancelled after about so many frames."""
    n_seen = 0

    def count(image: np.ndarray, event: MDAEvent) -> None:
        nonlocal n_seen
        n_seen += 1
        if n_seen == n_frames:
            core.mda.cancel()

    core.mda.events.frameReady.connect(count)
    try:
        _, seen = acquire(core, events, path, **options)
    finally:
        core.mda.events.frameReady.disconnect(count)
    return seen


def together(first: Seen, second: Seen) -> Seen:
    """The frames of both; of an index that was taken twice the first."""
    both = Seen()
    before = set()
    for seen in (first, second):
        for (key, frame), event, meta in zip(seen.frames, seen.events, seen.metas, strict=True):
            if key not in before:
                both(frame, event, meta)
                before.add(key)
    return both


@pytest.mark.parametrize("name", KINDS)
def test_the_whole_sequence_again_adds_what_was_missing(core: CMMCorePlus, tmp_path: Path, name: str) -> None:
    core.mda.engine.use_hardware_sequencing = False
    path, plan = tmp_path / "cells.ome.zarr", KINDS[name]
    first = cancelled(core, plan, path)
    sink, second = acquire(core, plan, path, on_exists="resume")
    n_events = len(list(plan))
    assert (len(first), len(second), sink.n_passed_over) == (7, n_events, 7)
    check(path, together(first, second), n_events)
    assert root_attributes(path)["scopestream"]["status"] == "complete"


@pytest.mark.parametrize("name", KINDS)
def test_only_the_events_that_remain_add_the_same(core: CMMCorePlus, tmp_path: Path, name: str) -> None:
    core.mda.engine.use_hardware_sequencing = False
    path, plan = tmp_path / "cells.ome.zarr", KINDS[name]
    first = cancelled(core, plan, path)
    sink, second = acquire(core, remaining(core, plan, path), path, on_exists="resume")
    n_events = len(list(plan))
    assert (len(first), len(second), sink.n_passed_over) == (7, n_events - 7, 0)
    check(path, together(first, second), n_events)
    assert root_attributes(path)["scopestream"]["status"] == "complete"


def test_a_generator_goes_on_with_its_dataset(core: CMMCorePlus, tmp_path: Path) -> None:
    path, dimensions = tmp_path / "cells.ome.zarr", [Dimension(name="t", count=None)]
    first = cancelled(core, (MDAEvent(index={"t": t}) for t in range(9)), path, 4, dimensions=dimensions)
    assert root_attributes(path)["scopestream"]["status"] == "incomplete"
    events = (MDAEvent(index={"t": t}) for t in range(2, 9))
    sink, second = acquire(core, events, path, dimensions=dimensions, on_exists="resume")
    assert sink.n_passed_over == 2
    check(path, together(first, second), 9)
    assert root_attributes(path)["scopestream"]["status"] == "complete"


def test_an_index_that_comes_twice_in_the_same_run_is_refused_all_the_same(core: CMMCorePlus, tmp_path: Path) -> None:
    path, dimensions = tmp_path / "cells.ome.zarr", [Dimension(name="t", count=None)]
    run_mda(core, [MDAEvent(index={"t": 0})], path, dimensions=dimensions)
    events = [MDAEvent(index={"t": t}) for t in (0, 1, 1)]
    with pytest.raises(FrameIndexError, match="already"):
        run_mda(core, events, path, dimensions=dimensions, on_exists="resume")


def test_the_times_of_the_events_that_remain_count_from_the_first(core: CMMCorePlus, tmp_path: Path) -> None:
    plan = MDASequence(time_plan={"interval": 0.05, "loops": 4}, channels=["DAPI"])
    cancelled(core, plan, tmp_path / "a.ome.zarr", 2)
    left = list(remaining(core, plan, tmp_path / "a.ome.zarr"))
    assert [key_of(event.index) for event in left] == [(("c", 0), ("t", 2)), (("c", 0), ("t", 3))]
    assert [event.min_start_time for event in left] == pytest.approx([0, 0.05])


def test_what_remains_of_events_that_repeat_an_index_nobody_knows(core: CMMCorePlus, tmp_path: Path) -> None:
    plan = with_own(time_plan={"interval": 0, "loops": 2})
    with pytest.raises(ValueError, match="have the same index"):
        remaining(core, plan, tmp_path / "a.ome.zarr")


def test_there_is_nothing_left_of_a_sequence_that_is_whole(core: CMMCorePlus, tmp_path: Path) -> None:
    plan = sequence(stage_positions=POSITIONS, autofocus_plan=useq.AxesBasedAF(autofocus_motor_offset=1, axes=("p",)))
    sink = run_mda(core, plan, tmp_path / "a.ome.zarr")
    left = list(remaining(core, plan, sink.path))
    assert all(isinstance(event.action, useq.HardwareAutofocus) for event in left)
