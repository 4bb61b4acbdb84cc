"""The layout of a sequence: its axes in order, its fields, and the stack that each of them has.

Sequences whose positions have none of their own are read off their plans. Others are planned from their events, because
what they come to is nowhere else: `MDASequence.sizes` knows of no sequence of a position, and plans within plans
replace, repeat or leave out one another. The events are gone through once, none is kept, and only the first time point
is looked at when the others are like it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from useq import AcquireImage, MDAEvent, MDASequence, RandomPoints, TIntervalLoops, WellPlatePlan

from scopestream.useq.fields import Key, Well, field_names, wells_of
from scopestream.useq.stacks import Axis, Stack, StackSeen, stack_of, times_of


@dataclass(frozen=True, slots=True)
class Field:
    """One place on the stage: a position, or a point of the grid at a position. Coordinates in micrometers."""

    key: Key
    name: str
    x: float | None
    y: float | None
    z: float | None
    well: Well | None
    stack: Stack


@dataclass(frozen=True)
class Layout:
    """What a sequence comes to.

    axes    of "t", "p", "c" and "z" those that there are, slowest first; the fields are "p", grid or not
    fields  in the order in which they are visited; a single one without a name where there is no "p"
    """

    axes: tuple[str, ...]
    fields: tuple[Field, ...]
    numbers: Mapping[Key, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "numbers", {one.key: number for number, one in enumerate(self.fields)})


def takes_image(event: MDAEvent) -> bool:
    """Whether a frame comes of that event; none does of autofocus and other actions."""
    return event.action is None or isinstance(event.action, AcquireImage)


def layout_of(sequence: MDASequence) -> Layout:
    """The layout, as the events of `sequence` make it."""
    if all(position.sequence is None for position in sequence.stage_positions):
        return _from_plans(sequence)
    return _from_events(sequence)


def with_field_of_view(sequence: MDASequence, width: float | None, height: float | None) -> MDASequence:
    """The sequence with grids that know the field of view, in micrometers, where they did not.

    A copy, whenever there is a grid: useq remembers the points of a grid from the first time that it is asked, and the
    engine must be the first to ask, when it knows the field of view.
    """

    def informed(plan: Any) -> Any:
        if plan is None:
            return None
        return plan.model_copy(update={"fov_width": plan.fov_width or width, "fov_height": plan.fov_height or height})

    positions: Any = sequence.stage_positions
    if not isinstance(positions, WellPlatePlan):
        positions = tuple(
            position
            if position.sequence is None or position.sequence.grid_plan is None
            else position.model_copy(update={"sequence": _anew(position.sequence, informed)})
            for position in positions
        )
        if all(new is old for new, old in zip(positions, sequence.stage_positions, strict=True)):
            positions = sequence.stage_positions
    if sequence.grid_plan is None and positions is sequence.stage_positions:
        return sequence
    return _anew(sequence, informed, stage_positions=positions)


def _anew(sequence: MDASequence, informed: Any, **changes: Any) -> MDASequence:
    """Built without validation, which would warn again; a copy would have the identity of the original."""
    values = {name: getattr(sequence, name) for name in type(sequence).model_fields}
    return type(sequence).model_construct(**{**values, "grid_plan": informed(sequence.grid_plan), **changes})


def _from_plans(sequence: MDASequence) -> Layout:
    stack = stack_of(sequence)
    positions = list(sequence.stage_positions) if "p" in sequence.axis_order else []
    grid: list[Any] = list(sequence.grid_plan) if sequence.grid_plan is not None and "g" in sequence.axis_order else []
    keys = _keys(sequence.axis_order, len(positions), len(grid))
    is_random = _is_random(sequence.grid_plan)
    spots: list[tuple[float | None, float | None, float | None]] = []
    for p, g in keys:
        at = positions[p] if p is not None else None
        x, y = (at.x, at.y) if at is not None else (None, None)
        if g is not None:
            point = grid[g]
            base = (x or 0.0, y or 0.0) if point.is_relative else (0.0, 0.0)
            x = None if point.x is None else base[0] + point.x
            y = None if point.y is None else base[1] + point.y
        spots.append((None if is_random else x, None if is_random else y, at.z if at is not None else None))
    if stack.z is not None and stack.z.first is not None:
        relative = sequence.z_plan is not None and sequence.z_plan.is_relative
        lowest = stack.z.first
        spots = [(x, y, lowest + (z or 0.0) if relative else lowest) for x, y, z in spots]
    counts = stack.counts
    axes = _axes(sequence.axis_order, {*counts, *(["p"] if positions else []), *(["g"] if grid else [])})
    return Layout(axes, _fields(sequence, keys, spots, [stack] * len(keys)))


def _is_random(grid: Any) -> bool:
    """Whether the points of a grid are others each time that somebody asks."""
    return isinstance(grid, RandomPoints) and grid.random_seed is None


def _keys(axis_order: Sequence[str], n_positions: int, n_points: int) -> list[Key]:
    if not n_positions or not n_points:
        return [(p, None) for p in range(n_positions)] or [(None, g) for g in range(n_points)] or [(None, None)]
    if axis_order.index("p") < axis_order.index("g"):
        return [(p, g) for p in range(n_positions) for g in range(n_points)]
    return [(p, g) for g in range(n_points) for p in range(n_positions)]


def _axes(axis_order: Sequence[str], used: set[str]) -> tuple[str, ...]:
    """The axes that there are. The fields take the place of the faster of "p" and "g", which bounds what waits."""
    order = [axis for axis in dict.fromkeys((*map(str, axis_order), *"tpgcz")) if axis in used]
    if "p" in order and "g" in order:
        order.remove("p" if order.index("p") < order.index("g") else "g")
    return tuple("p" if axis == "g" else axis for axis in order)


def _fields(
    sequence: MDASequence,
    keys: Sequence[Key],
    spots: Sequence[tuple[float | None, float | None, float | None]],
    stacks: Sequence[Stack],
) -> tuple[Field, ...]:
    wells = wells_of(sequence)
    names = field_names(sequence, keys)
    return tuple(
        Field(key, name, *spot, wells[key[0]] if wells is not None and key[0] is not None else None, stack)
        for key, name, spot, stack in zip(keys, names, spots, stacks, strict=True)
    )


def _from_events(sequence: MDASequence) -> Layout:
    time = times_of(sequence)
    # Channels that are left out at some times make time points differ.
    is_reduced = time is not None and all(channel.acquire_every == 1 for channel in sequence.channels)
    if is_reduced:
        once = TIntervalLoops(interval=0, loops=1)  # type: ignore[arg-type]
        events = sequence.model_copy(update={"time_plan": once})
    else:
        events = sequence
    seen: dict[Key, StackSeen] = {}
    spots: dict[Key, tuple[float | None, float | None]] = {}
    used: set[str] = set()
    for event in events:
        if not takes_image(event):
            continue
        index = {str(getattr(axis, "value", axis)): number for axis, number in event.index.items()}
        used.update(index)
        key = (index.get("p"), index.get("g"))
        if key not in seen:
            seen[key] = StackSeen()
            spots[key] = (event.x_pos, event.y_pos)
        channel = (event.channel.group, event.channel.config) if event.channel is not None else None
        seen[key].add(index, channel, event.z_pos, event.min_start_time)
    positions = list(sequence.stage_positions)
    own_time = [at.sequence is not None and at.sequence.time_plan is not None for at in positions]
    keys = sorted(seen, key=lambda key: _rank(sequence.axis_order, key))
    stacks, known = [], dict[Stack, Stack]()
    for key in keys:
        is_own = key[0] is not None and own_time[key[0]]
        stack = seen[key].stack(None if is_own else time, is_reduced=is_reduced)
        if is_own and is_reduced and time is not None and time.count is not None:
            stack = _in_rounds(stack, time.count)
        stacks.append(known.setdefault(stack, stack))  # thousands of fields share a few
        used.update(stack.counts)
    grids = [sequence.grid_plan, *(at.sequence.grid_plan for at in positions if at.sequence is not None)]
    if any(map(_is_random, grids)):
        spots = {key: (None, None) if key[1] is not None else spot for key, spot in spots.items()}
    at = [(*spots[key], seen[key].z_lowest) for key in keys]
    return Layout(_axes(sequence.axis_order, used), _fields(sequence, keys, at, stacks))


def _rank(axis_order: Sequence[str], key: Key) -> tuple[int, ...]:
    p, g = (-1 if number is None else number for number in key)
    grid_first = "p" in axis_order and "g" in axis_order and axis_order.index("g") < axis_order.index("p")
    return (g, p) if grid_first else (p, g)


def _in_rounds(stack: Stack, n_rounds: int) -> Stack:
    return Stack(
        time=stack.time, channels=stack.channels, z=stack.z, planes=stack.planes, every=stack.every,
        n_rounds=stack.n_rounds * n_rounds, is_exact=stack.is_exact,
    )  # fmt: skip


__all__ = ["Axis", "Field", "Layout", "layout_of", "takes_image", "with_field_of_view"]
