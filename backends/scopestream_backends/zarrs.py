"""Backend "zarrs": whole shards through zarr-python with the codecs of zarrs, in Rust."""

from __future__ import annotations

from typing import ClassVar

from scopestream.contract import Sink
from scopestream.plan import LayoutPlan
from scopestream_backends._whole_files import WholeFileBackend
from scopestream_backends._zarr_arrays import ZarrArraysSink

_PIPELINE = "zarrs.ZarrsCodecPipeline"


class ZarrsBackend(WholeFileBackend):
    """Compresses one block on all cores."""

    name: ClassVar[str] = "zarrs"
    requires: ClassVar[tuple[str, ...]] = ("zarr", "zarrs")
    extra: ClassVar[str] = "zarrs"

    def open(self, plan: LayoutPlan) -> Sink:
        return ZarrArraysSink(plan, self.at_once(plan), _PIPELINE, resumes=False)

    def reopen(self, plan: LayoutPlan) -> Sink:
        return ZarrArraysSink(plan, self.at_once(plan), _PIPELINE, resumes=True)
