"""Which dataset an acquisition becomes: from the sequence, the camera, and what the user gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from useq import MDAEvent, MDASequence

from scopestream.dimensions import Dimension
from scopestream.errors import PlanError
from scopestream.folder import settled
from scopestream.pymmcore.placing import CAMERA, ByIndex, BySequence, OneAfterAnother, Placing
from scopestream.registry import resolve
from scopestream.settings import AcquisitionSettings
from scopestream.stream import Stream, open_stream
from scopestream.useq import Layout, Place, Places, frame_dimensions, index_of, layout_of, plan_layout

Output = str | Path | AcquisitionSettings


class Frame(NamedTuple):
    """What the camera makes: pixels, and their size in micrometers where it is known."""

    width: int
    height: int
    dtype: str
    pixel_um: float | None


class Opening:
    """Gathers what must be known before a dataset can be opened, and opens it.

    is_known  whether all of it is
    cameras   numbers of the cameras, as events have them in their index
    """

    def __init__(self, output: Output, dimensions: Sequence[Dimension] | None, more: Mapping[str, Any]) -> None:
        if isinstance(output, AcquisitionSettings) and (dimensions is not None or more):
            raise TypeError("Settings are complete: give dimensions and further fields with a path only.")
        self._output = output
        self._declared = dimensions
        self._more = more
        self._sequence: MDASequence | None = None
        self._layout: Layout | None = None
        self._first: MDAEvent | None = None
        self._frame: Frame | None = None
        self._camera_names: tuple[str, ...] = ()
        self._names: list[str] | None = None  # where settings that were given have other dimensions than the sequence

    @property
    def cameras(self) -> tuple[int, ...]:
        return tuple(range(max(1, len(self._camera_names))))

    @property
    def _further(self) -> dict[str, Any]:
        """Fields of the settings: those that the user gave, and the cameras where there are several."""
        return {"cameras": self._camera_names, **self._more}

    @property
    def is_known(self) -> bool:
        if isinstance(self._output, AcquisitionSettings):
            return True
        is_shaped = self._sequence is not None or self._declared is not None or self._first is not None
        return self._frame is not None and is_shaped

    def prepare(self, sequence: MDASequence, summary: Mapping[str, Any] | None) -> None:
        """Before the first event. Raises PlanError for cameras that cannot be recorded, and as `settled` does."""
        if sequence.axis_order:  # that of a generator stands for events that nobody knows
            self._sequence = sequence
        info = next(iter((summary or {}).get("image_infos", ())), None)
        if info is not None and summary is not None:
            self._frame = _frame_of(info)
            self._camera_names = _camera_names(summary, info)
        # With what is there only real settings can be compared.
        resumes = self._more.get("on_exists") == "resume"
        if not (self.is_known or resumes or isinstance(self._output, AcquisitionSettings)):
            # Something in the way is better told now than after the first frame.
            settled(AcquisitionSettings(path=self._output, dtype="uint8", dimensions=_IMAGE, **self._placeless()))

    def look_at(self, event: MDAEvent, image: np.ndarray | None = None) -> None:
        """The first event, and its frame, tell what is not known by then."""
        if self._sequence is None and self._first is None:
            self._first = event
            if event.sequence is not None and event.sequence.axis_order and self._declared is None:
                self._sequence = event.sequence
        if self._frame is None and image is not None:
            height, width = image.shape[:2]
            self._frame = Frame(width, height, image.dtype.name, None)

    def open(self) -> tuple[Stream, Placing]:
        """The stream, and where its frames belong. Raises as `open_stream` does."""
        settings, placing = self._planned()
        if isinstance(placing, BySequence) and placing.goes_back:
            _check_any_order(settings)
        return open_stream(settings), placing

    def index(self, place: Place, camera: int) -> dict[str, int | str]:
        """As `Stream.write` takes it."""
        if self._names is not None:
            place = {name: place.get(name, 0) for name in self._names}
        return {**place, "camera": self._camera_names[camera]} if self._camera_names else dict(place)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _planned(self) -> tuple[AcquisitionSettings, Placing]:
        if isinstance(self._output, AcquisitionSettings):
            return self._as_given(self._output)
        assert self._frame is not None, "is_known says so"
        width, height, dtype, pixel_um = self._frame
        if self._sequence is not None and self._declared is None:
            layout = layout_of(self._sequence)
            plan = plan_layout(
                self._sequence, layout, width, height, dtype, pixel_um, path=self._output, **self._further
            )
            return plan.settings, BySequence(plan.place)
        loop, placing = self._unplanned()
        settings = AcquisitionSettings(
            path=self._output,
            dtype=dtype,
            dimensions=[*loop, *frame_dimensions(width, height, pixel_um)],
            **self._further,
        )
        return settings, placing

    def _as_given(self, settings: AcquisitionSettings) -> tuple[AcquisitionSettings, Placing]:
        frame, (height, width) = self._frame, settings.frame_shape
        if frame is not None and (frame.width, frame.height, frame.dtype) != (width, height, settings.dtype):
            raise PlanError(
                f"The camera makes frames of ({frame.height}, {frame.width}) {frame.dtype}, the settings say "
                f"({height}, {width}) {settings.dtype}. Nothing was written. Change the settings, or the camera."
            )
        cameras = tuple(camera.name for camera in settings.cameras)
        if len(cameras) == 1 and not self._camera_names:
            self._camera_names = cameras
        if set(cameras) != set(self._camera_names):
            raise PlanError(
                f"The settings have {_words('camera', cameras)}, the microscope has "
                f"{_words('camera', self._camera_names)}. Nothing was written."
            )
        names = [dimension.name for dimension in settings.dimensions[:-2]]
        if self._sequence is None:
            return settings, ByIndex(names)
        layout = layout_of(self._sequence)
        _check_room(layout, settings)
        if set(names) != set(layout.axes):
            self._names = names
        return settings, BySequence(Places(layout))

    def _unplanned(self) -> tuple[Sequence[Dimension], Placing]:
        """Dimensions of events that no sequence announced."""
        if self._declared is not None:
            return self._declared, ByIndex([dimension.name for dimension in self._declared])
        growing = [Dimension(name="t", count=None)]
        names = set(index_of(self._first)) - {CAMERA} if self._first is not None else set()
        return growing, ByIndex(["t"]) if names == {"t"} else OneAfterAnother("t")

    def _placeless(self) -> dict[str, Any]:
        return {name: self._more[name] for name in ("on_exists",) if name in self._more}


_IMAGE = [Dimension(name="y", count=1), Dimension(name="x", count=1)]


def _words(what: str, names: Sequence[str]) -> str:
    return f"the {what}s {', '.join(map(repr, names))}" if names else f"one {what}, without a name"


def _frame_of(info: Mapping[str, Any]) -> Frame:
    shape = tuple(info.get("plane_shape") or (info["height"], info["width"]))
    if len(shape) != 2:
        raise PlanError(
            f"Camera {info.get('camera_label')!r} makes colour images of {shape}, and frames have one value for each "
            f"pixel. Nothing was written. Set the camera to a monochrome pixel type."
        )
    width, height, dtype = int(info["width"]), int(info["height"]), str(info["dtype"])
    if not width or not height or dtype in ("uint0", "unknown"):
        raise PlanError(
            f"Camera {info.get('camera_label')!r} does not say what its images are like ({height}, {width}, {dtype}). "
            f"Nothing was written. Cameras that work together must have the same size and pixel type."
        )
    return Frame(width, height, dtype, info.get("pixel_size_um") or None)


def _camera_names(summary: Mapping[str, Any], info: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the cameras that work together; empty when there is one."""
    n_cameras = int(info.get("num_camera_adapter_channels", 1))
    if n_cameras < 2:
        return ()
    device: Mapping[str, Any] = next(
        (one for one in summary.get("devices", ()) if one.get("label") == info.get("camera_label")), {}
    )
    labels = {one["name"]: one.get("value") for one in device.get("properties", ())}
    chosen = [labels.get(f"Physical Camera {number}") for number in range(1, len(labels) + 1)]
    names = [str(label) for label in chosen if label and label != "Undefined"]
    if len(names) != n_cameras or len(set(names)) != n_cameras:
        names = [f"camera {number}" for number in range(n_cameras)]
    return tuple(names)


def _check_any_order(settings: AcquisitionSettings) -> None:
    backend = resolve(settled(settings)).backend
    if not backend.capabilities.any_order:
        raise PlanError(
            f"The planes are taken from above, and stored from the lowest up, but backend {backend.name!r} stores "
            f"frames in the order in which they come only. Nothing was written. Use another backend, or go_up=True."
        )


def _check_room(layout: Layout, settings: AcquisitionSettings) -> None:
    counts = {dimension.name: dimension.count for dimension in settings.dimensions[:-2]}
    problems = []
    for axis in layout.axes:
        needed: list[int | None] = [len(layout.fields)]
        if axis != "p":
            needed = [one.stack.counts.get(axis, 1) for one in layout.fields]
        known = [count for count in needed if count is not None]
        most = None if len(known) < len(needed) else max(known, default=1)
        if axis not in counts:
            if most != 1:
                problems.append(f"there is no dimension {axis!r}, of which the sequence has {most or 'any number of'}")
        elif (room := counts[axis]) is not None and (most is None or most > room):
            problems.append(f"dimension {axis!r} has {room} items, the sequence {most or 'any number'}")
    if problems:
        raise PlanError(f"The sequence does not fit the settings: {'; '.join(problems)}. Nothing was written.")
