"""Files of a dataset that a crash left, made whole again. What a reader can see stays, and nothing is guessed.

Everything here may be interrupted at any moment, and done again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from scopestream.aside import keep_aside, move_aside
from scopestream.dataset import Dataset, differing_documents
from scopestream.document import array_document, read_document, replacing, stored_length, write_document
from scopestream.durable import block_bytes, sync_data, sync_file
from scopestream.errors import DatasetError
from scopestream.framecheck import FrameCheck
from scopestream.holes import end_of_data
from scopestream.plan import LayoutPlan
from scopestream.relog import blank_damaged_lines
from scopestream.salvage import salvage
from scopestream.shardindex import MISSING, encode_index, index_bytes
from scopestream.stored import Index
from scopestream.tiling import round_up

# What a writer leaves when it is killed before it renames a file: ours, and those that libraries stage for us.
_LEFTOVERS = re.compile(r"\..+\.tmp|\.scopestream-probe")
_STAGED = re.compile(r"c(\.\d+)+|.+\.__lock")  # in the folders of arrays
_ALMOST = 2  # indexes that fit into what a trimmed file would save: then it stays as it is
_MAX_PROBLEMS = 100


@dataclass(slots=True, kw_only=True)
class Repairs:
    """What was done to the files, or would be.

    trimmed      shards whose unused space was cut off
    salvaged     shards with chunks that the index did not name, and now does; they are trimmed by that
    freed_bytes  by which shards became shorter; most of these bytes were never on the disk
    rebuilt      shards with a damaged index that was made again from the chunks
    set_aside    shards that could not be made again: renamed, so that readers take their frames for missing
    leftovers    files that were never finished, removed
    log_lines    of the frame log that were no records, and are spaces now
    documents    of arrays, written again
    stale        files of coarser levels that were set aside: number of the array, and of the file along each axis
    lost         entries of the history: frames that were logged as written, and are not there
    problems     sentences on what cannot be mended
    """

    trimmed: int = 0
    salvaged: int = 0
    freed_bytes: int = 0
    rebuilt: int = 0
    set_aside: list[Path] = field(default_factory=list)
    leftovers: int = 0
    log_lines: int = 0
    documents: int = 0
    stale: list[tuple[int, Index]] = field(default_factory=list)
    lost: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    problems: list[str] = field(default_factory=list)


def repair(
    dataset: Dataset,
    *,
    in_doubt: np.ndarray,
    trim: bool,
    dry_run: bool,
    on_file: Callable[[], object] = lambda: None,
) -> Repairs:
    """Mend what is broken in the files of `dataset`.

    in_doubt  entries of the history whose pixels are compared, because a log may survive them in a power failure
    trim      whether to cut off what shards have in reserve, which a stream that goes on would need again
    dry_run   change nothing, and say what would be done
    on_file   called after each data file
    Raises OSError when the disk does not take it.
    """
    plan = dataset.plan
    repairs = Repairs(log_lines=blank_damaged_lines(plan, dry_run=dry_run))
    for path in list(_leftovers(plan)):
        repairs.leftovers += 1
        if not dry_run:
            path.unlink(missing_ok=True)
    differing = differing_documents(plan)
    # The length follows from the frames, and so it is known only when all else is mended: `recover` writes it then.
    repairs.documents = len(differing) + _n_outdated(dataset, differing)
    for number in differing if not dry_run else ():
        _write_document(dataset, number)
    check = FrameCheck(dataset, in_doubt)
    for number in range(len(plan.arrays)):
        _Array(dataset, number, check, repairs, dry_run=dry_run).mend(trim=trim, on_file=on_file)
    repairs.lost = np.flatnonzero(check.corrupt | check.lost)
    return repairs


class _Array:
    """The files of one array."""

    def __init__(self, dataset: Dataset, number: int, check: FrameCheck, repairs: Repairs, *, dry_run: bool) -> None:
        self._dataset, self._number, self._check = dataset, number, check
        self._repairs, self._dry_run = repairs, dry_run
        self._stored = dataset.stored(number, self._problem)

    def mend(self, *, trim: bool, on_file: Callable[[], object]) -> None:
        stored = self._stored
        if stored.array.level:  # by a recovery that did not come to its end
            self._repairs.stale += [(self._number, at) for at in stored.set_aside()]
        for group, files in stored.groups():
            if stored.is_sharded:
                files = [(at, path) for at, path in files if self._is_sound(at, path)]
            may_be_old = stored.stores_again and any(stored.has_reserve(path) for _, path in files)
            if not stored.array.level and self._check.glance(stored, group, may_be_old) and stored.is_sharded:
                for at, path in files:
                    self._salvage(at, path)
                self._check.glance(stored, group, may_be_old)
            for _, path in files:
                if stored.is_sharded and trim and not self._tells_levels:
                    self._trim(path)
                on_file()

    @property
    def _tells_levels(self) -> bool:
        """Whether what a shard has in reserve tells that frames of a coarser level are to be computed again.

        Whoever does that cuts it off. Until then a recovery that is killed and done again must find it.
        """
        crashed = self._dataset.state.get("status") == "recording"
        return crashed and self._stored.array.level > 0 and self._stored.stores_again

    def _is_sound(self, at: Index, path: Path) -> bool:
        """Whether a shard has an index, after another one was made where it was damaged."""
        try:
            return self._stored.index(path) is not None or self._rebuild(at, path)
        except OSError as error:
            self._problem(f"{path} cannot be read: {error.strerror or error}")
            return False

    def _rebuild(self, at: Index, path: Path) -> bool:
        """A damaged index: another one from what is in the file, or else the file is put aside, and False returned."""
        salvaged = salvage(self._dataset, self._stored, at, path)
        if salvaged is None:
            self._repairs.set_aside.append(path)
            if self._stored.array.level:
                self._repairs.stale.append((self._number, at))
            if not self._dry_run:
                move_aside(path)
            self._stored.give_up(path)
            return False
        self._repairs.rebuilt += 1
        index = salvaged.index()
        if self._dry_run:
            self._stored.assume(path, index)
            return True
        if not salvaged.is_all:
            keep_aside(path, copied=False)  # what nobody could name stays, for people
        with replacing(path, synced=True) as temporary:
            _copy_chunks(path, temporary, index)
        self._stored.forget(path)
        return True

    def _salvage(self, at: Index, path: Path) -> None:
        """Chunks that came after the index was written for the last time."""
        index = self._stored.index(path)
        salvaged = None if index is None else salvage(self._dataset, self._stored, at, path, _end(index))
        if index is None or salvaged is None:
            return
        self._repairs.salvaged += 1
        index = salvaged.index(index)
        length, size = index_bytes(len(index)), path.stat().st_size
        self._repairs.freed_bytes += size - _end(index) - length
        if self._dry_run:
            self._stored.assume(path, index)
            return
        if round_up(_end(index) + length, block_bytes(path)) <= size - length:
            with path.open("r+b", buffering=0) as file:
                # The old index is still the end of the file until it is cut off, and names none of these bytes.
                _move_index(file.fileno(), index, _end(index))
        else:
            with replacing(path, synced=True) as temporary:
                _copy_chunks(path, temporary, index)
        self._stored.forget(path)

    def _trim(self, path: Path) -> None:
        """Cut off what lies between the last chunk and the index.

        As when a shard is completed: a new index goes where no reader looks and no chunk lies, then the file is cut off
        behind it, in a block that has nothing of the old one.
        """
        if (index := self._stored.index(path)) is None:
            return
        length = index_bytes(len(index))
        with path.open("rb") as file:
            index_at = os.fstat(file.fileno()).st_size - length
            data_end = end_of_data(file.fileno(), index_at)
        # Chunks in a hole at the end are zeros, which readers take missing ones for.
        kept = index.copy()
        kept[(index[:, 0] != MISSING) & (index[:, 0] >= data_end)] = MISSING
        end, block = _end(kept), block_bytes(path)
        names_less = bool((kept != index).any())
        below = index_at // block * block - length if names_less else index_at
        if end + _ALMOST * length > index_at or round_up(end + length, block) > below:
            return
        self._repairs.trimmed += 1
        self._repairs.freed_bytes += index_at - end
        if self._dry_run:
            return
        with path.open("r+b", buffering=0) as file:
            if names_less:  # no index may name the chunks where the new one will be written
                _move_index(file.fileno(), kept, below)
            _move_index(file.fileno(), kept, end)
        self._stored.forget(path)

    def _problem(self, text: str) -> None:
        if len(self._repairs.problems) < _MAX_PROBLEMS:
            self._repairs.problems.append(text)


def _end(index: np.ndarray) -> int:
    """Of the last chunk that an index names."""
    there = index[index[:, 0] != MISSING]
    return int((there[:, 0] + there[:, 1]).max()) if len(there) else 0


def _move_index(file: int, index: np.ndarray, at: int) -> None:
    data = memoryview(encode_index(index))
    end = at + len(data)
    while data:  # the system may take a part at a time
        n_bytes = os.pwrite(file, data, at)
        data, at = data[n_bytes:], at + n_bytes
    sync_data(file)  # before the old one is cut off: a power loss may keep what came last
    os.ftruncate(file, end)
    sync_file(file)


def _copy_chunks(path: Path, target_path: Path, index: np.ndarray) -> None:
    """A shard of the chunks that `index` names in the file at `path`."""
    moved, end = np.full_like(index, MISSING), 0
    with path.open("rb") as source, target_path.open("wb") as target:
        for number in np.flatnonzero(index[:, 0] != MISSING).tolist():
            offset, length = map(int, index[number])
            source.seek(offset)
            target.write(source.read(length))
            moved[number] = end, length
            end += length
        target.write(encode_index(moved))


def _write_document(dataset: Dataset, number: int) -> None:
    """The document of an array; of one that grows, as long as its files are."""
    array = dataset.plan.arrays[number]
    folder = dataset.plan.root / array.path
    length = array.shape[0]
    if array.growable:
        last = max((at[0] for at, _ in dataset.stored(number, lambda _: None).files()), default=-1)
        length = (last + 1) * array.file_shape[0]
    folder.mkdir(parents=True, exist_ok=True)
    document = array_document(array, (length, *array.shape[1:]))
    with suppress(DatasetError):  # what others have noted there stays
        attributes = read_document(folder).get("attributes")
        document["attributes"] = attributes if isinstance(attributes, dict) else {}
    write_document(folder, document, synced=True)


def _n_outdated(dataset: Dataset, differing: Sequence[int]) -> int:
    """Documents that are right but for their length, as a stream leaves them that could not be closed in peace."""
    plan, lengths = dataset.plan, dataset.lengths()
    return sum(
        array.growable and number not in differing and stored_length(plan.root / array.path) != lengths[array.image]
        for number, array in enumerate(plan.arrays)
    )


def _leftovers(plan: LayoutPlan) -> Iterator[Path]:
    """In the folders that scopestream writes to; what others have put beside them is theirs."""
    groups = [plan.root, plan.root / "scopestream", plan.root / "OME"]
    groups += [folder for image in plan.images for folder in _folders_to(plan.root, image.path)]
    for folder in dict.fromkeys(groups):
        yield from (path for path in _files_in(folder) if _LEFTOVERS.fullmatch(path.name))
    for array in plan.arrays:
        for parent, _, names in os.walk(plan.root / array.path, followlinks=False):
            for name in names:
                if _LEFTOVERS.fullmatch(name) or _STAGED.fullmatch(name):
                    yield Path(parent, name)


def _folders_to(root: Path, path: str) -> Iterator[Path]:
    """Of an image, and of the well and the row that it is in."""
    folder = root
    for part in PurePosixPath(path).parts:
        folder = folder / part
        yield folder


def _files_in(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_file() and not path.is_symlink()]
    except OSError:  # it is not there, or something else
        return []
