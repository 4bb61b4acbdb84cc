"""What the campaigns tried and found, one JSON object per fault, in the file that SCOPESTREAM_FAULT_RESULTS names.

`python -m tests.faults.results FILE` makes a table of it.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from pathlib import Path

_VARIABLE = "SCOPESTREAM_FAULT_RESULTS"
_COLUMNS = ("faults tried", "datasets opened", "frames promised", "frames lost")


class Results:
    """Appends lines, from any process; does nothing when nobody asked for them."""

    def __init__(self) -> None:
        self._path = os.environ.get(_VARIABLE)

    def add(self, kind: str, backend: str, what: str, *, opened: int, promised: int, lost: int) -> None:
        """One fault.

        opened    1 when all documents were whole and every reader opened every array; 0 when not
        promised  frames that had to be there
        lost      those of them that were not, or not exact, in any of the readers
        """
        if self._path is None:
            return
        row = {"kind": kind, "backend": backend, "what": what}
        line = json.dumps({**row, "opened": int(opened), "promised": promised, "lost": lost}) + "\n"
        with Path(self._path).open("a", buffering=len(line) + 1) as file:  # one write, so that lines never mix
            file.write(line)


def table(lines: list[str]) -> str:
    """Markdown: a row for each kind of fault and backend."""
    sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for line in lines:
        row = json.loads(line)
        total = sums[row["kind"], row["backend"]]
        for column, value in enumerate((1, row["opened"], row["promised"], row["lost"])):
            total[column] += value
    head = f"| fault | backend | {' | '.join(_COLUMNS)} |\n| --- | --- |{' ---: |' * len(_COLUMNS)}\n"
    rows = [f"| {kind} | {backend} | {' | '.join(map(str, total))} |" for (kind, backend), total in sums.items()]
    return head + "\n".join(sorted(rows))


if __name__ == "__main__":
    print(table(Path(sys.argv[1]).read_text().splitlines()))
