"""`run_mda` and `recording`: what goes wrong is raised and moves no frame, and nothing stays changed."""

from __future__ import annotations

import errno
import signal
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest
import useq
from pymmcore_plus import CMMCorePlus
from pymmcore_plus.mda import MDAEngine, SkipEvent
from useq import MDAEvent

from scopestream import (
    AcquisitionSettings,
    DatasetExistsError,
    Dimension,
    FrameMismatchError,
    PlanError,
    UnsupportedVersionError,
    WriteError,
)
from scopestream.pymmcore import Handler, recording, run_mda
from scopestream.testing.disks import FaultyBackend
from scopestream.useq import settings_from
from tests.pymmcore.acquisition import SHAPE, Seen, acquire, check, left_out, root_attributes, watching

SEQUENCE = useq.MDASequence(
    time_plan={"interval": 0, "loops": 4}, channels=["DAPI", "FITC"], z_plan={"range": 2, "step": 1}
)
BURST = useq.MDASequence(time_plan={"interval": 0, "loops": 60}, channels=["DAPI"])


class Unlucky(MDAEngine):
    """Skips the second time point, and fails to snap FITC in the third."""

    def setup_event(self, event: MDAEvent) -> None:
        if event.index.get("t") == 1:
            raise SkipEvent(num_frames=1, reason="no focus")
        super().setup_event(event)

    def exec_single_event(self, event: MDAEvent) -> Iterator[Any]:
        if (event.index.get("t"), event.index.get("c")) == (2, 1):
            return
        yield from super().exec_single_event(event)


class LosesFrames(MDAEngine):
    """The camera loses every tenth frame of a triggered sequence."""

    def exec_sequenced_event(self, event: Any) -> Iterator[Any]:
        for number, payload in enumerate(super().exec_sequenced_event(event)):
            yield None if number % 10 == 3 else payload


def with_engine(core: CMMCorePlus, kind: type[MDAEngine], *, triggered: bool) -> None:
    core.mda.set_engine(kind(core, use_hardware_sequencing=triggered))


def test_events_that_are_skipped_and_snaps_that_fail_shift_no_frame(core: CMMCorePlus, tmp_path: Path) -> None:
    with_engine(core, Unlucky, triggered=False)
    sink, seen = acquire(core, SEQUENCE, tmp_path / "cells.ome.zarr")
    places = check(sink.path, seen)
    assert all(dict(key) == place for key, place in places.items())
    assert left_out(sink.path) == {
        **{(("c", c), ("t", 1), ("z", z)): "no focus" for c in range(2) for z in range(3)},
        **{(("c", 1), ("t", 2), ("z", z)): "the camera gave no image" for z in range(3)},
    }
    assert root_attributes(sink.path)["scopestream"]["frames"]["missing"] == 0


def test_a_whole_triggered_sequence_may_be_skipped(core: CMMCorePlus, tmp_path: Path) -> None:
    with_engine(core, Unlucky, triggered=True)
    sink, seen = acquire(core, SEQUENCE, tmp_path / "cells.ome.zarr")
    check(sink.path, seen)
    assert len(seen) + len(left_out(sink.path)) == 24


def test_frames_that_a_triggered_sequence_loses_are_named(core: CMMCorePlus, tmp_path: Path) -> None:
    with_engine(core, LosesFrames, triggered=True)
    sink, seen = acquire(core, BURST, tmp_path / "burst.ome.zarr")
    places = check(sink.path, seen)
    assert all(dict(key) == place for key, place in places.items())
    assert left_out(sink.path) == {(("c", 0), ("t", t)): "the camera gave no image" for t in range(3, 60, 10)}


def test_viewers_of_the_core_see_each_frame_as_soon_as_it_is_told(core: CMMCorePlus, tmp_path: Path) -> None:
    shown: list[bool] = []

    def look(image: np.ndarray, event: MDAEvent) -> None:
        view = core.mda.get_view()
        assert view is not None
        shown.append(np.array_equal(view[tuple(event.index[axis] for axis in "tcz")], image))

    core.mda.events.frameReady.connect(look)
    try:
        run_mda(core, SEQUENCE, tmp_path / "cells.ome.zarr")
    finally:
        core.mda.events.frameReady.disconnect(look)
    assert len(shown) == 24
    assert all(shown)


