"""The planes of OME-XML: one for each frame, with its time, its exposure and where the stage was.

They are written as text. A model of each, as of the rest of the document, would take the better part of a minute for
100 000 of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import inf
from typing import Any
from xml.sax.saxutils import quoteattr

from ome_types.model import UnitsLength

from scopestream.plan import ImagePlan, LayoutPlan
from scopestream.route import Route

# A plane costs some 150 bytes of XML, and readers hold the whole document: past this, the frame log has the times.
# That goes for fewer of them where no frame brings anything else: `close` would take a second longer.
MAX_PLANES, MAX_BARE_PLANES = 100_000, 20_000
_MAX_NUMBER = 1e30  # no time and no place is further away, and whole numbers of any size become floats
_UNITS = {unit.name.lower(): unit.value for unit in UnitsLength}
_ATTRIBUTES = {
    "delta_t": "DeltaT",
    "exposure_time": "ExposureTime",
    "position_x": "PositionX",
    "position_y": "PositionY",
    "position_z": "PositionZ",
}
Key = tuple[int, int, int]  # T, C, Z
Fields = dict[str, float]


class Planes:
    """Of frames that were written: the first 100 000 in the log, or 20 000 where none of these brings any metadata.

    records  the frame log
    began_s  when the first frame came, seconds since 1970; None when none came
    """

    def __init__(self, plan: LayoutPlan, records: Iterable[Mapping[str, Any]]) -> None:
        self._plan = plan
        self._units = _stage_units(plan)
        self._by_image: dict[int, dict[Key, tuple[float, Fields]]] = {}
        by_path = {image.path: number for number, image in enumerate(plan.images)}
        roles = [{"time": 0, "space": 2}.get(axis.type, 1) for axis in plan.settings.axes[:-2]]
        locate = Route(plan).locate
        n_planes, limit, began_s = 0, MAX_BARE_PLANES, inf
        for record in records:
            number = by_path.get(record["image"])
            if record["status"] != "written" or number is None or not plan.places.has(record["frame"]):
                continue
            began_s = min(began_s, record["time"])
            at = [0, 0, 0]
            _, index = locate(record["frame"])
            for role, i in zip(roles, index, strict=True):
                at[role] = i
            planes = self._by_image.setdefault(number, {})
            fields = _fields(record.get("metadata", {}))
            if fields:
                limit = MAX_PLANES
            planes[at[0], at[1], at[2]] = record["time"], fields
            n_planes += 1
            if n_planes == limit:  # the rest of the log is not even read
                break
        self.began_s = None if began_s == inf else began_s

    def of(self, number: int) -> Iterator[str]:
        """The elements of an image, in the order of T, C and Z; the log has them as they were stored.

        Where a frame did not say where the stage was, it was where it was planned to be.
        """
        image = self._plan.images[number]
        planes = self._by_image.get(number)
        if planes is None:  # a place for the stage position
            if image.position is not None:
                yield self._text((0, 0, 0), self._planned(image, 0))
            return
        for key in sorted(planes):
            time_s, fields = planes[key]
            since_s = 0.0 if self.began_s is None else round(time_s - self.began_s, 6)
            yield self._text(key, {"delta_t": since_s, **self._planned(image, key[2]), **fields})

    def _planned(self, image: ImagePlan, the_z: int) -> Fields:
        if image.position is None:
            return {}
        z = next((axis for axis in image.dimensions[:-2] if axis.type == "space"), None)
        rise = 0.0 if z is None else the_z * z.scale
        places = (("x", image.position.x, 0.0), ("y", image.position.y, 0.0), ("z", image.position.z, rise))
        return {f"position_{name}": planned + more for name, planned, more in places if planned is not None}

    def _text(self, key: Key, fields: Fields) -> str:
        t, c, z = key
        parts = [f'<Plane TheZ="{z}" TheT="{t}" TheC="{c}"']
        for name, attribute in _ATTRIBUTES.items():
            if name in fields:
                parts.append(f'{attribute}="{fields[name]!r}"')
                if (unit := self._units.get(name)) is not None:
                    parts.append(f"{attribute}Unit={unit}")
        return f"{' '.join(parts)}/>"


def _fields(metadata: Mapping[str, Any]) -> Fields:
    """What OME-XML has a place for."""
    return {
        name: float(metadata[name])
        for name in _ATTRIBUTES
        if isinstance(metadata.get(name), (int, float)) and abs(metadata[name]) < _MAX_NUMBER
    }


def _stage_units(plan: LayoutPlan) -> dict[str, str]:
    """Units of the stage's x, y and z, in quotes: those of the axes that they move along.

    Where such an axis has none, or is not there, the unit of all other dimensions of space, if they have one in common.
    """
    space = [one for one in plan.settings.dimensions if one.type == "space" and one.unit in _UNITS]
    in_common = {one.unit for one in space}
    units = dict.fromkeys(("x", "y", "z"), in_common.pop() if len(in_common) == 1 else None)
    roles = plan.settings.stage_axes
    units |= {roles[one.name]: one.unit for one in space if one.name in roles}
    return {f"position_{role}": quoteattr(_UNITS[unit]) for role, unit in units.items() if unit is not None}
