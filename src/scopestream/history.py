"""What the frame log says of every frame, in a few bytes for each."""

from __future__ import annotations

import json
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from scopestream.framelog import FRAME_LOG, Status
from scopestream.plan import LayoutPlan
from scopestream.untrusted import open_regular

MAX_LINE_BYTES = 16_000_000
_STATUSES: tuple[Status, ...] = ("written", "skipped", "dropped", "failed")
_CODES = {status: code for code, status in enumerate(_STATUSES)}
_UNBOUNDED = 1 << 62
_NO_CHECKSUM = -1


class History:
    """The last line of each frame counts: one that failed may have been written when the acquisition was resumed.

    Equally long, one entry a frame, by frame number:

    numbers    int64, ascending
    statuses   uint8, to be compared with `code`
    checksums  int64, CRC32C of the frame, -1 where there is none
    synced     bool, whether the log says that the frame was on the disk, safe from a power loss

    n_damaged  lines that are no records, without a last one that a kill cut off
    """

    def __init__(self, plan: LayoutPlan) -> None:
        numbers, statuses, checksums, ends = array("q"), array("B"), array("q"), array("q")
        self.n_damaged = n_synced = 0
        for end, record in self._records(plan.root / FRAME_LOG):
            if "synced" in record:  # lines from before that sync began, others may have come while it went on
                synced = record["synced"]
                n_synced = bisect_right(ends, synced) if type(synced) is int else n_synced
                continue
            number, status, checksum = record.get("frame"), record.get("status"), record.get("crc32c")
            total = _UNBOUNDED if plan.n_frames is None else plan.n_frames
            if type(number) is not int or not 0 <= number < total or status not in _CODES:
                self.n_damaged += 1
                continue
            ends.append(end)
            numbers.append(number)
            statuses.append(_CODES[status])
            checksums.append(checksum if type(checksum) is int and 0 <= checksum < 1 << 32 else _NO_CHECKSUM)
        all_numbers = np.frombuffer(numbers, np.int64) if numbers else np.empty(0, np.int64)
        # Of equal numbers the last one in the log: the first from behind.
        self.numbers, from_behind = np.unique(all_numbers[::-1], return_index=True)
        last = len(all_numbers) - 1 - from_behind
        self.statuses = np.array(statuses, np.uint8)[last]
        self.checksums = np.array(checksums, np.int64)[last]
        self.synced = last < n_synced

    def find(self, number: int) -> int | None:
        """Which entry a frame has, None when the log has none."""
        at = int(np.searchsorted(self.numbers, number))
        return at if at < len(self.numbers) and self.numbers[at] == number else None

    def are(self, *statuses: Status) -> np.ndarray:
        """Which entries have one of these statuses."""
        return np.isin(self.statuses, [_CODES[status] for status in statuses])

    def count(self) -> dict[str, int]:
        """Frames by status."""
        return {status: int((self.statuses == code).sum()) for status, code in _CODES.items()}

    def _records(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        """Each record, after the number of bytes of the log up to its end."""
        try:
            log = open_regular(path)
        except FileNotFoundError:
            return
        with log:
            for line in _lines(log):
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError):
                    record = None
                if isinstance(record, dict):
                    yield log.tell(), record
                elif line.strip():
                    self.n_damaged += line.endswith(b"\n")


def _lines(log: BinaryIO) -> Iterator[bytes]:
    """Lines of a bounded length; of one that nobody should have written only the beginning."""
    while line := log.readline(MAX_LINE_BYTES):
        yield line
        while len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            line = log.readline(MAX_LINE_BYTES)
