"""What may come in: frames of the planned kind, each place once, in an order that the backend can store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from scopestream.errors import FrameIndexError, FrameMismatchError, MetadataError
from scopestream.jsontext import to_json
from scopestream.locate import FrameSet, Locator
from scopestream.plan import LayoutPlan
from scopestream.route import Route


class Gate:
    """Checks frames before anything is consumed, and knows which places are taken.

    lanes     numbers of the cameras by name; empty without cameras. The places of each camera are a lane of their own
    after     the place that `append` fills after the one of that number
    in_order  whether frames of an image must come in acquisition order
    lengths   of the first axis of each image, in frames that came or were left out
    taken     numbers of these frames
    gone      of those among them that were left out
    """

    def __init__(self, plan: LayoutPlan, route: Route, *, in_order: bool) -> None:
        self._plan = plan
        self._route = route
        self._locator = Locator(plan)
        self._places = plan.places
        self._n_lanes = plan.places.n_cameras
        self._end = plan.places.end
        kinds = [(array.frame_shape, array.dtype) for array in plan.finest]
        self._kinds = kinds if len(kinds) == self._n_lanes else kinds * self._n_lanes
        self._only_kind = kinds[0] if len(kinds) == 1 else None
        self.lanes = {camera.name: number for number, camera in enumerate(plan.settings.cameras)}
        self._in_order = in_order
        self._last_of_image = [-1] * len(plan.images)
        self.taken = FrameSet()
        self.gone = FrameSet()
        self._before = FrameSet()
        self.lengths = [0] * len(plan.images)
        self.after: Callable[[int], int] = self._next if plan.places.is_full else self._next_there

    def restore(self, number: int) -> None:
        """A place that was taken before this stream went on."""
        self.took(number, *self._route.locate(number))
        self._before.add(number)

    def was_taken(self, number: int) -> bool:
        """Whether that place was taken before this stream went on."""
        return number in self._before

    def first(self, lane: int) -> int:
        """The first place of a camera that was not taken before this stream went on; at least the end of all places."""
        return lane if lane not in self._before else self.after(lane)

    def _next(self, number: int) -> int:
        number += self._n_lanes
        while number in self._before:
            number += self._n_lanes
        return number

    def _next_there(self, number: int) -> int:
        number = self._places.first_from(number + self._n_lanes)
        while number in self._before:
            number = self._places.first_from(number + self._n_lanes)
        return number

    def lane(self, camera: object) -> int:
        """Of a camera, by name. Raises FrameIndexError."""
        if isinstance(camera, str) and camera in self.lanes:
            return self.lanes[camera]
        if not self.lanes:
            problem = f"There are no cameras, but camera={camera!r} was given"
        elif camera is None:
            problem = f"Which camera does it come from? Say camera=, one of {', '.join(map(repr, self.lanes))}"
        else:
            problem = f"There is no camera {camera!r}, but {', '.join(map(repr, self.lanes))}"
        raise FrameIndexError(f"{problem}. Nothing was written.")

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
        shape, dtype = self._only_kind or self._kinds[number % self._n_lanes]
        if isinstance(frame, np.ndarray) and frame.shape == shape and frame.dtype == dtype:
            return frame
        array = np.asarray(frame)
        if array.shape == shape and array.dtype.newbyteorder("=") == dtype:
            return array
        raise FrameMismatchError(
            f"Frame {number} for {self._text(number)} is {array.shape} {array.dtype}, {self._planned(number)}. It was "
            f"not written; the {n_before} frames before it are safe. Set the camera to that size and type, or start a "
            f"new acquisition."
        )

    def stack(
        self, frames: object, first: int, metadata: Sequence[Mapping[str, Any] | None] | None, n_before: int
    ) -> tuple[np.ndarray, Sequence[str | None]]:
        """(n, Y, X) as an array and the metadata of each frame as JSON, when all of them can be taken from `first` on.

        Raises FrameMismatchError, MetadataError or FrameIndexError.
        """
        stack = np.asarray(frames)
        shape, dtype = self._kinds[first % self._n_lanes]
        if stack.ndim != 3 or stack.shape[1:] != shape or stack.dtype.newbyteorder("=") != dtype:
            raise FrameMismatchError(
                f"The stack is {stack.shape} {stack.dtype}, {self._planned(first, 'n, ')}. None of its frames was "
                f"taken; the {n_before} frames before it are safe."
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
            number = self.after(number)
        return stack, texts

    def place(self, number: int) -> None:
        """Whether a frame may go there. Raises FrameIndexError."""
        if number >= self._end:
            total = self._plan.n_frames or 0
            raise FrameIndexError(
                f"All {total // self._n_lanes} frames{self._of_camera(number)} of the plan have come. This one was not "
                f"written; close the stream. For an open end, give the first dimension count=None."
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

    def check_skip(self, n: int, first: int) -> None:
        """Whether there are `n` places to skip from `first` on. Raises FrameIndexError."""
        if n < 0:
            raise FrameIndexError(f"Cannot skip {n} frames.")
        total = self._plan.n_frames
        if total is not None and (left := self._places.n_from(first)) < n:
            raise FrameIndexError(
                f"Cannot skip {n} frames{self._of_camera(first)}: only {left} of {total // self._n_lanes} are left. "
                f"Nothing was skipped."
            )

    def _planned(self, number: int, before: str = "") -> str:
        (y, x), dtype = self._kinds[number % self._n_lanes]
        return f"the plan says ({before}{y}, {x}) {dtype}{self._of_camera(number)}"

    def _of_camera(self, number: int) -> str:
        return f" of camera {list(self.lanes)[number % self._n_lanes]!r}" if self.lanes else ""

    def _text(self, number: int) -> str:
        return self._locator.text(self._route.coords(number))
