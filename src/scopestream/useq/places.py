"""Where the frame of an event belongs, and the places that no event comes to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from useq import MDAEvent

from scopestream.errors import FrameIndexError
from scopestream.useq.layout import Layout

Place = dict[str, int]


def index_of(event: MDAEvent) -> dict[str, int]:
    """The index of an event, by plain names."""
    return {str(getattr(axis, "value", axis)): number for axis, number in event.index.items()}


class Places:
    """The place of each event of a sequence, as `Stream.write(index=...)` takes it.

    axes  names of the dimensions before the frame, slowest first
    """

    def __init__(self, layout: Layout) -> None:
        self._fields, self._numbers = layout.fields, layout.numbers
        self._plain = tuple(axis for axis in layout.axes if axis != "p")
        self._has_fields = "p" in layout.axes
        self._has_holes = any(one.stack.is_exact and one.stack.has_holes for one in layout.fields)
        self._next: dict[int, int] = {}
        self.axes = layout.axes
        orders = [one.stack.z.order if one.stack.z is not None else None for one in layout.fields]
        self._order = {number: order for number, order in enumerate(orders) if order is not None}
        self._taken = {number: _inverse(order) for number, order in self._order.items()}
        self._repeating = frozenset(one.key for one in layout.fields if one.stack.n_rounds > 1)

    @property
    def goes_back(self) -> bool:
        """Whether planes are taken in another order than from the lowest up, in which they are stored."""
        return bool(self._order)

    def repeats(self, event: MDAEvent) -> bool:
        """Whether several events have the index of this one."""
        if not self._repeating:
            return False
        index = index_of(event)
        return (index.get("p"), index.get("g")) in self._repeating

    def __call__(self, event: MDAEvent, n_before: int = 0) -> Place:
        """The place of the frame of `event`.

        n_before  how many events with this index came before, for sequences whose events repeat an index: those come
                  to later time points
        Planes count from the lowest up, however they are taken: that is what coordinates on disk say.
        Raises FrameIndexError when the sequence has no such position.
        """
        index = index_of(event)
        place = {axis: index.get(axis, 0) for axis in self._plain}
        number = 0
        if self._has_fields:
            found = self._numbers.get((index.get("p"), index.get("g")))
            if found is None:
                raise FrameIndexError(
                    f"The sequence that was planned has no position {index}; the frame was not written. Plan with the "
                    f"sequence that is run."
                )
            number = place["p"] = found
        if n_before:
            time = self._fields[number].stack.time
            place["t"] += n_before * (1 if time is None else time.count or 0)
        return _with_z(place, self._order.get(number))

    def passed(self, place: Mapping[str, int]) -> Iterator[tuple[Place, str]]:
        """The places of the same field, before this one and not told yet, that no event comes to; and why."""
        if self._has_holes:
            yield from self._holes(place.get("p", 0), self._rank(place))

    def left(self) -> Iterator[tuple[Place, str]]:
        """The places without an event that follow the last frame of each field directly, and why."""
        if self._has_holes:
            for number in range(len(self._fields)):
                yield from self._holes(number, None)

    def unknown(self) -> Iterator[tuple[Place, str]]:
        """Fields of which it is not known which places have no event, and what to say of those that stayed empty."""
        for number, one in enumerate(self._fields):
            if not one.stack.is_exact:
                yield {"p": number} if self._has_fields else {}, "no event of the sequence came here"

    def _holes(self, number: int, end: int | None) -> Iterator[tuple[Place, str]]:
        """From where the last call ended up to rank `end`, or to the first place that has an event."""
        stack = self._fields[number].stack
        rank, counts = self._next.get(number, 0), stack.counts
        top = None if None in counts.values() else self._n_places(counts)
        while (end is None and (top is None or rank < top)) or (end is not None and rank < end):
            place = self._unrank(rank, counts)
            why = stack.why_not(place.get("t", 0), place.get("c", 0), place.get("z", 0)) if stack.is_exact else None
            if why is not None:
                place = _with_z(place, self._order.get(number))
                yield ({**place, "p": number} if self._has_fields else place), why
            elif end is None:
                break
            rank += 1
        self._next[number] = max(rank if end is None else end + 1, self._next.get(number, 0))

    def _rank(self, place: Mapping[str, int]) -> int:
        number = place.get("p", 0)
        counts = self._fields[number].stack.counts
        place = _with_z(place, self._taken.get(number))
        rank = 0
        for axis in self._plain:
            rank = rank * (counts.get(axis, 1) or 1) + place[axis]
        return rank

    def _unrank(self, rank: int, counts: Mapping[str, int | None]) -> Place:
        place = {}
        for axis in reversed(self._plain):
            count = counts.get(axis, 1)
            rank, place[axis] = (0, rank) if count is None else divmod(rank, count)
        return place

    def _n_places(self, counts: Mapping[str, int | None]) -> int:
        n_places = 1
        for axis in self._plain:
            n_places *= counts.get(axis, 1) or 1
        return n_places


def _inverse(order: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(range(len(order)), key=lambda item: order[item]))


def _with_z(place: Mapping[str, int], order: Sequence[int] | None) -> Place:
    """The place with item i of z at `order[i]`."""
    if order is None or not 0 <= place["z"] < len(order):
        return dict(place)
    return {**place, "z": order[place["z"]]}
