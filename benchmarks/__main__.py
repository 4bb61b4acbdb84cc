"""All runners on all cases, in turn, each in a process of its own; medians, as a table and as JSON lines."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.cases import CASES
from benchmarks.run import RUNNERS

COLUMNS = {
    "gb_per_s": "GB/s", "ratio": "of raw", "append_p50_ms": "p50 ms", "append_p99_ms": "p99 ms",
    "append_max_ms": "max ms", "close_s": "close s", "peak_mib": "MiB", "written_per_payload": "written",
    "read_per_payload": "read", "n_files": "files",
}  # fmt: skip
Row = dict[str, Any]


def main(
    cases: Annotated[list[str] | None, typer.Option("--case", help="Names of cases, all when not given.")] = None,
    runners: Annotated[list[str] | None, typer.Option("--runner", help="Names of runners; raw always runs.")] = None,
    repeats: Annotated[int, typer.Option(help="Runs of each, of which the median is shown.")] = 3,
    folder: Annotated[Path | None, typer.Option(help="The disk to write to.")] = None,
    output: Annotated[Path, typer.Option(help="JSON lines of every run.")] = Path("benchmarks/results.jsonl"),
) -> None:
    """Measure; GB/s counts everything from the first append to the end of close()."""
    console = Console()
    if not console.is_terminal:
        console.width = 120
    chosen = list(dict.fromkeys(["raw", *(runners or RUNNERS)]))
    with tempfile.TemporaryDirectory(dir=folder, prefix="scopestream-bench-") as scratch, output.open("w") as lines:
        for case in cases or CASES:
            runs: dict[str, list[Row]] = defaultdict(list)
            for number in range(repeats):
                # In turn, so that a disk that slows down in between slows down all of them.
                for runner in chosen:
                    with console.status(f"{case}: {runner}, run {number + 1} of {repeats}"):
                        row = _run(case, runner, scratch)
                    runs[runner].append(row)
                    lines.write(json.dumps(row) + "\n")
                    lines.flush()
            console.print(_table(case, runs))
            for rows in runs.values():
                if "refused" in rows[0]:
                    console.print(rows[0]["refused"])
    console.print(f"{platform.platform()}, Python {platform.python_version()}; every run is in {output}")


def _run(case: str, runner: str, folder: str) -> Row:
    command = [sys.executable, "-m", "benchmarks.run", case, runner, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{case}, {runner} failed:\n{done.stderr[-2000:]}")
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def _table(case: str, runs: dict[str, list[Row]]) -> Table:
    table = Table(title=f"{case} ({CASES[case].payload_bytes / 1e9:.2f} GB)")
    table.add_column("runner", no_wrap=True)
    for heading in COLUMNS.values():
        table.add_column(heading, justify="right", no_wrap=True)
    raw = median(row["gb_per_s"] for row in runs["raw"])
    for runner, rows in runs.items():
        if "refused" in rows[0]:
            table.add_row(runner, "refused")
            continue
        values = {name: [row[name] for row in rows if row.get(name) is not None] for name in COLUMNS}
        values["ratio"] = [row["gb_per_s"] / raw for row in rows]
        table.add_row(runner, *(f"{median(values[name]):.3g}" if values[name] else "" for name in COLUMNS))
    return table


if __name__ == "__main__":
    typer.run(main)
