"""Several cameras through the Multi Camera utility: each has images of its own, or they are channels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import useq
from pymmcore_plus import CMMCorePlus
from pymmcore_plus.mda import MDAEngine
from useq import MDAEvent

from scopestream import PlanError, read_frames
from scopestream.useq import settings_from
from tests.pymmcore.acquisition import SHAPE, acquire, arrays_of, check, left_out
from tests.pymmcore.kinds import CHANNELS, PLANES, POSITIONS, sequence
from tests.pymmcore.test_run import Unlucky

PLAN = sequence(time_plan={"interval": 0, "loops": 3}, z_plan=PLANES)


@pytest.fixture
def two_cameras(core: CMMCorePlus) -> Iterator[CMMCorePlus]:
    height, width = SHAPE
    core.loadDevice("Right", "DemoCamera", "DCam")
    core.initializeDevice("Right")
    for name, value in {"PixelType": "16bit", "OnCameraCCDXSize": width, "OnCameraCCDYSize": height,
                        "Mode": "Noise"}.items():  # fmt: skip
        core.setProperty("Right", name, value)
    core.loadDevice("Both", "Utilities", "Multi Camera")
    core.initializeDevice("Both")
    core.setProperty("Both", "Physical Camera 1", "Camera")
    core.setProperty("Both", "Physical Camera 2", "Right")
    core.setCameraDevice("Both")
    core.setExposure(1.0)
    yield core
    core.setCameraDevice("Camera")
    core.unloadDevice("Both")
    core.unloadDevice("Right")


@pytest.mark.parametrize("triggered", [False, True], ids=["snaps", "triggered"])
def test_each_camera_has_images_of_its_own(two_cameras: CMMCorePlus, tmp_path: Path, triggered: bool) -> None:
    assert isinstance(two_cameras.mda.engine, MDAEngine)
    two_cameras.mda.engine.use_hardware_sequencing = triggered
    sink, seen = acquire(two_cameras, PLAN, tmp_path / "cells.ome.zarr")
    places = check(sink.path, seen)
    assert len(seen) == 2 * 18
    assert all(dict(key)["cam"] == place["camera"] for key, place in places.items())
    assert [camera.name for camera in sink.settings.cameras] == ["Camera", "Right"]
    assert {image: pixels.shape[:3] for image, pixels in arrays_of(sink.path).items()} == {
        "0": (3, 2, 3),
        "1": (3, 2, 3),
    }


def test_cameras_may_be_channels(two_cameras: CMMCorePlus, tmp_path: Path) -> None:
    sink, seen = acquire(two_cameras, PLAN, tmp_path / "cells.ome.zarr", camera_axis="channels")
    assert {image: pixels.shape[:3] for image, pixels in arrays_of(sink.path).items()} == {"": (3, 4, 3)}
    assert len(seen) == 36
    assert len([record for record in read_frames(sink.path) if record["status"] == "written"]) == 36


def test_cameras_at_each_position(two_cameras: CMMCorePlus, tmp_path: Path) -> None:
    sink, seen = acquire(two_cameras, sequence(stage_positions=POSITIONS), tmp_path / "cells.ome.zarr")
    check(sink.path, seen)
    assert len(arrays_of(sink.path)) == 4


def test_what_is_skipped_is_skipped_by_both(two_cameras: CMMCorePlus, tmp_path: Path) -> None:
    two_cameras.mda.set_engine(Unlucky(two_cameras, use_hardware_sequencing=False))
    channels = [CHANNELS[0], {"config": CHANNELS[1], "do_stack": False}]
    sink, seen = acquire(
        two_cameras, sequence(channels=channels, time_plan={"interval": 0, "loops": 3}, z_plan=PLANES),
        tmp_path / "cells.ome.zarr",
    )  # fmt: skip
    check(sink.path, seen)
    reasons = left_out(sink.path)
    assert len(seen) + len(reasons) == 2 * 18
    assert {dict(key)["camera"] for key in reasons} == {0, 1}
    assert set(reasons.values()) == {
        "no focus",
        "the camera gave no image",
        "channel FITC is taken in 1 of 3 planes only",
    }


def test_a_generator_has_both_as_well(two_cameras: CMMCorePlus, tmp_path: Path) -> None:
    sink, seen = acquire(two_cameras, (MDAEvent(index={"t": t}) for t in range(4)), tmp_path / "cells.ome.zarr")
    check(sink.path, seen)
    assert {pixels.shape[0] for pixels in arrays_of(sink.path).values()} == {4}


def test_settings_without_the_cameras_are_refused(two_cameras: CMMCorePlus, tmp_path: Path) -> None:
    plan = useq.MDASequence(channels=["DAPI"])
    settings = settings_from(plan, SHAPE[1], SHAPE[0], "uint16", path=tmp_path / "cells.ome.zarr")
    with pytest.raises(PlanError, match="one camera, without a name, the microscope has the cameras 'Camera', 'Right'"):
        acquire(two_cameras, plan, settings)
    assert list(tmp_path.iterdir()) == []


def test_cameras_that_do_not_fit_together_are_refused(two_cameras: CMMCorePlus, tmp_path: Path) -> None:
    two_cameras.setProperty("Right", "PixelType", "8bit")
    with pytest.raises(PlanError, match="must have the same size and pixel type"):
        acquire(two_cameras, PLAN, tmp_path / "cells.ome.zarr")
    assert list(tmp_path.iterdir()) == []
