"""`start_mda`: the program goes on while the acquisition runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import useq
from pymmcore_plus import CMMCorePlus

from scopestream import DatasetExistsError
from scopestream.pymmcore import start_mda
from tests.pymmcore.acquisition import check, root_attributes, watching
from tests.pymmcore.kinds import PLANES, TIMES, sequence
from tests.pymmcore.test_run import Breaks, with_engine

TCZ = sequence(time_plan=TIMES, z_plan=PLANES)
LONG = useq.MDASequence(time_plan={"interval": 0.05, "loops": 500}, channels=["DAPI"])


def test_it_returns_while_the_acquisition_runs_and_join_waits_for_it(core: CMMCorePlus, tmp_path: Path) -> None:
    with watching(core) as seen:
        acquisition = start_mda(core, TCZ, tmp_path / "cells.ome.zarr")
        sink = acquisition.join()
    assert sink is acquisition.sink
    assert sink.is_closed
    assert not acquisition.is_running
    check(sink.path, seen, len(list(TCZ)))


def test_it_can_be_cancelled(core: CMMCorePlus, tmp_path: Path) -> None:
    with watching(core) as seen:
        acquisition = start_mda(core, LONG, tmp_path / "cells.ome.zarr")
        with pytest.raises(TimeoutError, match="still runs"):
            acquisition.join(0.2)
        assert acquisition.is_running
        acquisition.cancel()
        sink = acquisition.join()
    check(sink.path, seen)
    assert root_attributes(sink.path)["scopestream"]["status"] == "incomplete"


def test_it_can_be_cancelled_before_the_first_frame(core: CMMCorePlus, tmp_path: Path) -> None:
    acquisition = start_mda(core, LONG, tmp_path / "cells.ome.zarr")
    acquisition.cancel()
    sink = acquisition.join(60)
    assert sink.stats.frames_written < 500


def test_what_ends_it_is_raised_by_join(core: CMMCorePlus, tmp_path: Path) -> None:
    with_engine(core, Breaks, triggered=False)
    acquisition = start_mda(core, TCZ, tmp_path / "cells.ome.zarr")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="the stage is stuck"):
            acquisition.join()
    assert isinstance(acquisition.error, RuntimeError)


def test_what_is_in_the_way_is_raised_by_join(core: CMMCorePlus, tmp_path: Path) -> None:
    (tmp_path / "cells.ome.zarr").mkdir()
    with pytest.raises(DatasetExistsError):
        start_mda(core, TCZ, tmp_path / "cells.ome.zarr").join()


def test_a_second_one_is_refused_at_once_and_the_first_goes_on(core: CMMCorePlus, tmp_path: Path) -> None:
    with watching(core) as seen:
        acquisition = start_mda(core, LONG, tmp_path / "a.ome.zarr")
        with pytest.raises(ValueError, match=r"Another acquisition is running|has this microscope already"):
            start_mda(core, TCZ, tmp_path / "b.ome.zarr")
        assert acquisition.is_running
        while not seen.frames:
            pass
        acquisition.cancel()
        check(acquisition.join().path, seen)
    assert [path.name for path in tmp_path.iterdir()] == ["a.ome.zarr"]
