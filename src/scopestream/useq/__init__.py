"""useq-schema: what a `useq.MDASequence` comes to, as settings, and where the frame of each event belongs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    from useq import MDASequence
except ImportError as error:
    raise ImportError(f"scopestream.useq needs useq-schema ({error}): pip install 'scopestream[pymmcore]'") from error
from numpy.typing import DTypeLike

from scopestream.dimensions import Channel, Dimension, Position
from scopestream.settings import AcquisitionSettings
from scopestream.useq.channels import color_of, make_channels
from scopestream.useq.fields import plate_of
from scopestream.useq.layout import Field, Layout, layout_of, takes_image, with_field_of_view
from scopestream.useq.places import Place, Places, index_of
from scopestream.useq.stacks import Axis

# What stands for the channel of events that name none, beside others that do.
_NO_CHANNEL = ("", "current")


@dataclass(frozen=True)
class SequencePlan:
    """The settings of a sequence, and the place of each event: `stream.write(frame, index=plan.place(event))`."""

    settings: AcquisitionSettings
    place: Places


def settings_from(
    sequence: MDASequence,
    width: int,
    height: int,
    dtype: DTypeLike,
    pixel_size: float | None = None,
    *,
    path: str | Path,
    **settings: Any,
) -> AcquisitionSettings:
    """The settings of `sequence`; `plan_sequence` says in addition where its frames belong.

    width, height  of a frame, in pixels
    pixel_size     in micrometers; None or 0 when it is not known
    settings       further fields of `AcquisitionSettings`, such as codec, levels, on_exists
    Planes count from the lowest up: of stacks from above, write frames where `plan_sequence` says, do not append them.
    Warns (RuntimeWarning) when planes are not evenly spaced; the step is the mean then.
    Raises pydantic.ValidationError, a ValueError, as `AcquisitionSettings` does.
    """
    return plan_sequence(sequence, width, height, dtype, pixel_size, path=path, **settings).settings


def plan_sequence(
    sequence: MDASequence,
    width: int,
    height: int,
    dtype: DTypeLike,
    pixel_size: float | None = None,
    *,
    path: str | Path,
    **settings: Any,
) -> SequencePlan:
    """The settings of `sequence`, and where the frame of each event belongs. Arguments are those of `settings_from`.

    Grids that do not know the field of view get that of a frame. The sequence itself is not changed.
    """
    pixel_um = pixel_size or None
    view = (None, None) if pixel_um is None else (width * pixel_um, height * pixel_um)
    layout = layout_of(with_field_of_view(sequence, *view))
    return plan_layout(sequence, layout, width, height, dtype, pixel_um, path=path, **settings)


def plan_layout(
    sequence: MDASequence,
    layout: Layout,
    width: int,
    height: int,
    dtype: DTypeLike,
    pixel_um: float | None,
    *,
    path: str | Path,
    **settings: Any,
) -> SequencePlan:
    """`plan_sequence`, where the layout is known."""
    loop = dimensions_of(layout)
    _warn_of_uneven_planes(layout)
    planned = AcquisitionSettings(
        path=path,
        dtype=dtype,
        dimensions=[*loop, *frame_dimensions(width, height, pixel_um)],
        **{"plate": plate_of(sequence) if "p" in layout.axes else None, **settings},
    )
    return SequencePlan(planned, Places(layout))


def _warn_of_uneven_planes(layout: Layout) -> None:
    uneven = [one for one in layout.fields if one.stack.z is not None and not one.stack.z.is_even]
    if uneven and (z := uneven[0].stack.z) is not None:
        warnings.warn(
            f"The planes of the z plan are not evenly spaced, which the axes of OME-Zarr cannot say: z has the mean "
            f"step of {z.step:g} um. The frame log and the OME-XML have the true position of each frame.",
            RuntimeWarning,
            stacklevel=4,
        )


def frame_dimensions(width: int, height: int, pixel_um: float | None) -> list[Dimension]:
    """Y and x; without a unit when the size of a pixel is not known."""
    scale: dict[str, Any] = {"scale": pixel_um, "unit": "micrometer"} if pixel_um else {}
    return [Dimension(name="y", count=height, **scale), Dimension(name="x", count=width, **scale)]


def dimensions_of(layout: Layout) -> list[Dimension]:
    """The dimensions before the frame, in acquisition order."""
    makers = {"t": _time, "p": _positions, "c": _channels, "z": _planes}
    return [makers[axis](layout) for axis in layout.axes]


def _largest(layout: Layout, axis: str) -> int | None:
    counts = [one.stack.counts.get(axis, 1) for one in layout.fields]
    return None if None in counts else max((count or 1 for count in counts), default=1)


def _first(layout: Layout, axis: str) -> Axis:
    """Of the fields that have this axis, what the first one has; of those that know the step, if any does."""
    every = [one.stack.time if axis == "t" else one.stack.z for one in layout.fields]
    found = sorted((known for known in every if known is not None), key=lambda known: known.step is None)
    return found[0] if found else Axis(1)


def _step(axis: Axis, unit: str) -> dict[str, Any]:
    """Without a unit when the step is not known, such as with time points that follow as fast as they can."""
    return {"scale": axis.step, "unit": unit} if axis.step else {}


def _time(layout: Layout) -> Dimension:
    return Dimension(name="t", count=_largest(layout, "t"), **_step(_first(layout, "t"), "second"))


def _planes(layout: Layout) -> Dimension:
    z = _first(layout, "z")
    unit: dict[str, Any] = {"unit": "micrometer", **_step(z, "micrometer")}
    return Dimension(name="z", type="space", count=_largest(layout, "z"), origin=z.first or 0.0, **unit)


def _channel_keys(layout: Layout, field: Field) -> tuple[tuple[str, str], ...]:
    return field.stack.channels or ((_NO_CHANNEL,) if "c" in layout.axes else ())


def _channels(layout: Layout) -> Dimension:
    keys = max((_channel_keys(layout, field) for field in layout.fields), key=len, default=(_NO_CHANNEL,))
    return Dimension(name="c", type="channel", coords=make_channels(keys))


def _positions(layout: Layout) -> Dimension:
    shared = {axis: _largest(layout, axis) for axis in layout.axes if axis != "p"}
    steps = {"t": _first(layout, "t").step, "z": _first(layout, "z").step}
    common = _channels(layout).channels if "c" in shared else ()
    positions = [_position(layout, field, shared, steps, common) for field in layout.fields]
    return Dimension(name="p", type="position", coords=positions)


def _position(
    layout: Layout,
    field: Field,
    shared: Mapping[str, int | None],
    steps: Mapping[str, float | None],
    common: tuple[Channel, ...],
) -> Position:
    """A field, with what it has of its own."""
    row, column = field.well.names if field.well is not None else (None, None)
    stack = field.stack
    counts, scales = {}, {}
    for axis, most in shared.items():
        count = stack.counts.get(axis, 1)
        if axis != "c" and count is not None and count != most:
            counts[axis] = count
    for axis, own in (("t", stack.time), ("z", stack.z)):
        if own is not None and own.step and steps[axis] and own.step != steps[axis]:
            scales[axis] = own.step
    channels = make_channels(_channel_keys(layout, field)) if common else ()
    return Position(
        name=field.name, x=field.x, y=field.y, z=field.z, row=row, column=column,
        counts=counts or None, scales=scales or None, channels=None if channels == common else channels,
    )  # fmt: skip


__all__ = [
    "Layout",
    "Place",
    "Places",
    "SequencePlan",
    "color_of",
    "dimensions_of",
    "frame_dimensions",
    "index_of",
    "layout_of",
    "plan_layout",
    "plan_sequence",
    "settings_from",
    "takes_image",
    "with_field_of_view",
]
