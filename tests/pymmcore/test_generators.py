"""Events that nobody announced: generators, queues and lists."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import Queue

import numpy as np
import pytest
import useq
from pymmcore_plus import CMMCorePlus
from useq import MDAEvent

from scopestream import Dimension, FrameIndexError, Position, read_frames
from scopestream.pymmcore import Handler, run_mda
from tests.pymmcore.acquisition import acquire, arrays_of, check, left_out, root_attributes

TCZ = useq.MDASequence(time_plan={"interval": 0, "loops": 3}, channels=["DAPI", "FITC"], z_plan={"range": 2, "step": 1})


def test_time_points_that_come_one_by_one_make_time_grow(core: CMMCorePlus, tmp_path: Path) -> None:
    sink, seen = acquire(core, (MDAEvent(index={"t": t}) for t in range(7)), tmp_path / "cells.ome.zarr")
    places = check(sink.path, seen)
    assert all(dict(key) == place for key, place in places.items())
    assert arrays_of(sink.path)[""].shape[0] == 7


def test_the_next_event_may_depend_on_the_last_image(core: CMMCorePlus, tmp_path: Path) -> None:
    queue: Queue[MDAEvent | None] = Queue()
    queue.put(MDAEvent(index={"t": 0}))

    def decide(image: np.ndarray, event: MDAEvent, meta: object) -> None:
        t = event.index["t"]
        queue.put(MDAEvent(index={"t": t + 1}, exposure=1 + t) if t < 4 else None)

    core.mda.events.frameReady.connect(decide)
    try:
        sink, seen = acquire(core, iter(queue.get, None), tmp_path / "cells.ome.zarr")
    finally:
        core.mda.events.frameReady.disconnect(decide)
    assert len(seen) == 5
    check(sink.path, seen)


@pytest.mark.parametrize("as_what", [list, iter, tuple])
def test_events_of_a_sequence_have_the_layout_of_the_sequence(core: CMMCorePlus, tmp_path: Path, as_what: type) -> None:
    sink, seen = acquire(core, as_what(list(TCZ)), tmp_path / "cells.ome.zarr")
    places = check(sink.path, seen)
    assert all(dict(key) == place for key, place in places.items())
    assert arrays_of(sink.path)[""].shape[:3] == (3, 2, 3)


def test_events_of_a_sequence_may_be_left_out(core: CMMCorePlus, tmp_path: Path) -> None:
    events = (event for event in TCZ if event.index["t"] != 1)
    sink, seen = acquire(core, events, tmp_path / "cells.ome.zarr")
    places = check(sink.path, seen)
    assert {place["t"] for place in places.values()} == {0, 2}


def test_declared_dimensions_give_each_index_its_place(core: CMMCorePlus, tmp_path: Path) -> None:
    def events() -> Iterator[MDAEvent]:
        for t in range(3):
            for p in range(2) if t % 2 else range(1):
                for c in range(2):
                    yield MDAEvent(index={"t": t, "p": p, "c": c}, x_pos=10.0 * p)

    dimensions = [
        Dimension(name="t", count=None),
        Dimension(name="p", coords=[Position(name="cell", x=0), Position(name="daughter", x=10)]),
        Dimension(name="c", coords=["DAPI", "FITC"]),
    ]
    sink, seen = acquire(core, events(), tmp_path / "cells.ome.zarr", dimensions=dimensions)
    places = check(sink.path, seen)
    assert len(seen) == 8
    assert all(dict(key) == place for key, place in places.items())


def test_what_was_not_declared_is_refused_and_what_came_is_kept(core: CMMCorePlus, tmp_path: Path) -> None:
    path = tmp_path / "cells.ome.zarr"
    events = [MDAEvent(index={"t": 0}), MDAEvent(index={"t": 1, "c": 1})]
    with pytest.raises(FrameIndexError, match="'c', which is no dimension of the dataset"):
        acquire(core, events, path, dimensions=[Dimension(name="t", count=None)])
    assert [record["index"] for record in read_frames(path)] == [{"t": 0}]


def test_events_of_any_other_kind_follow_one_another_and_the_log_has_their_index(
    core: CMMCorePlus, tmp_path: Path
) -> None:
    indices = [{"t": 0, "p": 0}, {"t": 0, "p": 3}, {"t": 1, "p": 3}, {}, {"t": 0, "p": 0}]
    sink, seen = acquire(core, [MDAEvent(index=index) for index in indices], tmp_path / "cells.ome.zarr")
    check(sink.path, seen, len(indices), is_one_stack=True)
    found = [
        (record["index"], record["metadata"]["pymmcore_plus"]["mda_event"].get("index", {}))
        for record in read_frames(sink.path)
    ]
    assert found == [({"t": number}, index) for number, index in enumerate(indices)]


def test_an_unannounced_event_without_an_image_keeps_its_place(core: CMMCorePlus, tmp_path: Path) -> None:
    from pymmcore_plus.mda import MDAEngine, SkipEvent

    class Skips(MDAEngine):
        def setup_event(self, event: MDAEvent) -> None:
            if event.index["t"] == 2:
                raise SkipEvent(reason="nothing there")
            super().setup_event(event)

    core.mda.set_engine(Skips(core))
    sink, seen = acquire(core, (MDAEvent(index={"t": t}) for t in range(5)), tmp_path / "cells.ome.zarr")
    check(sink.path, seen)
    assert left_out(sink.path) == {(("t", 2),): "nothing there"}


def events_that(core: CMMCorePlus, ending: str) -> Iterator[MDAEvent]:
    """Five events, and then what the name says."""
    for t in range(5):
        yield MDAEvent(index={"t": t})
    if ending == "is cancelled":
        core.mda.cancel()
        yield MDAEvent(index={"t": 5})
    if ending == "raises":
        raise ZeroDivisionError
    if ending == "has an event without a place":
        yield MDAEvent(index={"q": 1})


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("ends", "complete"),
        ("is cancelled", "incomplete"),
        ("raises", "incomplete"),
        ("has an event without a place", "incomplete"),
    ],
)
def test_a_dataset_without_an_end_says_whether_the_acquisition_came_to_its_own(
    core: CMMCorePlus, tmp_path: Path, ending: str, status: str
) -> None:
    path = tmp_path / "cells.ome.zarr"
    with suppress(ZeroDivisionError, FrameIndexError):
        run_mda(core, events_that(core, ending), path, dimensions=[Dimension(name="t", count=None)])
    root = root_attributes(path)["scopestream"]
    assert root["status"] == status
    assert root["frames"]["written"] >= 5


@pytest.mark.parametrize(("ending", "status"), [("ends", "complete"), ("is cancelled", "incomplete")])
def test_a_handler_knows_of_a_cancelled_acquisition_as_well(
    core: CMMCorePlus, tmp_path: Path, ending: str, status: str
) -> None:
    handler = Handler(tmp_path / "cells.ome.zarr", dimensions=[Dimension(name="t", count=None)])
    core.mda.run(events_that(core, ending), output=handler)
    handler.check()
    assert root_attributes(handler.sink.path)["scopestream"]["status"] == status
