"""Frame number <-> (image, storage index). Integers only, the same few operations for any frame."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from scopestream.plan import LayoutPlan

_UNBOUNDED = 1 << 62  # more frames than any clock will see; lets the unbounded axis share the arithmetic


class Route:
    """Where each frame of a plan belongs.

    number  of a frame in acquisition order, from 0
    coords  one integer for each dimension before the frame, in acquisition order
    image   number in `plan.images`
    index   one integer for each axis before the frame, in storage order
    """

    def __init__(self, plan: LayoutPlan) -> None:
        loop = plan.loop
        counts = tuple(dimension.count or _UNBOUNDED for dimension in loop)
        strides = tuple(prod(counts[axis + 1 :]) for axis in range(len(counts)))
        place = {dimension.name: axis for axis, dimension in enumerate(loop)}
        series = tuple(place[dimension.name] for dimension in plan.series_dimensions)
        self._steps = tuple(zip(strides, counts, strict=True))
        self._index_steps = tuple(self._steps[place[axis.name]] for axis in plan.settings.axes[:-2])
        self._image_steps = tuple(
            (*self._steps[axis], prod(counts[other] for other in series[i + 1 :])) for i, axis in enumerate(series)
        )
        self.names = tuple(place)
        self.n_frames = plan.n_frames

    def locate(self, number: int) -> tuple[int, tuple[int, ...]]:
        """(image, index) of a frame."""
        image = self.image(number) if self._image_steps else 0
        return image, tuple([number // stride % count for stride, count in self._index_steps])

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
        return self._steps[self.names.index(name)]

    def channel_step(self, plan: LayoutPlan) -> tuple[int, int]:
        """`step` of the channels; all frames are of one where there is no such dimension."""
        channels = [axis.name for axis in plan.settings.axes if axis.type == "channel"]
        return self.step(channels[0]) if channels else (1, 1)

    def number(self, image: int, index: Sequence[int]) -> int:
        """The frame at `index` of `image`."""
        total = sum(i * stride for i, (stride, _) in zip(index, self._index_steps, strict=True))
        return total + sum(image // weight % count * stride for stride, count, weight in self._image_steps)

    def numbers(self, image: int, ranges: Sequence[range]) -> np.ndarray:
        """Of all frames of an image in these ranges along its axes, in C order."""
        first = self.number(image, [0] * len(self._index_steps))
        numbers = np.full(1, first, np.int64)
        for items, (stride, _) in zip(ranges, self._index_steps, strict=True):
            numbers = np.add.outer(numbers, np.arange(items.start, items.stop, items.step) * stride).reshape(-1)
        return numbers

    def coords(self, number: int) -> tuple[int, ...]:
        """The place of a frame in acquisition order."""
        return tuple([number // stride % count for stride, count in self._steps])

    def number_at(self, coords: Sequence[int]) -> int:
        """The frame at `coords`, which must be in range."""
        return sum(i * stride for i, (stride, _) in zip(coords, self._steps, strict=True))
