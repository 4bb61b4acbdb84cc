"""One array on its way through acquire-zarr, with what acquire-zarr itself does not look after.

acquire-zarr reports a failed write at the end at best, sets no bound on the chunks that wait for the disk, and may hang
in `close` when the disk is full. So frames are counted in slabs, the files that share a place along the first axis:
there must be space for a slab before it begins, and the files of earlier ones must be complete before too many wait.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections import deque
from dataclasses import replace
from itertools import product
from math import ceil, prod
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

import numpy as np

from scopestream.document import array_document, replace_file, write_document
from scopestream.plan import ArrayPlan
from scopestream.shardindex import read_index
from scopestream.tiling import round_up

if TYPE_CHECKING:
    from acquire_zarr import StreamSettings, ZarrStream

BACKLOG_BYTES = 128 * 2**20  # of slabs that may wait for the disk, and two at the least: one fills, one is written
_STALL_S = 60.0
_POLL_S = 0.002
_SHUFFLES = {"none": 0, "byte": 1, "bit": 2}


class ArrayWriter:
    """Frames of one array on their way to its stream, which starts with the first of them.

    length  of the first axis in the end
    """

    def __init__(self, folder: Path, array: ArrayPlan, n_threads: int) -> None:
        self.length = array.shape[0]
        self._folder, self._array, self._n_threads = folder, array, n_threads
        before = len(array.axes) - 2
        # Frames from one item of an axis to the next. The first axis, the only one without a count, is the slowest.
        counts = [array.shape[axis] for axis in array.arrival]
        strides = {axis: prod(counts[rank + 1 :]) for rank, axis in enumerate(array.arrival)}
        self._strides = tuple([strides[axis] for axis in range(before)])
        self._n_frames = None if array.growable else prod(counts)
        self._slab_frames = prod(array.shape[1:before]) * (array.file_shape[0] if before else 1)
        self._slab_bytes = slab_bytes(array)
        self._max_slabs = max(2, BACKLOG_BYTES // self._slab_bytes)
        self._slabs: deque[int] = deque()  # that were begun and may not be complete
        self._n_sent = 0
        self._stream: ZarrStream | None = None
        self._error: OSError | None = None
        folder.mkdir(parents=True)
        # Until the stream replaces it when its first slab is full.
        write_document(folder, array_document(replace(array, shards=array.file_shape), array.shape))

    def write(self, origin: tuple[int, ...], block: np.ndarray) -> None:
        if self._error is not None:
            raise self._error
        number = sum([index * stride for index, stride in zip(origin, self._strides, strict=False)])
        try:
            self._send(number, block)
        except (OSError, RuntimeError) as error:  # RuntimeError is all that acquire-zarr raises
            self._error = self._failure(error)
            raise self._error from error

    def close(self) -> None:
        """End the stream, make sure that its files are complete, and state the shape. Raises OSError."""
        try:
            self._end()
        except (OSError, RuntimeError) as error:
            raise self._failure(error) from error

    def _send(self, number: int, frame: np.ndarray) -> None:
        if self._stream is None:
            from acquire_zarr import ZarrStream

            self._stream = ZarrStream(self._settings())
        if number > self._n_sent:  # frames that will not come; without them the later ones would move up
            self._stream.skip((number - self._n_sent) * self._array.frame_bytes)
            self._n_sent = number
        slab = number // self._slab_frames
        if not self._slabs or slab != self._slabs[-1]:
            self._begin(slab)
        self._stream.append(frame)  # copies
        self._n_sent += 1
        if self._n_sent == self._n_frames:
            self._end()  # gives its threads and memory back

    def _end(self) -> None:
        stream, self._stream = self._stream, None
        try:
            if stream is not None:
                stream.close()
        finally:
            self._state_shape()
            self._set_aside_incomplete()

    def _begin(self, slab: int) -> None:
        """Wait while too many slabs do, and raise OSError when this one may not fit on the disk."""
        while self._slabs and (len(self._slabs) >= self._max_slabs or self._missing_bytes() > 0):
            self._wait_for(self._slabs[0])
            self._slabs.popleft()
        if (missing := self._missing_bytes()) > 0:
            raise OSError(errno.ENOSPC, f"the next files need up to {self._slab_bytes} bytes, {missing} too many")
        self._slabs.append(slab)

    def _missing_bytes(self) -> int:
        """How much the disk lacks for the slabs that wait, as if nothing of them were written, and one more."""
        return self._slab_bytes * (len(self._slabs) + 1) - shutil.disk_usage(self._folder).free

    def _wait_for(self, slab: int) -> None:
        """Return when all files of the slab are complete. Raises OSError when they do not grow any more."""
        waiting, grown, since = self._files(slab), -1, monotonic()
        while waiting := [file for file in waiting if not self._is_complete(file)]:
            size = sum([file.stat().st_size for file in waiting if file.exists()]) - len(waiting)
            if size != grown:
                grown, since = size, monotonic()
            elif monotonic() - since > _STALL_S:
                raise OSError(errno.EIO, f"{waiting[0]} has not grown for {_STALL_S:g} seconds")
            sleep(_POLL_S)

    def _files(self, slab: int) -> list[Path]:
        """Files of a slab; acquire-zarr makes all of them, even where every pixel is zero."""
        counts = [ceil(size / step) for size, step in zip(self._array.shape, self._array.file_shape, strict=True)]
        first = [slab] if len(counts) > 2 else range(counts[0])
        return [self._folder.joinpath("c", *map(str, file)) for file in product(first, *map(range, counts[1:]))]

    def _set_aside_incomplete(self) -> None:
        """Rename files that no reader could open, so that readers find none; then raise OSError."""
        slabs, self._slabs = self._slabs, deque()
        broken = [file for slab in slabs for file in self._files(slab) if not self._is_complete(file)]
        for file in broken:
            if file.exists():
                file.rename(file.with_name(f".{file.name}.incomplete"))
        if broken:
            raise OSError(errno.EIO, f"acquire-zarr left {len(broken)} files incomplete, the first of them {broken[0]}")

    def _is_complete(self, file: Path) -> bool:
        """Whether the file ends with an index and its checksum, which acquire-zarr writes last."""
        n_chunks = prod(self._array.file_shape) // prod(self._array.chunks)
        try:
            return read_index(file, n_chunks) is not None
        except OSError:  # not there
            return False

    def _state_shape(self) -> None:
        """acquire-zarr states the length that arrived, whatever was planned."""
        path = self._folder / "zarr.json"
        document = json.loads(path.read_bytes())
        shape = [self.length, *self._array.shape[1:]]
        if document["shape"] != shape:
            replace_file(path, json.dumps({**document, "shape": shape}, indent=2).encode())

    def _failure(self, error: Exception) -> OSError:
        return OSError(
            getattr(error, "errno", None) or errno.EIO,
            f"Frames could not be stored in {self._folder}: {error}. Those in complete files are safe. "
            f"Make room on the disk, or make sure that it is there",
        )

    def _settings(self) -> StreamSettings:
        import acquire_zarr as library

        array = self._array
        kinds = {
            "time": library.DimensionType.TIME,
            "channel": library.DimensionType.CHANNEL,
            "space": library.DimensionType.SPACE,
        }
        codecs = {"blosc-zstd": library.CompressionCodec.BLOSC_ZSTD, "blosc-lz4": library.CompressionCodec.BLOSC_LZ4}
        before = len(array.axes) - 2
        dimensions = [
            library.Dimension(
                name=array.axes[axis],
                kind=kinds.get(array.types[axis], library.DimensionType.OTHER),
                array_size_px=array.shape[axis],  # 0: unbounded
                chunk_size_px=array.chunks[axis],
                shard_size_chunks=array.file_shape[axis] // array.chunks[axis],
            )
            for axis in (*array.arrival, before, before + 1)
        ]
        settings = library.ArraySettings(output_key="", data_type=array.dtype, dimensions=dimensions)
        if list(array.arrival) != sorted(array.arrival):
            settings.storage_dimension_order = list(array.axes)
        if array.codec.name != "none":
            settings.compression = library.CompressionSettings(
                compressor=library.Compressor.BLOSC1,
                codec=codecs[array.codec.name],
                level=array.codec.level,
                shuffle=_SHUFFLES[array.codec.shuffle],
            )
        return library.StreamSettings(
            store_path=str(self._folder), arrays=[settings], overwrite=False, max_threads=self._n_threads
        )


def slab_bytes(array: ArrayPlan) -> int:
    """Uncompressed bytes of all files that share a place along the first axis; of a single frame, all of it."""
    sizes = [round_up(size, step) for size, step in zip(array.shape, array.chunks, strict=True)]
    if len(sizes) > 2:
        sizes[0] = array.file_shape[0] if array.growable else min(array.file_shape[0], sizes[0])
    return prod(sizes) * array.dtype.itemsize
