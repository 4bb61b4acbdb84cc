"""Where the frames of an array lie in its files: integers, computed once."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from itertools import product
from math import ceil, prod

import numpy as np

from scopestream.plan import ArrayPlan


class Geometry:
    """What all arrays of one level share.

    depth          frames of a chunk along each axis before the frame, `n_deep` their product
    tile           (y, x) of a chunk, and `n_tiles` (rows, columns) of them in a frame
    files          (rows, columns) of files that a frame is spread over
    tiles_of_file  (rows, columns) of tiles in each
    slab_bytes     of a chunk that belong to one frame
    whole_rows     the tiles lie in a frame as they lie in the file, so that nothing needs to be cut
    """

    def __init__(self, array: ArrayPlan) -> None:
        self._array = array
        self.depth = array.chunks[:-2]
        self.n_deep = prod(self.depth)
        self.span = array.file_shape[:-2]
        self.tile = array.chunks[-2:]
        y, x = array.frame_shape
        self.n_tiles = ceil(y / self.tile[0]), ceil(x / self.tile[1])
        self.files = tuple(ceil(size / step) for size, step in zip((y, x), array.file_shape[-2:], strict=True))
        self.tiles_of_file = tuple(f // t for f, t in zip(array.file_shape[-2:], self.tile, strict=True))
        self.chunks_deep = tuple(s // d for s, d in zip(self.span, self.depth, strict=True))
        self.chunk_bytes = prod(array.chunks) * array.dtype.itemsize
        self.slab_bytes = prod(self.tile) * array.dtype.itemsize
        self.n_chunks = prod(self.chunks_deep) * prod(self.tiles_of_file)
        self.whole_rows = self.tile[1] == x and self.files == (1, 1) and self.n_deep == 1
        self._scratch = threading.local()

    def n_blocks(self, file: Sequence[int], extent: Sequence[int]) -> int:
        """Blocks of `extent` frames that fall into a file and into the array.

        file  number of the file along each axis before the frame
        """
        total = 1
        for axis, (i, span, size, step) in enumerate(zip(file, self.span, self._array.shape[:-2], extent, strict=True)):
            inside = span if self._array.growable and axis == 0 else min(span, size - i * span)
            total *= ceil(inside / step)
        return total

    def locate(self, index: Sequence[int]) -> tuple[tuple[int, ...], int, int]:
        """(file along the axes before the frame, first chunk in it, frame in that chunk) of a frame."""
        chunk = slab = 0
        for i, span, depth, n in zip(index, self.span, self.depth, self.chunks_deep, strict=True):
            chunk = chunk * n + i % span // depth
            slab = slab * depth + i % depth
        file = tuple([i // span for i, span in zip(index, self.span, strict=True)])
        return file, chunk * prod(self.tiles_of_file), slab

    def each_file(self) -> Iterator[tuple[tuple[int, int], range, range]]:
        """The files that a frame is spread over: ((row, column), rows of tiles, columns of tiles)."""
        (n_rows, n_columns), (high, wide) = self.n_tiles, self.tiles_of_file
        for row in range(self.files[0]):
            rows = range(row * high, min((row + 1) * high, n_rows))
            for column in range(self.files[1]):
                yield (row, column), rows, range(column * wide, min((column + 1) * wide, n_columns))

    def runs(self, rows: range, columns: range) -> Iterator[tuple[int, tuple[int | slice, ...]]]:
        """What of a cut frame lies side by side in one file: (first chunk, where in the cut frame)."""
        wide = self.tiles_of_file[1]
        if self.n_deep > 1:  # only a slab of each chunk is of this frame
            for number, (y, x) in enumerate(product(rows, columns)):
                yield number // len(columns) * wide + number % len(columns), (y, x)
        elif len(columns) == wide == self.n_tiles[1]:
            yield 0, (slice(rows.start, rows.stop),)
        else:
            for number, y in enumerate(rows):
                yield number * wide, (y, slice(columns.start, columns.stop))

    def chunks_of(self, rows: range, columns: range) -> Iterator[tuple[int, tuple[slice, slice]]]:
        """The chunks of a frame in one file: (chunk, its pixels)."""
        (height, width), wide = self.tile, self.tiles_of_file[1]
        for y, x in product(rows, columns):
            number = (y - rows.start) * wide + x - columns.start
            yield number, (slice(y * height, (y + 1) * height), slice(x * width, (x + 1) * width))

    def cut(self, frame: np.ndarray) -> np.ndarray:
        """(Y, X) -> (rows, columns, y, x) of tiles, C-contiguous; edges are padded with zeros.

        The memory is this thread's own and used again by the next call.
        """
        (rows, columns), (height, width) = self.n_tiles, self.tile
        tiles: np.ndarray | None = getattr(self._scratch, "tiles", None)
        if tiles is None:
            tiles = np.zeros((rows, columns, height, width), frame.dtype)
            self._scratch.tiles = tiles
        for tile_rows, y_range in _whole_and_rest(frame.shape[0], height, rows):
            for tile_columns, x_range in _whole_and_rest(frame.shape[1], width, columns):
                part = tiles[tile_rows, tile_columns]
                pixels = frame[y_range, x_range]
                h, w = pixels.shape[0] // part.shape[0], pixels.shape[1] // part.shape[1]
                part[:, :, :h, :w] = pixels.reshape(part.shape[0], h, part.shape[1], w).swapaxes(1, 2)
        return tiles


def _whole_and_rest(size: int, step: int, n: int) -> list[tuple[slice, slice]]:
    """(tiles, pixels) of the whole tiles along one side, and of the one that the edge cuts."""
    whole = size // step
    parts = [(slice(whole), slice(whole * step)), (slice(whole, n), slice(whole * step, size))]
    return [(tiles, pixels) for tiles, pixels in parts if pixels.start != pixels.stop and pixels.stop]