@pytest.mark.parametrize("sequence", [SEQUENCE, BURST], ids=["snaps", "triggered"])
def test_a_run_that_is_cancelled_keeps_what_came(core: CMMCorePlus, tmp_path: Path, sequence: useq.MDASequence) -> None:
    def cancel(image: np.ndarray, event: MDAEvent, meta: object) -> None:
        if sum(event.index.values()) >= 4:
            core.mda.cancel()

    core.mda.events.frameReady.connect(cancel)
    try:
        sink, seen = acquire(core, sequence, tmp_path / "cells.ome.zarr")
    finally:
        core.mda.events.frameReady.disconnect(cancel)
    assert 0 < len(seen) < 24
    check(sink.path, seen)
    root = root_attributes(sink.path)["scopestream"]
    assert root["status"] == "incomplete"
    assert root["frames"]["missing"] == len(list(sequence)) - len(seen)
    assert left_out(sink.path) == {}


def test_a_run_that_pauses_goes_on_where_it_was(core: CMMCorePlus, tmp_path: Path) -> None:
    with_engine(core, MDAEngine, triggered=False)

    def pause(image: np.ndarray, event: MDAEvent, meta: object) -> None:
        if event.index["t"] == 1 and event.index["z"] == 0:
            core.mda.set_paused(True)
            threading.Timer(0.2, core.mda.set_paused, [False]).start()

    core.mda.events.frameReady.connect(pause)
    try:
        sink, seen = acquire(core, SEQUENCE, tmp_path / "cells.ome.zarr")
    finally:
        core.mda.events.frameReady.disconnect(pause)
    check(sink.path, seen)
    assert len(seen) == 24
    assert root_attributes(sink.path)["scopestream"]["status"] == "complete"


class Breaks(MDAEngine):
    def exec_single_event(self, event: MDAEvent) -> Iterator[Any]:
        if event.index["t"] == 2:
            raise RuntimeError("the stage is stuck")
        yield from super().exec_single_event(event)


def test_an_error_of_the_microscope_is_raised_and_what_came_is_kept(core: CMMCorePlus, tmp_path: Path) -> None:
    with_engine(core, Breaks, triggered=False)
    path = tmp_path / "cells.ome.zarr"
    with watching(core) as seen, pytest.raises(RuntimeError, match="the stage is stuck"):
        run_mda(core, SEQUENCE, path)
    assert len(seen) == 12
    check(path, seen)
    assert root_attributes(path)["scopestream"]["status"] == "incomplete"


def test_an_error_of_the_disk_ends_the_run_and_is_raised(
    core: CMMCorePlus, tmp_path: Path, faulty: FaultyBackend
) -> None:
    def break_disk(image: np.ndarray, event: MDAEvent, meta: object) -> None:
        if event.index["t"] == 5:
            faulty.error = OSError(errno.ENOSPC, "No space left on device")

    core.mda.events.frameReady.connect(break_disk)
    try:
        with watching(core) as seen, pytest.raises(WriteError, match="No space left"):
            run_mda(
                core, useq.MDASequence(time_plan={"interval": 0.01, "loops": 200}, channels=["DAPI"]),
                tmp_path / "cells.ome.zarr", backend="faulty",
            )  # fmt: skip
    finally:
        core.mda.events.frameReady.disconnect(break_disk)
    assert 5 < len(seen) < 200
    assert not core.mda.is_running()


def test_an_error_that_only_close_sees_is_raised(core: CMMCorePlus, tmp_path: Path, faulty: FaultyBackend) -> None:
    def break_disk(image: np.ndarray, event: MDAEvent, meta: object) -> None:
        faulty.error = OSError(errno.EIO, "Input/output error")

    faulty.delay_s = 0.2  # the first frame is not stored yet when the last one has come
    core.mda.events.frameReady.connect(break_disk)
    try:
        with pytest.raises(WriteError, match="Input/output error"):
            run_mda(core, useq.MDASequence(channels=["DAPI"]), tmp_path / "a.ome.zarr", backend="faulty")
    finally:
        core.mda.events.frameReady.disconnect(break_disk)


def test_the_camera_waits_for_the_disk(core: CMMCorePlus, tmp_path: Path, faulty: FaultyBackend) -> None:
    faulty.delay_s = 0.01
    frame_bytes = SHAPE[0] * SHAPE[1] * 2
    sink, seen = acquire(core, SEQUENCE, tmp_path / "cells.ome.zarr", backend="faulty", memory_limit=40 * frame_bytes)
    check(sink.path, seen)
    assert len(seen) == 24


