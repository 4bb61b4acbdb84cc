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
from typing import Any, Literal, NamedTuple

from scopestream.durable import sync_data
from scopestream.plan import LayoutPlan
from scopestream.route import Route

FRAME_LOG = "scopestream/frames.jsonl"
Status = Literal["written", "skipped", "dropped", "failed"]


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
    cut off are left out.
    """
    with (Path(path) / FRAME_LOG).open("rb") as lines:
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and "frame" in record:
                yield record
