"""Coordinates as people give them, by number or by name, to integers; and back to words for messages."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product

from scopestream.errors import FrameIndexError
from scopestream.plan import LayoutPlan

_PAGE = 1 << 16
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
        self._items = [{name: i for i, name in enumerate(dimension.item_names)} for dimension in plan.loop]
        self._known = frozenset(dimension.name for dimension in plan.loop)

    def coords(self, index: Mapping[str, int | str]) -> tuple[int, ...]:
        """One integer for each dimension, in acquisition order. Raises FrameIndexError that says what is wrong."""
        problems = [f"there is no dimension {name!r}" for name in index if name not in self._known]
        coords = []
        for dimension, items in zip(self._loop, self._items, strict=True):
            value = index.get(dimension.name, 0 if dimension.count == 1 else None)
            if isinstance(value, str):
                if value not in items:
                    names = ", ".join(items) or "no names"
                    problems.append(f"{dimension.name!r} has no item {value!r} (it has {names})")
                coords.append(items.get(value, 0))
            elif value is None:
                problems.append(f"{dimension.name!r} is missing")
            elif not hasattr(value, "__index__"):
                problems.append(f"{dimension.name!r} is {value!r}, which is neither a whole number nor a name")
            else:
                number = operator.index(value)
                if number < 0 or (dimension.count is not None and number >= dimension.count):
                    problems.append(
                        f"{dimension.name!r} has no item {number} (it has {dimension.count or 'any from 0'})"
                    )
                coords.append(number)
        if problems:
            raise FrameIndexError(
                f"The index {dict(index)} is not a place: {'; '.join(problems)}. Nothing was written."
            )
        return tuple(coords)

    def all_coords(self, index: Mapping[str, int | str]) -> Iterator[tuple[int, ...]]:
        """`coords` of each place at `index`: a dimension that it leaves out stands for all of its items.

        Raises FrameIndexError, also when a dimension without a count is left out.
        """
        left_out = [dimension for dimension in self._loop if dimension.name not in index]
        items = [range(dimension.count) for dimension in left_out if dimension.count is not None]
        if len(items) < len(left_out):
            self.coords(index)  # says what is missing
        names = [dimension.name for dimension in left_out]
        for choice in product(*items):
            yield self.coords({**index, **dict(zip(names, choice, strict=True))})

    def text(self, coords: Sequence[int]) -> str:
        """A place in words: t=3 p=right c=GFP."""
        parts = []
        for dimension, number in zip(self._loop, coords, strict=True):
            names = dimension.item_names
            parts.append(f"{dimension.name}={names[number] if number < len(names) else number}")
        return " ".join(parts) or "the only place"
