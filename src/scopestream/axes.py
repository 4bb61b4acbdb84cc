"""Which dimensions become axes of the arrays, and which tell images apart. Pure: nothing but dimensions and names."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Literal, NamedTuple

from scopestream.cameras import CAMERA, Camera
from scopestream.dimensions import Channel, Dimension, Position, folded

CameraAxis = Literal["images", "channels"]
MAX_AXES = 5  # OME-Zarr 0.5, "multiscales" metadata: length of axes between 2 and 5
_RANK = {"time": 0, "channel": 1, "other": 1, "space": 2}
_ROOM = {0: 1, 1: 1, 2: 3}


class Axis(NamedTuple):
    """An axis of arrays.

    dimension  as the arrays have it: its name, type, count, coords, scale, unit and origin
    parts      the dimensions of the acquisition that it is made of, slowest first; several where they are merged
    """

    dimension: Dimension
    parts: tuple[Dimension, ...]

    @property
    def is_merged(self) -> bool:
        return len(self.parts) > 1

    def at(self, position: Position | None, camera: Camera | None, side: int | None = None) -> Axis:
        """The same in an image of that position and camera.

        side  0 for y and 1 for x, whose size and scale are the camera's
        """
        parts = self.parts
        if position is not None and not position.is_like_others:
            parts = tuple([part_at(part, position) for part in parts])
        if camera is not None and side is not None:
            (frame,) = parts
            count = frame.count if camera.shape is None else camera.shape[side]
            scale = frame.scale if camera.scale is None else camera.scale[side]
            parts = (frame.model_copy(update={"count": count, "scale": scale}),)
        if parts == self.parts:
            return self
        return Axis(parts[0] if self.dimension is self.parts[0] else _merged(parts, self.dimension.name), parts)


def part_at(dimension: Dimension, position: Position) -> Dimension:
    """A dimension as that position has it: with its own count, scale and channels."""
    update: dict[str, object] = {}
    if position.channels is not None and dimension.type == "channel":
        update = {"coords": position.channels, "count": len(position.channels)}
    elif (count := (position.counts or {}).get(dimension.name)) is not None:
        update = {"count": count, "coords": None if dimension.coords is None else dimension.coords[:count]}
    if (scale := (position.scales or {}).get(dimension.name)) is not None:
        update["scale"] = scale
    return dimension.model_copy(update=update) if update else dimension


def loop_of(dimensions: tuple[Dimension, ...], cameras: Sequence[Camera]) -> tuple[Dimension, ...]:
    """What numbers of frames run through: the dimensions before the frame, and then the cameras."""
    if not cameras:
        return dimensions[:-2]
    names = [camera.name for camera in cameras]
    return (*dimensions[:-2], Dimension(name=CAMERA, type="other", coords=names))


def axes_of(
    dimensions: tuple[Dimension, ...],
    cameras: Sequence[Camera] = (),
    camera_axis: CameraAxis = "images",
    merge: Sequence[str] = (),
) -> tuple[Axis, ...]:
    """The axes of the arrays, in acquisition order; all other dimensions tell images apart.

    OME-Zarr 0.5 allows one time axis, one channel (or custom) axis and two or three space axes, five in all. Of a
    kind that is given too often the fastest stay axes, and channels go before custom dimensions. Merged dimensions are
    the channel axis.
    """
    loop = loop_of(dimensions, cameras)
    by_name = {dimension.name: dimension for dimension in loop}
    merged = _merged_names(loop, cameras, camera_axis, merge)
    taken = {CAMERA, *merged} if cameras else set(merged)
    kept = _kept([*loop, *dimensions[-2:]], taken, has_channels=bool(merged))
    axes = []
    for dimension in (*loop, *dimensions[-2:]):
        if dimension.name in kept:
            axes.append(Axis(dimension, (dimension,)))
        elif merged and dimension.name in merged:  # where the slowest of them is
            parts = tuple([by_name[name] for name in merged])
            axes.append(Axis(_merged(parts, _merged_name(parts, dimensions)), parts))
            merged = ()
    return tuple(axes)


def _kept(dimensions: Sequence[Dimension], taken: set[str], *, has_channels: bool) -> set[str]:
    """Names of those that become axes by themselves; not of those that are taken, and may be the channels."""
    room = {**_ROOM, 1: 0 if has_channels else _ROOM[1]}
    kept: set[str] = set()
    # Fastest first, but every channel before any custom dimension, which would take its place.
    for _, dimension in sorted(enumerate(dimensions), key=lambda item: (item[1].type == "other", -item[0])):
        rank = _RANK.get(dimension.type)
        if rank is not None and room[rank] > 0 and dimension.name not in taken:
            room[rank] -= 1
            kept.add(dimension.name)
    return kept


def _merged_names(
    loop: Sequence[Dimension], cameras: Sequence[Camera], camera_axis: CameraAxis, merge: Sequence[str]
) -> tuple[str, ...]:
    """The dimensions that are the channel axis together, slowest first."""
    if not cameras or camera_axis == "images":
        return tuple(merge)
    channels = [dimension.name for dimension in loop if dimension.type == "channel"][-1:]
    return (CAMERA, *(merge or channels))


def _merged_name(parts: Sequence[Dimension], dimensions: Sequence[Dimension]) -> str:
    """That of the channels among them; otherwise "c", as readers know it, unless something else has that name."""
    channels = [part.name for part in parts if part.type == "channel"]
    if channels:
        return channels[-1]
    return "c" if "c" not in {folded(dimension.name) for dimension in dimensions} else parts[-1].name


def _merged(parts: Sequence[Dimension], name: str) -> Dimension:
    """The channels that all combinations of the items of some dimensions are."""
    channels = []
    for combination in product(*map(_items, parts)):
        known = [channel for _, channel in combination if channel is not None]
        label = " ".join(text for text, _ in combination)
        channels.append(known[-1].model_copy(update={"name": label}) if known else Channel.model_construct(name=label))
    return Dimension(name=name, type="channel", coords=channels)


def _items(part: Dimension) -> list[tuple[str, Channel | None]]:
    if part.channels:
        return [(channel.name, channel) for channel in part.channels]
    if part.name == CAMERA:
        return [(name, None) for name in part.item_names]
    return [(f"{part.name}={item}", None) for item in part.item_names or map(str, range(part.count or 0))]


def ome_order(axes: Sequence[Axis]) -> tuple[str, ...]:
    """Names of the axes as OME-Zarr wants them."""
    return tuple(axis.dimension.name for axis in sorted(axes, key=rank))


def rank(axis: Axis) -> int:
    """Where axes of its type belong: time, then channels, then space."""
    return _RANK[axis.dimension.type]
