"""What the frame log says of every frame, in a few bytes for each."""

from __future__ import annotations

from array import array
from copy import copy
from typing import Any

import numpy as np

from scopestream.errors import DatasetError
from scopestream.framelog import FRAME_LOG, STATUSES, Status, parse_mark, parse_record
from scopestream.places import Places
from scopestream.plan import LayoutPlan
from scopestream.untrusted import lines, open_regular

_CODES = {status: code for code, status in enumerate(STATUSES)}
_NO_CHECKSUM = -1


class History:
    """The last line of each frame counts: one that failed may have been written when the acquisition was resumed.

    Equally long, one entry a frame, by frame number:

    numbers    int64, ascending
    statuses   uint8, which `are` tells apart
    checksums  int64, CRC32C of the frame, -1 where there is none
    synced     bool, whether the log says that the frame was on the disk, safe from a power loss

    n_damaged  lines that are no records, without a last one that a kill cut off

    Raises DatasetError when there is a log that cannot be read; without one no frame is known.
    """

    def __init__(self, plan: LayoutPlan) -> None:
        numbers, statuses, checksums, ends = array("q"), array("B"), array("q"), array("q")
        places = plan.places
        self.n_damaged = synced = 0
        try:
            log = open_regular(plan.root / FRAME_LOG)
        except FileNotFoundError:
            log = None
        except OSError as error:
            raise DatasetError(f"{plan.root / FRAME_LOG} cannot be read: {error.strerror or error}.") from error
        for line in () if log is None else lines(log):
            record = _record(line, places)
            if record is None:
                mark = None if line is None else parse_mark(line)
                synced = max(synced, mark or 0)
                self.n_damaged += mark is None and (line is None or (line.endswith(b"\n") and bool(line.strip())))
                continue
            checksum = record.get("crc32c")
            numbers.append(record["frame"])
            statuses.append(_CODES[record["status"]])
            checksums.append(checksum if type(checksum) is int and 0 <= checksum < 1 << 32 else _NO_CHECKSUM)
            ends.append(0 if log is None else log.tell())
        if log is not None:
            log.close()
        all_numbers = np.array(numbers, np.int64)
        # Of equal numbers the last one in the log: the first from behind.
        self.numbers, from_behind = np.unique(all_numbers[::-1], return_index=True)
        last = len(all_numbers) - 1 - from_behind
        self.statuses = np.array(statuses, np.uint8)[last]
        self.checksums = np.array(checksums, np.int64)[last]
        self.synced = np.array(ends, np.int64)[last] <= synced

    def find(self, number: int) -> int | None:
        """Which entry a frame has, None when the log has none."""
        at = int(np.searchsorted(self.numbers, number))
        return at if at < len(self.numbers) and self.numbers[at] == number else None

    def find_all(self, numbers: np.ndarray) -> np.ndarray:
        """The entries of those of many frames that the log has."""
        if not len(self.numbers):
            return np.empty(0, np.int64)
        at = np.minimum(np.searchsorted(self.numbers, numbers), len(self.numbers) - 1)
        entries: np.ndarray = at[self.numbers[at] == numbers]
        return entries

    def are(self, *statuses: Status) -> np.ndarray:
        """Which entries have one of these statuses."""
        return np.isin(self.statuses, [_CODES[status] for status in statuses])

    def failing(self, entries: np.ndarray) -> History:
        """As it is once the log says that these entries failed."""
        history = copy(self)
        history.statuses = self.statuses.copy()
        history.statuses[entries] = _CODES["failed"]
        return history

    def count(self) -> dict[str, int]:
        """Frames by status."""
        return {status: int((self.statuses == code).sum()) for status, code in _CODES.items()}


def is_damaged(line: bytes | None, plan: LayoutPlan) -> bool:
    """Whether a line of the log (None: one without an end) is neither empty nor anything that counts."""
    return line is None or (bool(line.strip()) and _record(line, plan.places) is None and parse_mark(line) is None)


def _record(line: bytes | None, places: Places) -> dict[str, Any] | None:
    """Of a frame of the plan."""
    record = None if line is None else parse_record(line)
    return record if record is not None and places.has(record["frame"]) else None
