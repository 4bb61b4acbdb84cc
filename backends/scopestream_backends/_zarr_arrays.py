"""What the backends that write through zarr-python share: its arrays, with one codec pipeline or another."""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from scopestream.plan import LayoutPlan
from scopestream_backends._whole_files import WholeFileSink

_STAGING = ".writing"
_CONFIGURATION = Lock()  # zarr's configuration is global: two sinks that open arrays at once would mix their pipelines


class ZarrArraysSink(WholeFileSink):
    """Arrays of zarr-python in a `LocalStore`.

    pipeline  import path of the codec pipeline
    """

    def __init__(self, plan: LayoutPlan, pipeline: str) -> None:
        import zarr
        from zarr.storage import LocalStore, StorePath

        self._zarr, self._local_store, self._store_path = zarr, LocalStore, StorePath
        self._settings = {
            "codec_pipeline.path": pipeline,
            "codec_pipeline.strict": True,  # zarrs would otherwise fall back to the slow pipeline, with a mere warning
            "array.write_empty_chunks": False,
        }
        super().__init__(plan)

    def _open(self, folder: Path, document: dict[str, Any]) -> Any:
        # The pipeline is chosen here, once and for all, from the configuration.
        with _CONFIGURATION, self._zarr.config.set(self._settings):
            return folder, self._zarr.Array.from_dict(self._store_path(self._local_store(folder / _STAGING)), document)

    def _store(self, handle: Any, region: tuple[slice, ...], block: np.ndarray) -> None:
        folder, array = handle
        array[region] = block
        steps = array.shards or array.chunks
        for indices in product(*[range(part.start // step, part.stop // step) for part, step in zip(region, steps)]):
            name = "/".join(["c", *map(str, indices)])
            staged = folder / _STAGING / name
            target = folder / name
            if staged.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(staged, target)
