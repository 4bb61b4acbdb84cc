"""Settings -> `LayoutPlan`, for a backend with certain needs. Pure: nothing is read, written or probed."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import ceil, prod
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from scopestream.axes import Axis
from scopestream.dimensions import Dimension, Position
from scopestream.errors import PlanError
from scopestream.plan import (
    ArrayPlan,
    ImagePlan,
    LayoutKind,
    LayoutPlan,
    WriteUnit,
    block_bytes,
    max_threads,
    n_open_blocks,
    pair_bytes,
    series_dimensions,
    z_steps_of,
)
from scopestream.settings import AcquisitionSettings, View, own_sizes
from scopestream.tiling import SHARD_BYTES, chunk_shape, round_up, shard_shape

MAX_ARRAYS = 1_000_000  # levels of all images; each has a folder, and costs memory before the first frame
MAX_CHUNKS = 2**20  # of one frame or one file; readers fetch an index of 16 bytes for each chunk of a file
_STRIPS_BYTES = 2**23  # of rows that a thread halves at once, with their sums
COARSEST_PIXELS = 256  # levels="auto" halves until both sides of a frame are at most this


class StorageNeeds(Protocol):
    """What a plan must know of a backend: the part of `contract.Backend` that has to do with memory."""

    def unit(self, array: ArrayPlan) -> WriteUnit: ...
    def held_bytes(self, array: ArrayPlan, n_arrays: int, room: int) -> int: ...


def make_plan(settings: AcquisitionSettings, needs: StorageNeeds) -> LayoutPlan:
    """The layout of `settings` for a backend with these needs.

    Only `shards="auto"` depends on the backend: where whole shards are held in memory they are made small enough for
    `memory_limit`. Raises PlanError for layouts that no file system or reader would bear.
    """
    shapes = [_Shapes(settings, view) for view in settings.views]
    groups = _image_groups(settings)
    n_arrays = sum(shapes[group.view].n_levels for group in groups)
    if n_arrays > MAX_ARRAYS:
        raise PlanError(
            f"{len(groups)} images with {max(one.n_levels for one in shapes)} levels are {n_arrays} arrays, at most "
            f"{MAX_ARRAYS} are possible. Nothing was written. Use fewer levels, or several acquisitions."
        )
    memory = _memory(settings, needs, shapes, groups)
    max_bytes = SHARD_BYTES
    while settings.shards == "auto" and memory.peak > settings.memory_limit and max_bytes > 1:
        max_bytes //= 2
        for one in shapes:
            one.cut_shards(max_bytes)
        memory = _memory(settings, needs, shapes, groups)
    for one in shapes:
        one.refuse_too_many_chunks()
    windows = _Windows()
    images: list[ImagePlan] = []
    arrays: list[ArrayPlan] = []
    alike: dict[object, tuple[Sequence[ArrayPlan], tuple[Axis, ...], Sequence[int]]] = {}
    for number, group in enumerate(groups):
        key = group.view, _own_of(group.position)
        found = alike.get(key)
        if found is None:
            axes = shapes[group.view].axes_at(group.position)
            found = alike[key] = shapes[group.view].levels(axes), axes, windows.of(group.view, axes)
        levels, axes, shown = found
        first = len(arrays)
        prefix = f"{group.path}/" if group.path else ""
        arrays += [replace(array, path=prefix + array.path, image=number) for array in levels]
        images.append(replace(group, arrays=tuple(range(first, len(arrays))), axes=axes, windows=shown))
    finest = tuple(one.levels(one.axes)[0] for one in shapes)
    return LayoutPlan(
        settings=settings, kind=_kind(settings), images=tuple(images), arrays=tuple(arrays), finest=finest,
        n_windows=windows.n, unit=needs.unit(finest[0]), held_bytes=memory.held, backend_bytes=memory.backend,
        pair_bytes=memory.pairs, waiting_bytes=memory.waiting, peak_bytes=memory.peak,
    )  # fmt: skip


def _own_of(position: Position | None) -> object:
    """What the image of a position has of its own; images for which it is equal are alike."""
    if position is None or position.is_like_others:
        return None
    counts, scales = (tuple(sorted((own or {}).items())) for own in (position.counts, position.scales))
    return counts, scales, position.channels


class _Shapes:
    """Shapes of the arrays of one camera.

    axes      in storage order, with all items of every dimension
    n_levels  of each image
    """

    def __init__(self, settings: AcquisitionSettings, view: View) -> None:
        self._settings, self._view = settings, view
        self._parted = settings.parted_axes
        self._halved_z = settings.halved_z
        self.axes = self.axes_at(None)
        self._names = tuple(axis.dimension.name for axis in self.axes)
        self._dtype = np.dtype(view.dtype)
        self.n_levels = _n_levels(settings, view.shape)
        self._arrival, self._nested = _arrival(settings.loop, self.axes)
        own_chunks, own_shards = (view.camera.chunks, view.camera.shards) if view.camera else (None, None)
        self._wanted_chunks = own_sizes(own_chunks, settings.chunks)
        self._wanted_shards = own_sizes(own_shards, settings.shards)
        self._chunks = chunk_shape(
            self._names, self._counts, self._dtype.itemsize, self._wanted_chunks, self._wanted_shards
        )
        self._shards: tuple[int, ...] | None = None
        if settings.shards is not None:
            self.cut_shards(self._wanted_shards)

    @property
    def _counts(self) -> tuple[int | None, ...]:
        return tuple(axis.dimension.count for axis in self.axes)

    def cut_shards(self, wanted: int | str | Mapping[str, int]) -> None:
        """Shards of that many bytes, or as `tiling.shard_shape` has it."""
        itemsize = self._dtype.itemsize
        self._shards = shard_shape(self._names, self._counts, self._chunks, self._arrival, itemsize, wanted)

    def axes_at(self, position: Position | None) -> tuple[Axis, ...]:
        """In storage order, as an image of that position has them."""
        before = [axis.at(position, None) for axis in self._parted[:-2]]
        frame = [axis.at(position, self._view.camera, side) for side, axis in enumerate(self._parted[-2:])]
        return (*before, *frame)

    def levels(self, axes: tuple[Axis, ...]) -> list[ArrayPlan]:
        """The arrays of an image with these axes. Chunks and shards are the same in all images of the camera."""
        return [self._level(axes, level) for level in range(self.n_levels)]

    def _level(self, axes: tuple[Axis, ...], level: int) -> ArrayPlan:
        dimensions = [axis.dimension for axis in axes]
        halved = {len(axes) - 2, len(axes) - 1, self._halved_z}
        chunks, shards = _at_level(self._chunks, self._shards, _halved(self._counts, level, halved), halved)
        return ArrayPlan(
            path=str(level), image=0, level=level, axes=self._names, types=tuple(axis.type for axis in dimensions),
            shape=_halved([axis.count for axis in dimensions], level, halved), growable=dimensions[0].count is None,
            chunks=chunks, shards=shards, dtype=self._dtype, codec=self._settings.codec, arrival=self._arrival,
            nested=self._nested,
        )  # fmt: skip

    def refuse_too_many_chunks(self) -> None:
        """Raise PlanError."""
        sizes = zip(self.axes[-2:], self._chunks[-2:], strict=True)
        per_frame = prod(ceil((axis.dimension.count or 1) / size) for axis, size in sizes)
        per_shard = prod(s // c for s, c in zip(self._shards or self._chunks, self._chunks, strict=True))
        if max(per_frame, per_shard) > MAX_CHUNKS:
            raise PlanError(
                f"There are {per_frame} chunks in a frame and {per_shard} in a shard, at most {MAX_CHUNKS} are "
                f"possible. Nothing was written. Make chunks larger or shards smaller."
            )


def _halved(counts: Sequence[int | None], level: int, halved: Container[int | None]) -> tuple[int, ...]:
    return tuple(ceil((n or 0) / 2**level) if axis in halved else n or 0 for axis, n in enumerate(counts))


def _arrival(loop: Sequence[Dimension], axes: Sequence[Axis]) -> tuple[tuple[int, ...], bool]:
    """The axes before the frame in order of arrival, and whether frames come nested that way."""
    places = {dimension.name: number for number, dimension in enumerate(loop)}
    parts = [[places[part.name] for part in axis.parts] for axis in axes[:-2]]
    arrival = sorted(range(len(parts)), key=lambda axis: min(parts[axis]))
    run_through = [place for axis in arrival for place in parts[axis]]
    return tuple(arrival), run_through == sorted(run_through)


class _Windows:
    """Display windows: one for each channel of each camera, wherever it is."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, object], int] = {}

    def of(self, view: int, axes: Sequence[Axis]) -> Sequence[int]:
        """Those of the channels of an image."""
        axis = next((axis.dimension for axis in axes if axis.dimension.type == "channel"), None)
        keys: Sequence[object] = (0,) if axis is None else axis.item_names or range(axis.count or 0)
        return tuple([self._numbers.setdefault((view, key), len(self._numbers)) for key in keys])

    @property
    def n(self) -> int:
        return len(self._numbers)


