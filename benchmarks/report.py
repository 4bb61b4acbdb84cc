"""`python -m benchmarks.report FILE...`: recorded rows become tables and pictures, in a page of the documentation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.plots import draw
from benchmarks.tables import Header, Runs, by_case, case_table, read_results

_BEGIN, _END = "<!-- results: made by python -m benchmarks.report -->", "<!-- end of results -->"
_PICTURES = {
    "rates": "GB/s of each case: scopestream's backends, libraries driven directly, ome-writers, and the limits",
    "latency": "What share of the frames was taken within how many milliseconds",
    "memory": "Memory above the start, over time",
}


def main(
    files: Annotated[list[Path], typer.Argument(help="JSON lines that `python -m benchmarks` wrote.")],
    page: Annotated[Path | None, typer.Option(help="The page whose results are replaced.")] = None,
    images: Annotated[Path, typer.Option(help="The folder of the pictures.")] = Path("docs/images"),
) -> None:
    """Draw the pictures, and put the tables into the page, or print them."""
    headers, rows = read_results(files)
    runs = by_case(rows)
    pictures = draw(runs, images)
    if page is None:
        typer.echo(tables_text(headers, runs))
        return
    results = "\n\n".join([pictures_text(pictures, page), tables_text(headers, runs)])
    page.write_text(with_results(page.read_text(encoding="utf-8"), results), encoding="utf-8")


def with_results(page: str, results: str) -> str:
    """The page with everything between its two marks replaced. Raises ValueError when it has no marks."""
    head, begin, rest = page.partition(_BEGIN)
    _, end, tail = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"the page has no lines {_BEGIN!r} and {_END!r}")
    return f"{head}{_BEGIN}\n\n{results}\n\n{_END}{tail}"


def pictures_text(pictures: list[Path], page: Path) -> str:
    return "\n\n".join(
        f"![{_PICTURES[path.stem]}]({Path(os.path.relpath(path, page.parent)).as_posix()})" for path in pictures
    )


def tables_text(headers: list[Header], runs: Runs) -> str:
    """All tables as Markdown, after how they were made."""
    parts = []
    for header in headers:
        parts.append(f"Made on {header.date} by `{header.command}` on {header.text}.")
    for case, runners in runs.items():
        table = case_table(case, runners)
        name, _, what = table.title.partition(": ")
        parts += [f"### {name}", f"{what[:1].upper()}{what[1:]}." if what else "", table.markdown()]
        parts.append("\n".join(f"* {note}" for note in table.notes))
    return "\n\n".join(part for part in parts if part)


if __name__ == "__main__":
    typer.run(main)
