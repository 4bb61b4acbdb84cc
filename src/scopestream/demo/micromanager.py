"""Micro-Manager's DemoCamera through pymmcore-plus: the same core, devices and engine as on a real microscope."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import ceil
from typing import Any

import numpy as np

from scopestream.errors import ScopestreamError
from scopestream.settings import AcquisitionSettings

# frame (Y, X), item numbers by dimension name, metadata of the frame
TakeFrame = Callable[[np.ndarray, Mapping[str, int], Mapping[str, Any]], None]

# Channel presets also set what the beads look like, so that channels differ.
_BEADS = {"DAPI": {"BeadSize": 10, "BeadDensity": 40}, "FITC": {"BeadSize": 3, "BeadDensity": 250}}
_EXPOSURE_MS = {"DAPI": 10.0, "FITC": 20.0}
_DRIFT_UM = (5.0, 2.0)  # of the stage along x and y between time points: what real ones do overnight
_HOW_TO = "Install it with  pip install 'scopestream[demo]'  or run  scopestream demo --camera synthetic"


class DemoError(ScopestreamError, RuntimeError):
    """The demo cannot run, or its camera did not do what it was asked to."""


class MicroManagerCamera:
    """A Micro-Manager core with its demo configuration, made ready for `settings`."""

    name = "Micro-Manager DemoCamera (pymmcore-plus)"

    def __init__(self, core: Any) -> None:
        self._core = core
        for name, value in {"PixelType": "16bit", "Mode": "Fluorescent Beads", "BeadBrightness": 8,
                            "BeadBlurRate": 1, "Photon Flux": 500}.items():  # fmt: skip
            core.setProperty("Camera", name, str(value))
        for channel, properties in _BEADS.items():
            for name, value in properties.items():
                core.defineConfig("Channel", channel, "Camera", name, str(value))
        core.setProperty("XY", "Velocity", "200")  # wells are 9 mm apart

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(Y, X) in pixels."""
        return int(self._core.getImageHeight()), int(self._core.getImageWidth())

    @property
    def pixel_um(self) -> float:
        """Size of a pixel in the sample."""
        return float(self._core.getPixelSizeUm()) or 1.0

    def record(self, settings: AcquisitionSettings, take: TakeFrame) -> None:
        """Run the acquisition; `take` is called with each frame as it arrives, and its first error ends the run."""
        mda = self._core.mda
        errors: list[Exception] = []

        def on_frame(frame: np.ndarray, event: Any, meta: Mapping[str, Any]) -> None:
            if errors:
                return
            try:
                take(frame, {str(name.value if hasattr(name, "value") else name): i for name, i in event.index.items()},
                     _frame_metadata(meta))  # fmt: skip
            except Exception as error:  # the runner would only log it
                errors.append(error)
                mda.cancel()

        mda.events.frameReady.connect(on_frame)
        try:
            mda.run(_events(settings))
        finally:
            mda.events.frameReady.disconnect(on_frame)
        if errors:
            raise errors[0]


@contextmanager
def micromanager_camera() -> Iterator[MicroManagerCamera]:
    """The camera, and the end of its core afterwards. Raises DemoError when something is not installed."""
    try:
        import useq  # noqa: F401  # needed later: better to know now
        from pymmcore_plus import CMMCorePlus, find_micromanager

        import pymmcore
    except ImportError as error:
        raise DemoError(f"The demo camera needs pymmcore-plus and useq-schema ({error}). {_HOW_TO}") from error
    if find_micromanager() is None:
        raise DemoError(f"Micro-Manager's device adapters are not installed. {_HOW_TO}")
    core = CMMCorePlus()
    try:
        try:
            core.loadSystemConfiguration()
            camera = MicroManagerCamera(core)
        except (OSError, RuntimeError) as error:
            raise DemoError(f"Micro-Manager's demo configuration does not load: {error}. {_HOW_TO}") from error
        yield camera
    finally:
        core.unloadAllDevices()
        # Stops the callback thread of the core, which otherwise may abort the interpreter at its end.
        pymmcore.CMMCore.registerCallback(core, None)


def interval_s(frames_per_time_point: int) -> float:
    """Time from one time point to the next that DemoCamera keeps up with."""
    return ceil(frames_per_time_point * 0.05 * 10) / 10


def _sequence(settings: AcquisitionSettings) -> Any:
    """The `useq.MDASequence` of these settings."""
    import useq

    dimensions = {dimension.name: dimension for dimension in settings.dimensions[:-2]}
    plan: dict[str, Any] = {"axis_order": "".join(dimensions)}
    if (t := dimensions.get("t")) is not None:
        plan["time_plan"] = {"interval": t.scale, "loops": t.count}
    if (p := dimensions.get("p")) is not None:
        plan["stage_positions"] = [{"name": at.name, "x": at.x, "y": at.y, "z": at.z} for at in p.positions]
    else:
        plan["stage_positions"] = []
    if (c := dimensions.get("c")) is not None:
        plan["channels"] = [{"config": one.name, "exposure": _EXPOSURE_MS.get(one.name)} for one in c.channels]
    if (z := dimensions.get("z")) is not None:
        # Upwards from the stage position where there is one.
        steps = [z.scale * number for number in range(z.count or 0)]
        plan["z_plan"] = {"relative": steps} if p is not None else {"absolute": [z.origin + step for step in steps]}
    return useq.MDASequence(**plan)


def _events(settings: AcquisitionSettings) -> list[Any]:
    """The events of the sequence, on a stage that drifts a little with time."""
    events = []
    for event in _sequence(settings):
        t = event.index.get("t", 0)
        x, y = ((at or 0.0) + step * t for at, step in zip((event.x_pos, event.y_pos), _DRIFT_UM, strict=True))
        events.append(event.model_copy(update={"x_pos": x, "y_pos": y}))
    return events


def _frame_metadata(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What the OME-XML has a place for, in seconds and micrometers, and which camera it was."""
    metadata: dict[str, Any] = {
        "delta_t": meta["runner_time_ms"] / 1000,
        "exposure_time": meta["exposure_ms"] / 1000,
        "camera": meta.get("camera_device"),
    }
    position = meta.get("position") or {}
    for axis in "xyz":
        if position.get(axis) is not None:
            metadata[f"position_{axis}"] = float(position[axis]) + 0.0  # + 0.0: the demo stage says -0.0
    return metadata
