"""Backend "zarrs": whole shards through zarr-python with the codecs of zarrs, in Rust."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from scopestream.contract import Capabilities, Sink
from scopestream.plan import ArrayPlan, LayoutPlan, WriteUnit
from scopestream_backends._whole_files import library_bytes
from scopestream_backends._zarr_arrays import ZarrArraysSink

_PIPELINE = "zarrs.ZarrsCodecPipeline"


class ZarrsBackend:
    """Not `concurrent`: zarrs uses all cores for one block, so more blocks at once cost memory and gain little."""

    name: ClassVar[str] = "zarrs"
    capabilities: ClassVar[Capabilities] = Capabilities(
        any_order=True,
        concurrent=False,
        growable=True,
        live_read=True,
        codecs=frozenset({"none", "zstd", "blosc-zstd", "blosc-lz4"}),
        schemes=frozenset({"file"}),
    )
    requires: ClassVar[tuple[str, ...]] = ("zarr", "zarrs")
    extra: ClassVar[str] = "zarrs"

    def unit(self, array: ArrayPlan) -> WriteUnit:
        return WriteUnit.SHARD

    def held_bytes(self, array: ArrayPlan, n_arrays: int) -> int:
        return library_bytes(array)

    def check(self, plan: LayoutPlan) -> Sequence[str]:
        return []

    def open(self, plan: LayoutPlan) -> Sink:
        return ZarrArraysSink(plan, _PIPELINE)
