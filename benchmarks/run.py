"""The process of one run: `python -m benchmarks.run CASE RUNNER FOLDER SCALE MAX_S` prints its row as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.cases import CASES
from benchmarks.measure import measure
from benchmarks.runners import RUNNERS


def main(case: str, runner: str, folder: str, scale: str, max_s: str) -> None:
    row = measure(CASES[case].scaled(float(scale)), RUNNERS[runner], Path(folder), float(max_s))
    print("\n" + json.dumps(row))


if __name__ == "__main__":
    main(*sys.argv[1:])
