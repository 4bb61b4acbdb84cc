"""TensorStore by itself: whole files, stored in the background, without fsync."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import Case
from benchmarks.geometry import Geometry
from benchmarks.runners.collect import Pending, WholeFiles
from benchmarks.runners.session import RefusedError, Runner, Session
from scopestream.bench.camera import Frames


def _codecs(case: Case, geometry: Geometry) -> list[dict[str, Any]]:
    codecs: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": "little"}}]
    if case.codec != "none":
        blosc = {"cname": case.codec.removeprefix("blosc-"), "clevel": case.level, "shuffle": "shuffle", "typesize": 2}
        codecs.append({"name": "blosc", "configuration": blosc})
    if geometry.shard is None:
        return codecs
    return [{"name": "sharding_indexed", "configuration": {"chunk_shape": list(geometry.chunk), "codecs": codecs}}]


def _open(case: Case, folder: Path, frames: Frames) -> Session:
    if case.levels != 1:
        raise RefusedError("TensorStore stores no pyramids by itself")
    import tensorstore

    geometry = Geometry(case)
    context = tensorstore.Context({"file_io_sync": False, "cache_pool": {"total_bytes_limit": 0}})
    shape = [0, *geometry.shape[1:]] if case.unbounded else list(geometry.shape)
    metadata = {
        "shape": shape,
        "data_type": "uint16",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(geometry.file)}},
        "codecs": _codecs(case, geometry),
        "fill_value": 0,
        "dimension_names": list(geometry.axes),
    }
    arrays = tuple(folder / str(image) for image in range(geometry.n_images))
    handles = [
        tensorstore.open(
            {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/"}, "metadata": metadata},
            context=context,
            create=True,
        ).result()
        for path in arrays
    ]

    def store(image: int, region: tuple[slice, ...], block: np.ndarray) -> Pending:
        if case.unbounded and region[0].stop > handles[image].shape[0]:
            # The shape that it knows is replaced, so that the next call sees it grow.
            longer = [region[0].stop, *geometry.shape[1:]]
            handles[image] = handles[image].resize(exclusive_max=longer).result()
        pending: Pending = handles[image][region].write(block)
        return pending

    files = WholeFiles(geometry, store)
    return Session(files.append, files.close, arrays)


RUNNERS = (Runner("tensorstore", "library", "tensorstore", _open),)
