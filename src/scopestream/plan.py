"""The frozen layout of a dataset, computed once from the settings. Pure: nothing is read, written or probed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from math import ceil, prod
from pathlib import Path
from typing import Literal

import numpy as np

from scopestream.axes import Axis
from scopestream.dimensions import Codec, Dimension, DimensionType, Position
from scopestream.places import Places, is_ragged, places_of
from scopestream.settings import AcquisitionSettings
from scopestream.tiling import round_up
from scopestream.zsteps import ZStep

# More than these wait for the disk, not for the processor.
MAX_WRITER_THREADS = 8
_LARGE_BLOCK_BYTES = 2**20
BATCH_BYTES = 2**22  # blocks smaller than this are stored several at once, together not more than that
LayoutKind = Literal["image", "bioformats2raw", "plate"]


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
    nested    whether each axis runs through its items within one item of the slower ones as frames arrive, which a
              merged one may not
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
    nested: bool = True

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
    labels    (dimension, item) of every further dimension that tells images apart, cameras too
    arrays    numbers in `LayoutPlan.arrays`, finest level first
    field     number of the field in its well
    view      number of its camera; 0 where cameras do not tell images apart
    axes      of its arrays in storage order, with the counts, scales and channels that this image has
    windows   for each of its channels the number of the display window, which it may share with other images
    """

    path: str
    name: str
    position: Position | None
    labels: tuple[tuple[str, str], ...]
    arrays: tuple[int, ...]
    field: int = 0
    view: int = 0
    axes: tuple[Axis, ...] = ()
    windows: Sequence[int] = (0,)

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The axes as dimensions, in storage order."""
        return tuple([axis.dimension for axis in self.axes])


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendFit:
    """How one backend would do with a plan: bytes held at the most, or why it cannot write it."""

    name: str
    peak_bytes: int
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LayoutPlan:
    """The layout of one dataset.

    finest         for each camera, or once where they do not tell images apart: the finest array of an image that has
                   all items of every dimension, as positions with counts of their own may not
    n_windows      how many display windows there are: one for each channel of each camera
    held_bytes     besides the blocks: by the backend, and for the pyramid
    backend_bytes  of these, by the backend, which may take less where `memory_limit` is low
    pair_bytes     of these, for planes that wait for the next one along z, when frames arrive in order
    waiting_bytes  that a complete block of several frames holds while it waits for the next one along z
    peak_bytes     held, and as few blocks as frames in order need: more than `memory_limit` if that is too low
    backend        the one that would write it, and `reason` why
    fits           every backend that was considered
    """

    settings: AcquisitionSettings
    kind: LayoutKind
    images: tuple[ImagePlan, ...]
    arrays: tuple[ArrayPlan, ...]
    finest: tuple[ArrayPlan, ...]
    n_windows: int
    unit: WriteUnit
    held_bytes: int
    backend_bytes: int
    pair_bytes: int
    waiting_bytes: int
    peak_bytes: int
    backend: str = ""
    reason: str = ""
    fits: tuple[BackendFit, ...] = ()

    @property
    def root(self) -> Path:
        return Path(self.settings.path)

    @cached_property
    def loop(self) -> tuple[Dimension, ...]:
        """The dimensions before the frame, in acquisition order; the cameras are the last of them."""
        return self.settings.loop

    @property
    def series_dimensions(self) -> tuple[Dimension, ...]:
        """The dimensions that tell images apart: position first, then the others in acquisition order."""
        return series_dimensions(self.settings)

    @cached_property
    def places(self) -> Places:
        """Which frames there are."""
        n_cameras = len(self.settings.cameras)
        return places_of(self.loop[:-1] if n_cameras else self.loop, n_cameras or 1)

    @cached_property
    def is_regular(self) -> bool:
        """Whether all images have the same shape and dtype."""
        return len(self.finest) == 1 and not is_ragged(self.loop)

    @cached_property
    def n_frames(self) -> int | None:
        """Frames of the whole acquisition, None when it is unbounded."""
        if self.finest[0].growable:
            return None
        if self.is_regular:
            return prod(dimension.count or 0 for dimension in self.loop)
        return sum(map(self.n_frames_of, range(len(self.images))))

    def n_frames_of(self, image: int) -> int:
        """Frames of one image of a bounded acquisition."""
        return prod(self.arrays[self.images[image].arrays[0]].shape[:-2])

    @property
    def n_blocks(self) -> int | None:
        """Blocks of the finest level, None when it is unbounded."""
        if self.finest[0].growable:
            return None
        arrays = [self.arrays[image.arrays[0]] for image in (self.images[:1] if self.is_regular else self.images)]
        n_blocks = sum(
            prod(ceil(size / step) for size, step in zip(array.shape, array.block_extent(self.unit), strict=False))
            for array in arrays
        )
        return n_blocks * (len(self.images) if self.is_regular else 1)

    @property
    def buffer_bytes(self) -> int:
        """Of the largest block of any camera."""
        return max(block_bytes(array, self.unit) for array in self.finest)

    @property
    def n_threads(self) -> int:
        """How many threads may store blocks at once."""
        return max(max_threads(array, self.unit) for array in self.finest)

    @property
    def tiled_on_arrival(self) -> bool:
        """Whether the one copy of a frame cuts it."""
        return self.unit is WriteUnit.TILED_FRAME

    @cached_property
    def halves_z(self) -> bool:
        """Whether there are levels with fewer planes."""
        return self.settings.halved_z is not None and any(len(image.arrays) > 1 for image in self.images)

    def z_steps(self, image: int = 0) -> tuple[ZStep, ...]:
        """From each level of an image to the next along z; empty where z is not halved."""
        levels = [self.arrays[number] for number in self.images[image].arrays]
        return z_steps_of(self.settings, levels, self.unit)

    @property
    def spare_pair_bytes(self) -> int:
        """That planes may take besides `pair_bytes` when frames come out of order: half of what the limit leaves."""
        return (int(self.settings.memory_limit) - self.peak_bytes) // 2 if self.halves_z else 0

    @property
    def n_buffers(self) -> int:
        """How many blocks the core may hold at once."""
        size = self.buffer_bytes
        room = int(self.settings.memory_limit) - self.held_bytes - self.spare_pair_bytes
        # Out of order, all open blocks may become complete and then wait for others.
        return max((self.peak_bytes - self.held_bytes) // size, room // (size + self.waiting_bytes))

    @property
    def payload_bytes(self) -> int | None:
        """Uncompressed bytes of all levels, None when unbounded."""
        if self.finest[0].growable:
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


def max_threads(array: ArrayPlan, unit: WriteUnit) -> int:
    """How many threads may store blocks at once: where they are compressed one more than there are cores.

    One of them waits for the disk now and then, which is why a second thread helps where bytes only pass through. With
    small blocks it would only wait for the interpreter.
    """
    if array.codec.name != "none":
        return min((os.cpu_count() or 1) + 1, MAX_WRITER_THREADS)
    return 2 if block_bytes(array, unit) >= _LARGE_BLOCK_BYTES else 1


def block_bytes(array: ArrayPlan, unit: WriteUnit) -> int:
    """Bytes of the largest block."""
    if unit is WriteUnit.TILED_FRAME:
        return prod(map(round_up, array.frame_shape, array.tile)) * array.dtype.itemsize
    return prod(array.block_extent(unit)) * array.frame_bytes


def n_open_blocks(loop: Sequence[Dimension], axes: Sequence[Axis], array: ArrayPlan, unit: WriteUnit) -> int:
    """Blocks that are begun and not complete at the most, when the frames of a camera arrive in order.

    A block stays open while the slowest axis that it spans goes through its items; meanwhile every faster dimension
    runs through all of its own, each with blocks of its own.

    loop  the dimensions before the frame, without the cameras where these tell images apart
    axes  of the array
    """
    extent = dict(zip(array.axes, array.block_extent(unit), strict=False))
    axis_of = {part.name: axis for axis in axes for part in axis.parts}
    for slowest, dimension in enumerate(loop):
        axis = axis_of.get(dimension.name)
        if axis is not None and extent.get(axis.dimension.name, 1) > 1:
            # What is merged may not arrive as it is stored: then blocks are not complete one after the other.
            return _n_blocks(loop[slowest if axis.is_merged else slowest + 1 :], axis_of, extent)
    return 1


def _n_blocks(loop: Sequence[Dimension], axis_of: dict[str, Axis], extent: dict[str, int]) -> int:
    """Blocks that these dimensions run through."""
    counts: dict[str, int] = {}
    for dimension in loop:
        axis = axis_of.get(dimension.name)
        if axis is not None and axis.is_merged and extent[axis.dimension.name] > 1:
            counts[axis.dimension.name] = ceil((axis.dimension.count or 1) / extent[axis.dimension.name])
        else:
            step = 1 if axis is None else extent[axis.dimension.name]
            counts[dimension.name] = ceil((dimension.count or 1) / step)
    return prod(counts.values())


def pair_bytes(
    loop: Sequence[Dimension], axes: Sequence[Axis], array: ArrayPlan, unit: WriteUnit, steps: Sequence[ZStep]
) -> int:
    """Bytes that wait at the most for the next plane along z when the frames of a camera arrive in order.

    While z goes from one block to the next, every faster dimension runs through all of its items. And each thread may
    be ahead of another by the blocks that it takes at once.

    loop  and `axes` as for `n_open_blocks`
    """
    if not steps:
        return 0
    extent = dict(zip(array.axes, array.block_extent(unit), strict=False))
    axis_of = {part.name: axis for axis in axes for part in axis.parts}
    place = next(number for number, dimension in enumerate(loop) if dimension.name == array.axes[steps[0].axis])
    n_waiting = _n_blocks(loop[place + 1 :], axis_of, extent)
    n_threads = max_threads(array, unit)
    n_at_once = max(1, BATCH_BYTES // block_bytes(array, unit)) if n_threads > 1 else 1
    return (n_waiting + n_threads * n_at_once) * sum(step.waiting_bytes for step in steps)


def z_steps_of(settings: AcquisitionSettings, levels: Sequence[ArrayPlan], unit: WriteUnit) -> tuple[ZStep, ...]:
    if (axis := settings.halved_z) is None:
        return ()
    steps = []
    for fine, coarse in pairwise(levels):
        extent = fine.block_extent(unit)
        steps.append(
            ZStep(
                axis=axis, n_planes=fine.shape[axis],
                extent=extent[axis], coarse_extent=coarse.block_extent(unit)[axis],
                plane_bytes=block_bytes(fine, unit) // extent[axis],
                coarse_bytes=block_bytes(coarse, unit) if prod(extent) > 1 else 0,
            )
        )  # fmt: skip
    return tuple(steps)


def z_steps_by_image(plan: LayoutPlan) -> list[tuple[ZStep, ...]]:
    """`LayoutPlan.z_steps` of every image; images that are alike share theirs."""
    known: dict[tuple[int, tuple[int, ...]], tuple[ZStep, ...]] = {}
    steps = []
    for number, image in enumerate(plan.images):
        key = image.view, plan.arrays[image.arrays[0]].shape
        if key not in known:
            known[key] = plan.z_steps(number)
        steps.append(known[key])
    return steps


def series_dimensions(settings: AcquisitionSettings) -> tuple[Dimension, ...]:
    """The dimensions that tell images apart: position first, then the others in acquisition order."""
    inside = {part.name for axis in settings.parted_axes for part in axis.parts}
    apart = [dimension for dimension in settings.loop if dimension.name not in inside]
    return tuple(sorted(apart, key=lambda dimension: dimension.type != "position"))
