"""Rows of many runs -> medians -> one table for each case."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from benchmarks.cases import CASES

Row = dict[str, Any]
Runs = dict[str, dict[str, list[Row]]]  # case -> runner -> its rows

_COLUMNS = {
    "gb_per_s": "GB/s", "of_raw": "of raw", "of_codec": "of codec", "append_p50_ms": "p50 ms",
    "append_p99_ms": "p99 ms", "append_max_ms": "max ms", "open_s": "open s", "close_s": "close s",
    "peak_mib": "MiB", "written_per_payload": "written", "read_per_payload": "read", "n_files": "files",
}  # fmt: skip
_TENTHS = {"first_tenth_us": "first tenth, µs", "last_tenth_us": "last tenth, µs"}
_LONG = ("million", "sustained")


@dataclass(frozen=True, slots=True)
class Header:
    """Where rows come from: one JSON line before them."""

    command: str
    date: str
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        machine = ", ".join(f"{value}" for value in self.machine.values())
        return f"{machine}; " + ", ".join(f"{name} {version}" for name, version in self.versions.items())


@dataclass(frozen=True, slots=True)
class CaseTable:
    """Cells of one case as text, the runner first, and sentences below."""

    title: str
    headings: tuple[str, ...]
    lines: list[tuple[str, ...]]
    notes: list[str]

    def rich(self) -> Table:
        table = Table(title=self.title, title_justify="left", title_style="bold")
        for number, heading in enumerate(self.headings):
            table.add_column(heading, justify="right" if number else "left", no_wrap=True)
        for line in self.lines:
            table.add_row(*line)
        return table

    def markdown(self) -> str:
        rule = ["---"] + ["---:"] * (len(self.headings) - 1)
        return "\n".join(f"| {' | '.join(line)} |" for line in (self.headings, rule, *self.lines))


def read_results(files: Iterable[Path]) -> tuple[list[Header], list[Row]]:
    """Headers and rows of recorded files."""
    headers, rows = [], []
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            data = json.loads(line)
            if "command" in data:
                headers.append(Header(**data))
            else:
                rows.append(data)
    return headers, rows


def by_case(rows: Iterable[Row]) -> Runs:
    runs: Runs = defaultdict(lambda: defaultdict(list))
    for row in rows:
        runs[row["case"]][row["runner"]].append(row)
    return {case: dict(runners) for case, runners in runs.items()}


def measured(rows: Iterable[Row]) -> list[Row]:
    """Those that are neither refused nor failed."""
    return [row for row in rows if "gb_per_s" in row]


def medians(runners: dict[str, list[Row]]) -> dict[str, dict[str, float]]:
    """The median of every column for each runner of a case that was measured."""
    found: dict[str, dict[str, float]] = {}
    for runner, rows in runners.items():
        if good := measured(rows):
            columns = {name: [row[name] for row in good if row.get(name) is not None] for name in _COLUMNS}
            found[runner] = {name: median(values) for name, values in columns.items() if values}
    for limit in ("raw", "codec"):
        if limit in found:
            for values in found.values():
                values[f"of_{limit}"] = values["gb_per_s"] / found[limit]["gb_per_s"]
    return found


def case_table(case: str, runners: dict[str, list[Row]]) -> CaseTable:
    """The table of one case; refusals and failures are results, and have their line."""
    found = medians(runners)
    columns = {name: heading for name, heading in _COLUMNS.items() if name != "of_codec" or "codec" in found}
    tenths = _TENTHS if case in _LONG else {}
    headings = ("runner", *columns.values(), *tenths.values(), "checked")
    lines, notes = [], []
    for runner, rows in runners.items():
        notes += [f"{runner}: {note}." for note in _notes(rows)]
        if runner not in found:
            if runner != "codec":
                lines.append((runner, "refused" if "refused" in rows[0] else "failed", *[""] * (len(headings) - 2)))
            continue
        good = measured(rows)
        cells = [_number(found[runner].get(name)) for name in columns]
        if any(row["cut_short"] for row in good):
            cells[0] += "*"
        cells += ["{:.1f} (p50 {:.1f})".format(*_median_pair(good, name)) for name in tenths]
        lines.append((runner, *cells, _checked(good)))
    return CaseTable(_title(case, runners), headings, lines, notes)


def _title(case: str, runners: dict[str, list[Row]]) -> str:
    payloads = [row["payload_gb"] for rows in runners.values() for row in measured(rows)]
    what = f": {CASES[case].what}" if case in CASES else ""
    return f"{case}{what}" + (f" ({max(payloads):.3g} GB)" if payloads else "")


def _notes(rows: list[Row]) -> list[str]:
    notes = []
    for row in rows:
        if "refused" in row and row["runner"] != "codec":
            notes.append(f"refused: {row['refused']}".rstrip("."))
        elif "failed" in row:
            notes.append(f"failed: {row['failed']}".rstrip("."))
        elif "gb_per_s" in row:
            notes += [row["note"]] if row["note"] else []
            notes += [row["verified_frames"]] if isinstance(row["verified_frames"], str) else []
    if cut := [row for row in measured(rows) if row["cut_short"]]:
        took = median(row["frames"] for row in cut)
        notes.append(f"* stopped at the deadline, after {took:g} frames (median)")
    return list(dict.fromkeys(notes))


def _checked(rows: list[Row]) -> str:
    counts = [row["verified_frames"] for row in rows]
    if any(isinstance(count, str) for count in counts):
        return "WRONG"
    return str(min(counts)) if any(counts) else ""


def _median_pair(rows: list[Row], name: str) -> tuple[float, float]:
    return median(row[name][0] for row in rows), median(row[name][1] for row in rows)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if value >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}" if value >= 0.0005 else "0"
