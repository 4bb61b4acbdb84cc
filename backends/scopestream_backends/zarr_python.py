"""Backend "zarr-python": whole shards through the reference implementation, in pure Python."""

from __future__ import annotations

from typing import ClassVar

from scopestream.contract import Sink
from scopestream.plan import LayoutPlan
from scopestream_backends._whole_files import WholeFileBackend
from scopestream_backends._zarr_arrays import ZarrArraysSink

_PIPELINE = "zarr.core.codec_pipeline.BatchedCodecPipeline"  # its own, whatever the program has configured


class ZarrPythonBackend(WholeFileBackend):
    """Needs nothing beside zarr-python, and is the slowest."""

    name: ClassVar[str] = "zarr-python"
    requires: ClassVar[tuple[str, ...]] = ("zarr",)
    extra: ClassVar[str] = "zarr"

    def open(self, plan: LayoutPlan) -> Sink:
        return ZarrArraysSink(plan, self.at_once(plan), _PIPELINE, resumes=False)

    def reopen(self, plan: LayoutPlan) -> Sink:
        return ZarrArraysSink(plan, self.at_once(plan), _PIPELINE, resumes=True)
