"""Fields: the places on the stage that a sequence visits, each with a name, and a well where there is a plate."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from useq import MDASequence, WellPlatePlan

from scopestream.dimensions import Plate, folded

# (item of "p", item of "g") as in the index of an event; None for an axis that it has not.
Key = tuple[int | None, int | None]
_UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f\ud800-\udfff]')
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[\d\u00b9\u00b2\u00b3])(\..*)?", re.IGNORECASE)
_STANDARD_SHAPES = {(2, 3): 6, (3, 4): 12, (4, 6): 24, (6, 8): 48, (8, 12): 96, (16, 24): 384, (32, 48): 1536}


@dataclass(frozen=True, slots=True)
class Well:
    """Row and column from 0."""

    row: int
    column: int

    @property
    def names(self) -> tuple[str, str]:
        """("A", "1") for the first."""
        return _letters(self.row), str(self.column + 1)


def _letters(index: int) -> str:
    letters, index = "", index + 1
    while index:
        index, letter = divmod(index - 1, 26)
        letters = chr(ord("A") + letter) + letters
    return letters


def plate_of(sequence: MDASequence) -> Plate | None:
    """The plate, when every position of the sequence is in a well."""
    wells = wells_of(sequence)
    if wells is None:
        return None
    plan = sequence.stage_positions
    if isinstance(plan, WellPlatePlan):
        shape, name = (plan.plate.rows, plan.plate.columns), plan.plate.name or None
    else:
        shape, name = (1 + max(well.row for well in wells), 1 + max(well.column for well in wells)), None
    if (n_wells := _STANDARD_SHAPES.get(shape)) is not None:
        return Plate.standard(n_wells, name=name)  # type: ignore[arg-type]
    rows = tuple(_letters(row) for row in range(shape[0]))
    return Plate(rows=rows, columns=tuple(str(column + 1) for column in range(shape[1])), name=name)


def wells_of(sequence: MDASequence) -> Sequence[Well] | None:
    """The well of each position, None when they are not all in wells."""
    plan = sequence.stage_positions
    if isinstance(plan, WellPlatePlan):
        n_points = plan.num_points_per_well
        wells = [Well(int(row), int(column)) for row, column in plan.selected_well_indices for _ in range(n_points)]
        return wells or None
    found = [(getattr(at, "plate_row", None), getattr(at, "plate_col", None)) for at in plan]
    if not found or any(row is None or column is None for row, column in found):
        return None
    return [Well(row, column) for row, column in found]  # type: ignore[arg-type]


def field_names(sequence: MDASequence, keys: Sequence[Key]) -> list[str]:
    """A name for each field, which no other has, and which may be a part of a path on any system."""
    given = [position.name for position in sequence.stage_positions]
    names = []
    for p, g in keys:
        parts = [] if p is None else [_safe(given[p] or "") or f"p{p}"]
        parts += [] if g is None else [f"{g:04d}"]
        names.append("_".join(parts) or "0")
    return _told_apart(names)


def _safe(name: str) -> str:
    name = _UNSAFE.sub("_", name).strip()[:200].strip()
    name = re.sub(r"\.+$", "_", name)
    return f"{name}_" if _DEVICES.fullmatch(name) else name


def _told_apart(names: Sequence[str]) -> list[str]:
    """Names that several fields share get a number: well A1 has the fields A1_0, A1_1, ..."""
    shared = {name for name, count in Counter(map(folded, names)).items() if count > 1}
    used = {folded(name) for name in names} - shared
    numbers: Counter[str] = Counter()
    result = []
    for name in names:
        unique = name
        if folded(name) in shared:
            while folded(unique := f"{name}_{numbers[folded(name)]}") in used:
                numbers[folded(name)] += 1
            numbers[folded(name)] += 1
        used.add(folded(unique))
        result.append(unique)
    return result
