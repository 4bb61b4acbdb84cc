"""What parts of the settings cannot be together: every problem as a sentence. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from scopestream.axes import Axis, CameraAxis, axes_of, loop_of, ome_order, rank
from scopestream.cameras import CAMERA, Camera
from scopestream.dimensions import MAX_CHANNELS, MAX_IMAGES, Dimension, Plate, Position, folded, repeated

_MAX_SHOWN = 10


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


def problems_of_order(order: Sequence[str], axes: Sequence[Axis]) -> list[str]:
    """What is wrong with that order of the axes, which are in acquisition order."""
    by_name = {axis.dimension.name: axis for axis in axes}
    frame = [axis.dimension.name for axis in axes[-2:]]
    if sorted(order) != sorted(by_name):
        return [f"storage order {', '.join(order)} must name each of {', '.join(by_name)} once"]
    problems = []
    if list(order[-2:]) != frame:
        problems.append(f"storage order must end with {', '.join(frame)}, since frames are stored as they arrive")
    ranks = [rank(by_name[name]) for name in order]
    if ranks != sorted(ranks):
        problems.append(
            f"storage order {', '.join(order)} is not one that OME-Zarr readers open: time comes first, then channel, "
            f'then space (OME-Zarr 0.5, "multiscales"). Frames may arrive in any order with storage_order="ome"'
        )
    first = axes[0].dimension
    if first.count is None and order[0] != first.name:
        problems.append(f"unbounded dimension {first.name!r} must be the first in storage order")
    return problems


def problems_of_wells(plate: Plate | None, dimensions: tuple[Dimension, ...]) -> list[str]:
    """What is wrong with the wells of positions."""
    positions = [position for dimension in dimensions for position in dimension.positions]
    if plate is None:
        in_wells = [position.name for position in positions if position.row is not None]
        return [f"positions {in_wells[:3]} name wells, but plate is not given"] if in_wells else []
    if not positions:
        return ["a plate needs a dimension of positions, each with its row and column"]
    problems = []
    ids = {run.id for run in plate.acquisitions}
    for position in positions:
        if position.row is None or position.column is None:
            problems.append(f"position {position.name!r} has no row and column")
        elif position.row not in plate.rows or position.column not in plate.columns:
            problems.append(f"well {position.row}{position.column} of position {position.name!r} is outside the plate")
        if position.acquisition is not None and position.acquisition not in ids:
            problems.append(
                f"position {position.name!r} is of acquisition {position.acquisition}, which the plate lacks"
            )
        elif position.acquisition is None and len(ids) > 1:
            problems.append(f"position {position.name!r} does not say which acquisition of the plate it is of")
    return problems


def counts_of(axes: Sequence[Axis], shapes: Sequence[tuple[int, int] | None]) -> dict[str, int | None]:
    """Sizes of the axes by name; of the frame the largest of these shapes, None where it is that of the settings."""
    counts = {axis.dimension.name: axis.dimension.count for axis in axes}
    for side, name in enumerate(list(counts)[-2:]):
        sides = [counts[name] or 1 if shape is None else shape[side] for shape in shapes]
        counts[name] = max(sides)
    return counts


def problems_of_chunks(counts: Mapping[str, int | None], chunks: object) -> list[str]:
    """What is wrong with chunks by name, for axes of these sizes."""
    problems = []
    for name, size in chunks.items() if isinstance(chunks, dict) else ():
        count = counts.get(name)
        if name not in counts:
            problems.append(f"there is no stored dimension {name!r} (there are {', '.join(counts)})")
        elif count is not None and size > count:
            problems.append(f"a chunk of {size} along {name!r} is larger than the dimension ({count})")
    return problems


def problems_of_shards(counts: Mapping[str, int | None], chunks: object, shards: object) -> list[str]:
    """What is wrong with shards by name, of these chunks."""
    problems = []
    for name, size in shards.items() if isinstance(shards, dict) else ():
        if name not in counts:
            problems.append(f"there is no stored dimension {name!r} (there are {', '.join(counts)})")
        elif isinstance(chunks, dict) and name in chunks and size % chunks[name]:
            problems.append(f"chunks of {chunks[name]} do not divide shards of {size} along {name!r}")
    return problems
