"""Metadata as JSON text, by rules that lose nothing silently.

NumPy scalars and arrays become numbers and lists; enums, dates, paths and pydantic models their usual JSON form; NaN
and infinities, which JSON has not, the strings "NaN", "Infinity" and "-Infinity" (as in Zarr's fill values).
Everything else is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite, isnan
from typing import Any

import numpy as np
from pydantic_core import PydanticSerializationError, to_jsonable_python

from scopestream.errors import MetadataError


def to_json(value: object, outcome: str = "nothing was changed") -> str:
    """A mapping as one line of JSON.

    outcome  what the error says of the call that brought it
    Raises MetadataError, a TypeError, when `value` is no mapping or has something that JSON cannot hold.
    """
    if not isinstance(value, Mapping):
        raise MetadataError(f"Metadata is a mapping, not a {type(value).__name__}; {outcome}.")
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError):
        pass  # a value that needs one of the rules above
    try:
        return json.dumps(_jsonable(value), allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError, PydanticSerializationError) as error:
        raise MetadataError(f"Metadata cannot be stored as JSON: {error}; {outcome}.") from None


def _jsonable(value: object) -> Any:
    if isinstance(value, float):
        return value if isfinite(value) else "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, (np.ndarray, np.generic)):
        return _jsonable(value.tolist())
    if isinstance(value, Mapping):
        return {_key(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_jsonable(item) for item in value]
    if isinstance(value, (bytes, bytearray, memoryview, complex)):
        raise TypeError(f"a {type(value).__name__} has no JSON form")
    return _jsonable(to_jsonable_python(value))


def _key(key: object) -> str:
    if isinstance(key, (str, int, float, np.generic)):
        return str(key)
    raise TypeError(f"the key {key!r} is not text")
