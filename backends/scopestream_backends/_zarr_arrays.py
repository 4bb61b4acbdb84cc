"""What the backends that write through zarr-python share: its arrays, with one codec pipeline or another."""

from __future__ import annotations

import os
import shutil
from itertools import product
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from scopestream.plan import LayoutPlan
from scopestream_backends._whole_files import WholeFileSink

# Files are made in this folder of the array and then moved to their place. The Rust pipeline writes in place, so that a
# crash while a shard comes again would cost the frames that it already held; zarr-python reads the old shard first.
_STAGING = ".writing"
# zarr's configuration is global: two sinks that open arrays at once would mix up their pipelines.
_CONFIGURATION = Lock()


class ZarrArraysSink(WholeFileSink):
    """Arrays of zarr-python in a `LocalStore`; `pipeline` names the class of the codec pipeline."""

    def __init__(self, plan: LayoutPlan, pipeline: str) -> None:
        import zarr
        from zarr.storage import LocalStore, StorePath

        self._config, self._from_dict = zarr.config, zarr.Array.from_dict
        self._store_at = lambda folder: StorePath(LocalStore(folder))
        self._settings = {
            "codec_pipeline.path": pipeline,
            "codec_pipeline.strict": True,  # zarrs would fall back to the pipeline of zarr-python, with a mere warning
            "array.write_empty_chunks": False,
        }
        super().__init__(plan)

    def close(self) -> None:
        super().close()
        for array in self._plan.arrays:
            shutil.rmtree(self._folder(array) / _STAGING, ignore_errors=True)

    def _open(self, folder: Path, document: dict[str, Any]) -> Any:
        # The pipeline of an array is chosen here, once and for all.
        with _CONFIGURATION, self._config.set(self._settings):
            return folder, self._from_dict(self._store_at(folder / _STAGING), document)

    def _store(self, handle: Any, region: tuple[slice, ...], block: np.ndarray) -> None:
        folder, array = handle
        file_shape = array.shards or array.chunks
        ranges = [range(part.start // step, part.stop // step) for part, step in zip(region, file_shape, strict=True)]
        names = ["/".join(["c", *map(str, file)]) for file in product(*ranges)]
        try:
            array[region] = block
            for name in names:
                _move(folder / _STAGING / name, folder / name)
        except BaseException:
            for name in names:  # what is left would take space, and be read when the block is tried again
                (folder / _STAGING / name).unlink(missing_ok=True)
            raise


def _move(staged: Path, target: Path) -> None:
    """Replace `target` at once. A file of fill values is not written: then there is neither."""
    try:
        os.replace(staged, target)
    except FileNotFoundError:
        if staged.exists():  # the folder of `target` is what is missing
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(staged, target)
