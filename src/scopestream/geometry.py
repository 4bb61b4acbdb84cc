"""Where the frames of an array lie in its files: integers, computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import ceil, prod

from scopestream.plan import ArrayPlan


class Geometry:
    """What all arrays of one level share.

    depth          frames of a chunk along each axis before the frame, `n_deep` their product
    tile           (y, x) of a chunk, and `n_tiles` (rows, columns) of them in a frame
    files          (rows, columns) of files that a frame is spread over
    tiles_of_file  (rows, columns) of tiles in each
    slab_bytes     of a chunk that belong to one frame
    runs           for each file of a frame, tiles that lie side by side: (file, ((first chunk, which tiles), ...))
    tiles          for each file of a frame: (file, ((chunk, row of its tile, column of its tile), ...))
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
        self._chunks_of_frame = prod(self.tiles_of_file)
        self.runs = [(at, tuple(self._runs(rows, columns))) for at, rows, columns in self._each_file()]
        self.tiles = [(at, tuple(self._tiles(rows, columns))) for at, rows, columns in self._each_file()]

    def n_blocks(self, file: Sequence[int], extent: Sequence[int]) -> int:
        """Blocks of `extent` frames that fall into a file and into the array.

        file  number of the file along each axis before the frame
        """
        total = 1
        for axis, (i, span, size, step) in enumerate(zip(file, self.span, self._array.shape[:-2], extent, strict=True)):
            inside = span if self._array.growable and axis == 0 else min(span, size - i * span)
            total *= ceil(inside / step)
        return total

    def n_used(self, file: Sequence[int]) -> int:
        """Chunks of a file up to the last one that is in the array: the array may end within it.

        file  its number along each axis
        """
        last = 0
        sizes = zip(file, self._array.file_shape, self._array.shape, self._array.chunks, strict=True)
        for axis, (i, span, size, step) in enumerate(sizes):
            inside = span if self._array.growable and axis == 0 else min(span, size - i * span)
            last = last * (span // step) + ceil(inside / step) - 1
        return last + 1

    @property
    def n_open_files(self) -> int:
        """Files that are begun and not complete at the most, when frames arrive in order.

        A file stays open while the slowest axis that it spans goes through its items; meanwhile every faster axis runs
        through all of its own.
        """
        axes = self._array.arrival
        for rank, axis in enumerate(axes):
            if self.span[axis] > 1:
                faster = axes[rank + 1 :]
                return prod(self.files) * prod(ceil(self._array.shape[a] / self.span[a]) for a in faster)
        return prod(self.files)

    def locate(self, index: Sequence[int]) -> tuple[tuple[int, ...], int, int]:
        """(file along the axes before the frame, first chunk in it, frame in that chunk) of a frame."""
        chunk = slab = 0
        for i, span, depth, n in zip(index, self.span, self.depth, self.chunks_deep, strict=True):
            chunk = chunk * n + i % span // depth
            slab = slab * depth + i % depth
        file = tuple([i // span for i, span in zip(index, self.span, strict=True)])
        return file, chunk * self._chunks_of_frame, slab

    def _each_file(self) -> Iterator[tuple[tuple[int, int], range, range]]:
        """The files that a frame is spread over: ((row, column), rows of tiles, columns of tiles)."""
        (n_rows, n_columns), (high, wide) = self.n_tiles, self.tiles_of_file
        for row in range(self.files[0]):
            rows = range(row * high, min((row + 1) * high, n_rows))
            for column in range(self.files[1]):
                yield (row, column), rows, range(column * wide, min((column + 1) * wide, n_columns))

    def _runs(self, rows: range, columns: range) -> Iterator[tuple[int, tuple[int | slice, ...]]]:
        wide = self.tiles_of_file[1]
        if self.n_deep > 1:  # only a slab of each chunk is of this frame
            for number, (y, x) in enumerate(product(rows, columns)):
                yield number // len(columns) * wide + number % len(columns), (y, x)
        elif len(columns) == wide == self.n_tiles[1]:
            yield 0, (slice(rows.start, rows.stop),)
        else:
            for number, y in enumerate(rows):
                yield number * wide, (y, slice(columns.start, columns.stop))

    def _tiles(self, rows: range, columns: range) -> Iterator[tuple[int, int, int]]:
        for y, x in product(rows, columns):
            yield (y - rows.start) * self.tiles_of_file[1] + x - columns.start, y, x
