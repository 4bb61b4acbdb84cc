"""Stacks: the times, channels and planes that are taken at a field, and those that a full box would have besides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import isclose

from useq import MDASequence, MultiPhaseTimePlan

# (group, preset)
ChannelKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Axis:
    """The items along time or z.

    count    None when nobody knows how many there will be
    step     from one item to the next, in seconds or micrometers: the mean where they differ, None when it is not known
    first    lowest coordinate, None when it is not known
    order    of planes: where each item of the sequence is, counted from the lowest; None when they are taken that way
    is_even  whether all steps are the same
    """

    count: int | None
    step: float | None = None
    first: float | None = None
    order: tuple[int, ...] | None = None
    is_even: bool = True


@dataclass(frozen=True, slots=True)
class Stack:
    """What the events of one field come to, as a box of times, channels and planes.

    time, z   None without that axis
    channels  empty without channels
    planes    for each channel the items of z that are taken, None for all of them
    every     for each channel: it is taken at the time points 0, every, 2 * every, ...
    n_rounds  how often the events go through the same times: later rounds become later time points
    is_exact  whether `planes` and `every` say exactly which places of the box have an event
    """

    time: Axis | None = None
    channels: tuple[ChannelKey, ...] = ()
    z: Axis | None = None
    planes: tuple[frozenset[int] | None, ...] = (None,)
    every: tuple[int, ...] = (1,)
    n_rounds: int = 1
    is_exact: bool = True

    @property
    def counts(self) -> dict[str, int | None]:
        """Items along each axis that the stack has; rounds are time points."""
        counts: dict[str, int | None] = {}
        if self.time is not None or self.n_rounds > 1:
            n_times = 1 if self.time is None else self.time.count
            counts["t"] = None if n_times is None else n_times * self.n_rounds
        if self.channels:
            counts["c"] = len(self.channels)
        if self.z is not None:
            counts["z"] = self.z.count
        return counts

    @property
    def has_holes(self) -> bool:
        """Whether some places of the box are known to have no event."""
        return any(every > 1 for every in self.every) or any(planes is not None for planes in self.planes)

    def why_not(self, t: int, c: int, z: int) -> str | None:
        """Why that place of the box has no event; None when it has one."""
        name = f"channel {self.channels[c][1]}" if self.channels else "the channel"
        if self.n_rounds > 1:
            t %= (self.time.count if self.time else None) or 1
        if self.every[c] > 1 and t % self.every[c]:
            return f"{name} is taken at every {_ordinal(self.every[c])} time point only"
        planes = self.planes[c]
        if planes is not None and z not in planes:
            return f"{name} is taken in {len(planes)} of {self.z.count if self.z else 1} planes only"
        return None


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def axis_of(coordinates: Sequence[float]) -> Axis:
    """Items at these coordinates, in any order."""
    ordered = sorted(coordinates)
    steps = [after - before for before, after in pairwise(ordered) if after > before]
    step = sum(steps) / len(steps) if steps else None
    is_even = all(isclose(one, step or one, rel_tol=1e-6) for one in steps)
    return Axis(len(coordinates), step, ordered[0] if ordered else None, is_even=is_even)


def planes_at(coordinates: Sequence[float]) -> Axis:
    """Planes at these coordinates, in the order in which they are taken."""
    upwards = sorted(range(len(coordinates)), key=lambda item: coordinates[item])
    order = tuple(sorted(range(len(upwards)), key=lambda item: upwards[item]))
    return replace(axis_of(coordinates), order=None if order == tuple(range(len(order))) else order)


def times_of(sequence: MDASequence) -> Axis | None:
    """The time points; without a count when a duration is to be filled as fast as it goes."""
    plan = sequence.time_plan
    if plan is None or "t" not in sequence.axis_order:
        return None
    try:
        if isinstance(plan, MultiPhaseTimePlan):
            return axis_of(list(plan))
        count = plan.loops
    except ZeroDivisionError:
        return Axis(None)
    step = plan.interval.total_seconds() if count > 1 else 0.0
    return Axis(count, step or None, 0.0)


def planes_of(sequence: MDASequence) -> Axis | None:
    """The planes of the z plan: relative to the field, or absolute."""
    if sequence.z_plan is None or "z" not in sequence.axis_order:
        return None
    coordinates = list(sequence.z_plan)
    axis = planes_at(coordinates)
    if axis.step is None and (step := getattr(sequence.z_plan, "step", None)):
        return replace(axis, step=float(step))
    return axis if coordinates else None


def stack_of(sequence: MDASequence) -> Stack:
    """What is taken at every field, where none has a sequence of its own."""
    z = planes_of(sequence)
    channels = sequence.channels if "c" in sequence.axis_order else ()
    if not channels:
        return Stack(time=times_of(sequence), z=z)
    middle = None if sequence.z_plan is None or z is None else frozenset([sequence.z_plan.num_positions() // 2])
    time = times_of(sequence)
    return Stack(
        time=time,
        channels=tuple((channel.group, channel.config) for channel in channels),
        z=z,
        planes=tuple(None if channel.do_stack or z is None or z.count == 1 else middle for channel in channels),
        every=tuple(channel.acquire_every if time is not None else 1 for channel in channels),
    )


@dataclass(slots=True)
class _ChannelSeen:
    key: ChannelKey | None
    planes: set[int] = field(default_factory=set)
    z_at: dict[int, float] = field(default_factory=dict)
    n_events: int = 0
    last_t: int = -1
    top_t: int = 0
    step_t: int = 0
    is_even: bool = True

    def add(self, t: int, z: int) -> None:
        self.n_events += 1
        self.planes.add(z)
        if t == self.last_t:
            return
        if t > 0 and self.last_t >= 0 and t > self.last_t:
            self.is_even &= self.step_t in (0, t - self.last_t)
            self.step_t = self.step_t or t - self.last_t
        elif t > 0:  # times start at 0, and go back to 0
            self.is_even = False
        self.last_t, self.top_t = t, max(self.top_t, t)

    @property
    def n_expected(self) -> int:
        """Events when all planes are taken at all times."""
        return len(self.planes) * (1 + (self.top_t // self.step_t if self.step_t else 0))


class StackSeen:
    """Learns a stack from its events, in memory that does not grow with time."""

    def __init__(self) -> None:
        self._channels: dict[int, _ChannelSeen] = {}
        self._times: tuple[float, float] = (0.0, 0.0)
        self._axes: set[str] = set()
        self.z_lowest: float | None = None

    def add(self, index: dict[str, int], channel: ChannelKey | None, z_pos: float | None, time_s: float | None) -> None:
        self._axes.update(index)
        t, c, z = index.get("t", 0), index.get("c", 0), index.get("z", 0)
        seen = self._channels.get(c)
        if seen is None:
            seen = self._channels[c] = _ChannelSeen(channel)
        seen.add(t, z)
        if z_pos is not None:
            seen.z_at.setdefault(z, z_pos)
            self.z_lowest = z_pos if self.z_lowest is None else min(self.z_lowest, z_pos)
        if time_s is not None:
            first, last = self._times
            self._times = (time_s if t == 0 else first, max(last, time_s))

    def stack(self, time: Axis | None, *, is_reduced: bool) -> Stack:
        """What was seen.

        time        of the whole sequence, where the field has no times of its own
        is_reduced  whether only the first time point of the whole sequence was looked at
        """
        seen = [self._channels.get(c, _ChannelSeen(None)) for c in range(max(self._channels, default=0) + 1)]
        n_rounds = max((-(-one.n_events // max(one.n_expected, 1)) for one in seen), default=1)
        top_t = max((one.top_t for one in seen), default=0)
        own_time = time is None and "t" in self._axes
        if own_time:
            span = self._times[1] - self._times[0]
            time = Axis(top_t + 1, span / top_t if top_t and span > 0 else None, self._times[0])
        n_planes = 1 + max((max(one.planes, default=0) for one in seen), default=0)
        n_times = (None if is_reduced and not own_time else time.count if time is not None else 1) or 1
        every = [one.step_t or n_times for one in seen]
        is_exact = all(
            one.is_even and one.n_events == len(one.planes) * -(-n_times // step) * n_rounds
            for one, step in zip(seen, every, strict=True)
        )
        # Of the channel with the most planes: each may have an offset of its own.
        z_at = max((one.z_at for one in seen), key=len)
        z = planes_at([z_at[item] for item in sorted(z_at)])
        z = replace(z, count=n_planes, order=z.order if len(z_at) == n_planes else None)
        has_channels = "c" in self._axes
        return Stack(
            time=time,
            channels=tuple(one.key or ("", f"channel {c}") for c, one in enumerate(seen)) if has_channels else (),
            z=z if "z" in self._axes else None,
            planes=tuple(None if len(one.planes) == n_planes else frozenset(one.planes) for one in seen),
            every=tuple(every),
            n_rounds=n_rounds,
            is_exact=is_exact,
        )
