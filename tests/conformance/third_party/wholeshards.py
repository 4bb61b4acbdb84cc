"""A backend as a third party would write it: whole shards, uncompressed, with nothing but NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import ClassVar

import google_crc32c
import numpy as np

from scopestream.contract import Capabilities, WriteUnit
from scopestream.document import array_document, replace_file, write_document
from scopestream.plan import ArrayPlan, LayoutPlan


class WholeShardsBackend:
    """Lays out each shard in memory and lets it appear as a file."""

    name: ClassVar[str] = "whole-shards"
    requires: ClassVar[tuple[str, ...]] = ("google_crc32c",)
    extra: ClassVar[str] = ""
    capabilities: ClassVar[Capabilities] = Capabilities(
        any_order=True,
        concurrent=False,
        growable=True,
        live_read=True,
        codecs=frozenset({"none"}),
        schemes=frozenset({"file"}),
    )

    def unit(self, array: ArrayPlan) -> WriteUnit:
        return WriteUnit.SHARD

    def held_bytes(self, array: ArrayPlan, n_arrays: int, room: int) -> int:
        return 2 * int(np.prod(array.file_shape)) * array.dtype.itemsize

    def check(self, plan: LayoutPlan) -> Sequence[str]:
        return [] if plan.arrays[0].shards else ["it writes shards only"]

    def open(self, plan: LayoutPlan) -> WholeShardsSink:
        return WholeShardsSink(plan)


class WholeShardsSink:
    def __init__(self, plan: LayoutPlan) -> None:
        self._plan = plan
        self._lengths = [array.shape[0] for array in plan.arrays]
        for number, array in enumerate(plan.arrays):
            (plan.root / array.path).mkdir(parents=True)
            self._document(number)

    def write(self, array: int, origin: tuple[int, ...], block: np.ndarray, *, final: bool = True) -> None:
        plan = self._plan.arrays[array]
        first = [i // step for i, step in zip(origin, plan.file_shape, strict=True)]
        counts = [-(-size // step) for size, step in zip(block.shape, plan.file_shape, strict=True)]
        for offset in product(*map(range, counts)):
            inside = tuple(slice(i * s, (i + 1) * s) for i, s in zip(offset, plan.file_shape, strict=True))
            path = self._plan.root.joinpath(plan.path, "c", *(str(f + i) for f, i in zip(first, offset, strict=True)))
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, _shard(block[inside], plan))

    def extend(self, array: int, length: int) -> None:
        if length > self._lengths[array]:
            self._lengths[array] = length
            self._document(array)

    def flush(self) -> None:
        """Every block is a file already."""

    def close(self) -> None:
        """Every block is a file already."""

    def _document(self, number: int) -> None:
        array = self._plan.arrays[number]
        shape = (self._lengths[number], *array.shape[1:])
        write_document(self._plan.root / array.path, array_document(array, shape))


def _shard(block: np.ndarray, plan: ArrayPlan) -> bytes:
    assert plan.shards is not None
    full = np.zeros(plan.shards, plan.dtype)
    full[tuple(map(slice, block.shape))] = block
    grid = [size // step for size, step in zip(plan.shards, plan.chunks, strict=True)]
    split = full.reshape([n for pair in zip(grid, plan.chunks, strict=True) for n in pair])
    n_axes = len(grid)
    chunks = split.transpose(*range(0, 2 * n_axes, 2), *range(1, 2 * n_axes, 2)).tobytes()
    n_chunks, chunk_bytes = int(np.prod(grid)), len(chunks) // int(np.prod(grid))
    index = np.array([(k * chunk_bytes, chunk_bytes) for k in range(n_chunks)], "<u8").tobytes()
    return chunks + index + google_crc32c.value(index).to_bytes(4, "little")
