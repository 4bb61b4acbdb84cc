"""From a block to the same block at the next level, in the form in which the backend takes it: frames, or tiles."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, prod
from typing import Protocol

import numpy as np

from scopestream.memory import page_aligned
from scopestream.plan import ArrayPlan, LayoutPlan, WriteUnit
from scopestream.pyramid import Halver, Scratch
from scopestream.tiles import Tiler


class NextLevel(Protocol):
    """One step down the pyramid, with memory of its own that the next call uses again."""

    def __call__(self, *planes: np.ndarray) -> np.ndarray:
        """One block or two, which become one, as blocks of the next level."""


def next_levels(plan: LayoutPlan, image: int = 0) -> Sequence[NextLevel]:
    """The steps from each level of an image to the next, for one thread; those of all images of a camera are alike."""
    levels = [plan.arrays[number] for number in plan.images[image].arrays]
    halver = Halver(levels[0].dtype, plan.settings.downscale)
    steps = pairwise(levels)
    if plan.unit is not WriteUnit.TILED_FRAME:
        return [FrameHalver(halver) for _ in steps]
    return [_Tiles(halver, *step) if _tiles_are_even(step[0]) else _JoinedTiles(halver, *step) for step in steps]


def _tiles_are_even(array: ArrayPlan) -> bool:
    """Whether no 2 x 2 pixels belong to two tiles."""
    return all(tile % 2 == 0 or tile == size for size, tile in zip(array.frame_shape, array.tile, strict=True))


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return np.ndarray(shape, dtype, page_aligned(prod(shape) * dtype.itemsize))


class FrameHalver:
    """(..., Y, X) -> (..., ceil(Y / 2), ceil(X / 2))."""

    def __init__(self, halver: Halver) -> None:
        self._halver = halver
        self._scratch = Scratch()

    def __call__(self, *planes: np.ndarray) -> np.ndarray:
        *before, y, x = planes[0].shape
        halved = self._scratch("halved", (*before, (y + 1) // 2, (x + 1) // 2), planes[0].dtype)
        self.into(halved, *planes)
        return halved

    def into(self, halved: np.ndarray, *planes: np.ndarray) -> None:
        """The same into memory of the caller."""
        self._halver.halve(planes, halved)


class _Tiles:
    """Tiles are halved as they are; each becomes a quarter of a tile, or a whole one where these are smaller too."""

    def __init__(self, halver: Halver, fine: ArrayPlan, coarse: ArrayPlan) -> None:
        self._halver = halver
        rows, columns, height, width = Tiler(fine.frame_shape, fine.tile).shape
        self._tiles = _aligned(Tiler(coarse.frame_shape, coarse.tile).shape, fine.dtype)
        self._halved = np.empty((rows, columns, ceil(height / 2), ceil(width / 2)), fine.dtype)
        self._is_whole = self._halved.shape == self._tiles.shape
        if self._is_whole:
            self._halved = self._tiles
        # What lies past an odd edge: the row or column that counts twice goes there while a frame is halved.
        y, x = (size % tile for size, tile in zip(fine.frame_shape, fine.tile, strict=True))
        self._odd_row, self._odd_column = (y if y % 2 else None), (x if x % 2 else None)

    def __call__(self, *planes: np.ndarray) -> np.ndarray:
        y, x = self._odd_row, self._odd_column
        for tiles in planes:
            if y is not None:
                tiles[-1, :, y] = tiles[-1, :, y - 1]
            if x is not None:
                tiles[:, -1, :, x] = tiles[:, -1, :, x - 1]
        self._halver.halve(planes, self._halved)
        for tiles in planes:  # as the backend, and the next frame in this memory, expect
            if y is not None:
                tiles[-1, :, y] = 0
            if x is not None:
                tiles[:, -1, :, x] = 0
        if not self._is_whole:
            self._put_together()
        return self._tiles

    def _put_together(self) -> None:
        """Four halved tiles make one. Where that is smaller than four, what does not fit lies past the edge."""
        height, width = self._halved.shape[2:]
        for i in range(2):
            for j in range(2):
                part = self._halved[i::2, j::2]
                place = self._tiles[
                    : len(part), : part.shape[1], i * height : (i + 1) * height, j * width : (j + 1) * width
                ]
                place[...] = part[..., : place.shape[2], : place.shape[3]]


class _JoinedTiles:
    """Tiles with odd sides: 2 x 2 pixels may be in several, so the frame is put together and cut again."""

    def __init__(self, halver: Halver, fine: ArrayPlan, coarse: ArrayPlan) -> None:
        self._halver = halver
        self._fine, self._coarse = Tiler(fine.frame_shape, fine.tile), Tiler(coarse.frame_shape, coarse.tile)
        self._scratch = Scratch()
        self._dtype = fine.dtype
        self._halved = np.empty(coarse.frame_shape, fine.dtype)
        self._tiles = _aligned(self._coarse.shape, fine.dtype)

    def __call__(self, *planes: np.ndarray) -> np.ndarray:
        frames = []
        for number, tiles in enumerate(planes):
            frames.append(self._scratch(f"frame {number}", self._fine.frame_shape, self._dtype))
            self._fine.join(tiles, frames[-1])
        self._halver.halve(frames, self._halved)
        self._coarse.cut(self._halved, self._tiles)
        return self._tiles
