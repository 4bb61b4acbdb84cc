"""Coarser levels of a dataset on disk, computed again from the finest one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from scopestream.contract import ResumingBackend, Sink
from scopestream.dataset import Dataset
from scopestream.errors import BackendNotFoundError
from scopestream.forms import forms_of
from scopestream.levels import NextLevel, next_levels
from scopestream.plan import ArrayPlan, LayoutPlan
from scopestream.planning import make_plan
from scopestream.registry import backend_names, load_backend, missing_library
from scopestream.restore import Blocks, Key, keep_lengths
from scopestream.stack import Stack
from scopestream.stored import Index, StoredArray


def complete_levels(
    dataset: Dataset, stale: Sequence[tuple[int, Index]], *, dry_run: bool
) -> tuple[int, dict[int, list[Path]]]:
    """Compute what a crash left out of the coarser levels.

    Returns how many blocks of the finest one it took, and which of their frames are `Blocks.damaged`: they were taken
    for zeros.

    A frame is logged after all its levels were stored, but an index may not have named them yet. And where z is halved
    too, a plane waits in memory for the next one, and a crash loses what becomes of both.

    stale  files of coarser levels that are gone: number of the array, and of the file along each axis
    """
    crashed = dataset.state.get("status") == "recording"
    if all(len(image.arrays) == 1 for image in dataset.plan.images) or not (crashed or stale):
        return 0, {}
    backend = _backend(dataset.settings.backend)
    plan = replace(make_plan(dataset.settings, backend), backend=backend.name)
    blocks, levels = Blocks(dataset, plan), _Levels(dataset, plan, stale)
    columns = [
        column
        for column in blocks.columns()
        if levels.are_gone(column[0])
        or (crashed and ((plan.halves_z and not blocks.is_whole(column)) or levels.lack(blocks, column)))
    ]
    n_blocks = sum(map(len, columns))
    if columns and not dry_run:
        sink = backend.reopen(plan)
        try:
            _write_levels(plan, blocks, columns, sink)
        finally:
            keep_lengths(sink, plan, dataset.lengths())
            sink.close()
    return n_blocks, blocks.damaged


def _write_levels(plan: LayoutPlan, blocks: Blocks, columns: Sequence[Sequence[Key]], sink: Sink) -> None:
    of_view: dict[int, Sequence[NextLevel]] = {}

    def steps(image: int) -> Sequence[NextLevel]:
        view = plan.images[image].view
        if view not in of_view:
            of_view[view] = next_levels(plan, image)
        return of_view[view]

    def write(level: int, image: int, origin: Index, data: np.ndarray) -> None:
        number = plan.images[image].arrays[level]
        if plan.arrays[number].growable:
            sink.extend(number, origin[0] + (1 if plan.tiled_on_arrival else len(data)))
        sink.write(number, origin, data)

    stack = Stack(plan, steps, write, in_order=False) if plan.halves_z else None
    for (image, place), data in _pixels(blocks, columns):
        origin = (*place, 0, 0)
        if stack is not None:
            stack.add(0, image, origin, data)
            continue
        for level, step in enumerate(steps(image), start=1):
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


class _Levels:
    """What there is of the coarser levels.

    stale  as for `complete_levels`
    """

    def __init__(self, dataset: Dataset, plan: LayoutPlan, stale: Sequence[tuple[int, Index]]) -> None:
        self._dataset, self._plan, self._stale = dataset, plan, stale
        self._forms = forms_of(plan)
        self._halved = plan.settings.halved_z
        self._stored: dict[int, StoredArray] = {}

    def are_gone(self, key: Key) -> bool:
        """Whether a block, or others of its column, had a part in a file of a coarser level that is gone."""
        return any(
            self._plan.arrays[number].image == key[0] and self._overlaps(key[1], file, self._plan.arrays[number])
            for number, file in self._stale
        )

    def lack(self, blocks: Blocks, column: Sequence[Key]) -> bool:
        """Whether frames may be missing from the chunks of a column; they may have been zeros, too."""
        for image, place in column:
            for index, is_there in blocks.frames((image, place)):
                if is_there and any(self._lacks(number, index) for number in self._plan.images[image].arrays[1:]):
                    return True
        return False

    def _lacks(self, number: int, index: Index) -> bool:
        """Whether a coarser level may lack the frame that is at `index` of the finest one."""
        stored = self._stored.get(number)
        if stored is None:
            stored = self._stored[number] = self._dataset.stored(number, lambda _: None)
        at = [i >> stored.array.level if axis == self._halved else i for axis, i in enumerate(index)]
        # Levels may be halved on when z has one plane left.
        at = [min(i, end - 1) for i, end in zip(at, stored.ends, strict=True)]
        return stored.may_lack_frames(tuple([i // d * d for i, d in zip(at, stored.geometry.depth, strict=True)]))

    def _overlaps(self, origin: Index, file: Index, array: ArrayPlan) -> bool:
        return all(
            axis == self._halved or (first < (i + 1) * span and first + size > i * span)
            for axis, (first, size, i, span) in enumerate(
                zip(origin, self._forms[array.image].extent, file, array.file_shape, strict=False)
            )
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
