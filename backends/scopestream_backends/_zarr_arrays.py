"""What the backends that write through zarr-python share: its arrays, with one codec pipeline or another."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from scopestream.durable import sync_path
from scopestream.plan import LayoutPlan
from scopestream_backends._whole_files import WholeFileSink

# zarr's configuration is global: two sinks that open arrays at once would mix up their pipelines.
_CONFIGURATION = Lock()


class ZarrArraysSink(WholeFileSink):
    """Arrays of zarr-python in a `LocalStore`; `pipeline` names the class of the codec pipeline.

    Files are made beside the document, as "c.0.1", and then moved to their place, "c/0/1". The Rust pipeline writes in
    place, so that a crash while a shard comes again would cost the frames that it already held; and zarr-python reads
    the old shard first, even to replace all of it.
    """

    def __init__(self, plan: LayoutPlan, at_once: int, pipeline: str, *, resumes: bool) -> None:
        import zarr
        from zarr.storage import LocalStore, StorePath

        def array_at(folder: Path, document: dict[str, Any]) -> Any:
            return zarr.Array.from_dict(StorePath(LocalStore(folder)), document)

        self._array_at, self._config = array_at, zarr.config
        self._settings = {
            "codec_pipeline.path": pipeline,
            "codec_pipeline.strict": True,  # zarrs would fall back to the pipeline of zarr-python, with a mere warning
            "array.write_empty_chunks": False,
        }
        super().__init__(plan, at_once, resumes=resumes)

    def _open(self, folder: Path, document: dict[str, Any]) -> Any:
        staged = {**document, "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}}}
        # The pipeline of an array is chosen here, once and for all.
        with _CONFIGURATION, self._config.set(self._settings):
            return folder, self._array_at(folder, staged)

    def _store(self, handle: Any, region: tuple[slice, ...], block: np.ndarray, files: Sequence[Path]) -> None:
        folder, array = handle
        staged = [folder / ".".join(file.relative_to(folder).parts) for file in files]
        try:
            array[region] = block
            for source, target in zip(staged, files, strict=True):
                with suppress(FileNotFoundError):  # a file of fill values is not written: then there is neither
                    if self._unsynced.careful:
                        sync_path(source)
                    os.replace(source, target)
        except BaseException:
            for source in staged:  # what is left would take space, and be read when the block is tried again
                source.unlink(missing_ok=True)
            raise