class _Memory(NamedTuple):
    """Bytes: of blocks, of what the core holds besides, pairs of planes included, and of the backend.

    waiting  what each complete block may hold besides
    """

    blocks: int
    core: int
    pairs: int
    waiting: int
    backend: int

    @property
    def held(self) -> int:
        return self.core + self.backend

    @property
    def peak(self) -> int:
        return self.blocks + self.held


def _memory(
    settings: AcquisitionSettings, needs: StorageNeeds, shapes: Sequence[_Shapes], groups: Sequence[ImagePlan]
) -> _Memory:
    """Of all cameras, each of which may be ahead of the others. All blocks have buffers as large as the largest."""
    levels = [one.levels(one.axes) for one in shapes]
    units = {needs.unit(one[0]) for one in levels}
    if len(units) > 1:
        raise PlanError(
            f"The backend stores {' and '.join(sorted(units))} of different cameras, which one stream cannot. Nothing "
            f"was written. Give all cameras the same dtype and chunks, or choose another backend."
        )
    (unit,) = units
    finest = [one[0] for one in levels]
    n_threads = max(max_threads(array, unit) for array in finest)
    loop = settings.loop if len(finest) == 1 else settings.loop[:-1]
    core = pairs = waiting = n_open = 0
    for one, (array, *coarser) in zip(shapes, levels, strict=True):
        steps = z_steps_of(settings, [array, *coarser], unit)
        n_open += n_open_blocks(loop, one.axes, array, unit)
        pairs += pair_bytes(loop, one.axes, array, unit, steps)
        if any(step.coarse_bytes for step in steps):
            waiting = max(waiting, sum(step.waiting_bytes for step in steps))
        core += _thread_bytes(settings, array, unit, has_levels=bool(coarser)) * n_threads
    if all(size == 1 for array in finest for size in array.block_extent(unit)):
        n_open = 1  # the one that comes, of whatever camera
    core += pairs
    blocks = (n_open + 1) * max(block_bytes(array, unit) for array in finest)
    room = max(0, int(settings.memory_limit) - blocks - core) // len(finest)
    n_arrays = [0] * len(finest)
    for group in groups:
        n_arrays[group.view] += shapes[group.view].n_levels
    backend = sum(needs.held_bytes(array, n, room) for array, n in zip(finest, n_arrays, strict=True))
    return _Memory(blocks, core, pairs, waiting, backend)


