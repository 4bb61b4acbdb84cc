"""`recover`: after a crash, what is there becomes a dataset that was closed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scopestream.contrast import Contrast
from scopestream.dataset import Dataset, open_dataset
from scopestream.document import array_document, stored_length, write_document
from scopestream.durable import sync_everything
from scopestream.framelog import read_frames
from scopestream.lock import DatasetLock, check_not_busy, read_owner
from scopestream.metadata import MetadataWriter
from scopestream.relevel import complete_levels
from scopestream.repair import Repairs, repair
from scopestream.restore import Blocks
from scopestream.resume import Prepared, check_changeable, in_doubt, prepare


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What `recover` did, or with `dry_run` would do.

    was      what the root said before: "recording" after a crash
    status   what it says now: "complete" or "incomplete"
    frames   by what became of them: written, skipped, dropped, failed, and missing, which never came
    lost     frames that the log called written, and that are not on the disk, or that were found damaged where coarser
             levels had to be computed; they count as failed now
    repairs  what was mended in the files
    n_levels blocks of frames whose coarser levels were computed again
    """

    path: Path
    dry_run: bool
    was: str
    status: str
    frames: Mapping[str, int]
    lost: tuple[int, ...]
    repairs: Repairs
    n_levels: int

    @property
    def changed(self) -> bool:
        """Whether there was anything to do."""
        mended = self.repairs
        return bool(
            self.was == "recording" or self.lost or self.n_levels or mended.trimmed or mended.salvaged
            or mended.rebuilt or mended.set_aside or mended.leftovers or mended.log_lines
            or mended.documents
        )  # fmt: skip


def recover(path: str | Path, *, dry_run: bool = False, on_file: Callable[[], object] = lambda: None) -> Recovery:
    """Make the dataset at `path` whole after a crash, as if it had been closed then. Doing it again changes nothing.

    Chunks that no index names yet are found by their checksums; damaged indexes are made again from chunks, or the
    file is put aside; shards give back what they have in reserve; shapes, levels, group documents and OME-XML become
    those of what is there. No frame that can be read is deleted.

    dry_run  change nothing, and say what would be done
    on_file  called after each data file that was looked at
    Raises DatasetError when scopestream did not write what is at `path`, DatasetBusyError while somebody writes it, and
    OSError when the disk does not take the changes; what was done until then can stay, and it can be tried again.
    """
    root = Path(path).absolute()
    dataset = open_dataset(root)
    if dry_run:
        check_not_busy(root)
        check_changeable(dataset)
        doubtful = in_doubt(dataset, read_owner(root))
        repairs = repair(dataset, in_doubt=doubtful, trim=True, dry_run=True, on_file=on_file)
        after = replace(dataset, history=dataset.history.failing(repairs.lost))
        n_levels, _ = complete_levels(after, repairs.stale, dry_run=True)
        return _outcome(dataset, Prepared(repairs, after, n_levels, []), dry_run=True)
    lock = DatasetLock(root)
    try:
        prepared = prepare(root, lock.previous, trim=True, on_file=on_file)
        outcome = _outcome(dataset, prepared, dry_run=False)
        if outcome.changed:
            _write_documents(prepared.dataset, outcome)
            sync_everything(root)
    except BaseException:
        lock.abandon()
        raise
    lock.release()
    return outcome


def _outcome(before: Dataset, prepared: Prepared, *, dry_run: bool) -> Recovery:
    repairs, after, n_levels, damaged = prepared
    was = str(before.state.get("status"))
    counts = after.history.count()
    total = after.plan.n_frames
    counts["missing"] = 0 if total is None else total - len(after.history.numbers)
    whole = not (counts["failed"] or counts["dropped"] or counts["missing"])
    # Nobody knows how long an acquisition without an end would have gone on.
    ended = was == "complete" or (was == "recording" and total is not None)
    return Recovery(
        path=after.plan.root,
        dry_run=dry_run,
        was=was,
        status="complete" if whole and ended else "incomplete",
        frames=counts,
        lost=tuple(sorted([*before.history.numbers[repairs.lost].tolist(), *damaged])),
        repairs=repairs,
        n_levels=n_levels,
    )


def _write_documents(dataset: Dataset, outcome: Recovery) -> None:
    """All documents, as `close` would have written them."""
    plan = dataset.plan
    lengths = dataset.lengths()
    for array in plan.arrays:
        length = lengths[array.image]
        if array.growable and stored_length(plan.root / array.path) != length:
            write_document(plan.root / array.path, array_document(array, (length, *array.shape[1:])), synced=True)
    metadata = MetadataWriter(plan)
    metadata.adopt(dataset.attributes)
    metadata.write_collections()
    metadata.finish(
        status="complete" if outcome.status == "complete" else "incomplete",
        counts=outcome.frames,
        statistics=_numbers(dataset.state.get("statistics")),
        lengths=dict(enumerate(lengths)),
        windows=_windows(dataset),
        records=_records(dataset),
    )


def _windows(dataset: Dataset) -> Sequence[tuple[float, float] | None]:
    contrast = Contrast(dataset.plan.n_windows)
    Blocks(dataset, dataset.plan).sample(contrast)
    return contrast.windows


def _records(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """The lines of the log that count, with the place that the plan gives to each frame."""
    history, route, plan = dataset.history, dataset.route, dataset.plan
    written = history.are("written")
    for record in read_frames(plan.root):
        number = record.get("frame")
        if type(number) is not int or record.get("status") != "written":
            continue
        entry = history.find(number) if abs(number) < 1 << 62 else None
        if entry is not None and written[entry]:
            place = dict(zip(route.names, route.coords(number), strict=True))
            yield {**record, "image": plan.images[route.image(number)].path, "index": place}


def _numbers(value: object) -> dict[str, float]:
    if not isinstance(value, dict):
        return {}
    return {str(key): number for key, number in value.items() if type(number) in (int, float) and abs(number) < 1e300}