def test_what_is_in_the_way_is_said_before_anything_moves(core: CMMCorePlus, tmp_path: Path) -> None:
    path = tmp_path / "cells.ome.zarr"
    path.mkdir()
    started: list[object] = []
    core.mda.events.eventStarted.connect(started.append)
    try:
        for events in (SEQUENCE, iter([MDAEvent(index={"t": 0})])):
            with pytest.raises(DatasetExistsError):
                run_mda(core, events, path)
    finally:
        core.mda.events.eventStarted.disconnect(started.append)
    assert started == []


def test_a_camera_that_changes_its_size_is_refused_clearly(core: CMMCorePlus, tmp_path: Path) -> None:
    path = tmp_path / "cells.ome.zarr"
    events = [MDAEvent(index={"t": 0}), MDAEvent(index={"t": 1}, roi=(0, 0, 16, 16))]
    with (
        watching(core) as seen,
        pytest.raises(FrameMismatchError, match=r"\(16, 16\) uint16, the plan says \(32, 48\)"),
    ):
        run_mda(core, events, path)
    check(path, seen)
    assert len(seen) == 1


def test_colour_images_are_refused_before_the_first(core: CMMCorePlus, tmp_path: Path) -> None:
    core.setProperty("Camera", "PixelType", "32bitRGB")
    with pytest.raises(PlanError, match="colour images"):
        run_mda(core, SEQUENCE, tmp_path / "cells.ome.zarr")
    assert list(tmp_path.iterdir()) == []


def test_settings_of_ones_own_are_used_as_they_are(core: CMMCorePlus, tmp_path: Path) -> None:
    height, width = SHAPE
    settings = settings_from(
        SEQUENCE, width, height, "uint16", 0.5, path=tmp_path / "cells.ome.zarr", codec="zstd", levels=2
    )
    sink, seen = acquire(core, SEQUENCE, settings)
    check(sink.path, seen)
    assert sink.settings == settings


def test_settings_may_leave_out_what_there_is_one_of_and_have_more(core: CMMCorePlus, tmp_path: Path) -> None:
    counts = {"t": 10, "z": 5, "y": SHAPE[0], "x": SHAPE[1]}
    settings = AcquisitionSettings(
        path=tmp_path / "cells.ome.zarr", dtype="uint16",
        dimensions=[Dimension(name=name, count=count) for name, count in counts.items()],
    )  # fmt: skip
    plan = useq.MDASequence(time_plan={"interval": 0, "loops": 4}, channels=["DAPI"])
    sink, seen = acquire(core, plan, settings)
    places = check(sink.path, seen)
    assert sorted(place["t"] for place in places.values()) == [0, 1, 2, 3]
    assert {place["z"] for place in places.values()} == {0}


@pytest.mark.parametrize(
    ("change", "message"),
    [({"t": 2}, "dimension 't' has 2 items, the sequence 4"), ({"z": None}, "no dimension 'z'")],
)
def test_settings_that_do_not_fit_are_refused_before_anything_moves(
    core: CMMCorePlus, tmp_path: Path, change: dict[str, int | None], message: str
) -> None:
    counts = {"t": 4, "c": 2, "z": 3, "y": SHAPE[0], "x": SHAPE[1], **change}
    dimensions = [Dimension(name=name, count=count) for name, count in counts.items() if count is not None]
    settings = AcquisitionSettings(path=tmp_path / "a.ome.zarr", dtype="uint16", dimensions=dimensions)
    with pytest.raises(PlanError, match=message):
        run_mda(core, SEQUENCE, settings)
    assert list(tmp_path.iterdir()) == []


def test_handlers_beside_the_dataset_see_every_frame(core: CMMCorePlus, tmp_path: Path) -> None:
    class Counter:
        n = 0

        def frameReady(self, image: np.ndarray, event: MDAEvent, meta: object) -> None:
            self.n += 1

    counter = Counter()
    sink = run_mda(core, SEQUENCE, tmp_path / "cells.ome.zarr", handlers=[counter])
    assert counter.n == sink.stats.frames_in == 24


def test_ctrl_c_cancels_and_the_dataset_is_closed(core: CMMCorePlus, tmp_path: Path) -> None:
    path = tmp_path / "cells.ome.zarr"

    def interrupt(image: np.ndarray, event: MDAEvent, meta: object) -> None:
        if event.index["t"] == 3:
            signal.raise_signal(signal.SIGINT)

    core.mda.events.frameReady.connect(interrupt)
    plan = useq.MDASequence(time_plan={"interval": 0.02, "loops": 200}, channels=["DAPI"])
    try:
        with watching(core) as seen, pytest.raises(KeyboardInterrupt):
            run_mda(core, plan, path)
    finally:
        core.mda.events.frameReady.disconnect(interrupt)
    assert len(seen) < 200
    check(path, seen)
    assert root_attributes(path)["scopestream"]["status"] == "incomplete"
    assert not core.mda.is_running()


