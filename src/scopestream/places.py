"""Which frames there are: numbers in acquisition order, camera by camera. Integers only.

Numbers are those of the full box of all dimensions. Where positions have counts of their own some numbers are nobody's:
the places that a position does not have. The cameras are the fastest dimension, so each has every n-th number, and goes
through its own at its own pace.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import prod

import numpy as np

from scopestream.axes import part_at
from scopestream.dimensions import Dimension

UNBOUNDED = 1 << 62  # more frames than any clock will see; lets the unbounded axis share the arithmetic
_MAX_KNOWN = 64


class Places:
    """All numbers of a box.

    end        the first number behind the box; `UNBOUNDED` or more when it grows
    n_cameras  of which each has its own numbers; 1 without cameras
    is_full    whether every number of the box is a place
    """

    is_full = True

    def __init__(self, end: int, n_cameras: int) -> None:
        self.end, self.n_cameras = end, n_cameras

    def has(self, number: int) -> bool:
        """Whether there is such a place."""
        return 0 <= number < self.end

    def first_from(self, number: int) -> int:
        """`number`, or else the next place of its camera; at least `end` when there is none."""
        return number

    def ahead(self, number: int, n: int) -> Sequence[int]:
        """The first `n` places of a camera from `number` on, which is one; fewer where there are no more."""
        return range(number, min(number + n * self.n_cameras, self.end), self.n_cameras)

    def n_from(self, number: int) -> int:
        """How many places of its camera there are from `number` on."""
        return max(0, -((number - self.end) // self.n_cameras))


class RaggedPlaces(Places):
    """Numbers of a box of which each position has a part: the first items of every dimension.

    counts    of the dimensions before the frame, without cameras
    position  which of them the positions are
    own       (positions, dimensions) of which each position has the first ones; that of `position` is not looked at
    """

    is_full = False

    def __init__(self, counts: Sequence[int], position: int, own: np.ndarray, n_cameras: int) -> None:
        super().__init__(prod(counts) * n_cameras, n_cameras)
        self._n_positions = counts[position]
        self._stride = prod(counts[position + 1 :])
        self._slow, self._fast = _Box(counts[:position]), _Box(counts[position + 1 :])
        self._own_slow, self._own_fast = own[:, :position], own[:, position + 1 :]
        self._fast_counts: list[list[int]] = self._own_fast.tolist()
        # What any position has: no further than that need anybody look.
        self._most_slow: list[int] = self._own_slow.max(axis=0).tolist()
        self._everywhere = bool((self._own_slow == self._most_slow).all())
        self._all = list(range(self._n_positions))
        self._known: dict[int, list[int]] = {}  # positions by place along the slower dimensions
        self._n_prefixes = prod(counts[:position])

    def has(self, number: int) -> bool:
        if not 0 <= number < self.end:
            return False
        prefix, position, inner = self._split(number // self.n_cameras)
        return (
            self._slow.first_from(prefix, self._own_slow[position].tolist()) == prefix
            and self._fast.first_from(inner, self._fast_counts[position]) == inner
        )

    def first_from(self, number: int) -> int:
        at, camera = divmod(number, self.n_cameras)
        return self._first_from(at) * self.n_cameras + camera

    def ahead(self, number: int, n: int) -> Sequence[int]:
        numbers: list[int] = []
        while len(numbers) < n and number < self.end:
            numbers.append(number)
            number = self.first_from(number + self.n_cameras)
        return numbers

    def n_from(self, number: int) -> int:
        prefix, position, inner = self._split(number // self.n_cameras)
        positions = np.arange(self._n_positions)
        before, is_inside = _n_before(self._slow.digits(prefix), self._own_slow)
        n_fast = np.prod(self._own_fast, axis=1)
        total = np.prod(self._own_slow, axis=1) * n_fast
        n_gone = before * n_fast
        n_gone += n_fast * (is_inside & (positions < position))
        within, _ = _n_before(self._fast.digits(inner), self._own_fast[position : position + 1])
        if position < self._n_positions and is_inside[position]:
            n_gone[position] += within[0]
        return int((total - n_gone).sum()) if number < self.end else 0

    def _split(self, at: int) -> tuple[int, int, int]:
        at, inner = divmod(at, self._stride)
        prefix, position = divmod(at, self._n_positions)
        return prefix, position, inner

    def _first_from(self, at: int) -> int:
        prefix, position, inner = self._split(at)
        while prefix < self._n_prefixes:
            positions = self._at(prefix)
            number = bisect_left(positions, position)
            while number < len(positions):
                if positions[number] > position:
                    position, inner = positions[number], 0
                inner = self._fast.first_from(inner, self._fast_counts[position])
                if inner < self._stride:
                    return (prefix * self._n_positions + position) * self._stride + inner
                position, inner, number = position + 1, 0, number + 1
            prefix, position, inner = self._slow.first_from(prefix + 1, self._most_slow), 0, 0
        return self.end // self.n_cameras

    def _at(self, prefix: int) -> list[int]:
        """Positions that have that place along the slower dimensions, ascending."""
        if self._everywhere:
            return self._all if self._slow.first_from(prefix, self._most_slow) == prefix else []
        positions = self._known.get(prefix)
        if positions is None:
            if len(self._known) == _MAX_KNOWN:
                self._known.clear()
            has_it = (self._own_slow > np.array(self._slow.digits(prefix), np.int64)).all(axis=1)
            positions = self._known[prefix] = np.flatnonzero(has_it).tolist()
        return positions


class _Box:
    """Numbers of mixed radix."""

    def __init__(self, counts: Sequence[int]) -> None:
        self._steps = tuple([(prod(counts[axis + 1 :]), count) for axis, count in enumerate(counts)])
        self._size = prod(counts)

    def digits(self, number: int) -> list[int]:
        return [number // stride % count for stride, count in self._steps]

    def first_from(self, number: int, own: Sequence[int]) -> int:
        """The first number from that one on with all digits below `own`; the size of the box when there is none."""
        while number < self._size:
            for (stride, count), limit in zip(self._steps, own, strict=True):
                if number // stride % count >= limit:
                    number = (number // (stride * count) + 1) * stride * count
                    break
            else:
                return number
        return self._size


def _n_before(digits: Sequence[int], own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row of counts: how many places of its box come before the one with these digits; is that one in it."""
    before = np.zeros(len(own), np.int64)
    is_inside = np.ones(len(own), bool)
    for axis, digit in enumerate(digits):
        left = np.prod(own[:, axis + 1 :], axis=1)
        before += is_inside * np.minimum(digit, own[:, axis]) * left
        is_inside &= digit < own[:, axis]
    return before, is_inside


def places_of(loop: Sequence[Dimension], n_cameras: int) -> Places:
    """Of dimensions before the frame, without cameras."""
    counts = [dimension.count or UNBOUNDED for dimension in loop]
    at = next((number for number, dimension in enumerate(loop) if dimension.type == "position"), None)
    if at is None or not is_ragged(loop):
        return Places(prod(counts) * n_cameras, n_cameras)
    own = np.tile(np.array(counts, np.int64), (counts[at], 1))
    for number, position in enumerate(loop[at].positions):
        if not position.is_like_others:
            own[number] = [part_at(dimension, position).count or UNBOUNDED for dimension in loop]
    return RaggedPlaces(counts, at, own, n_cameras)


def is_ragged(loop: Sequence[Dimension]) -> bool:
    """Whether any position lacks places that the dimensions have."""
    return any(
        part_at(dimension, position).count != dimension.count
        for position in (position for dimension in loop for position in dimension.positions)
        if not position.is_like_others
        for dimension in loop
    )
