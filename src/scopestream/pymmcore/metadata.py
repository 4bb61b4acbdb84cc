"""Metadata of pymmcore-plus as JSON: kept whole, and told in the words of OME where OME has them.

Metadata never stops the camera: what JSON cannot hold becomes text.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import Enum
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError
from useq import MDAEvent, MDASequence

from scopestream.errors import MetadataError
from scopestream.jsontext import to_json

NAMESPACE = "pymmcore_plus"
_MAX_DEPTH = 32


def summary_metadata(summary: Mapping[str, Any]) -> dict[str, Any]:
    """`SummaryMetaV1` for the root document, where pymmcore-plus' own output has it as well."""
    return {"summary_metadata": plain(summary)}


def frame_metadata(meta: Mapping[str, Any], event: MDAEvent) -> dict[str, Any]:
    """`FrameMetaV1` for the frame log: whole, and besides the times in seconds and positions that OME-XML knows.

    Where the stage was not asked (triggered frames), the positions are those that it was sent to.
    """
    metadata: dict[str, Any] = {}
    if (time_ms := meta.get("runner_time_ms")) is not None:
        metadata["delta_t"] = time_ms / 1000
    if (exposure_ms := meta.get("exposure_ms")) is not None:
        metadata["exposure_time"] = exposure_ms / 1000
    asked = meta.get("position") or {}
    for axis in "xyz":
        at = asked.get(axis)
        if at is None:
            at = getattr(event, f"{axis}_pos")
        if at is not None:
            metadata[f"position_{axis}"] = float(at) + 0.0  # stages say -0.0
    metadata[NAMESPACE] = plain({**meta, "mda_event": event})  # its index has the camera, too
    return metadata


def plain(value: object, depth: int = 0) -> Any:
    """What JSON can hold of any object: models as their fields, and as a last resort the text of `repr`."""
    kind = type(value)
    if kind is str or kind is int or kind is float or kind is bool or value is None:
        return value
    if depth > _MAX_DEPTH:
        return repr(value)
    if isinstance(value, (dict, Mapping)):  # the check for dict is quicker
        return {
            key if type(key) is str else str(getattr(key, "value", key)): plain(item, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, MDASequence):
        return plain(_dump(value, exclude_unset=True), depth + 1)
    if isinstance(value, MDAEvent):  # the sequence is in the root document
        return plain(_dump(value, exclude_defaults=True, exclude={"sequence"}), depth + 1)
    if isinstance(value, BaseModel):
        return plain(_dump(value), depth + 1)
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, Enum):
        return plain(value.value, depth + 1)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, np.generic):
        return plain(value.item(), depth + 1)
    try:
        to_json({"value": value})
    except (MetadataError, ValidationError):
        return repr(value)
    return value


def _dump(model: BaseModel, **how: Any) -> dict[str, Any]:
    """The fields, as JSON has them where it can hold all of them."""
    try:
        return model.model_dump(mode="json", **how)
    except (PydanticSerializationError, ValueError, TypeError):
        return model.model_dump(**how)