def run_in_thread(core: CMMCorePlus) -> None:
    core.run_mda(SEQUENCE)


def run_and_join(core: CMMCorePlus) -> None:
    core.run_mda(SEQUENCE).join()


def run_here(core: CMMCorePlus) -> None:
    core.mda.run(SEQUENCE)


@pytest.mark.parametrize("how", [run_in_thread, run_and_join, run_here])
def test_a_block_records_what_runs_inside(core: CMMCorePlus, tmp_path: Path, how: Any) -> None:
    with watching(core) as seen, recording(core, tmp_path / "cells.ome.zarr") as sink:
        how(core)
    assert sink.is_closed
    check(sink.path, seen)
    assert len(seen) == 24


def test_after_a_block_everything_is_as_it_was(core: CMMCorePlus, tmp_path: Path) -> None:
    before = dict(vars(core.mda)), len(core.mda.events.eventStarted), len(core.mda.events.sequenceStarted)
    run_mda(core, SEQUENCE, tmp_path / "cells.ome.zarr")
    with pytest.raises(DatasetExistsError):
        run_mda(core, SEQUENCE, tmp_path / "cells.ome.zarr")
    after = dict(vars(core.mda)), len(core.mda.events.eventStarted), len(core.mda.events.sequenceStarted)
    assert "_coerce_outputs" not in after[0]
    assert after[1:] == before[1:]
    with watching(core) as seen:
        core.mda.run(SEQUENCE)
    assert len(seen) == 24
    assert [path.name for path in tmp_path.iterdir()] == ["cells.ome.zarr"]


