"""acquire-zarr by itself: one stream for all arrays, frame by frame, with its own pyramid."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import Case
from benchmarks.geometry import Geometry
from benchmarks.runners.session import RefusedError, Runner, Session
from scopestream.bench.camera import Frames


def _array(case: Case, geometry: Geometry, key: str) -> Any:
    import acquire_zarr as library

    kinds = {"t": library.DimensionType.TIME, "c": library.DimensionType.CHANNEL}
    sizes = dict(zip(geometry.axes, zip(geometry.shape, geometry.chunk, geometry.file, strict=True), strict=True))
    loop = [name for name, _ in case.loop if name != "p"]
    dimensions = [
        library.Dimension(
            name=name,
            kind=kinds.get(name, library.DimensionType.SPACE),
            array_size_px=0 if case.unbounded and number == 0 else sizes[name][0],
            chunk_size_px=sizes[name][1],
            shard_size_chunks=sizes[name][2] // sizes[name][1],
        )
        for number, name in enumerate([*loop, "y", "x"])
    ]
    array = library.ArraySettings(output_key=key, data_type=np.dtype("uint16"), dimensions=dimensions)
    if tuple(loop) != geometry.axes[:-2]:
        array.storage_dimension_order = list(geometry.axes)
    if case.levels != 1:
        array.downsampling_method = library.DownsamplingMethod.MEAN
    if case.codec != "none":
        codecs = {
            "blosc-lz4": library.CompressionCodec.BLOSC_LZ4,
            "blosc-zstd": library.CompressionCodec.BLOSC_ZSTD,
        }
        array.compression = library.CompressionSettings(
            compressor=library.Compressor.BLOSC1, codec=codecs[case.codec], level=case.level, shuffle=1
        )
    return array


def _open(case: Case, folder: Path, frames: Frames) -> Session:
    import acquire_zarr as library

    library.set_log_level(library.LogLevel.NONE)
    geometry = Geometry(case)
    root = folder / "a.zarr"
    keys = [str(image) for image in range(geometry.n_images)] if geometry.n_images > 1 else [""]
    try:
        arrays = [_array(case, geometry, key) for key in keys]
        stream = library.ZarrStream(library.StreamSettings(store_path=str(root), arrays=arrays))
    except (RuntimeError, TypeError, ValueError) as error:
        raise RefusedError(str(error)) from error
    levels = "0" if case.levels != 1 else ""
    paths = tuple(root / key / levels for key in keys)
    note = "" if geometry.shard else "every chunk is a shard, since it writes nothing else"
    n_levels = 2 if case.levels != 1 else 1
    if len(keys) == 1:
        return Session(stream.append, stream.close, paths, n_levels, note)
    images = _images(case, geometry)
    return Session(lambda frame: stream.append(frame, keys[next(images)]), stream.close, paths, n_levels, note)


def _images(case: Case, geometry: Geometry) -> Iterator[int]:
    for number in range(case.n_frames):
        yield geometry.locate(number)[0]


RUNNERS = (Runner("acquire-zarr", "library", "acquire-zarr", _open),)
