"""Settings -> `LayoutPlan`, for a backend with certain needs. Pure: nothing is read, written or probed."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from itertools import product
from math import ceil, prod
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

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
    pair_bytes,
    peak_bytes,
    z_steps_of,
)
from scopestream.settings import AcquisitionSettings
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
    axes = settings.axes
    names = tuple(axis.name for axis in axes)
    counts = tuple(axis.count for axis in axes)
    arrival = tuple(names.index(dimension.name) for dimension in settings.dimensions[:-2] if dimension.name in names)
    dtype = np.dtype(settings.dtype)
    n_levels = _n_levels(settings)
    groups = _image_groups(settings)
    if len(groups) * n_levels > MAX_ARRAYS:
        raise PlanError(
            f"{len(groups)} images with {n_levels} levels are {len(groups) * n_levels} arrays, at most {MAX_ARRAYS} "
            f"are possible. Nothing was written. Use fewer levels, or several acquisitions."
        )
    chunks = chunk_shape(names, counts, dtype.itemsize, settings.chunks, settings.shards)

    def geometry(shards: tuple[int, ...] | None, level: int) -> ArrayPlan:
        halved = {len(axes) - 2, len(axes) - 1, settings.halved_z}
        shape = tuple(ceil((n or 0) / 2**level) if axis in halved else n or 0 for axis, n in enumerate(counts))
        level_chunks, level_shards = _at_level(chunks, shards, shape, halved)
        return ArrayPlan(
            path=str(level), image=0, level=level, axes=names, types=tuple(axis.type for axis in axes), shape=shape,
            growable=axes[0].count is None, chunks=level_chunks, shards=level_shards, dtype=dtype,
            codec=settings.codec, arrival=arrival,
        )  # fmt: skip

    def levels_of(shards: tuple[int, ...] | None) -> list[ArrayPlan]:
        return [geometry(shards, level) for level in range(n_levels)]

    def memory_of(shards: tuple[int, ...] | None) -> _Memory:
        return _memory(settings, needs, levels_of(shards), len(groups))

    shards: tuple[int, ...] | None = None
    if settings.shards is not None:
        shards = shard_shape(names, counts, chunks, arrival, dtype.itemsize, settings.shards)
        max_bytes = SHARD_BYTES
        while settings.shards == "auto" and memory_of(shards).peak > settings.memory_limit and max_bytes > 1:
            max_bytes //= 2
            shards = shard_shape(names, counts, chunks, arrival, dtype.itemsize, max_bytes)
    _refuse_too_many_chunks(axes[-2:], chunks, shards)
    levels, memory = levels_of(shards), memory_of(shards)
    images: list[ImagePlan] = []
    arrays: list[ArrayPlan] = []
    for number, group in enumerate(groups):
        first = len(arrays)
        prefix = f"{group.path}/" if group.path else ""
        arrays += [replace(array, path=prefix + array.path, image=number) for array in levels]
        images.append(replace(group, arrays=tuple(range(first, len(arrays)))))
    return LayoutPlan(
        settings=settings, kind=_kind(settings), images=tuple(images), arrays=tuple(arrays),
        unit=needs.unit(levels[0]), held_bytes=memory.held, backend_bytes=memory.backend, pair_bytes=memory.pairs,
        peak_bytes=memory.peak,
    )  # fmt: skip


def _refuse_too_many_chunks(
    frame: Sequence[Dimension], chunks: tuple[int, ...], shards: tuple[int, ...] | None
) -> None:
    per_frame = prod(ceil((axis.count or 1) / size) for axis, size in zip(frame, chunks[-2:], strict=True))
    per_shard = prod(size // chunk for size, chunk in zip(shards or chunks, chunks, strict=True))
    if max(per_frame, per_shard) > MAX_CHUNKS:
        raise PlanError(
            f"There are {per_frame} chunks in a frame and {per_shard} in a shard, at most {MAX_CHUNKS} are possible. "
            f"Nothing was written. Make chunks larger or shards smaller."
        )


class _Memory(NamedTuple):
    """Bytes: of blocks, of what the core holds besides, pairs of planes included, and of the backend."""

    blocks: int
    core: int
    pairs: int
    backend: int

    @property
    def held(self) -> int:
        return self.core + self.backend

    @property
    def peak(self) -> int:
        return self.blocks + self.held


def _memory(settings: AcquisitionSettings, needs: StorageNeeds, levels: Sequence[ArrayPlan], n_images: int) -> _Memory:
    array, loop = levels[0], settings.dimensions[:-2]
    unit = needs.unit(array)
    # The next levels of a block take a third of it, and putting tiles together up to one frame and a half, or those of
    # two planes that become one.
    frames = 2 if settings.halved_z is None else 4
    halved = block_bytes(array, unit) // 3
    pyramid = 0 if len(levels) == 1 else halved + frames * array.frame_bytes + _STRIPS_BYTES
    # A frame that was not copied on arrival is cut by the thread that stores it.
    is_cut_late = unit is WriteUnit.TILED_FRAME and array.tile != array.frame_shape
    late = block_bytes(array, unit) if is_cut_late else 0
    pairs = pair_bytes(loop, array, unit, z_steps_of(settings, levels, unit))
    core = (pyramid + late) * max_threads(array, unit) + pairs
    blocks = peak_bytes(loop, array, unit)
    room = max(0, int(settings.memory_limit) - blocks - core)
    return _Memory(blocks, core, pairs, needs.held_bytes(array, n_images * len(levels), room))


def _kind(settings: AcquisitionSettings) -> LayoutKind:
    if settings.plate is not None:
        return "plate"
    return "image" if len(settings.axes) == len(settings.dimensions) else "bioformats2raw"


def _n_levels(settings: AcquisitionSettings) -> int:
    if settings.levels != "auto":
        return settings.levels
    levels, side = 1, max(settings.frame_shape)
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
    stored = {axis.name for axis in settings.axes}
    apart = [dimension for dimension in settings.dimensions if dimension.name not in stored]
    positions: tuple[Position | None, ...] = (None,)
    for dimension in apart:
        positions = dimension.positions or positions
    others = [dimension for dimension in apart if dimension.type != "position"]
    items = [dimension.item_names or tuple(map(str, range(dimension.count or 0))) for dimension in others]
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
        groups.append(
            ImagePlan(path=path, name=" ".join(parts), position=position, labels=labels, arrays=(), field=field)
        )
    return groups
