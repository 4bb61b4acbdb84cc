"""Backend "acquire-zarr": frame by frame, in order of arrival; acquire-zarr assembles the shards itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import ceil, prod
from typing import ClassVar

import numpy as np

from scopestream.contract import Capabilities, Sink
from scopestream.plan import ArrayPlan, LayoutPlan, WriteUnit
from scopestream_backends._acquire_array import BACKLOG_BYTES, ArrayWriter, slab_bytes

# The queue of every stream, in bytes and frames: constants in acquire-zarr (`init_frame_queue_`).
_QUEUE_BYTES, _MIN_QUEUE, _MAX_QUEUE = 256 * 2**20, 16, 512
_LIBRARY_BYTES = 64 * 2**20  # of threads, and of memory that is freed but not given back
_MAX_ARRAYS = 400  # each has two threads and an open file, of which Linux allows a process 1024 by default


class AcquireZarrBackend:
    """Where the plan has no shards each chunk becomes a shard of its own: acquire-zarr writes nothing else."""

    name: ClassVar[str] = "acquire-zarr"
    capabilities: ClassVar[Capabilities] = Capabilities(
        any_order=False,
        concurrent=False,
        growable=True,
        live_read=False,
        codecs=frozenset({"none", "blosc-zstd", "blosc-lz4"}),
        schemes=frozenset({"file"}),
    )
    requires: ClassVar[tuple[str, ...]] = ("acquire_zarr",)
    extra: ClassVar[str] = "acquire-zarr"

    def unit(self, array: ArrayPlan) -> WriteUnit:
        return WriteUnit.FRAME

    def held_bytes(self, array: ArrayPlan, n_arrays: int, room: int) -> int:
        """Of each array the queue of its stream, and chunks that wait for the disk; a small array fills neither."""
        n_queued = min(max(_QUEUE_BYTES // array.frame_bytes, _MIN_QUEUE), _MAX_QUEUE)
        queued, waiting = n_queued * array.frame_bytes, max(BACKLOG_BYTES, 2 * slab_bytes(array))
        if not array.growable:
            n_slabs = ceil(array.shape[0] / array.file_shape[0]) if array.arrival else 1
            queued = min(queued, prod(array.shape) * array.dtype.itemsize)
            waiting = min(waiting, slab_bytes(array) * n_slabs)
        return n_arrays * (queued + waiting) + _LIBRARY_BYTES

    def check(self, plan: LayoutPlan) -> Sequence[str]:
        array = plan.finest[0]
        problems = []
        if any(one.dtype.kind == "b" for one in plan.finest):
            problems.append("acquire-zarr has no bool; use uint8")
        if array.arrival and array.arrival[0] != 0:
            first, stored = array.axes[array.arrival[0]], array.axes[0]
            problems.append(
                f"acquire-zarr cannot store {stored!r} before {first!r} when {first!r} is the slowest dimension of the "
                f'acquisition; acquire {stored!r} slowest, or use storage_order="acquisition" where readers allow it'
            )
        if len(plan.arrays) > _MAX_ARRAYS:
            problems.append(
                f"acquire-zarr needs two threads and an open file for each of {len(plan.arrays)} arrays, "
                f"and {_MAX_ARRAYS} are the most that is safe"
            )
        return problems

    def open(self, plan: LayoutPlan) -> Sink:
        return _AcquireZarrSink(plan)


class _AcquireZarrSink:
    """One stream for each array, since a stream of several overwrites the document of the root."""

    def __init__(self, plan: LayoutPlan) -> None:
        import acquire_zarr  # noqa: F401  # an installation that does not load fails here and not at the first frame

        n_threads = max(2, (os.cpu_count() or 1) // len(plan.arrays))
        self._writers = [ArrayWriter(plan.root / array.path, array, n_threads) for array in plan.arrays]

    def write(self, array: int, origin: tuple[int, ...], block: np.ndarray, *, final: bool = True) -> None:
        self._writers[array].write(origin, block)

    def extend(self, array: int, length: int) -> None:
        self._writers[array].length = length

    def flush(self) -> None:
        pass

    def close(self) -> None:
        errors = []
        for writer in self._writers:
            try:
                writer.close()
            except OSError as error:
                errors.append(error)
        if errors:  # after all the others were closed
            raise errors[0]
