"""zarr-python by itself, with its own codecs or those of zarrs: whole files, stored by one thread in the background."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.cases import Case
from benchmarks.geometry import Geometry
from benchmarks.runners.collect import Pending, WholeFiles
from benchmarks.runners.session import RefusedError, Runner, Session
from scopestream.bench.camera import Frames

_PIPELINES = {
    "zarr-python": "zarr.core.codec_pipeline.BatchedCodecPipeline",
    "zarrs": "zarrs.ZarrsCodecPipeline",
}


def _opener(pipeline: str) -> Callable[[Case, Path, Frames], Session]:
    def open_case(case: Case, folder: Path, frames: Frames) -> Session:
        if case.levels != 1:
            raise RefusedError("zarr-python stores no pyramids by itself")
        import zarr
        from zarr.codecs import BloscCodec

        geometry = Geometry(case)
        arrays = tuple(folder / str(image) for image in range(geometry.n_images))
        codec = BloscCodec(
            cname=case.codec.removeprefix("blosc-"), clevel=case.level, shuffle="shuffle", typesize=2
        ) if case.codec != "none" else None  # fmt: skip
        # The pipeline of an array is chosen when it is made.
        with zarr.config.set({"codec_pipeline.path": pipeline}):
            handles = [
                zarr.create_array(
                    zarr.storage.LocalStore(path),
                    shape=(0, *geometry.shape[1:]) if case.unbounded else geometry.shape,
                    chunks=geometry.chunk,
                    shards=geometry.shard,
                    dtype="uint16",
                    compressors=codec,
                    fill_value=0,
                    dimension_names=geometry.axes,
                )
                for path in arrays
            ]
        pool = ThreadPoolExecutor(1)

        def store_now(image: int, region: tuple[slice, ...], block: np.ndarray) -> None:
            if case.unbounded and region[0].stop > handles[image].shape[0]:
                handles[image].resize((region[0].stop, *geometry.shape[1:]))
            handles[image][region] = block

        def store(image: int, region: tuple[slice, ...], block: np.ndarray) -> Pending:
            return pool.submit(store_now, image, region, block)

        files = WholeFiles(geometry, store)

        def close() -> None:
            files.close()
            pool.shutdown()

        return Session(files.append, close, arrays)

    return open_case


RUNNERS = tuple(Runner(name, "library", "zarr", _opener(pipeline)) for name, pipeline in _PIPELINES.items())
