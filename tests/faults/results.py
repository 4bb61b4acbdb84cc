"""What the campaigns tried and found, one JSON object per fault, in the file that SCOPESTREAM_FAULT_RESULTS names.

`python -m tests.faults.results FILE` makes a table of it.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Set
from pathlib import Path
from typing import NamedTuple

_VARIABLE = "SCOPESTREAM_FAULT_RESULTS"
_COLUMNS = ("faults tried", "datasets opened", "frames promised", "frames lost", "frames sent", "frames found")


class Numbers(NamedTuple):
    """Of frames.

    promised  had to be there
    lost      of those, the ones that are not there exactly as they were sent, in any of the readers
    sent      `append` took them
    found     of those, the ones that are there exactly as they were sent
    """

    promised: int
    lost: int
    sent: int
    found: int

    @classmethod
    def of(cls, promised: Set[int], exact: Set[int], n_sent: int) -> Numbers:
        return cls(len(promised), len(promised - exact), n_sent, len(exact & set(range(n_sent))))


class Results:
    """Appends lines, from any process; does nothing when nobody asked for them."""

    def __init__(self) -> None:
        self._path = os.environ.get(_VARIABLE)

    def add(self, kind: str, backend: str, what: str, *, opened: bool, numbers: Numbers) -> None:
        """One fault; `opened` when all documents were whole and every reader opened every array."""
        if self._path is None:
            return
        row = {"kind": kind, "backend": backend, "what": what, "opened": opened, **numbers._asdict()}
        line = json.dumps(row) + "\n"
        with Path(self._path).open("a", buffering=len(line) + 1) as file:  # one write, so that lines never mix
            file.write(line)


def table(lines: list[str]) -> str:
    """Markdown: a row for each kind of fault and backend."""
    sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0] * len(_COLUMNS))
    for line in lines:
        row = json.loads(line)
        before = sums[row["kind"], row["backend"]]
        values = (1, row["opened"], row["promised"], row["lost"], row["sent"], row["found"])
        sums[row["kind"], row["backend"]] = [total + value for total, value in zip(before, values, strict=True)]
    head = f"| fault | backend | {' | '.join(_COLUMNS)} |\n| --- | --- |{' ---: |' * len(_COLUMNS)}\n"
    rows = [f"| {kind} | {backend} | {' | '.join(map(str, total))} |" for (kind, backend), total in sums.items()]
    return head + "\n".join(sorted(rows))


if __name__ == "__main__":
    print(table(Path(sys.argv[1]).read_text().splitlines()))
