"""Which dimensions become axes of the arrays, and which tell images apart. Pure: nothing but dimensions and names."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Literal, NamedTuple

from scopestream.cameras import CAMERA, Camera
from scopestream.dimensions import MAX_CHANNELS, MAX_IMAGES, Channel, Dimension, Position, folded, repeated

CameraAxis = Literal["images", "channels"]
MAX_AXES = 5  # OME-Zarr 0.5, "multiscales" metadata: length of axes between 2 and 5
_RANK = {"time": 0, "channel": 1, "other": 1, "space": 2}
_ROOM = {0: 1, 1: 1, 2: 3}
_MAX_SHOWN = 10


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


# -- order on disk --------------------------------------------------------------------------------------------------


def ome_order(axes: Sequence[Axis]) -> tuple[str, ...]:
    """Names of the axes as OME-Zarr wants them."""
    return tuple(axis.dimension.name for axis in sorted(axes, key=_rank))


def _rank(axis: Axis) -> int:
    return _RANK[axis.dimension.type]


def problems_of_order(order: Sequence[str], axes: Sequence[Axis]) -> list[str]:
    """What is wrong with that order of the axes, which are in acquisition order."""
    by_name = {axis.dimension.name: axis for axis in axes}
    frame = [axis.dimension.name for axis in axes[-2:]]
    if sorted(order) != sorted(by_name):
        return [f"storage order {', '.join(order)} must name each of {', '.join(by_name)} once"]
    problems = []
    if list(order[-2:]) != frame:
        problems.append(f"storage order must end with {', '.join(frame)}, since frames are stored as they arrive")
    ranks = [_rank(by_name[name]) for name in order]
    if ranks != sorted(ranks):
        problems.append(
            f"storage order {', '.join(order)} is not one that OME-Zarr readers open: time comes first, then channel, "
            f'then space (OME-Zarr 0.5, "multiscales"). Frames may arrive in any order with storage_order="ome"'
        )
    first = axes[0].dimension
    if first.count is None and order[0] != first.name:
        problems.append(f"unbounded dimension {first.name!r} must be the first in storage order")
    return problems


# -- what cannot be -------------------------------------------------------------------------------------------------


def problems_of(
    dimensions: tuple[Dimension, ...], cameras: Sequence[Camera], camera_axis: CameraAxis, merge: Sequence[str]
) -> list[str]:
    """Everything that is wrong with them together."""
    problems = _problems_of_names(dimensions)
    if problems:
        return problems
    problems = _problems_of_cameras(dimensions, cameras) + _problems_of_merge(dimensions, cameras, camera_axis, merge)
    if problems:
        return problems
    axes = axes_of(dimensions, cameras, camera_axis, merge)
    inside = {part.name for axis in axes for part in axis.parts}
    apart = [dimension for dimension in loop_of(dimensions, cameras) if dimension.name not in inside]
    n_images = prod(dimension.count or 1 for dimension in apart)
    if n_images > MAX_IMAGES:
        names = ", ".join(dimension.name for dimension in apart)
        return [f"{names} make {n_images} images, at most {MAX_IMAGES} are possible"]
    return _problems_of_growth(dimensions, axes) + _problems_of_positions(dimensions, axes)


def _problems_of_names(dimensions: tuple[Dimension, ...]) -> list[str]:
    names = [dimension.name for dimension in dimensions]
    problems = [f"there are two dimensions {name!r}" for name in repeated(names)]
    if len(set(map(folded, names))) < len(set(names)):
        problems.append(f"dimension names differ only in case: {names}")
    if len(dimensions) < 2 or any(dimension.type != "space" for dimension in dimensions[-2:]):
        problems.append("the last two dimensions must be the spatial ones of a frame, such as y and x")
    for dimension in dimensions[1:]:
        if dimension.count is None:
            problems.append(f"dimension {dimension.name!r} is unbounded; only the first one may be")
    positions = [dimension.name for dimension in dimensions if dimension.type == "position"]
    if len(positions) > 1:
        problems.append(f"dimensions {' and '.join(map(repr, positions))} are both positions; list them in one")
    return problems


def _problems_of_cameras(dimensions: tuple[Dimension, ...], cameras: Sequence[Camera]) -> list[str]:
    problems = [f"there are two cameras {name!r}" for name in repeated(camera.name for camera in cameras)]
    same = [dimension.name for dimension in dimensions if folded(dimension.name) == CAMERA]
    if cameras and same:
        problems.append(f"dimension {same[0]!r} has the name that the dimension of the cameras gets; rename it")
    return problems


def _problems_of_merge(
    dimensions: tuple[Dimension, ...], cameras: Sequence[Camera], camera_axis: CameraAxis, merge: Sequence[str]
) -> list[str]:
    by_name = {dimension.name: dimension for dimension in dimensions[:-2]}
    problems = [f"merge names {name!r} twice" for name in repeated(merge)]
    for name in dict.fromkeys(merge):
        if name not in by_name:
            problems.append(
                f"merge names {name!r}, which is no dimension before the frame "
                f"(there are {', '.join(by_name) or 'none'})"
            )
        elif by_name[name].type == "position":
            problems.append(f"merge names the positions {name!r}, which are images of their own")
        elif by_name[name].count is None:
            problems.append(f"merge names {name!r}, which is unbounded; channels are counted")
    channels = [name for name, dimension in by_name.items() if dimension.type == "channel" and name not in merge]
    if merge and channels:
        problems.append(f"an image has one channel axis, so merge must name {channels[0]!r} as well")
    if camera_axis == "channels" and not cameras:
        problems.append('camera_axis is "channels", but there are no cameras')
    counts = [by_name[name].count or 1 for name in merge if name in by_name]
    n_channels = prod(counts) * (len(cameras) if camera_axis == "channels" else 1)
    if camera_axis == "channels" and not merge:
        n_channels *= next((d.count or 1 for d in reversed(dimensions) if d.type == "channel"), 1)
    if n_channels > MAX_CHANNELS:
        problems.append(f"{n_channels} channels are too many, at most {MAX_CHANNELS} are possible")
    return problems


def _problems_of_growth(dimensions: tuple[Dimension, ...], axes: Sequence[Axis]) -> list[str]:
    first = dimensions[0]
    if first.count is not None:
        return []
    if len(dimensions) == 2:
        return [f"dimension {first.name!r} of the frame is unbounded; the camera has a size"]
    if all(axis.dimension != first for axis in axes):
        return [f"unbounded dimension {first.name!r} would have to tell images apart, which needs a count"]
    order = ome_order(axes)
    if order[0] != first.name:
        return [
            f"unbounded dimension {first.name!r} would not be the first axis on disk, where OME-Zarr wants "
            f"{', '.join(order)}; give it a count"
        ]
    return []


def _problems_of_positions(dimensions: tuple[Dimension, ...], axes: Sequence[Axis]) -> list[str]:
    """What positions say of their own that the dimensions do not allow."""
    parts = {part.name: part for axis in axes[:-2] for part in axis.parts if part.name != CAMERA}
    known = {dimension.name: dimension for dimension in dimensions}
    merged = {part.name for axis in axes if axis.is_merged for part in axis.parts}
    frame = [dimension.name for dimension in dimensions[-2:]]
    channels = next((part for part in parts.values() if part.type == "channel"), None)
    problems = []
    for position in (position for dimension in dimensions for position in dimension.positions):
        if position.is_like_others:
            continue
        wrong = _problems_of_counts(position, parts, known, channels)
        for name in position.scales or {}:
            if name not in known:
                wrong.append(f"a scale along {name!r}, which is no dimension")
            elif name not in {*parts, *frame} or name in merged or known[name].type == "channel":
                wrong.append(f"a scale along {name!r}, which is no axis of its image that has one")
        if position.channels is not None:
            if channels is None:
                wrong.append("channels, but its image has no channel dimension")
            elif len(position.channels) > (channels.count or 0):
                wrong.append(
                    f"{len(position.channels)} channels, but dimension {channels.name!r} has only {channels.count}"
                )
        problems += [f"position {position.name!r} has {text}" for text in wrong]
    more = len(problems) - _MAX_SHOWN
    return problems[:_MAX_SHOWN] + ([f"and positions have {more} more problems of that kind"] if more > 0 else [])


def _problems_of_counts(
    position: Position, parts: dict[str, Dimension], known: dict[str, Dimension], channels: Dimension | None
) -> list[str]:
    wrong = []
    for name, count in (position.counts or {}).items():
        part = parts.get(name)
        if name not in known:
            wrong.append(f"a count of {name!r}, which is no dimension (there are {', '.join(known)})")
        elif part is None and name in list(known)[-2:]:
            wrong.append(f"a count of {name!r}, but frames of one camera have one size")
        elif part is None:
            wrong.append(f"a count of {name!r}, which tells images apart and is no axis of its image")
        elif part.count is None:
            wrong.append(f"a count of {name!r}, which is unbounded: there is nothing that it could be less than")
        elif count > part.count:
            wrong.append(f"{count} of {name!r}, but the dimension has only {part.count}")
        elif position.channels is not None and part is channels and count != len(position.channels):
            wrong.append(f"{count} of {name!r}, but {len(position.channels)} channels")
    return wrong
