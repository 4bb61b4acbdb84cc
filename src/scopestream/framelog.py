"""`scopestream/frames.jsonl`: one line per frame, appended as it happens.

It is what survives a kill: every line names the frame, its image and index, what became of it, when, and the metadata
that came with it.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from time import time
from typing import Any, Literal, NamedTuple, get_args

from scopestream.durable import sync_data
from scopestream.errors import DatasetError
from scopestream.plan import LayoutPlan
from scopestream.route import Route
from scopestream.untrusted import lines, open_regular

FRAME_LOG = "scopestream/frames.jsonl"
Status = Literal["written", "skipped", "dropped", "failed"]
STATUSES = get_args(Status)
_END_OF_TIME_S = 253_402_300_800  # the year 10 000, where dates of Python end


class Record(NamedTuple):
    """One frame as it arrived.

    time_s    seconds since 1970
    metadata  JSON text or None
    crc32c    of its pixels; None where checksums are off, or not taken yet
    """

    number: int
    time_s: float
    metadata: str | None
    crc32c: int | None = None


class Mark(NamedTuple):
    """A place in the log: its bytes up to there, and how often lines of frames were added."""

    end: int
    n_added: int


class FrameLog:
    """Appends lines, each with one write, so that after a kill a line is complete or absent. Safe from any thread."""

    def __init__(self, plan: LayoutPlan, route: Route) -> None:
        self._image = route.image
        self._coords = route.coords
        self._paths = [json.dumps(image.path) for image in plan.images]
        index = ",".join([f"{_literal(name)}:%d" for name in route.names])
        self._line = f'{{"frame":%d,"image":%s,"index":{{{index}}},"status":"%s"%s,"time":%.6f%s%s}}\n'
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._file = os.open(plan.root / FRAME_LOG, flags, 0o666)
        self._lock = threading.Lock()
        # A kill may have cut off the last line.
        self._torn = self._size() > 0 and os.pread(self._file, 1, self._size() - 1) != b"\n"
        self._n_added = 0

    def add(self, records: Iterable[Record], status: Status, reason: str | None = None) -> None:
        """Log frames that share a status. Raises OSError when the disk does not take it.

        reason  as JSON
        """
        because = f',"reason":{reason}' if reason and reason != '""' else ""
        image, coords, line, paths = self._image, self._coords, self._line, self._paths
        text = "".join(
            [
                line
                % (
                    number,
                    paths[image(number)],
                    *coords(number),
                    status,
                    because,
                    time_s,
                    "" if crc32c is None else f',"crc32c":{crc32c}',
                    f',"metadata":{metadata}' if metadata else "",
                )
                for number, time_s, metadata, crc32c in records
            ]
        )
        self._append(text)
        with self._lock:
            self._n_added += 1

    def mark(self) -> Mark:
        """The lines that are there by now."""
        with self._lock:
            return Mark(self._size(), self._n_added)

    def sync(self, mark: Mark) -> None:
        """Log that what the lines before the mark say holds after a power loss, and let the log survive it.

        Raises OSError when the disk does not take it.
        """
        self._append(f'{{"synced":{mark.end},"time":{time():.6f}}}\n')
        sync_data(self._file)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _append(self, text: str) -> None:
        with self._lock:
            if self._torn:  # a full disk took a part of a line
                text = "\n" + text
            data = memoryview(text.encode())
            self._torn = True
            while data:
                data = data[os.write(self._file, data) :]
            self._torn = False

    def _size(self) -> int:
        return os.fstat(self._file).st_size


def _literal(text: str) -> str:
    """As JSON, in a format string."""
    return json.dumps(text).replace("%", "%%")


def read_frames(path: str | Path) -> Iterator[dict[str, Any]]:
    """The records of a dataset, in the order in which they were logged.

    Each has frame, image, index, status, time, and where given reason and metadata. Lines that a kill or a full disk
    cut off are left out, and so is whatever is no record: the dataset may be anybody's.
    Raises DatasetError, when the first record is asked for, where there is no log that can be read.
    """
    log = Path(path) / FRAME_LOG
    try:
        with open_regular(log) as file:
            for line in lines(file):
                record = None if line is None else parse_record(line)
                if record is not None:
                    yield record
    except FileNotFoundError:
        raise DatasetError(f"{log} is missing: the dataset has no frame log.") from None
    except OSError as error:
        raise DatasetError(f"{log} cannot be read: {error.strerror or error}") from error


def parse_record(line: bytes) -> dict[str, Any] | None:
    """The record of a line of the frame log, None when it is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and _is_sane(record) else None


def parse_mark(line: bytes) -> int | None:
    """Bytes of the log whose lines hold after a power loss, as `FrameLog.sync` has noted; None for other lines."""
    try:
        mark = json.loads(line)
    except (ValueError, RecursionError):
        return None
    synced = mark.get("synced") if isinstance(mark, dict) else None
    return synced if _is_count(synced) else None


def _is_sane(record: dict[str, Any]) -> bool:
    """Whether the fields that all records have are what they should be; others are not looked at."""
    index, time_s = record.get("index"), record.get("time")
    return (
        _is_count(record.get("frame"))
        and isinstance(record.get("image"), str)
        and isinstance(index, dict)
        and all(map(_is_count, index.values()))
        and record.get("status") in STATUSES
        and isinstance(time_s, (int, float))
        and abs(time_s) < _END_OF_TIME_S
        and isinstance(record.get("reason", ""), str)
        and isinstance(record.get("metadata", {}), dict)
    )


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63