def test_a_block_in_which_nothing_runs_says_so(core: CMMCorePlus, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="No acquisition ran inside the block"), recording(core, tmp_path / "a.zarr"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_goes_wrong_in_a_thread_is_raised_at_the_end_of_the_block(core: CMMCorePlus, tmp_path: Path) -> None:
    (tmp_path / "taken.ome.zarr").mkdir()
    with pytest.raises(DatasetExistsError), recording(core, tmp_path / "taken.ome.zarr"):
        core.run_mda(SEQUENCE).join()
    with_engine(core, Breaks, triggered=False)
    with pytest.raises(RuntimeError, match="ended with an error"), recording(core, tmp_path / "a.ome.zarr"):
        core.run_mda(SEQUENCE).join()
    assert root_attributes(tmp_path / "a.ome.zarr")["scopestream"]["frames"]["written"] == 12


def test_a_block_has_one_acquisition(core: CMMCorePlus, tmp_path: Path) -> None:
    with recording(core, tmp_path / "a.ome.zarr") as sink:
        core.mda.run(SEQUENCE)
        with pytest.raises(RuntimeError, match="has had its acquisition"):
            core.mda.run(SEQUENCE)
    assert sink.stats.frames_in == 24


def test_a_second_dataset_beside_it_is_refused(core: CMMCorePlus, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="second dataset"), recording(core, tmp_path / "a.ome.zarr"):
        core.mda.run(SEQUENCE, output=tmp_path / "b.ome.zarr")
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_a_block_cancels_the_run(core: CMMCorePlus, tmp_path: Path) -> None:
    plan = useq.MDASequence(time_plan={"interval": 0.05, "loops": 500}, channels=["DAPI"])
    path = tmp_path / "cells.ome.zarr"

    def fail_meanwhile(seen: Seen) -> None:
        with recording(core, path):
            core.run_mda(plan)
            while not seen.frames:
                sleep(0.01)
            raise ZeroDivisionError

    with watching(core) as seen, pytest.raises(ZeroDivisionError):
        fail_meanwhile(seen)
    assert len(seen) < 500
    check(path, seen)


@pytest.mark.parametrize("changes", ["the way in", "who makes the sink"])
def test_a_version_that_works_otherwise_is_refused_before_anything_moves(
    core: CMMCorePlus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: str
) -> None:
    class Newer(type(core.mda)):  # type: ignore[misc]
        def run(self, events: Iterable[MDAEvent], **options: Any) -> None:
            self._run(self._prepare_to_run(SEQUENCE), events)

    newer = Newer()
    newer.set_engine(MDAEngine(core))
    monkeypatch.setattr(core, "_mda_runner", newer)
    if changes == "the way in":
        monkeypatch.setattr(Newer, "_coerce_outputs", None)
    started: list[object] = []
    newer.events.eventStarted.connect(started.append)
    with pytest.raises(UnsupportedVersionError, match="cannot hand its sink to pymmcore-plus"):
        run_mda(core, SEQUENCE, tmp_path / "cells.ome.zarr")
    assert started == []
    assert list(tmp_path.iterdir()) == []


def test_a_handler_writes_the_same(core: CMMCorePlus, tmp_path: Path) -> None:
    handler = Handler(tmp_path / "cells.ome.zarr")
    with watching(core) as seen:
        core.mda.run(SEQUENCE, output=handler)
    handler.check()
    check(handler.sink.path, seen)
    assert len(seen) == 24


def test_a_handler_tells_what_went_wrong(core: CMMCorePlus, tmp_path: Path) -> None:
    (tmp_path / "cells.ome.zarr").mkdir()
    handler = Handler(tmp_path / "cells.ome.zarr")
    with pytest.warns(RuntimeWarning, match="stopped to write"):
        core.mda.run(SEQUENCE, output=handler)
    with pytest.raises(DatasetExistsError):
        handler.check()


def test_a_handler_that_falls_behind_says_so_once(tmp_path: Path) -> None:
    handler = Handler(tmp_path / "cells.ome.zarr")
    height, width = SHAPE
    info = {"camera_label": "Camera", "plane_shape": SHAPE, "width": width, "height": height, "dtype": "uint16"}
    handler.sequenceStarted(SEQUENCE, {"image_infos": [info]})
    events = iter(SEQUENCE)
    taken_long_ago = {"runner_time_ms": -60_000.0}
    with pytest.warns(RuntimeWarning, match="s behind the camera"):
        handler.frameReady(np.zeros(SHAPE, "uint16"), next(events), taken_long_ago)
    handler.frameReady(np.zeros(SHAPE, "uint16"), next(events), taken_long_ago)
    handler.sequenceFinished(SEQUENCE)
    handler.check()


def test_one_acquisition_at_a_time(core: CMMCorePlus, tmp_path: Path) -> None:
    plan = useq.MDASequence(time_plan={"interval": 0.05, "loops": 500}, channels=["DAPI"])
    started = threading.Event()
    core.mda.events.sequenceStarted.connect(started.set, max_args=0)
    thread = core.run_mda(plan)
    try:
        started.wait()
        with pytest.raises(ValueError, match="Another acquisition is running"):
            run_mda(core, SEQUENCE, tmp_path / "cells.ome.zarr")
    finally:
        core.mda.events.sequenceStarted.disconnect(started.set)
        core.mda.cancel()
        thread.join()
    assert list(tmp_path.iterdir()) == []


def test_run_mda_inside_a_block_is_refused_and_the_block_goes_on(core: CMMCorePlus, tmp_path: Path) -> None:
    with watching(core) as seen, recording(core, tmp_path / "a.ome.zarr") as sink:
        for _ in range(2):
            with pytest.raises(ValueError, match="has this microscope already"):
                run_mda(core, SEQUENCE, tmp_path / "b.ome.zarr")
        core.mda.run(SEQUENCE)
        with pytest.raises(ValueError, match="has this microscope already"):
            run_mda(core, SEQUENCE, tmp_path / "b.ome.zarr")
    check(sink.path, seen)
    assert len(seen) == 24
    assert [path.name for path in tmp_path.iterdir()] == ["a.ome.zarr"]


def test_a_second_run_mda_is_refused_and_the_first_goes_on(core: CMMCorePlus, tmp_path: Path) -> None:
    refused: list[ValueError] = []

    def run_another(image: np.ndarray, event: MDAEvent, meta: object) -> None:
        try:
            run_mda(core, SEQUENCE, tmp_path / "b.ome.zarr")
        except ValueError as error:
            refused.append(error)

    core.mda.events.frameReady.connect(run_another)
    try:
        sink, seen = acquire(core, SEQUENCE, tmp_path / "a.ome.zarr")
    finally:
        core.mda.events.frameReady.disconnect(run_another)
    check(sink.path, seen)
    assert len(seen) == len(refused) == 24
    assert all("Another acquisition is running" in str(error) for error in refused)
    assert [path.name for path in tmp_path.iterdir()] == ["a.ome.zarr"]
