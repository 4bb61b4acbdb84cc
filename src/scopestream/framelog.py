"""`scopestream/frames.jsonl`: one line per frame, appended as it happens.

It is what survives a kill: every line names the frame, its image and index, what became of it, when, and the metadata
that came with it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from scopestream.jsontext import to_json
from scopestream.plan import LayoutPlan
from scopestream.route import Route

FRAME_LOG = "scopestream/frames.jsonl"
Status = Literal["written", "skipped", "dropped", "failed"]


class Record(NamedTuple):
    """One frame as it arrived. `time_s` is seconds since 1970, `metadata` JSON text or None."""

    number: int
    time_s: float
    metadata: str | None


class FrameLog:
    """Appends lines; a line is complete or absent, since each call is one write of whole lines.

    Threads may call it at the same time: the file is opened for appending, and every write is one system call.
    """

    def __init__(self, plan: LayoutPlan, route: Route) -> None:
        self._locate = route.locate
        self._coords = route.coords
        self._heads = [f',"image":{to_json(image.path)},"index":{{' for image in plan.images]
        self._names = [f'"{name}":' for name in route.names]
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._file = os.open(plan.root / FRAME_LOG, flags, 0o666)

    def add(self, records: Iterable[Record], status: Status, reason: str | None = None) -> None:
        """Log frames that share a status. Raises OSError when the disk does not take it."""
        tail = f',"status":"{status}"' + (f',"reason":{to_json(reason)}' if reason else "")
        text = "".join([self._line(record, tail) for record in records])
        data = memoryview(text.encode())
        while data:
            data = data[os.write(self._file, data) :]

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _line(self, record: Record, tail: str) -> str:
        number = record.number
        coords = self._coords(number)
        index = ",".join([f"{name}{i}" for name, i in zip(self._names, coords, strict=True)])
        metadata = f',"metadata":{record.metadata}' if record.metadata else ""
        head = self._heads[self._locate(number)[0]]
        return f'{{"frame":{number}{head}{index}}}{tail},"time":{record.time_s:.6f}{metadata}}}\n'


def read_frames(path: str | Path) -> Iterator[dict[str, Any]]:
    """The records of a dataset, in the order in which they were logged.

    Each has frame, image, index, status, time, and where given reason and metadata. A last line that a kill cut off
    is left out.
    """
    with (Path(path) / FRAME_LOG).open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield json.loads(line)
