"""Backend "tensorstore": whole shards through TensorStore, which compresses on all cores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from scopestream.contract import Sink
from scopestream.plan import ArrayPlan, LayoutPlan
from scopestream_backends._whole_files import WholeFileBackend, WholeFileSink


class TensorStoreBackend(WholeFileBackend):
    """Each shard is written once, beside its place, and moved there."""

    name: ClassVar[str] = "tensorstore"
    requires: ClassVar[tuple[str, ...]] = ("tensorstore",)
    extra: ClassVar[str] = "tensorstore"

    def n_copies(self, array: ArrayPlan) -> int:
        # Compressors get buffers as large as the worst case, which are given back late.
        return 1 if array.codec.name == "none" else 4

    def open(self, plan: LayoutPlan) -> Sink:
        return _TensorStoreSink(plan, self.at_once(plan), resumes=False)

    def reopen(self, plan: LayoutPlan) -> Sink:
        return _TensorStoreSink(plan, self.at_once(plan), resumes=True)


class _TensorStoreSink(WholeFileSink):
    def __init__(self, plan: LayoutPlan, at_once: int, *, resumes: bool) -> None:
        import tensorstore

        self._open_array = tensorstore.open
        # Other programs see a file that is not synced all the same, and one sync per file is slow.
        self._hasty, self._careful = [
            tensorstore.Context({"cache_pool": {"total_bytes_limit": 0}, "file_io_sync": is_careful})
            for is_careful in (False, True)
        ]
        super().__init__(plan, at_once, resumes=resumes)

    def _open(self, folder: Path, document: dict[str, Any]) -> Any:
        spec = {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": f"{folder}/"},
            "metadata": document,
            "recheck_cached_metadata": False,
            "recheck_cached_data": False,
        }
        context = self._careful if self._unsynced.careful else self._hasty
        return self._open_array(spec, context=context, open=True, assume_metadata=True).result()

    def _store(self, handle: Any, region: tuple[slice, ...], block: np.ndarray, files: Sequence[Path]) -> None:
        # Waiting for the commit, not only for the copy: an error belongs to this block, and memory stays bounded. The
        # copy is needed: with can_reference_source_data_indefinitely tensorstore 0.1.86 takes chunks that are deep
        # along two axes for fill values, and stores nothing (docs/decisions/0007-tensorstore-copies.md).
        handle[region].write(block).result()
