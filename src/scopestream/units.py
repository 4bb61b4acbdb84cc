"""Unit names of OME-Zarr 0.5 (section "axes" metadata) and the abbreviations that people write for them."""

from __future__ import annotations

from typing import Literal

_PREFIXES = {
    "yocto": "y", "zepto": "z", "atto": "a", "femto": "f", "pico": "p", "nano": "n", "micro": "u", "milli": "m",
    "centi": "c", "deci": "d", "": "", "hecto": "h", "kilo": "k", "mega": "M", "giga": "G", "tera": "T",
    "peta": "P", "exa": "E", "zetta": "Z", "yotta": "Y",
}  # fmt: skip

SPACE_UNITS = frozenset(f"{prefix}meter" for prefix in _PREFIXES) | {
    "angstrom", "foot", "inch", "mile", "parsec", "yard",
}  # fmt: skip
TIME_UNITS = frozenset(f"{prefix}second" for prefix in _PREFIXES) | {"minute", "hour", "day"}

_ABBREVIATIONS = {
    **{f"{short}m": f"{prefix}meter" for prefix, short in _PREFIXES.items()},
    **{f"{short}s": f"{prefix}second" for prefix, short in _PREFIXES.items()},
    **{name.replace("meter", "metre"): name for name in SPACE_UNITS if name.endswith("meter")},
    "\u00b5m": "micrometer", "\u03bcm": "micrometer", "micron": "micrometer", "microns": "micrometer",
    "\u00b5s": "microsecond", "\u03bcs": "microsecond", "\u00c5": "angstrom", "\u212b": "angstrom",
    "ft": "foot", "in": "inch", "yd": "yard", "sec": "second", "msec": "millisecond", "usec": "microsecond",
    "min": "minute", "hr": "hour", "h": "hour", "d": "day",
}  # fmt: skip


def full_unit_name(unit: str) -> str:
    """The OME-Zarr name of `unit` ("um" -> "micrometer"); an unknown unit comes back as it is."""
    if unit in SPACE_UNITS or unit in TIME_UNITS:
        return unit
    if unit in _ABBREVIATIONS:
        return _ABBREVIATIONS[unit]
    lower = unit.lower()  # "Seconds", "MICROMETERS": case is free in whole words only, since "Mm" is not "mm"
    for name in (lower, lower.removesuffix("s")):
        if len(name) > 2 and (name in SPACE_UNITS or name in TIME_UNITS or name in _ABBREVIATIONS):
            return _ABBREVIATIONS.get(name, name)
    return unit


def unit_kind(unit: str) -> Literal["space", "time"] | None:
    """Which kind of axis a full unit name belongs to, None when OME-Zarr does not know it."""
    if unit in SPACE_UNITS:
        return "space"
    return "time" if unit in TIME_UNITS else None
