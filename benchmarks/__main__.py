"""All runners on all cases, in turn, each in a process of its own; medians as tables, every run as a JSON line."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.console import Console

from benchmarks.cases import CASES, Case
from benchmarks.runners import RUNNERS
from benchmarks.tables import Header, Row, case_table

_LIBRARIES = (
    "scopestream", "ome-writers", "tensorstore", "acquire-zarr", "zarr", "zarrs", "numcodecs", "numpy",
)  # fmt: skip
PREPARING_S = 120  # imports, frames, warming up and reading back


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Cases; all but the long ones when none is given.")] = None,
    runners: Annotated[list[str] | None, typer.Option("--runner", help="Only these; raw always runs.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each, of which the median is shown.")] = 3,
    scale: Annotated[float, typer.Option(min=0, help="Times the usual payload of a case.")] = 1.0,
    deadline: Annotated[float, typer.Option(min=0.1, help="Seconds of sending frames after which a run ends.")] = 20.0,
    sustained: Annotated[bool, typer.Option(help="The case 'sustained' as well.")] = False,
    sustained_gb: Annotated[float | None, typer.Option(help="Its size; 1.1 times the memory if not given.")] = None,
    folder: Annotated[Path | None, typer.Option(help="A folder on the disk to write to.")] = None,
    output: Annotated[Path, typer.Option(help="JSON lines of every run.")] = Path("benchmarks/results.jsonl"),
) -> None:
    """Measure. GB/s counts everything from the first append to the end of close()."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 190
    cases = _chosen(names or [name for name, case in CASES.items() if not case.by_name])
    if sustained and CASES["sustained"] not in cases:
        cases.append(CASES["sustained"])
    unknown = [name for name in runners or () if name not in RUNNERS]
    if unknown:
        raise typer.BadParameter(f"no runner {', '.join(unknown)}; there are {', '.join(RUNNERS)}")
    chosen = list(dict.fromkeys(["raw", *(runners or RUNNERS)]))
    output.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix="scopestream-bench-", ignore_cleanup_errors=True) as scratch,
        output.open("w", encoding="utf-8") as lines,
    ):
        header = _header()
        lines.write(json.dumps(asdict(header)) + "\n")
        for case in cases:
            factor = _sustained_scale(case, sustained_gb) if case.name == "sustained" else scale
            runs: dict[str, list[Row]] = defaultdict(list)
            for number in range(repeats):
                # In turn, so that a disk that slows down in between slows down all of them.
                turn = number % len(chosen)  # nobody always follows the same one
                for runner in chosen[turn:] + chosen[:turn]:
                    if runs[runner] and "gb_per_s" not in runs[runner][-1]:
                        continue  # it would only refuse, or fail, again
                    with console.status(f"{case.name}: {runner}, run {number + 1} of {repeats}"):
                        row = run_apart(case, runner, Path(scratch), factor, deadline * case.patience)
                    runs[runner].append(row)
                    lines.write(json.dumps(row) + "\n")
                    lines.flush()
            table = case_table(case.name, runs)
            console.print(table.rich())
            for note in table.notes:
                console.print(note, style="dim", markup=False)
            console.print()
    console.print(f"{header.text}; every run is in {output}", markup=False)


def _chosen(names: list[str]) -> list[Case]:
    if unknown := [name for name in names if name not in CASES]:
        raise typer.BadParameter(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    return [CASES[name] for name in names]


def _sustained_scale(case: Case, gigabytes: float | None) -> float:
    n_bytes = 1.1 * psutil.virtual_memory().total if gigabytes is None else gigabytes * 1e9
    return n_bytes / case.payload_bytes


def run_apart(case: Case, runner: str, folder: Path, scale: float, max_s: float) -> Row:
    """One run in a process of its own, which is killed when it hangs; then nothing stays in `folder`."""
    command = [sys.executable, "-m", "benchmarks.run", case.name, runner, str(folder), str(scale), str(max_s)]
    limit_s = 3 * max_s + PREPARING_S
    failed: Row = {"case": case.name, "runner": runner, "kind": RUNNERS[runner].kind}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            out, errors = process.communicate(timeout=limit_s)
        except BaseException as error:
            process.kill()
            process.wait()
            for left in folder.iterdir():  # the next one may need the space
                shutil.rmtree(left, ignore_errors=True)
            if isinstance(error, subprocess.TimeoutExpired):
                return failed | {"failed": f"not done in {limit_s:g} s"}
            raise
    if process.returncode:
        said = [line for line in errors.splitlines() if line.strip()]
        return failed | {"failed": f"exit code {process.returncode}: {said[-1] if said else 'it said nothing'}"}
    row: Row = json.loads(out.splitlines()[-1])
    return row


def _header() -> Header:
    return Header(
        command=shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        date=datetime.now(UTC).date().isoformat(),
        machine={
            "processor": f"{os.cpu_count()} cores ({platform.machine()})",
            "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB of memory",
            "system": f"{platform.system()} {platform.release()}",
            "python": f"Python {platform.python_version()}",
        },
        versions={name: version(name) for name in _LIBRARIES},
    )


if __name__ == "__main__":
    typer.run(main)
