"""Backend "zarrs"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from scopestream.contract import Capabilities, Sink
from scopestream.plan import ArrayPlan, LayoutPlan, WriteUnit
from scopestream_backends._zarr_arrays import ZarrArraysSink


class ZarrsBackend:
    name: ClassVar[str] = "zarrs"
    capabilities: ClassVar[Capabilities] = Capabilities(
        any_order=True, concurrent=True, growable=True, live_read=True,
        codecs=frozenset({"none", "zstd", "blosc-zstd", "blosc-lz4"}), schemes=frozenset({"file"}),
    )  # fmt: skip
    requires: ClassVar[tuple[str, ...]] = ("zarr", "zarrs")
    extra: ClassVar[str] = "zarrs"

    def unit(self, array: ArrayPlan) -> WriteUnit:
        return WriteUnit.SHARD

    def held_bytes(self, array: ArrayPlan, n_arrays: int) -> int:
        return 0

    def check(self, plan: LayoutPlan) -> Sequence[str]:
        return []

    def open(self, plan: LayoutPlan) -> Sink:
        return ZarrArraysSink(plan, "zarrs.ZarrsCodecPipeline")
