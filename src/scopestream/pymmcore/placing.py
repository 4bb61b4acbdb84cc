"""Where frames belong: by the sequence, by the index of their events, or, where nothing is known, one after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Protocol

from useq import MDAEvent, MDASequence

from scopestream.errors import FrameIndexError
from scopestream.useq import Place, Places, index_of, takes_image

# What tells the frames of an event from those of others: its index, without the camera.
EventKey = tuple[tuple[str, int], ...]
CAMERA = "cam"  # in the index of events, when there are several cameras


def event_key(event: MDAEvent) -> EventKey:
    return tuple(sorted([item for item in index_of(event).items() if item[0] != CAMERA]))


class Placing(Protocol):
    """Gives each event its place, when it starts: what then becomes of its frame moves no other."""

    def start(self, event: MDAEvent, camera: int) -> Place:
        """The place of the frame that this camera takes of the event. Raises FrameIndexError when it has none."""

    def passed(self, place: Place) -> Iterator[tuple[Place, str]]:
        """Places before this one that no event comes to, and why."""

    def left(self, *, is_complete: bool) -> Iterator[tuple[Place, str]]:
        """Places that no event came to, once all is over, and why."""


class BySequence:
    """Places of a sequence that was planned."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._n_before: Counter[tuple[int, EventKey]] = Counter()

    @property
    def goes_back(self) -> bool:
        return self._places.goes_back

    def start(self, event: MDAEvent, camera: int) -> Place:
        if not self._places.repeats(event):
            return self._places(event)
        key = (camera, event_key(event))
        self._n_before[key] += 1
        return self._places(event, self._n_before[key] - 1)

    def passed(self, place: Place) -> Iterator[tuple[Place, str]]:
        return self._places.passed(place)

    def left(self, *, is_complete: bool) -> Iterator[tuple[Place, str]]:
        yield from self._places.left()
        if is_complete:
            yield from self._places.unknown()


class ByIndex:
    """The index of the event is the place, along dimensions that somebody declared."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = tuple(names)

    def start(self, event: MDAEvent, camera: int) -> Place:
        index = index_of(event)
        if foreign := {name: i for name, i in index.items() if i and name not in self._names and name != CAMERA}:
            raise FrameIndexError(
                f"The event at {index} has items of {', '.join(map(repr, foreign))}, which is no dimension of the "
                f"dataset (it has {', '.join(self._names) or 'none'}). Its frame was not written; those before it are "
                f"safe. Declare all dimensions that will come."
            )
        return {name: index.get(name, 0) for name in self._names}

    def passed(self, place: Place) -> Iterator[tuple[Place, str]]:
        return iter(())

    def left(self, *, is_complete: bool) -> Iterator[tuple[Place, str]]:
        return iter(())


class OneAfterAnother:
    """Events follow one another along a single axis, whatever their index says; it is in the frame log."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._n_events: Counter[int] = Counter()

    def start(self, event: MDAEvent, camera: int) -> Place:
        self._n_events[camera] += 1
        return {self._name: self._n_events[camera] - 1}

    def passed(self, place: Place) -> Iterator[tuple[Place, str]]:
        return iter(())

    def left(self, *, is_complete: bool) -> Iterator[tuple[Place, str]]:
        return iter(())


class Follower:
    """Says which events come after the last frame, where somebody skips frames and does not say which."""

    def __init__(self, sequence: MDASequence) -> None:
        self._events = filter(takes_image, iter(sequence))
        self._last: EventKey | None = None

    def came(self, key: EventKey) -> None:
        """A frame of that event. It costs nothing before something is skipped."""
        self._last = key

    def next(self, n: int) -> list[MDAEvent]:
        """The `n` events after that; fewer when the sequence is acquired in another order than it says."""
        if self._last is not None:
            any(event_key(event) == self._last for event in self._events)
            self._last = None
        return list(islice(self._events, n))
