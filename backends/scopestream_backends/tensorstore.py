"""Backend "tensorstore": whole shards through Google's TensorStore, compressed on all cores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from scopestream.contract import Capabilities
from scopestream.plan import ArrayPlan, LayoutPlan, WriteUnit
from scopestream_backends._whole_files import WholeFileSink


class TensorStoreBackend:
    """Files are replaced at once: a reader sees the shard before or the shard after, also when a block comes again."""

    name: ClassVar[str] = "tensorstore"
    capabilities: ClassVar[Capabilities] = Capabilities(
        any_order=True, concurrent=True, growable=True, live_read=True,
        codecs=frozenset({"none", "zstd", "blosc-zstd", "blosc-lz4"}), schemes=frozenset({"file"}),
    )  # fmt: skip
    requires: ClassVar[tuple[str, ...]] = ("tensorstore",)
    extra: ClassVar[str] = "tensorstore"

    def unit(self, array: ArrayPlan) -> WriteUnit:
        return WriteUnit.SHARD

    def held_bytes(self, array: ArrayPlan, n_arrays: int) -> int:
        return 0

    def check(self, plan: LayoutPlan) -> Sequence[str]:
        return []

    def open(self, plan: LayoutPlan) -> TensorStoreSink:
        return TensorStoreSink(plan)


class TensorStoreSink(WholeFileSink):
    """One context for all arrays, so that they share threads."""

    def __init__(self, plan: LayoutPlan) -> None:
        import tensorstore

        self._open_array = tensorstore.open
        self._context = tensorstore.Context(
            {
                "cache_pool": {"total_bytes_limit": 0},  # nothing that was written is read again
                "file_io_sync": False,  # the promise is about other programs, not about the power supply
            }
        )
        super().__init__(plan)

    def _open(self, folder: Path, document: dict[str, Any]) -> Any:
        spec = {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": str(folder)},
            "metadata": document,
            "recheck_cached_metadata": False,
            "recheck_cached_data": False,
        }
        return self._open_array(spec, context=self._context, open=True, assume_metadata=True).result()

    def _store(self, handle: Any, region: tuple[slice, ...], block: np.ndarray) -> None:
        # Waiting for the commit, not only for the copy: an error belongs to this block, and memory stays bounded.
        handle[region].write(block, can_reference_source_data_indefinitely=True).result()