def _thread_bytes(settings: AcquisitionSettings, array: ArrayPlan, unit: WriteUnit, *, has_levels: bool) -> int:
    """What each thread holds of its own for the frames of a camera."""
    # The next levels of a block take a third of it, and putting tiles together up to one frame and a half, or those of
    # two planes that become one.
    frames = 2 if settings.halved_z is None else 4
    halved = block_bytes(array, unit) // 3
    pyramid = halved + frames * array.frame_bytes + _STRIPS_BYTES if has_levels else 0
    # A frame that was not copied on arrival is cut by the thread that stores it.
    is_cut_late = unit is WriteUnit.TILED_FRAME and array.tile != array.frame_shape
    return pyramid + (block_bytes(array, unit) if is_cut_late else 0)


def _kind(settings: AcquisitionSettings) -> LayoutKind:
    if settings.plate is not None:
        return "plate"
    return "bioformats2raw" if series_dimensions(settings) else "image"


def _n_levels(settings: AcquisitionSettings, frame_shape: tuple[int, int]) -> int:
    if settings.levels != "auto":
        return settings.levels
    levels, side = 1, max(frame_shape)
    while side > COARSEST_PIXELS:
        levels, side = levels + 1, ceil(side / 2)
    return levels


def _at_level(
    chunks: tuple[int, ...], shards: tuple[int, ...] | None, shape: tuple[int, ...], halved: Container[int | None]
) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Chunks and shards of a coarser level: the same frames in every file, neither larger than the array needs."""
    level_chunks = tuple(
        min(chunk, size) if axis in halved else chunk
        for axis, (chunk, size) in enumerate(zip(chunks, shape, strict=True))
    )
    if shards is None:
        return level_chunks, None
    return level_chunks, tuple(
        min(round_up(shard, step), round_up(size, step)) if axis in halved else shard
        for axis, (shard, size, step) in enumerate(zip(shards, shape, level_chunks, strict=True))
    )


def _image_groups(settings: AcquisitionSettings) -> list[ImagePlan]:
    """The images in series order, without their arrays: positions first, then what else tells images apart."""
    stem = Path(settings.path).name.removesuffix(".zarr").removesuffix(".ome") or "image"
    if _kind(settings) == "image":
        return [ImagePlan(path="", name=stem, position=None, labels=(), arrays=())]
    apart = series_dimensions(settings)
    positions: tuple[Position | None, ...] = (None,)
    for dimension in apart:
        positions = dimension.positions or positions
    others = [dimension for dimension in apart if dimension.type != "position"]
    items = [dimension.item_names or tuple(map(str, range(dimension.count or 0))) for dimension in others]
    views = {view.camera.name: number for number, view in enumerate(settings.views) if view.camera is not None}
    groups: list[ImagePlan] = []
    fields: dict[str, int] = {}
    for position, choice in product(positions, product(*items)):
        labels = tuple((dimension.name, item) for dimension, item in zip(others, choice, strict=True))
        parts = ([position.name] if position else []) + [f"{name}={item}" for name, item in labels]
        path, field = str(len(groups)), 0
        if settings.plate is not None and position is not None:
            well = f"{position.row}/{position.column}"
            field = fields[well] = fields.get(well, -1) + 1
            path = f"{well}/{field}"
        view = views[choice[-1]] if settings.cameras and settings.camera_axis == "images" else 0
        groups.append(
            ImagePlan(
                path=path, name=" ".join(parts), position=position, labels=labels, arrays=(), field=field, view=view
            )
        )
    return groups
