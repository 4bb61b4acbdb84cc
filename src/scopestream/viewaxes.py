"""The axes of a view: what their items are called, and where they are, at each position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from scopestream.dimensions import Dimension, Position
from scopestream.errors import FrameIndexError
from scopestream.plan import ImagePlan, LayoutPlan
from scopestream.selection import Pick, ViewAxis, pick

Coords = Mapping[str, Sequence[str] | np.ndarray]


class ViewAxes:
    """What positions have in common, and what each has of its own.

    camera      number of the only one that is looked at; None with all of them, or without any
    dimensions  slowest first, the frame last, as the settings have them
    loop        those before the frame
    """

    def __init__(self, plan: LayoutPlan, camera: int | None) -> None:
        kind = 0 if camera is None or len(plan.finest) == 1 else camera
        self._images = [image for image in plan.images if camera is None or image.view == kind]
        self.loop = plan.loop if camera is None else plan.loop[:-1]
        self.dimensions = (*self.loop, *self._images[0].dimensions[-2:])
        self._roles = plan.settings.stage_axes
        self._at = next((n for n, one in enumerate(self.loop) if one.type == "position"), None)
        self._positions = () if self._at is None else self.loop[self._at].positions
        parts = {part.name for axis in plan.settings.parted_axes for part in axis.parts}
        self._channels = next(
            (n for n, one in enumerate(self.loop) if one.type == "channel" and one.name in parts), None
        )
        self._items: list[Mapping[str, int]] = [_items(one.item_names) for one in self.dimensions]
        # Names of channels, and which of them each position has.
        self._names: list[tuple[str, ...]] = []
        self._kinds: np.ndarray | None = None
        if self._channels is not None and any(position.channels for position in self._positions):
            known: dict[tuple[str, ...], int] = {}
            numbers = [known.setdefault(self._names_at(one), len(known)) for one in self._positions]
            self._names, self._kinds = list(known), np.array(numbers)

    # -- what an index names ----------------------------------------------------------------------------------------

    def axes(self, lengths: Sequence[int]) -> list[ViewAxis]:
        """For `selection`, with the names that hold for all positions alike."""
        return [
            ViewAxis(dimension.name, length, items)
            for dimension, length, items in zip(self.dimensions, lengths, self._items, strict=False)
        ]

    def picks(self, keys: Sequence[object], axes: Sequence[ViewAxis]) -> list[Pick]:
        """What these keys pick, with names of channels as the positions have them that are picked.

        Raises FrameIndexError.
        """
        axes = list(axes)
        if self._kinds is not None and self._at is not None and self._channels is not None:
            positions = pick(axes[self._at], keys[self._at])
            items, whose = self._channels_of(np.atleast_1d(positions), self._kinds)
            axes[self._channels] = axes[self._channels]._replace(items=items, whose=whose)
        return [pick(axis, key) for axis, key in zip(axes, keys, strict=True)]

    def _channels_of(self, positions: np.ndarray, kinds: np.ndarray) -> tuple[Mapping[str, int], str]:
        """Channels that are the same item wherever these positions have that item, and words for whose they are."""
        lists = [self._names[kind] for kind in np.unique(kinds[positions] if len(positions) else kinds).tolist()]
        if len(positions) == 1:
            return _items(lists[0]), f"position {self._positions[int(positions[0])].name!r} has"
        if len(lists) == 1:
            return _items(lists[0]), "these positions have"
        shared = _shared(lists)
        return shared, "the channels of these positions differ, so name a single position; all of them have"

    # -- where it is ------------------------------------------------------------------------------------------------

    def coords(self, lengths: Sequence[int]) -> Coords:
        """Names, or coordinates, that hold for all positions and cameras.

        From 0 along axes of the stage where positions begin at different places of it, and plain numbers of the items
        where steps or names differ.
        """
        named: dict[str, Sequence[str] | np.ndarray] = {}
        for number, (dimension, length) in enumerate(zip(self.dimensions, lengths, strict=True)):
            names = dimension.item_names
            if number == self._channels and self._names:
                longest = max(self._names, key=len)
                names = longest if len(_shared(self._names)) == len(longest) == length else ()
            named[dimension.name] = names or self._along(number, self._unlike, self._positions, length)
        return named

    def coords_at(self, position: int | str, lengths: Sequence[int]) -> Coords:
        """The same of one position, of as many items as it has. Raises FrameIndexError."""
        if self._at is None:
            raise FrameIndexError(f"There are no positions, so none is {position!r}; `coords` has the coordinates.")
        found = pick(self.axes(lengths)[self._at], position)
        if isinstance(found, np.ndarray):
            raise FrameIndexError(f"coords_at takes one position, by its number or name, not {position!r}.")
        where = self._positions[found]
        images = [one for one in self._images if one.position is not None and one.position.name == where.name]
        named: dict[str, Sequence[str] | np.ndarray] = {}
        for number, length in enumerate(lengths):
            own = self._own(number, images[0])
            count = length if own.count is None else own.count
            named[own.name] = own.item_names or self._along(number, images, [where], count)
        return named

    @cached_property
    def _unlike(self) -> Sequence[ImagePlan]:
        """One image of each kind; those that are alike share their axes."""
        return list({id(image.axes): image for image in self._images}.values())

    def _along(
        self, number: int, images: Sequence[ImagePlan], positions: Sequence[Position], length: int
    ) -> np.ndarray:
        """Coordinates that hold for all of these."""
        scales = {self._own(number, image).scale for image in images}
        if len(scales) > 1:
            return np.arange(length)
        dimension = self.dimensions[number]
        role = self._roles.get(dimension.name)
        places = {getattr(position, role) for position in positions} if role is not None else set()
        origins = {dimension.origin if place is None else place for place in places} or {dimension.origin}
        start: float = origins.pop() if len(origins) == 1 else 0.0
        return np.asarray(start + scales.pop() * np.arange(length))

    def _own(self, number: int, image: ImagePlan) -> Dimension:
        """A dimension as an image has it."""
        dimension = self.dimensions[number]
        parts = (part for axis in image.axes for part in axis.parts)
        return next((part for part in parts if part.name == dimension.name), dimension)

    def _names_at(self, position: Position) -> tuple[str, ...]:
        if position.channels is not None:
            return tuple([channel.name for channel in position.channels])
        assert self._channels is not None, "asked only where there is a channel dimension"
        return self.loop[self._channels].item_names


def _items(names: Sequence[str]) -> dict[str, int]:
    return {name: item for item, name in enumerate(names)}


def _shared(lists: Sequence[Sequence[str]]) -> dict[str, int]:
    """Names that are the same item in all lists that are long enough, and in none another item."""
    longest = max(lists, key=len)
    return {
        name: item
        for item, name in enumerate(longest)
        if all(names[item] == name if item < len(names) else name not in names for names in lists)
    }
