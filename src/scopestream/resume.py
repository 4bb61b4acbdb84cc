"""Going on with a dataset: whether the settings are its settings, and what was there before."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from time import time
from typing import Any, NamedTuple

import numpy as np

from scopestream.aside import keep_aside
from scopestream.dataset import Dataset, open_dataset, stored_settings
from scopestream.errors import DatasetError, ResumeError
from scopestream.framelog import FRAME_LOG, STATUSES, FrameLog, Record
from scopestream.lock import boot_id
from scopestream.plan import LayoutPlan
from scopestream.relevel import complete_levels
from scopestream.repair import Repairs, repair
from scopestream.restore import Blocks
from scopestream.settings import AcquisitionSettings

# What is on the disk as the settings say; all others say how it gets there.
_FIXED = ("dtype", "camera_axis", "merge", "plate", "storage_order", "codec", "levels", "downscale", "downscale_z")
_MAX_SHOWN = 200


def resumed_settings(settings: AcquisitionSettings) -> AcquisitionSettings:
    """The settings with the chunks, shards and backend of the dataset that is there, where they leave them open.

    Raises DatasetError when scopestream did not write what is there, and ResumeError when the settings are not its.
    """
    root = Path(settings.path)
    dataset, original = open_dataset(root), stored_settings(root)
    problems = [
        f"{name} is {_shown(getattr(settings, name))}, and was {_shown(getattr(original, name))}"
        for name in _FIXED
        if getattr(settings, name) != getattr(original, name)
    ]
    problems += _differing_dimensions(settings, original)
    update: dict[str, Any] = {"cameras": dataset.settings.cameras}
    for name in ("chunks", "shards"):
        wanted, found = getattr(settings, name), getattr(dataset.settings, name)
        if wanted in ("auto", getattr(original, name)) or (isinstance(wanted, dict) and _agrees(wanted, found)):
            update[name] = found
        else:
            problems.append(f"{name} is {_shown(wanted)}, and was {_shown(found)}")
    problems += _differing_cameras(settings, original, dataset.settings)
    if problems:
        raise ResumeError(
            f"These settings cannot go on with {root}: {'; '.join(problems)}. Nothing was changed. Take its own "
            f"settings from {root / 'scopestream' / 'settings.json'}, or choose another path."
        )
    return settings.model_copy(update=update)


class Prepared(NamedTuple):
    """A dataset that a stream can go on with.

    n_levels  blocks whose coarser levels were computed
    damaged   numbers of frames that had to be read, and could not; the log says so now
    """

    repairs: Repairs
    dataset: Dataset
    n_levels: int
    damaged: list[int]


def prepare(
    root: Path,
    owner: dict[str, Any],
    *,
    plan: LayoutPlan | None = None,
    trim: bool,
    on_file: Callable[[], object] = lambda: None,
) -> Prepared:
    """Mend what the last stream left, log which frames are lost, complete the levels, and open what there is then.

    owner    who wrote last, as its lock told; the caller has the lock now
    plan     of the stream that will go on: what it has to read is read, to see whether it can be
    trim     and `on_file` as for `repair`
    Raises DatasetError or OSError.
    """
    dataset = open_dataset(root)
    check_changeable(dataset)
    repairs = repair(dataset, in_doubt=in_doubt(dataset, owner), trim=trim, dry_run=False, on_file=on_file)
    dataset = _failing(dataset, dataset.history.numbers[repairs.lost].tolist(), "lost in a crash")
    n_levels, damaged = complete_levels(dataset, repairs.stale, dry_run=False)
    dataset = _without(dataset, damaged)
    if plan is not None:
        blocks = Blocks(dataset, plan)
        blocks.read_what_is_held()
        dataset = _without(dataset, blocks.damaged)
        damaged |= blocks.damaged
    return Prepared(repairs, dataset, n_levels, sorted(damaged))


def check_changeable(dataset: Dataset) -> None:
    """Raise DatasetError when folders are links, which may lead to anywhere, or when the log lacks frames."""
    root, plan = dataset.plan.root, dataset.plan
    paths = ["scopestream", "OME", *(image.path for image in plan.images), *(array.path for array in plan.arrays)]
    parts = (PurePosixPath(path) for path in paths)
    for folder in dict.fromkeys(root / part for path in parts for part in (path, *path.parents)):
        if folder != root and folder.is_symlink():
            raise DatasetError(f"{folder} is a symbolic link, which scopestream never makes. Nothing was changed.")
    _check_log(dataset)


def _check_log(dataset: Dataset) -> None:
    """Raise DatasetError when the log lacks frames, so that nobody could tell which are there."""
    root, counted = dataset.plan.root, dataset.state.get("frames")
    counts = [counted.get(status) for status in STATUSES] if isinstance(counted, dict) else []
    n_expected = sum(count for count in counts if type(count) is int)  # since a close; more may have come after it
    n_known = len(dataset.history.numbers)
    if n_known < n_expected or (not (root / FRAME_LOG).exists() and _has_data(dataset)):
        raise DatasetError(
            f"The frame log {root / FRAME_LOG} has {n_known} frames, and there are more. Nothing was changed: without "
            f"their lines nobody knows which frames are there. Bring the log back from a copy, or read the arrays as "
            f"they are."
        )


def _has_data(dataset: Dataset) -> bool:
    stored = (dataset.stored(image.arrays[0], lambda _: None) for image in dataset.plan.images)
    return any(any(True for _ in array.files()) for array in stored)


def in_doubt(dataset: Dataset, owner: dict[str, Any]) -> np.ndarray:
    """Entries of the history whose pixels may not have reached the disk, though their lines did.

    Only a power failure does that, and only to what was not synced; whoever wrote in this run of the system had none.

    owner  who wrote last, as its lock tells
    """
    crashed = dataset.state.get("status") == "recording"
    same_run = owner.get("run") is not None and owner.get("run") == boot_id()
    unsynced: np.ndarray = ~dataset.history.synced & (crashed and not same_run)
    return unsynced


def _without(dataset: Dataset, damaged: Mapping[int, Sequence[Path]]) -> Dataset:
    """That dataset once its log says that these frames failed. Their files may change now, and are kept beside."""
    for path in sorted({path for paths in damaged.values() for path in paths}):
        if path.exists():
            keep_aside(path, copied=True)
    return _failing(dataset, sorted(damaged), "damaged")


def _failing(dataset: Dataset, numbers: Sequence[int], reason: str) -> Dataset:
    """That dataset once its log says that these frames are not there after all."""
    if not numbers:
        return dataset
    log = FrameLog(dataset.plan, dataset.route)
    try:
        log.add([Record(number, time(), None) for number in numbers], "failed", json.dumps(reason))
    finally:
        log.close()
    return open_dataset(dataset.plan.root)


def _differing_dimensions(settings: AcquisitionSettings, original: AcquisitionSettings) -> list[str]:
    names = [dimension.name for dimension in settings.dimensions]
    before = [dimension.name for dimension in original.dimensions]
    if names != before:
        return [f"dimensions are {', '.join(names)}, and were {', '.join(before)}"]
    return [
        f"{field} of dimension {new.name!r} is {_shown(getattr(new, field))}, and was {_shown(getattr(old, field))}"
        for new, old in zip(settings.dimensions, original.dimensions, strict=True)
        for field in type(new).model_fields
        if getattr(new, field) != getattr(old, field)
    ]


def _differing_cameras(
    settings: AcquisitionSettings, original: AcquisitionSettings, found: AcquisitionSettings
) -> list[str]:
    names = [camera.name for camera in settings.cameras]
    before = [camera.name for camera in original.cameras]
    if names != before:
        return [f"cameras are {', '.join(names) or 'none'}, and were {', '.join(before) or 'none'}"]
    problems = []
    for new, old, there in zip(settings.cameras, original.cameras, found.cameras, strict=True):
        for name in type(new).model_fields:
            wanted = getattr(new, name)
            if wanted == getattr(old, name):
                continue
            is_tiling = name in ("chunks", "shards")
            if not (is_tiling and (wanted is None or _agrees(wanted, getattr(there, name)))):
                problems.append(
                    f"{name} of camera {new.name!r} is {_shown(wanted)}, and was {_shown(getattr(there, name))}"
                )
    return problems


def _agrees(wanted: dict[str, int], found: object) -> bool:
    return isinstance(found, dict) and all(found.get(name) == size for name, size in wanted.items())


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
