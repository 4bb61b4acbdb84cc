"""A dataset as one array in acquisition order, whoever writes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol, SupportsIndex

import numpy as np
from numpy.typing import DTypeLike

from scopestream.errors import FrameIndexError
from scopestream.plan import LayoutPlan
from scopestream.route import Route
from scopestream.selection import Pick, keys_by_name, keys_in_order
from scopestream.viewaxes import Coords, ViewAxes


class Frames(Protocol):
    """Where a view finds its frames, by their numbers in acquisition order."""

    @property
    def length(self) -> int:
        """Items of the first dimension by now; of no meaning where the dimension is bounded."""

    def newest(self, camera: int | None) -> int | None:
        """The frame that came last; of that camera, by number, unless it is None."""

    def are_there(self, numbers: np.ndarray) -> np.ndarray:
        """Which of these frames can be had: (n,) bool."""

    def frames(self, numbers: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """(which, frame) of those that can be had, in any order; a frame is to be left alone."""


@dataclass(frozen=True, slots=True, eq=False)
class Latest:
    """The newest frame of a view.

    image   (Y, X), memory of its own
    number  in acquisition order
    index   its place along every dimension before the frame
    """

    image: np.ndarray
    number: int
    index: dict[str, int]


class View:
    """All frames of an acquisition as one array in acquisition order: (..., Y, X).

    What is read is there by now: frames that did not come read as zeros, and `is_there` tells them apart. An unbounded
    axis is as long as frames came or were left out, so `shape` is what it was when it was asked for. An index reads
    the frames that it names, and no others, into memory of its own. May be used from any thread.

    Where positions have counts of their own it is as large as the largest, and zeros where a position has no place.
    Cameras are an axis where their frames are alike; otherwise each has a view of its own.

    camera  the name of the only one to look at
    Raises FrameIndexError for a camera that is not there, and without one where they differ.
    """

    def __init__(self, plan: LayoutPlan, route: Route, frames: Frames, camera: str | None = None) -> None:
        self._camera = _camera_number(plan, camera)
        kind = 0 if self._camera is None or len(plan.finest) == 1 else self._camera
        array = plan.finest[kind]
        self._axes = ViewAxes(plan, self._camera)
        loop = self._axes.loop
        self._counts = [*[dimension.count for dimension in loop], *array.frame_shape]
        self._route = route
        self._frames = frames
        self._dtype = array.dtype
        self._steps = [route.step(dimension.name)[0] for dimension in loop]

    # -- what it is -------------------------------------------------------------------------------------------------

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the axes: the dimensions of the acquisition, slowest first, the frame last."""
        return tuple(dimension.name for dimension in self._axes.dimensions)

    @property
    def shape(self) -> tuple[int, ...]:
        """By now, where the first dimension is unbounded."""
        return tuple(self._frames.length if count is None else count for count in self._counts)

    @property
    def dtype(self) -> np.dtype:
        return self._dtype

    @property
    def ndim(self) -> int:
        return len(self._counts)

    @property
    def size(self) -> int:
        """How many pixels it has."""
        total = 1
        for length in self.shape:
            total *= length
        return total

    @property
    def nbytes(self) -> int:
        return self.size * self._dtype.itemsize

    @property
    def coords(self) -> Coords:
        """For each axis the names of its items, where they have some, or else their coordinates in its unit.

        Of what positions differ in, only what holds for all of them: plain numbers 0, 1, ... in place of names and
        steps, and coordinates from 0 where they begin at different places. `coords_at` has those of one position.
        """
        return MappingProxyType(self._axes.coords(self.shape))

    def coords_at(self, position: int | str) -> Coords:
        """`coords` of one position, by number or name: its own channels, steps, counts and place on the stage.

        Raises FrameIndexError where there is no such position.
        """
        return MappingProxyType(self._axes.coords_at(position, self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}: {length}" for name, length in zip(self.dims, self.shape, strict=True))
        return f"<scopestream.View ({sizes}) {self._dtype}>"

    # -- pixels -----------------------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> np.ndarray:
        """What `key` names: whole numbers, names of items, slices, lists and masks, one for each axis, and "...".

        Lists and masks pick along their own axis only. Names of channels are those of the positions that the key
        picks; where these differ in them, only numbers and names that mean the same at each of them are taken.
        The result is new memory, of which a scalar is (), too.
        Raises FrameIndexError for what is not there, and NotReadableError for frames that came and cannot be read.
        """
        axes = self._axes.axes(self.shape)
        return self._read(self._axes.picks(keys_in_order(key, axes), axes))

    def sel(self, **named: Any) -> np.ndarray:
        """The same with an index for each axis by name: `view.sel(c="GFP", t=-1)`."""
        axes = self._axes.axes(self.shape)
        return self._read(self._axes.picks(keys_by_name(named, axes), axes))

    def latest(self) -> Latest | None:
        """The newest frame that came; None when none came, or it could not be stored."""
        while (number := self._frames.newest(self._camera)) is not None:
            for _, frame in self._frames.frames([number]) if self._is_there(number) else ():
                index = dict(zip(self._route.names, self._route.coords(number), strict=True))
                return Latest(frame.copy(), number, index)
            if number == self._frames.newest(self._camera):
                break
        return None

    def is_there(self, *key: Any) -> Any:
        """Which frames came, and can be had: a bool, or as many axes as `key` leaves; of all without `key`.

        key  as in `view[key]`, for the axes before the frame
        False for frames that did not come yet, were skipped or dropped, or could not be stored; and, until it is
        closed, for those that only a backend without `live_read` has.
        """
        axes = self._axes.axes(self.shape)[:-2]
        numbers = self._numbers(self._axes.picks(keys_in_order(key, axes), axes))
        there = self._frames.are_there(numbers.reshape(-1)).reshape(numbers.shape)
        return there if there.ndim else bool(there)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("The pixels of a view are in files, so that an array of them is always a copy.")
        pixels = self[...]
        return pixels if dtype is None else pixels.astype(dtype, copy=False)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _is_there(self, number: int) -> bool:
        return bool(self._frames.are_there(np.array([number], np.int64))[0])

    def _numbers(self, before: Sequence[Pick]) -> np.ndarray:
        """Of the frames at these picks: an axis for each of them that is no single item."""
        numbers = np.full((), self._camera or 0, np.int64)  # cameras are the fastest dimension
        for step, pick in zip(self._steps, before, strict=True):
            numbers = np.add.outer(numbers, np.asarray(pick) * step)
        return numbers

    def _read(self, chosen: Sequence[Pick]) -> np.ndarray:
        numbers = self._numbers(chosen[:-2])
        rows, columns = map(_as_slice, chosen[-2:])
        sizes = [len(pick) for pick in chosen[-2:] if isinstance(pick, np.ndarray)]
        pixels = np.zeros((numbers.size, *sizes), self._dtype)
        wanted = np.flatnonzero(self._frames.are_there(numbers.reshape(-1)))
        for which, frame in self._frames.frames(numbers.reshape(-1)[wanted].tolist()):
            pixels[wanted[which]] = frame[rows][..., columns]
        return pixels.reshape((*numbers.shape, *sizes))


def _camera_number(plan: LayoutPlan, camera: str | None) -> int | None:
    names = [one.name for one in plan.settings.cameras]
    if camera is not None and camera not in names:
        has = f"there are {', '.join(map(repr, names))}" if names else "there are no cameras"
        raise FrameIndexError(f"There is no camera {camera!r}; {has}.")
    if camera is None and len({(array.frame_shape, array.dtype) for array in plan.finest}) > 1:
        raise FrameIndexError(
            f"The frames of the cameras differ in shape or dtype, so each camera has a view of its own: say camera=, "
            f"one of {', '.join(map(repr, names))}."
        )
    return None if camera is None else names.index(camera)


def _as_slice(pick: Pick) -> SupportsIndex | slice | np.ndarray:
    """A slice where the items follow one another, so that nothing is copied item by item."""
    if not isinstance(pick, np.ndarray) or len(pick) == 0 or not (np.diff(pick) == 1).all():
        return pick
    return slice(int(pick[0]), int(pick[-1]) + 1)
