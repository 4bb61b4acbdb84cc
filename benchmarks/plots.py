"""Pictures of recorded rows: rates, latencies of `append`, memory over time."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.tables import Row, Runs, measured, medians

Lines = dict[str, dict[str, Any]]
Panel = Callable[[Axes, dict[str, list[Row]], Lines], None]

_COLORS = {"limit": "#9aa0a6", "ours": "#1a73e8", "library": "#e8a33d", "ome-writers": "#b0413e"}
_LABELS = {
    "limit": "limits",
    "ours": "scopestream",
    "library": "a library alone",
    "ome-writers": "ome-writers",
}
_STYLES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1)), (0, (1, 3)))
_COLUMNS = 3
_DPI = 100


def draw(runs: Runs, folder: Path) -> list[Path]:
    """Write rates.png, latency.png and memory.png, each with one panel for each case."""
    folder.mkdir(parents=True, exist_ok=True)
    panels = {case: runners for case, runners in runs.items() if medians(runners)}
    pictures: list[tuple[str, Panel, float]] = [
        ("rates", _rates, 3.6),
        ("latency", _latency, 2.9),
        ("memory", _memory, 2.9),
    ]
    paths = []
    with mpl.rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}):
        for name, panel, height in pictures:
            paths.append(folder / f"{name}.png")
            _figure(panels, panel, height).savefig(paths[-1], dpi=_DPI)
    return paths


def _figure(panels: dict[str, dict[str, list[Row]]], panel: Panel, height: float) -> Figure:
    n_columns = min(_COLUMNS, len(panels))
    n_rows = ceil(len(panels) / n_columns)
    figure = Figure(figsize=(3.6 * n_columns, height * n_rows + 0.5), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False).flat
    handles, lines = {}, _lines(panels)
    for (case, runners), ax in zip(panels.items(), axes, strict=False):
        panel(ax, runners, lines)
        ax.set_title(case, fontweight="bold")
        handles |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    for ax in figure.axes[len(panels) :]:  # what is left over of the last row
        ax.set_visible(False)
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=2 * n_columns, frameon=False, fontsize=7
    )
    return figure


def _rates(ax: Axes, runners: dict[str, list[Row]], lines: Lines) -> None:
    found = medians(runners)
    found.pop("memcpy", None)  # five times as much as all the others, which would be dwarfs
    names = list(reversed(found))
    for kind, color in _COLORS.items():
        mine = [(y, name) for y, name in enumerate(names) if runners[name][0]["kind"] == kind]
        if not mine:  # an empty bar would give its kind another colour
            continue
        ax.barh([y for y, _ in mine], [found[n]["gb_per_s"] for _, n in mine], color=color, label=_LABELS[kind])
    for y, name in enumerate(names):
        ax.annotate(f"{found[name]['gb_per_s']:.2f}", (found[name]["gb_per_s"], y), (3, 0), textcoords="offset points",
                    va="center", fontsize=7)  # fmt: skip
    ax.set_yticks(range(len(names)), names)
    ax.set_xlabel("GB/s")
    ax.margins(x=0.15)


def _latency(ax: Axes, runners: dict[str, list[Row]], lines: Lines) -> None:
    """Of the run in the middle: the share of frames that took no longer."""
    for runner, row in _middle_runs(runners):
        quantiles = row["append_quantiles_ms"]
        shares = [100 * number / (len(quantiles) - 1) for number in range(len(quantiles))]
        ax.plot([max(ms, 1e-3) for ms in quantiles], shares, label=runner, **lines[runner])
    ax.set_xscale("log")
    ax.set_xlabel("append takes at most, ms")
    ax.set_ylabel("% of frames")


def _memory(ax: Axes, runners: dict[str, list[Row]], lines: Lines) -> None:
    for runner, row in _middle_runs(runners):
        ax.plot(
            [at for at, _ in row["memory"]], [max(mib, 1) for _, mib in row["memory"]], label=runner, **lines[runner]
        )
    ax.set_yscale("log")
    ax.set_xlabel("seconds since open")
    ax.set_ylabel("MiB above the start")


def _middle_runs(runners: dict[str, list[Row]]) -> list[tuple[str, Row]]:
    """Of each runner the run with the median rate; not of limits, except the plain write."""
    runs = []
    for runner, rows in runners.items():
        good = sorted(measured(rows), key=lambda row: float(row["gb_per_s"]))
        if good and (runner == "raw" or good[0]["kind"] != "limit"):
            runs.append((runner, good[len(good) // 2]))
    return runs


def _lines(runs: Runs) -> Lines:
    """One colour for each kind, one style for each of its runners."""
    kinds = {runner: rows[0]["kind"] for runners in runs.values() for runner, rows in runners.items()}
    lines = {}
    for runner, kind in kinds.items():
        among = [name for name, other in kinds.items() if other == kind]
        lines[runner] = {
            "color": _COLORS[kind],
            "linestyle": _STYLES[among.index(runner) % len(_STYLES)],
            "linewidth": 2.2 if runner == "scopestream/inplace" else 1.2,
        }
    return lines
