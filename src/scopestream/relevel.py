"""Coarser levels of a dataset on disk, computed again from the finest one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from scopestream.contract import ResumingBackend, Sink
from scopestream.dataset import Dataset
from scopestream.errors import BackendNotFoundError
from scopestream.levels import next_levels
from scopestream.plan import LayoutPlan
from scopestream.planning import make_plan
from scopestream.registry import backend_names, load_backend, missing_library
from scopestream.restore import Blocks, Key
from scopestream.stack import Stack
from scopestream.stored import Index


def complete_levels(dataset: Dataset, stale: Sequence[tuple[int, Index]], *, dry_run: bool) -> int:
    """Compute what a crash left out of the coarser levels; returns how many blocks of the finest one it took.

    A block is logged after all its levels were stored, unless z is halved too: then a plane waits in memory for the
    next one, and a crash loses what becomes of both.

    stale  files of coarser levels that are gone: number of the array, and of the file along each axis
    """
    crashed = dataset.state.get("status") == "recording"
    waited = crashed and dataset.plan.settings.halved_z is not None and len(dataset.plan.images[0].arrays) > 1
    if not waited and not stale:
        return 0
    backend = _backend(dataset.settings.backend)
    plan = replace(make_plan(dataset.settings, backend), backend=backend.name)
    blocks = Blocks(dataset, plan, single_frames=bool(stale))
    columns = [
        column
        for column in blocks.columns()
        if (waited and not blocks.is_whole(column)) or any(_overlaps(plan, column[0], *file) for file in stale)
    ]
    n_blocks = sum(map(len, columns))
    if columns and not dry_run:
        sink = backend.reopen(plan)
        try:
            _write_levels(plan, blocks, columns, sink)
            for number, array in enumerate(plan.arrays):
                if array.growable:
                    sink.extend(number, dataset.lengths()[array.image])
        finally:
            sink.close()
    return n_blocks


def _write_levels(plan: LayoutPlan, blocks: Blocks, columns: Sequence[Sequence[Key]], sink: Sink) -> None:
    steps = next_levels(plan)

    def write(level: int, image: int, origin: Index, data: np.ndarray) -> None:
        number = plan.images[image].arrays[level]
        if plan.arrays[number].growable:
            sink.extend(number, origin[0] + (1 if plan.tiled_on_arrival else len(data)))
        sink.write(number, origin, data)

    stack = Stack(plan, lambda: steps, write, in_order=False) if plan.z_steps else None
    for (image, place), data in _pixels(blocks, columns):
        origin = (*place, 0, 0)
        if stack is not None:
            stack.add(0, image, origin, data)
            continue
        for level, step in enumerate(steps, start=1):
            data = step(data)
            write(level, image, origin, data)
    if stack is not None:
        stack.finish()


def _pixels(blocks: Blocks, columns: Sequence[Sequence[Key]]) -> Iterator[tuple[Key, np.ndarray]]:
    for column in columns:
        for key in column:
            data = blocks.pixels(key)
            if data is not None:
                yield key, data


def _overlaps(plan: LayoutPlan, key: Key, number: int, file: Index) -> bool:
    """Whether a block, or others of its column, has a part in a file of a coarser level."""
    array, (image, origin) = plan.arrays[number], key
    if array.image != image:
        return False
    extent = plan.arrays[0].block_extent(plan.unit)
    halved = plan.settings.halved_z
    return all(
        axis == halved or (first < (i + 1) * span and first + size > i * span)
        for axis, (first, size, i, span) in enumerate(zip(origin, extent, file, array.file_shape, strict=False))
    )


def _backend(name: str) -> ResumingBackend:
    """That backend, or another that goes on with its files. Raises BackendNotFoundError."""
    for candidate in (name, *backend_names()):
        try:
            backend = load_backend(candidate)
        except BackendNotFoundError:
            continue
        if backend.capabilities.resumes and missing_library(backend) is None:
            return cast(ResumingBackend, backend)
    raise BackendNotFoundError("No installed backend can go on with a dataset.")
