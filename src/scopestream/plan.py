"""The frozen layout of a dataset, computed once from the settings. Pure: nothing is read, written or probed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from itertools import product
from math import ceil, prod
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from scopestream.dimensions import Codec, Dimension, DimensionType, Position
from scopestream.settings import AcquisitionSettings
from scopestream.tiling import SHARD_BYTES, chunk_shape, round_up, shard_shape

# More than these wait for the disk, not for the processor.
MAX_WRITER_THREADS = 8
LayoutKind = Literal["image", "bioformats2raw", "plate"]
COARSEST_PIXELS = 256  # levels="auto" halves until both sides of a frame are at most this


class WriteUnit(StrEnum):
    """The smallest piece that a backend stores once, and never reads back to write it again.

    TILED_FRAME is a frame that comes cut into the tiles of its chunks, which costs the core nothing: it copies each
    frame anyhow.
    """

    FRAME = "frame"
    TILED_FRAME = "tiled frame"
    CHUNK = "chunk"
    SHARD = "shard"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayPlan:
    """One Zarr array: one level of one image. Shapes are in elements, in storage order.

    path      of the array below the root, with "/"
    shape     the first entry is 0 when the array is growable
    shards    None when every chunk is a file of its own
    arrival   the axes before the frame by number, in the order in which frames arrive, slowest first
    """

    path: str
    image: int
    level: int
    axes: tuple[str, ...]
    types: tuple[DimensionType, ...]
    shape: tuple[int, ...]
    growable: bool
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    dtype: np.dtype
    codec: Codec
    arrival: tuple[int, ...]

    @property
    def file_shape(self) -> tuple[int, ...]:
        """Shape of what one file holds: a shard, or a chunk where there are none."""
        return self.shards or self.chunks

    @property
    def frame_shape(self) -> tuple[int, int]:
        return self.shape[-2], self.shape[-1]

    @property
    def tile(self) -> tuple[int, int]:
        """(y, x) of a chunk."""
        return self.chunks[-2], self.chunks[-1]

    @property
    def frame_bytes(self) -> int:
        return self.shape[-2] * self.shape[-1] * self.dtype.itemsize

    def block_extent(self, unit: WriteUnit) -> tuple[int, ...]:
        """How many frames along each axis before the frame make one block of that unit."""
        n_before = len(self.axes) - 2
        if unit in (WriteUnit.FRAME, WriteUnit.TILED_FRAME):
            return (1,) * n_before
        extent = (self.chunks if unit is WriteUnit.CHUNK else self.file_shape)[:n_before]
        return tuple(
            size if self.growable and axis == 0 else min(size, self.shape[axis]) for axis, size in enumerate(extent)
        )

    def n_files(self) -> int | None:
        """Data files of the finished array, None when it grows without bound."""
        if self.growable:
            return None
        return prod(ceil(size / step) for size, step in zip(self.shape, self.file_shape, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePlan:
    """One image group.

    path      of the group below the root; "" for the root itself
    position  the stage position, None without a position dimension
    labels    (dimension, item) of every further dimension that tells images apart
    arrays    numbers in `LayoutPlan.arrays`, finest level first
    field     number of the field in its well
    """

    path: str
    name: str
    position: Position | None
    labels: tuple[tuple[str, str], ...]
    arrays: tuple[int, ...]
    field: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendFit:
    """How one backend would do with a plan: bytes held at the most, or why it cannot write it."""

    name: str
    peak_bytes: int
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LayoutPlan:
    """The layout of one dataset.

    held_bytes  that are needed besides the blocks: by the backend, and for the pyramid
    peak_bytes  that are needed at the least, blocks included
    backend     the one that would write it, and `reason` why
    fits        every backend that was considered
    """

    settings: AcquisitionSettings
    kind: LayoutKind
    images: tuple[ImagePlan, ...]
    arrays: tuple[ArrayPlan, ...]
    unit: WriteUnit
    held_bytes: int
    peak_bytes: int
    backend: str = ""
    reason: str = ""
    fits: tuple[BackendFit, ...] = ()

    @property
    def root(self) -> Path:
        return Path(self.settings.path)

    @cached_property
    def loop(self) -> tuple[Dimension, ...]:
        """The dimensions before the frame, in acquisition order."""
        return self.settings.dimensions[:-2]

    @property
    def series_dimensions(self) -> tuple[Dimension, ...]:
        """The dimensions that tell images apart: position first, then the others in acquisition order."""
        stored = {axis.name for axis in self.settings.axes}
        apart = [dimension for dimension in self.loop if dimension.name not in stored]
        return tuple(sorted(apart, key=lambda dimension: dimension.type != "position"))

    @property
    def n_frames(self) -> int | None:
        """Frames of the whole acquisition, None when it is unbounded."""
        counts = [dimension.count for dimension in self.loop]
        return None if None in counts else prod(count or 0 for count in counts)

    @property
    def tiled_on_arrival(self) -> bool:
        """Whether the one copy of a frame cuts it; with more levels each must be cut after it was made."""
        return self.unit is WriteUnit.TILED_FRAME and len(self.images[0].arrays) == 1

    @property
    def payload_bytes(self) -> int | None:
        """Uncompressed bytes of all levels, None when unbounded."""
        if self.n_frames is None:
            return None
        return sum(prod(array.shape) * array.dtype.itemsize for array in self.arrays)

    @property
    def n_files(self) -> int | None:
        """Data files, without metadata documents, None when unbounded."""
        counts = [array.n_files() for array in self.arrays]
        return None if None in counts else sum(count or 0 for count in counts)

    def __str__(self) -> str:
        from scopestream.describe import plan_text

        return plan_text(self)


class StorageNeeds(Protocol):
    """What a plan must know of a backend: the part of `contract.Backend` that has to do with memory."""

    def unit(self, array: ArrayPlan) -> WriteUnit: ...
    def held_bytes(self, array: ArrayPlan, n_arrays: int) -> int: ...


def make_plan(settings: AcquisitionSettings, needs: StorageNeeds) -> LayoutPlan:
    """The layout of `settings` for a backend with these needs.

    Only `shards="auto"` depends on the backend: where whole shards are held in memory they are made small enough for
    `memory_limit`.
    """
    axes = settings.axes
    names = tuple(axis.name for axis in axes)
    counts = tuple(axis.count for axis in axes)
    arrival = tuple(names.index(dimension.name) for dimension in settings.dimensions[:-2] if dimension.name in names)
    dtype = np.dtype(settings.dtype)
    groups = _image_groups(settings)
    n_levels = _n_levels(settings)
    chunks = chunk_shape(names, counts, dtype.itemsize, settings.chunks, settings.shards)

    def geometry(shards: tuple[int, ...] | None, level: int) -> ArrayPlan:
        shape = tuple(count or 0 for count in counts[:-2]) + tuple(
            ceil(count / 2**level) for count in settings.frame_shape
        )
        level_chunks, level_shards = _at_level(chunks, shards, shape)
        return ArrayPlan(
            path=str(level), image=0, level=level, axes=names, types=tuple(axis.type for axis in axes), shape=shape,
            growable=axes[0].count is None, chunks=level_chunks, shards=level_shards, dtype=dtype,
            codec=settings.codec, arrival=arrival,
        )  # fmt: skip

    def held_by(array: ArrayPlan) -> int:
        # The next levels of a block take a third of it, the arithmetic two frames, and tiles may be cut of each level.
        pyramid = 0 if n_levels == 1 else 2 * block_bytes(array, needs.unit(array)) + 2 * array.frame_bytes
        return needs.held_bytes(array, len(groups) * n_levels) + pyramid * max_threads(array)

    def peak_of(array: ArrayPlan) -> int:
        return peak_bytes(settings.dimensions[:-2], array, needs.unit(array)) + held_by(array)

    shards: tuple[int, ...] | None = None
    if settings.shards is not None:
        shards = shard_shape(names, counts, chunks, arrival, dtype.itemsize, settings.shards)
        max_bytes = SHARD_BYTES
        while settings.shards == "auto" and peak_of(geometry(shards, 0)) > settings.memory_limit and max_bytes > 1:
            max_bytes //= 2
            shards = shard_shape(names, counts, chunks, arrival, dtype.itemsize, max_bytes)
    levels = [geometry(shards, level) for level in range(n_levels)]
    images: list[ImagePlan] = []
    arrays: list[ArrayPlan] = []
    for number, group in enumerate(groups):
        first = len(arrays)
        prefix = f"{group.path}/" if group.path else ""
        arrays += [replace(array, path=prefix + array.path, image=number) for array in levels]
        images.append(replace(group, arrays=tuple(range(first, len(arrays)))))
    return LayoutPlan(
        settings=settings, kind=_kind(settings), images=tuple(images), arrays=tuple(arrays),
        unit=needs.unit(levels[0]), held_bytes=held_by(levels[0]), peak_bytes=peak_of(levels[0]),
    )  # fmt: skip


def max_threads(array: ArrayPlan) -> int:
    """How many threads may store blocks at once: the cores where they are compressed.

    Where bytes only pass through a second thread still helps, since one of them waits for the kernel now and then.
    """
    return min(os.cpu_count() or 1, 2 if array.codec.name == "none" else MAX_WRITER_THREADS)


def block_bytes(array: ArrayPlan, unit: WriteUnit) -> int:
    """Bytes of the largest block."""
    if unit is WriteUnit.TILED_FRAME:
        return prod(map(round_up, array.frame_shape, array.tile)) * array.dtype.itemsize
    return prod(array.block_extent(unit)) * array.frame_bytes


def peak_bytes(loop: Sequence[Dimension], array: ArrayPlan, unit: WriteUnit) -> int:
    """Bytes of frames that must be held to write `array` in that unit, when frames arrive in order.

    A block stays open while the slowest axis that it spans goes through its items; meanwhile every faster dimension
    runs through all of its own, each with blocks of its own. One more block is on its way to the backend.
    """
    extent = dict(zip(array.axes, array.block_extent(unit), strict=False))
    n_open = 1
    for slowest, dimension in enumerate(loop):
        if extent.get(dimension.name, 1) > 1:
            faster = loop[slowest + 1 :]
            n_open = prod(ceil((other.count or 1) / extent.get(other.name, 1)) for other in faster)
            break
    return (n_open + 1) * block_bytes(array, unit)


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
    chunks: tuple[int, ...], shards: tuple[int, ...] | None, shape: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Chunks and shards of a coarser level: the same frames in every file, tiles no larger than the frame."""
    tile = tuple(min(chunk, size) for chunk, size in zip(chunks[-2:], shape[-2:], strict=True))
    level_chunks = chunks[:-2] + tile
    if shards is None:
        return level_chunks, None
    side = tuple(
        min(round_up(shard, step), round_up(size, step))
        for shard, size, step in zip(shards[-2:], shape[-2:], tile, strict=True)
    )
    return level_chunks, shards[:-2] + side


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
