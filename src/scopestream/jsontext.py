"""Metadata as JSON text, by rules that lose nothing silently.

| what comes | what is stored |
| --- | --- |
| NumPy numbers and arrays | numbers and lists; dates as ISO 8601 |
| enums, dates, times, paths, UUIDs, dataclasses, pydantic models | their usual JSON form |
| NaN and infinities, which JSON has not | "NaN", "Infinity", "-Infinity" (as in Zarr's fill values) |
| whole numbers that need more than 64 bits, which most readers have not | their digits as text |
| lone surrogates, which UTF-8 has not | the six characters of their escape, as text |
| keys that are numbers, True, False or None | the text that JSON has for them |

Refused are bytes, complex numbers, durations of NumPy, records of NumPy, other objects, keys that are none of these or
become equal to another, more than 64 levels and more than 8 000 000 characters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from math import isfinite, isnan
from pathlib import PurePath
from typing import Any

import numpy as np
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_jsonable_python

from scopestream.errors import MetadataError

MAX_CHARACTERS = 8_000_000  # half of the longest line that is read back
_MAX_DEPTH = 64  # some readers stop at 128, and documents have levels of their own
_encode = json.JSONEncoder(allow_nan=False, check_circular=False, separators=(",", ":")).encode


def to_json(value: object, outcome: str = "nothing was changed") -> str:
    """A mapping as one line of JSON, in ASCII.

    outcome  what the error says of the call that brought it
    Raises MetadataError, a TypeError, when `value` is no mapping or has something that JSON cannot hold.
    """
    if not isinstance(value, Mapping):
        raise MetadataError(f"Metadata is a mapping, not a {type(value).__name__}; {outcome}.")
    text = _encode_plain(value)
    if text is None:  # something in it needs one of the rules above
        try:
            text = _encode(_jsonable(value, 0))
        except (TypeError, ValueError, RecursionError, PydanticSerializationError) as error:
            raise MetadataError(f"Metadata cannot be stored as JSON: {error}; {outcome}.") from None
    if len(text) > MAX_CHARACTERS:
        raise MetadataError(
            f"Metadata of {len(text)} characters is too large, at most {MAX_CHARACTERS} are possible; {outcome}. Store "
            f"large arrays in files of their own."
        )
    return text


def text_to_json(text: object, what: str, outcome: str) -> str:
    """Text as JSON, in ASCII and without line ends. Raises MetadataError when it is no text, or endless."""
    if not isinstance(text, str):
        raise MetadataError(f"{what} is text, not a {type(text).__name__}; {outcome}.")
    if len(text) > MAX_CHARACTERS // 6:  # an escape has six characters
        raise MetadataError(f"{what} of {len(text)} characters is too long; {outcome}.")
    return _encode(_utf8(text))


def _encode_plain(value: Mapping[Any, Any]) -> str | None:
    """JSON of what needs no rule, quickly; None for all else."""
    if not _is_plain(value, 0):
        return None
    try:
        text = _encode(value)
    except ValueError:  # NaN
        return None
    return None if "\\ud" in text else text  # surrogates, most of them pairs, which do no harm


def _is_plain(value: object, depth: int) -> bool:
    """Whether it consists of nothing but the types of JSON, with keys that are text."""
    kind = type(value)
    if kind is dict and depth < _MAX_DEPTH:
        for key in value:  # type: ignore[attr-defined]
            if type(key) is not str:
                return False
        items = value.values()  # type: ignore[attr-defined]
    elif kind is list and depth < _MAX_DEPTH:
        items = value
    else:
        return False
    for item in items:
        kind = type(item)
        if kind is str or kind is float or kind is bool or item is None:
            continue
        if kind is int:
            if -(2**63) <= item < 2**64:
                continue
            return False
        if not _is_plain(item, depth + 1):
            return False
    return True


def _jsonable(value: object, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError(f"it is nested more than {_MAX_DEPTH} levels deep, or holds itself")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return _number(float(value))
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**64 else int.__repr__(value)
    if isinstance(value, str):
        return _utf8(value)
    if isinstance(value, (np.ndarray, np.generic)):
        return _jsonable(_from_numpy(value), depth)
    if isinstance(value, Mapping):
        return _object(value, depth)
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_jsonable(item, depth + 1) for item in value]
    if isinstance(value, PurePath):
        return _utf8(str(value))
    if isinstance(value, BaseModel):
        return _jsonable(value.model_dump(), depth)
    if is_dataclass(value) and not isinstance(value, type):
        return _object({field.name: getattr(value, field.name) for field in fields(value)}, depth)
    if isinstance(value, (bytes, bytearray, memoryview, complex)):
        raise TypeError(f"a {type(value).__name__} has no JSON form")
    return _jsonable(to_jsonable_python(value), depth + 1)


def _object(value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, item in value.items():
        name = _key(key)
        if name in result:
            raise ValueError(f"two keys become {name!r}")
        result[name] = _jsonable(item, depth + 1)
    return result


def _key(key: object) -> str:
    if isinstance(key, np.generic):
        key = key.item()
    if isinstance(key, str):
        return _utf8(key)
    if key is None or isinstance(key, (bool, int)):
        return json.dumps(key)
    if isinstance(key, float):
        number = _number(float(key))
        return number if isinstance(number, str) else repr(number)
    raise TypeError(f"a key is a {type(key).__name__}, not text")


def _number(value: float) -> float | str:
    return value if isfinite(value) else "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _utf8(text: str) -> str:
    """Lone surrogates, which stand for bytes of file names that were no UTF-8, become their escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _from_numpy(value: np.ndarray | np.generic) -> Any:
    kind = value.dtype.kind
    if kind == "M":
        return value.astype(str).tolist()
    if kind in "mV":
        raise TypeError(f"{value.dtype} of NumPy has no JSON form")
    # Python has no number that is longer than float64.
    return (value.astype(np.float64) if kind == "f" else value).tolist()
