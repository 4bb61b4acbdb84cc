"""Coordinates as people give them, by number or by name, to integers; and back to words for messages."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import numpy as np

from scopestream.axes import part_at
from scopestream.dimensions import Dimension, Position
from scopestream.errors import FrameIndexError
from scopestream.plan import LayoutPlan

_PAGE = 1 << 12  # small, since numbers of ragged acquisitions may lie far apart
_RANGES_IN_TEXT = 6  # more of them nobody reads


class FrameSet:
    """Numbers of frames; one byte for each, and none for long stretches that no frame was written to."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}

    def __contains__(self, number: int) -> bool:
        page = self._pages.get(number // _PAGE)
        return page is not None and page[number % _PAGE] != 0

    def add(self, number: int) -> None:
        page = self._pages.get(number // _PAGE)
        if page is None:
            page = self._pages[number // _PAGE] = bytearray(_PAGE)
        page[number % _PAGE] = 1

    def discard(self, number: int) -> None:
        page = self._pages.get(number // _PAGE)
        if page is not None:
            page[number % _PAGE] = 0

    def has(self, numbers: np.ndarray) -> np.ndarray:
        """Which of these numbers are in it, (n,) bool."""
        found = np.zeros(len(numbers), bool)
        pages, places = np.divmod(numbers, _PAGE)
        for page_number in np.unique(pages).tolist():
            page = self._pages.get(page_number)
            if page is not None:
                here = pages == page_number
                found[here] = np.frombuffer(page, bool)[places[here]]
        return found

    def ranges(self) -> list[tuple[int, int]]:
        """(first, last) of each run of numbers, ascending."""
        found: list[tuple[int, int]] = []
        for page_number, page in sorted(self._pages.items()):
            at = page.find(1)
            while at >= 0:
                end = page.find(0, at) % (_PAGE + 1)  # -1, where the run goes on to the end of the page, becomes _PAGE
                first, last = page_number * _PAGE + at, page_number * _PAGE + end - 1
                if found and found[-1][1] == first - 1:
                    first = found.pop()[0]
                found.append((first, last))
                at = page.find(1, end)
        return found


def runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """(first, last) of each run of ascending numbers."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def frames_text(ranges: Sequence[tuple[int, int]]) -> str:
    """Runs of frames in words, the first few of many: frames 128 to 131 and 140."""
    parts = [f"{first} to {last}" if last > first else f"{first}" for first, last in ranges[:_RANGES_IN_TEXT]]
    if more := sum(last - first + 1 for first, last in ranges[_RANGES_IN_TEXT:]):
        parts.append(f"{more} more")
    is_one = len(ranges) == 1 and ranges[0][0] == ranges[0][1]
    return f"frame{'' if is_one else 's'} {' and '.join(filter(None, [', '.join(parts[:-1]), *parts[-1:]]))}"


class Locator:
    """Reads the `index` of `Stream.write` against the dimensions before the frame."""

    def __init__(self, plan: LayoutPlan) -> None:
        self._loop = plan.loop
        self._known = frozenset(dimension.name for dimension in plan.loop)
        self._items = [_numbers(dimension) for dimension in plan.loop]
        # Positions come first, since they may have counts and channels of their own.
        self._at = next((n for n, dimension in enumerate(plan.loop) if dimension.type == "position"), None)
        self._has_own = any(not position.is_like_others for position in self._positions)

    @property
    def _positions(self) -> tuple[Position, ...]:
        return () if self._at is None else self._loop[self._at].positions

    def coords(self, index: Mapping[str, int | str]) -> tuple[int, ...]:
        """One integer for each dimension, in acquisition order. Raises FrameIndexError that says what is wrong."""
        problems = [f"there is no dimension {name!r}" for name in index if name not in self._known]
        loop, items, whose = self._loop_at(index)
        coords = [_read(d, numbers, index, problems, whose) for d, numbers in zip(loop, items, strict=True)]
        if problems:
            raise FrameIndexError(
                f"The index {dict(index)} is not a place: {'; '.join(problems)}. Nothing was written."
            )
        return tuple(coords)

    def all_coords(self, index: Mapping[str, int | str]) -> list[tuple[int, ...]]:
        """`coords` of each place at `index`: a dimension that it leaves out stands for all items that there are.

        Raises FrameIndexError when there is no such place, or when a dimension without a count is left out.
        """
        if self._at is not None and (name := self._loop[self._at].name) not in index:
            found: list[tuple[int, ...]] = []
            problems: list[FrameIndexError] = []
            for number in range(len(self._positions)):
                try:
                    found += self.all_coords({**index, name: number})
                except FrameIndexError as error:  # other positions may have more
                    problems.append(error)
            if not found:
                raise problems[0]
            return found
        left_out = [dimension for dimension in self._loop_at(index)[0] if dimension.name not in index]
        items = [range(dimension.count) for dimension in left_out if dimension.count is not None]
        if len(items) < len(left_out):
            return [self.coords(index)]  # which says what is missing
        names = [dimension.name for dimension in left_out]
        return [self.coords({**index, **dict(zip(names, choice, strict=True))}) for choice in product(*items)]

    def _loop_at(self, index: Mapping[str, int | str]) -> tuple[Sequence[Dimension], list[dict[str, int]], str]:
        """The dimensions as the position of `index` has them, their items by name, and words for whose they are."""
        if self._has_own and self._at is not None:
            number = _read(self._loop[self._at], self._items[self._at], index, [], "")
            position = self._positions[number]
            if not position.is_like_others:
                loop = tuple([part_at(dimension, position) for dimension in self._loop])
                return loop, [_numbers(dimension) for dimension in loop], f"position {position.name!r} has"
        return self._loop, self._items, "it has"

    def text(self, coords: Sequence[int]) -> str:
        """A place in words: t=3 p=right c=GFP."""
        loop = self._loop
        if self._has_own and self._at is not None:
            loop = tuple([part_at(dimension, self._positions[coords[self._at]]) for dimension in loop])
        parts = []
        for dimension, number in zip(loop, coords, strict=True):
            names = dimension.item_names
            parts.append(f"{dimension.name}={names[number] if number < len(names) else number}")
        return " ".join(parts) or "the only place"


def _numbers(dimension: Dimension) -> dict[str, int]:
    return {name: number for number, name in enumerate(dimension.item_names)}


def _read(
    dimension: Dimension, items: Mapping[str, int], index: Mapping[str, int | str], problems: list[str], whose: str
) -> int:
    """The item of a dimension that an index means; 0 where `problems` gets one more."""
    value = index.get(dimension.name, 0 if dimension.count == 1 else None)
    if isinstance(value, str):
        if value not in items:
            problems.append(f"{dimension.name!r} has no item {value!r} ({whose} {', '.join(items) or 'no names'})")
        return items.get(value, 0)
    if value is None:
        problems.append(f"{dimension.name!r} is missing")
        return 0
    if not hasattr(value, "__index__"):
        problems.append(f"{dimension.name!r} is {value!r}, which is neither a whole number nor a name")
        return 0
    number = operator.index(value)
    if number < 0 or (dimension.count is not None and number >= dimension.count):
        problems.append(f"{dimension.name!r} has no item {number} ({whose} {dimension.count or 'any from 0'})")
        return 0
    return number
