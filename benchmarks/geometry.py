"""Where each frame of a case belongs, worked out without scopestream: it is what the check goes by."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from benchmarks.cases import Case

_STORAGE_ORDER = "tczyx"


class Geometry:
    """Shapes in storage order, in elements.

    axes    of every array
    shape   of every array; along an unbounded axis, what will have come in the end
    chunk   of every array, and `shard`; None where every chunk is a file
    depth   frames along each axis before the frame that one file holds
    """

    def __init__(self, case: Case) -> None:
        counts = {**dict(case.loop), "y": case.frame[0], "x": case.frame[1]}
        self.axes = tuple(sorted(counts.keys() - {"p"}, key=_STORAGE_ORDER.index))
        self.shape = tuple(counts[axis] for axis in self.axes)
        self.chunk = tuple(min(case.chunk.get(axis, 1), counts[axis]) for axis in self.axes)
        self.shard = None
        if case.shard is not None:
            whole = {"y": case.frame[0], "x": case.frame[1]}
            self.shard = tuple(
                -(-min(case.shard.get(axis, whole.get(axis, 1)), counts[axis]) // step) * step
                for axis, step in zip(self.axes, self.chunk, strict=True)
            )
        self.file = self.shard or self.chunk
        self.depth = self.file[:-2]
        self.n_images = counts.get("p", 1)
        strides = {name: prod(count for _, count in case.loop[i + 1 :]) for i, (name, _) in enumerate(case.loop)}
        self._steps = tuple((strides[axis], counts[axis]) for axis in self.axes[:-2])
        self._image_stride = strides.get("p", 1)

    def locate(self, number: int) -> tuple[int, tuple[int, ...]]:
        """(image, index in storage order) of a frame by its number in acquisition order."""
        image = number // self._image_stride % self.n_images if self.n_images > 1 else 0
        return image, tuple([number // stride % count for stride, count in self._steps])

    def block(self, index: tuple[int, ...]) -> tuple[slice, ...]:
        """The part of an array that shares files with that frame: whole files, as far as the array goes."""
        first = [i // depth * depth for i, depth in zip(index, self.depth, strict=True)]
        return tuple(
            [slice(f, min(f + depth, size)) for f, depth, size in zip(first, self.depth, self.shape, strict=False)]
        )

    def tiles(self) -> Iterator[tuple[slice, slice]]:
        """The chunks of one frame, row by row."""
        for y in range(0, self.shape[-2], self.chunk[-2]):
            for x in range(0, self.shape[-1], self.chunk[-1]):
                yield slice(y, y + self.chunk[-2]), slice(x, x + self.chunk[-1])
