"""Frame number <-> (image, storage index). Integers only, the same few operations for any frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from scopestream.axes import Axis
from scopestream.places import UNBOUNDED
from scopestream.plan import LayoutPlan

Index = tuple[int, ...]


class _Part(NamedTuple):
    """One dimension of an axis: its item is number // stride % size, and adds `weight` times that to the index.

    own  how many items it has in an image
    """

    stride: int
    size: int
    weight: int
    own: int


class Route:
    """Where each frame of a plan belongs.

    number  of a frame in acquisition order, from 0
    coords  one integer for each dimension before the frame, in acquisition order
    image   number in `plan.images`
    index   one integer for each axis before the frame, in storage order
    locate  (image, index) of a frame
    """

    def __init__(self, plan: LayoutPlan) -> None:
        loop = plan.loop
        counts = tuple(dimension.count or UNBOUNDED for dimension in loop)
        strides = tuple(prod(counts[axis + 1 :]) for axis in range(len(counts)))
        place = {dimension.name: axis for axis, dimension in enumerate(loop)}
        series = tuple(place[dimension.name] for dimension in plan.series_dimensions)
        self._steps = tuple(zip(strides, counts, strict=True))
        self._image_steps = tuple(
            (*self._steps[axis], prod(counts[other] for other in series[i + 1 :])) for i, axis in enumerate(series)
        )
        self.names = tuple(place)
        self._place = place
        self._plan = plan
        axes = plan.images[0].axes[:-2]
        self._is_plain = not any(axis.is_merged for axis in axes)
        self._index_steps = tuple(self._steps[place[axis.parts[0].name]] for axis in axes)
        self._parts: dict[int, tuple[tuple[_Part, ...], ...]] = {}  # by the axes of an image
        self.locate: Callable[[int], tuple[int, Index]] = self._locate if self._is_plain else self._locate_merged

    def _locate(self, number: int) -> tuple[int, Index]:
        image = self.image(number) if self._image_steps else 0
        return image, tuple([number // stride % count for stride, count in self._index_steps])

    def _locate_merged(self, number: int) -> tuple[int, Index]:
        image = self.image(number)
        return image, tuple(
            [sum([number // p.stride % p.size * p.weight for p in axis]) for axis in self._parts_of(image)]
        )

    def image(self, number: int) -> int:
        """The image of a frame."""
        image = 0
        for stride, count, weight in self._image_steps:
            image += number // stride % count * weight
        return image

    def images(self, numbers: np.ndarray) -> np.ndarray:
        """The images of many frames, (n,) int64 each."""
        images = np.zeros_like(numbers)
        for stride, count, weight in self._image_steps:
            images += numbers // stride % count * weight
        return images

    def step(self, name: str) -> tuple[int, int]:
        """(stride, count): the item of that dimension to which a frame belongs is number // stride % count."""
        return self._steps[self._place[name]]

    def number(self, image: int, index: Sequence[int]) -> int:
        """The frame at `index` of `image`."""
        if self._is_plain:
            return self._first(image) + sum(i * stride for i, (stride, _) in zip(index, self._index_steps, strict=True))
        return self._first(image) + sum(
            i // part.weight % part.own * part.stride
            for i, axis in zip(index, self._parts_of(image), strict=True)
            for part in axis
        )

    def numbers(self, image: int, ranges: Sequence[range]) -> np.ndarray:
        """Of all frames of an image in these ranges along its axes, in C order."""
        numbers = np.full(1, self._first(image), np.int64)
        for items, axis in zip(ranges, self._parts_of(image), strict=True):
            along = np.arange(items.start, items.stop, items.step)
            strides = [along // part.weight % part.own * part.stride for part in axis]
            numbers = np.add.outer(numbers, np.sum(strides, axis=0)).reshape(-1)
        return numbers

    def coords(self, number: int) -> Index:
        """The place of a frame in acquisition order."""
        return tuple([number // stride % count for stride, count in self._steps])

    def number_at(self, coords: Sequence[int]) -> int:
        """The frame at `coords`, which must be in range."""
        return sum(i * stride for i, (stride, _) in zip(coords, self._steps, strict=True))

    def _first(self, image: int) -> int:
        """The first frame of an image."""
        return sum(image // weight % count * stride for stride, count, weight in self._image_steps)

    def _parts_of(self, image: int) -> tuple[tuple[_Part, ...], ...]:
        """Of the axes before the frame, in storage order."""
        axes = self._plan.images[image].axes[:-2]
        key = id(self._plan.images[image].axes)  # which images that are alike share
        found = self._parts.get(key)
        if found is None:
            found = self._parts[key] = tuple(map(self._parts_of_axis, axes))
        return found

    def _parts_of_axis(self, axis: Axis) -> tuple[_Part, ...]:
        own = [part.count or UNBOUNDED for part in axis.parts]
        steps = [self.step(part.name) for part in axis.parts]
        return tuple([_Part(*step, prod(own[number + 1 :]), own[number]) for number, step in enumerate(steps)])
