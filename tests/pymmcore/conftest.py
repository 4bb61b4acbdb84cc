"""A Micro-Manager core with its demo configuration, as a microscope would have one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pymmcore_plus import CMMCorePlus, find_micromanager
from pymmcore_plus.mda import MDAEngine

from tests.pymmcore.acquisition import SHAPE, shut_down


@pytest.fixture(scope="session")
def microscope() -> Iterator[CMMCorePlus]:
    if find_micromanager() is None:
        pytest.skip("Micro-Manager's device adapters are not installed")
    core = CMMCorePlus()
    core.loadSystemConfiguration()
    yield core
    shut_down(core)


@pytest.fixture
def core(microscope: CMMCorePlus) -> CMMCorePlus:
    """The camera makes small 16-bit images that differ; no test finds what another one changed."""
    core = microscope
    core.mda.set_engine(MDAEngine(core))
    core.setCameraDevice("Camera")
    core.clearROI()
    height, width = SHAPE
    for name, value in {"PixelType": "16bit", "Binning": "1", "OnCameraCCDXSize": width, "OnCameraCCDYSize": height,
                        "Mode": "Noise"}.items():  # fmt: skip
        core.setProperty("Camera", name, value)
    core.setProperty("XY", "Velocity", "200")
    core.setExposure(1.0)
    core.setXYPosition(0.0, 0.0)
    core.setZPosition(0.0)
    return core
