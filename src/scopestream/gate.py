"""What may come in: frames of the planned kind, each place once, in an order that the backend can store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scopestream.errors import FrameIndexError, FrameMismatchError, MetadataError
from scopestream.jsontext import to_json
from scopestream.locate import FrameSet, Locator
from scopestream.plan import LayoutPlan
from scopestream.route import Route


class Gate:
    """Checks frames before anything is consumed, and knows which places are taken.

    in_order  whether frames of an image must come in acquisition order
    lengths   of the first axis of each image, in frames that came or were left out
    taken     numbers of these frames
    """

    def __init__(self, plan: LayoutPlan, route: Route, *, in_order: bool) -> None:
        self._plan = plan
        self._route = route
        self._locator = Locator(plan)
        self._n_frames = plan.n_frames
        self._shape, self._dtype = plan.arrays[0].frame_shape, plan.arrays[0].dtype
        self._in_order = in_order
        self._last_of_image = [-1] * len(plan.images)
        self.taken = FrameSet()
        self._before = FrameSet()
        self.lengths = [0] * len(plan.images)

    def restore(self, number: int) -> None:
        """A place that was taken before this stream went on."""
        self.took(number, *self._route.locate(number))
        self._before.add(number)

    def free_from(self, number: int) -> int:
        """The first place, from `number` on, that was not taken before this stream went on."""
        while number in self._before:
            number += 1
        return number

    def number_at(self, index: Mapping[str, int | str]) -> int:
        """The frame at these coordinates. Raises FrameIndexError."""
        return self._route.number_at(self._locator.coords(index))

    def numbers_at(self, index: Mapping[str, int | str]) -> list[int]:
        """The frames at these coordinates, of all items of a dimension that is left out. Raises FrameIndexError."""
        return [self._route.number_at(coords) for coords in self._locator.all_coords(index)]

    def frame(self, frame: np.ndarray, number: int, n_before: int) -> np.ndarray:
        """The frame as an array of the planned kind, in any byte order. Raises FrameMismatchError.

        n_before  frames that came before it
        """
        if isinstance(frame, np.ndarray) and frame.shape == self._shape and frame.dtype == self._dtype:
            return frame
        array = np.asarray(frame)
        if array.shape == self._shape and array.dtype.newbyteorder("=") == self._dtype:
            return array
        y, x = self._shape
        raise FrameMismatchError(
            f"Frame {number} for {self._text(number)} is {array.shape} {array.dtype}, the plan says ({y}, {x}) "
            f"{self._dtype}. It was not written; the {n_before} frames before it are safe. Set the camera to that size "
            f"and type, or start a new acquisition."
        )

    def stack(
        self, frames: object, first: int, metadata: Sequence[Mapping[str, Any] | None] | None, n_before: int
    ) -> tuple[np.ndarray, Sequence[str | None]]:
        """(n, Y, X) as an array and the metadata of each frame as JSON, when all of them can be taken from `first` on.

        Raises FrameMismatchError, MetadataError or FrameIndexError.
        """
        stack = np.asarray(frames)
        if stack.ndim != 3 or stack.shape[1:] != self._shape or stack.dtype.newbyteorder("=") != self._dtype:
            y, x = self._shape
            raise FrameMismatchError(
                f"The stack is {stack.shape} {stack.dtype}, the plan says (n, {y}, {x}) {self._dtype}. None of its "
                f"frames was taken; the {n_before} frames before it are safe."
            )
        if metadata is None:
            texts: Sequence[str | None] = [None] * len(stack)
        elif len(metadata) != len(stack):
            raise MetadataError(f"There are {len(metadata)} metadata for {len(stack)} frames. No frame was taken.")
        else:
            texts = [None if one is None else to_json(one, "no frame was taken") for one in metadata]
        number = first
        for _ in range(len(stack)):
            self.place(number)
            number = self.free_from(number + 1)
        return stack, texts

    def place(self, number: int) -> None:
        """Whether a frame may go there. Raises FrameIndexError."""
        total = self._n_frames
        if total is not None and number >= total:
            raise FrameIndexError(
                f"All {total} frames of the plan have come. This one was not written; close the stream. For an open "
                f"end, give the first dimension count=None."
            )
        if number in self.taken:
            raise FrameIndexError(
                f"There is a frame at {self._text(number)} already; every place is written once. This frame was not "
                f"written. `skip` moves `append` past places that `write` has filled."
            )
        if self._in_order:
            last = self._last_of_image[self._route.image(number)]
            if number <= last:
                raise FrameIndexError(
                    f"Frame {number} comes after frame {last} of the same image, but backend {self._plan.backend!r} "
                    f"stores frames in acquisition order only. It was not written. Use another backend for any order."
                )

    def took(self, number: int, image: int, index: tuple[int, ...]) -> None:
        """That place is taken: by a frame, or because none will come."""
        self.taken.add(number)
        if number > self._last_of_image[image]:
            self._last_of_image[image] = number
        if index and index[0] >= self.lengths[image]:
            self.lengths[image] = index[0] + 1

    def _text(self, number: int) -> str:
        return self._locator.text(self._route.coords(number))
