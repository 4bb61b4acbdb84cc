"""The frame log as a table of pandas: one row for each frame."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scopestream.errors import DatasetError, LibraryNotFoundError
from scopestream.framelog import STATUSES, read_frames

if TYPE_CHECKING:
    import pandas as pd

_MAX_COLUMNS = 4096  # of metadata; somebody's log may have another key on each line
_NUMBERS_AS_TEXT = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


def frames_table(path: str | Path) -> pd.DataFrame:
    """What became of each frame of a dataset, in the order of their numbers; of several lines the last one counts.

    Columns: frame (its number), image (path of its group), one for each dimension before the frame (its place, from
    0), status, reason, time (UTC), crc32c, then the keys of the metadata. Metadata in metadata is "stage.x"; a key
    whose name is taken gets "metadata." in front. What a frame does not have is missing (NA).
    Raises LibraryNotFoundError without pandas, and DatasetError where there is no log that can be read.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise LibraryNotFoundError(
            "A table of frames needs pandas, which is not installed: pip install 'scopestream[pandas]'. "
            "scopestream.read_frames gives the same records without it."
        ) from error
    records = {record["frame"]: record for record in read_frames(path)}
    rows = [records[number] for number in sorted(records)]
    columns: dict[str, Any] = {
        "frame": pd.Series([row["frame"] for row in rows], dtype="int64"),
        "image": pd.Series([row["image"] for row in rows], dtype="string"),
    }
    for name in dict.fromkeys(name for row in rows for name in row["index"]):
        columns.setdefault(name, pd.Series([row["index"].get(name) for row in rows], dtype="Int64"))
    columns |= {
        "status": pd.Categorical([row["status"] for row in rows], categories=STATUSES),
        "reason": pd.Series([row.get("reason") for row in rows], dtype="string"),
        "time": pd.to_datetime([round(row["time"] * 1e6) for row in rows], unit="us", utc=True),
        "crc32c": pd.Series([_checksum(row) for row in rows], dtype="UInt32"),
    }
    for name, values in _metadata(rows, path).items():
        free = name if name not in columns else f"metadata.{name}"
        columns[free] = pd.Series([values.get(number) for number in range(len(rows))], dtype=object).convert_dtypes()
    return pd.DataFrame(columns)


def _metadata(rows: list[dict[str, Any]], path: str | Path) -> dict[str, dict[int, Any]]:
    """The metadata by key and row."""
    columns: dict[str, dict[int, Any]] = {}
    for number, row in enumerate(rows):
        for name, value in _flat(row.get("metadata", {})).items():
            columns.setdefault(name, {})[number] = value
        if len(columns) > _MAX_COLUMNS:
            raise DatasetError(
                f"The metadata of the frames in {path} has more than {_MAX_COLUMNS} keys, too many for a table. "
                f"scopestream.read_frames gives the records one by one."
            )
    for values in columns.values():
        if all(type(value) in (int, float) or value in _NUMBERS_AS_TEXT for value in map(_hashable, values.values())):
            values.update({at: _NUMBERS_AS_TEXT.get(_hashable(value), value) for at, value in values.items()})
    return columns


def _flat(metadata: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in metadata.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _hashable(value: Any) -> Any:
    return None if isinstance(value, (dict, list)) else value


def _checksum(row: Mapping[str, Any]) -> int | None:
    checksum = row.get("crc32c")
    return checksum if type(checksum) is int and 0 <= checksum < 1 << 32 else None
