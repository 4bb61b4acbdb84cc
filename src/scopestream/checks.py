"""What `scopestream verify` and `scopestream recover` show."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from scopestream.describe import size_text
from scopestream.info import clean
from scopestream.locate import frames_text, runs
from scopestream.recovery import Recovery, recover
from scopestream.verification import ImageVerification, Verification, verify

_MAX_IMAGES = 50
_COUNTS = ("written", "unchecked", "corrupt", "lost", "skipped", "dropped", "failed", "missing")
_BAD = ("corrupt", "lost", "failed")


def run_verify(path: Path, console: Console) -> bool:
    """Verify with a progress bar and print a table; returns whether nothing is damaged."""
    with _progress(console) as (progress, task):
        found = verify(path, lambda done, total: progress.update(task, completed=done, total=total))
    console.print(_images_table(found))
    for problem in found.problems:
        console.print(Text(f"  - {clean(problem)}", style="red"))
    if found.n_problems > len(found.problems):
        console.print(Text(f"  and {found.n_problems - len(found.problems)} more", style="red"))
    console.print(_verdict(found))
    return found.sound


def run_recover(path: Path, console: Console, *, dry_run: bool) -> None:
    """Recover with a progress bar, and print what was done."""
    with _progress(console) as (progress, task):
        outcome = recover(path, dry_run=dry_run, on_file=lambda: progress.advance(task))
    if dry_run and outcome.changed:
        console.print(Text("This would be done; nothing was changed:"))
    for line in _done(outcome):
        console.print(Text(line))
    for problem in outcome.repairs.problems:
        console.print(Text(f"  - {clean(problem)}", style="red"))
    counts = ", ".join(f"{count} {status}" for status, count in outcome.frames.items() if count)
    is_now = "would be" if dry_run else "is"
    console.print(Text(f"{clean(str(path))} {is_now} {outcome.status}: {counts or 'no'} frames"))


def _images_table(found: Verification) -> Table:
    """One row for each image, with the columns that say anything; rows with damage first."""
    names = [name for name in _COUNTS if name == "written" or found.total(name)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("image", overflow="fold")
    for name in names:
        table.add_column(name, justify="right")
    rows = sorted(found.images, key=lambda image: not any(getattr(image, name) for name in _BAD))
    for image in rows[:_MAX_IMAGES]:
        table.add_row(Text(clean(f"{image.path} {image.name}".strip())), *(_count(image, name) for name in names))
    if len(rows) > _MAX_IMAGES:
        table.caption = f"and {len(rows) - _MAX_IMAGES} more without damage" if found.sound else "and more"
    return table


def _count(image: ImageVerification, name: str) -> Text:
    count = getattr(image, name)
    return Text(str(count), style="red" if count and name in _BAD else "")


def _verdict(found: Verification) -> Text:
    total = found.total("written")
    unchecked = f" ({found.total('unchecked')} without a checksum)" if found.total("unchecked") else ""
    if found.sound:
        text = f"All {total} frames that were written{unchecked} are intact, in {found.n_files} files."
        return Text(f"{text} The acquisition is {clean(found.status)}.", style="green")
    return Text(
        f"{total} frames{unchecked} are intact, {found.total('corrupt')} corrupt, {found.total('lost')} lost; "
        f"{_many(found.n_problems, 'problem')} with files.",
        style="bold red",
    )


def _done(outcome: Recovery) -> Iterator[str]:
    if not outcome.changed:
        yield "There is nothing to recover."
        return
    repairs = outcome.repairs
    if repairs.trimmed:
        yield f"trimmed {_many(repairs.trimmed, 'shard')} by {size_text(repairs.freed_bytes)} of file length"
    if repairs.salvaged:
        yield f"found chunks that no index named, by their checksums, in {_many(repairs.salvaged, 'shard')}"
    if repairs.rebuilt:
        yield f"made {_many(repairs.rebuilt, 'damaged index', 'damaged indexes')} again from the chunks"
    for path in repairs.set_aside:
        yield f"renamed {clean(str(path))}, which no reader can open; its bytes stay"
    if repairs.leftovers:
        yield f"removed {_many(repairs.leftovers, 'unfinished file')}"
    if repairs.log_lines:
        yield f"blanked {_many(repairs.log_lines, 'damaged line')} of the frame log, which is kept beside as it was"
    if repairs.documents:
        yield f"wrote {_many(repairs.documents, 'document')} of arrays again"
    if outcome.n_levels:
        yield f"computed the coarser levels of {_many(outcome.n_levels, 'block')} again"
    if outcome.lost:
        yield f"lost {frames_text(runs(outcome.lost))}, which the log called written"


def _many(n: int, one: str, several: str = "") -> str:
    return f"{n} {one if n == 1 else several or one + 's'}"


@contextmanager
def _progress(console: Console) -> Iterator[tuple[Progress, TaskID]]:
    columns = (TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TextColumn("files"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield progress, progress.add_task("", total=None)
