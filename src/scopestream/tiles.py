"""Frames cut into the tiles of their chunks, and put together again."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

import google_crc32c
import numpy as np

# What a processor still has at hand when it is read for the second time.
_BAND_BYTES = 2**20


class Tiler:
    """Cuts frames of one shape.

    frame_shape  (Y, X)
    tile         (y, x) of a chunk
    shape        (rows, columns, y, x) of the tiles of one frame
    """

    def __init__(self, frame_shape: tuple[int, int], tile: tuple[int, int]) -> None:
        (height, width), (y, x) = tile, frame_shape
        self.shape = (ceil(y / height), ceil(x / width), height, width)
        self.frame_shape = frame_shape
        # Whole tiles and those that an edge cuts, along each side: (tiles, pixels, pixels of a tile).
        self._parts = [
            (tile_rows, tile_columns, y_range, x_range, h, w)
            for tile_rows, y_range, h in _whole_and_rest(y, height)
            for tile_columns, x_range, w in _whole_and_rest(x, width)
        ]
        self._known_bands: Sequence[_Band] | None = None
        # The same for frames whose pixels are whole rows of tiles.
        self._rows = self if width == 1 or x % width else Tiler((y, x // width), (height, 1))

    def cut(self, frame: np.ndarray, tiles: np.ndarray) -> None:
        """Copy (Y, X) into tiles of `shape`; pixels past the edges of the frame stay what they are."""
        width = tiles.shape[3]
        if not frame.shape[1] % width and frame.flags.c_contiguous and frame.dtype == tiles.dtype:
            # A row of a tile as one item, which is faster to copy than its pixels.
            row = np.dtype((np.void, width * frame.itemsize))
            self._rows._cut(frame.view(row), tiles.view(row))
        else:
            self._cut(frame, tiles)

    def _cut(self, frame: np.ndarray, tiles: np.ndarray) -> None:
        for tile_rows, tile_columns, y_range, x_range, h, w in self._parts:
            part = tiles[tile_rows, tile_columns, :h, :w]
            part[...] = frame[y_range, x_range].reshape(part.shape[0], h, part.shape[1], w).swapaxes(1, 2)

    def cut_and_sum(self, frame: np.ndarray, tiles: np.ndarray) -> int:
        """`cut`, and the CRC32C of the frame, which is read from memory once for both.

        frame  C-contiguous, little endian
        """
        checksum = 0
        for band in self._bands(frame.shape[1] * frame.itemsize):
            part = frame[band.rows]
            checksum = google_crc32c.extend(checksum, part.reshape(-1).view(np.uint8))
            band.tiler.cut(part, tiles[band.row : band.row + 1, :, band.rows_of_tile])
        return checksum

    def _bands(self, row_bytes: int) -> Sequence[_Band]:
        if self._known_bands is None:
            (y, x), (_, _, height, width) = self.frame_shape, self.shape
            step = min(height, max(1, _BAND_BYTES // row_bytes))
            tilers: dict[int, Tiler] = {}
            bands = []
            for top in range(0, y, height):
                bottom = min(top + height, y)
                for first in range(top, bottom, step):
                    last = min(first + step, bottom)
                    tiler = tilers.setdefault(last - first, Tiler((last - first, x), (last - first, width)))
                    bands.append(_Band(slice(first, last), top // height, slice(first - top, last - top), tiler))
            self._known_bands = bands
        return self._known_bands

    def join(self, tiles: np.ndarray, frame: np.ndarray) -> None:
        """Copy tiles of `shape` into (Y, X)."""
        for tile_rows, tile_columns, y_range, x_range, h, w in self._parts:
            part = tiles[tile_rows, tile_columns, :h, :w]
            frame[y_range, x_range].reshape(part.shape[0], h, part.shape[1], w)[...] = part.swapaxes(1, 2)

    def every(self, tiles: np.ndarray, steps: tuple[int, int]) -> np.ndarray:
        """What `frame[::steps[0], ::steps[1]]` would be."""
        y, x = (np.arange(0, size, step) for size, step in zip(self.frame_shape, steps, strict=True))
        (row, h), (column, w) = np.divmod(y, self.shape[2]), np.divmod(x, self.shape[3])
        pixels: np.ndarray = tiles[row[:, None], column, h[:, None], w]
        return pixels


class _Band(NamedTuple):
    """Some rows of a frame within one row of tiles: the number of that one, their rows in it, and what cuts them."""

    rows: slice
    row: int
    rows_of_tile: slice
    tiler: Tiler


def _whole_and_rest(size: int, step: int) -> list[tuple[slice, slice, int]]:
    whole = size // step
    parts = [(slice(whole), slice(whole * step), step)] if whole else []
    return parts + ([(slice(whole, whole + 1), slice(whole * step, size), size % step)] if size % step else [])
