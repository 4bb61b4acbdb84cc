"""Frames cut into the tiles of their chunks, and looked at without being put together again."""

from __future__ import annotations

from math import ceil

import numpy as np


class Tiler:
    """Cuts frames of one shape.

    frame_shape  (Y, X)
    tile         (y, x) of a chunk
    shape        (rows, columns, y, x) of the tiles of one frame
    """

    def __init__(self, frame_shape: tuple[int, int], tile: tuple[int, int]) -> None:
        (height, width), (y, x) = tile, frame_shape
        self.shape = (ceil(y / height), ceil(x / width), height, width)
        self._frame_shape = frame_shape
        # Whole tiles and those that an edge cuts, along each side: (tiles, pixels, pixels of a tile).
        self._parts = [
            (tile_rows, tile_columns, y_range, x_range, h, w)
            for tile_rows, y_range, h in _whole_and_rest(y, height)
            for tile_columns, x_range, w in _whole_and_rest(x, width)
        ]

    def cut(self, frame: np.ndarray, tiles: np.ndarray) -> None:
        """Copy (Y, X) into tiles of `shape`; pixels past the edges of the frame stay what they are."""
        for tile_rows, tile_columns, y_range, x_range, h, w in self._parts:
            part = tiles[tile_rows, tile_columns, :h, :w]
            part[...] = frame[y_range, x_range].reshape(part.shape[0], h, part.shape[1], w).swapaxes(1, 2)

    def every(self, tiles: np.ndarray, steps: tuple[int, int]) -> np.ndarray:
        """What `frame[::steps[0], ::steps[1]]` would be."""
        y, x = (np.arange(0, size, step) for size, step in zip(self._frame_shape, steps, strict=True))
        (row, h), (column, w) = np.divmod(y, self.shape[2]), np.divmod(x, self.shape[3])
        pixels: np.ndarray = tiles[row[:, None], column, h[:, None], w]
        return pixels


def _whole_and_rest(size: int, step: int) -> list[tuple[slice, slice, int]]:
    whole = size // step
    parts = [(slice(whole), slice(whole * step), step)] if whole else []
    return parts + ([(slice(whole, whole + 1), slice(whole * step, size), size % step)] if size % step else [])
