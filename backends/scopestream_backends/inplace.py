"""Shards in place: frames go straight to their place in the files, which any reader opens at any instant."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import ClassVar

import numpy as np
from numcodecs import blosc, zstd

from scopestream.contract import Capabilities, WriteUnit
from scopestream.document import array_document, replace_file, write_document
from scopestream.plan import ArrayPlan, LayoutPlan, block_bytes, max_threads
from scopestream.tiling import round_up
from scopestream_backends._geometry import Geometry
from scopestream_backends._shards import FixedShard, TailShard, index_bytes, supports_sparse_files

_MAX_OPEN_FILES = 128  # half of what macOS grants a process; Linux grants 1024
_SHUFFLE = {"none": blosc.NOSHUFFLE, "byte": blosc.SHUFFLE, "bit": blosc.BITSHUFFLE}
Key = tuple[int, ...]  # (array, file along each axis)


class InplaceBackend:
    """Needs no library but numcodecs and google-crc32c. Stores single frames, or chunks where they are compressed."""

    name: ClassVar[str] = "inplace"
    requires: ClassVar[tuple[str, ...]] = ("numcodecs", "google_crc32c")
    extra: ClassVar[str] = ""
    capabilities: ClassVar[Capabilities] = Capabilities(
        any_order=True,
        concurrent=True,
        growable=True,
        live_read=True,
        codecs=frozenset({"none", "zstd", "blosc-zstd", "blosc-lz4"}),
        schemes=frozenset({"file"}),
    )

    def unit(self, array: ArrayPlan) -> WriteUnit:
        deep = prod(array.chunks[:-2]) > 1
        return WriteUnit.CHUNK if deep and array.codec.name != "none" else WriteUnit.TILED_FRAME

    def held_bytes(self, array: ArrayPlan, n_arrays: int) -> int:
        """Nothing; with a codec a block in its encoded form, and once more in one piece, for each thread.

        And the index of a shard for each array, since all positions may be open at once.
        """
        if array.codec.name == "none":
            return 0
        frame = block_bytes(array, WriteUnit.TILED_FRAME)
        geometry = Geometry(array)
        indexes = n_arrays * prod(geometry.files) * index_bytes(geometry.n_chunks)
        return 2 * frame * prod(array.chunks[:-2]) * max_threads(array) + indexes

    def check(self, plan: LayoutPlan) -> Sequence[str]:
        array = plan.arrays[0]
        nbytes = prod(array.chunks) * array.dtype.itemsize
        if array.codec.name != "none" and nbytes >= 2**31:
            return [f"chunks of {nbytes} bytes are too large to compress; make them smaller than 2 GiB"]
        return []

    def open(self, plan: LayoutPlan) -> InplaceSink:
        return InplaceSink(plan, self.unit(plan.arrays[0]))


class InplaceSink:
    """Writes all arrays of one dataset. Threads may write different blocks at the same time."""

    def __init__(self, plan: LayoutPlan, unit: WriteUnit) -> None:
        self._arrays = plan.arrays
        self._paths = [plan.root / array.path for array in plan.arrays]
        self._encode = _encoder(plan.arrays[0])
        self._tiled = unit is WriteUnit.TILED_FRAME
        self._extent = plan.arrays[0].block_extent(unit)
        by_level: dict[int, Geometry] = {}
        self._geometry = [by_level.get(a.level) or by_level.setdefault(a.level, Geometry(a)) for a in plan.arrays]
        self._lengths = [array.shape[0] for array in plan.arrays]
        self._published = list(self._lengths)
        self._lock = threading.Lock()
        self._shards: dict[Key, FixedShard | TailShard] = {}
        self._recent: OrderedDict[Key, None] = OrderedDict()  # shards that may have an open file, the last used last
        self._folders: set[Path] = set()
        self._closed = False
        for array, folder in zip(plan.arrays, self._paths, strict=True):
            folder.mkdir(parents=True)
            write_document(folder, array_document(array, array.shape))
        self._sparse = supports_sparse_files(plan.root)
        if not self._sparse:
            warnings.warn(
                f"The file system of {plan.root} stores the holes of files as zeros. A shard can be read once it is "
                f"complete (with a codec, whenever flush() returned), not at every instant.",
                RuntimeWarning,
                stacklevel=4,
            )

    def write(self, array: int, origin: tuple[int, ...], block: np.ndarray, *, final: bool = True) -> None:
        if self._encode is None:
            self._write_plain(array, origin, block)
        else:
            self._write_encoded(array, origin, block, self._encode, final=final)

    def extend(self, array: int, length: int) -> None:
        """The shape that readers see grows by whole files, so that it changes once per file, not once per frame."""
        with self._lock:
            self._lengths[array] = max(self._lengths[array], length)
            if length > self._published[array]:
                self._publish_length(array, round_up(length, self._arrays[array].file_shape[0]))

    def flush(self) -> None:
        with self._lock:
            shards = list(self._shards.values())
        for shard in shards:
            with shard.lock:
                shard.flush()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        errors: list[OSError] = []
        lengths = [number for number, length in enumerate(self._lengths) if length != self._published[number]]
        steps = [shard.finish for shard in self._shards.values()]
        steps += [partial(self._publish_length, number, self._lengths[number]) for number in lengths]
        for step in steps:
            try:
                step()
            except OSError as error:  # all the others must be finished all the same
                errors.append(error)
        if errors:
            raise errors[0]

    def _publish_length(self, array: int, length: int) -> None:
        plan = self._arrays[array]
        write_document(self._paths[array], array_document(plan, (length, *plan.shape[1:])))
        self._published[array] = length

    def _write_plain(self, array: int, origin: tuple[int, ...], tiles: np.ndarray) -> None:
        """Put the bytes of one frame where they belong."""
        geometry = self._geometry[array]
        file, first_chunk, slab = geometry.locate(origin[:-2])
        offset = first_chunk * geometry.chunk_bytes + slab * geometry.slab_bytes
        for at, runs in geometry.runs:
            pieces = [(_bytes(tiles[part]), offset + chunk * geometry.chunk_bytes) for chunk, part in runs]
            self._put(array, (*file, *at), pieces)

    def _put(self, array: int, file: Key, pieces: list[tuple[memoryview, int]]) -> None:
        geometry = self._geometry[array]
        if self._arrays[array].shards is None and geometry.n_deep == 1:
            self._replace_chunk(array, file, pieces[0][0])
            return
        key = (array, *file)
        shard = self._shard(key)
        assert isinstance(shard, FixedShard), "without a codec chunks have fixed places"
        with shard.lock:
            for data, offset in pieces:
                shard.write(data, offset)
        self._came(key, shard)

    def _write_encoded(
        self,
        array: int,
        origin: tuple[int, ...],
        block: np.ndarray,
        encode: Callable[[np.ndarray], bytes],
        *,
        final: bool,
    ) -> None:
        """Compress the chunks of a block and append them to their shards."""
        plan, geometry = self._arrays[array], self._geometry[array]
        file, first_chunk, _ = geometry.locate(origin[:-2])
        for at, tiles in geometry.tiles:
            chunks = [
                (first_chunk + chunk, encode(block[y, x] if self._tiled else _chunk(block, y, x, plan.chunks)))
                for chunk, y, x in tiles
            ]
            if plan.shards is None:
                self._replace_chunk(array, (*file, *at), chunks[0][1])
                continue
            key = (array, *file, *at)
            shard = self._shard(key)
            assert isinstance(shard, TailShard), "with a codec chunks follow one another"
            with shard.lock:
                shard.append(chunks)
            if final:
                self._came(key, shard)

    def _replace_chunk(self, array: int, file: Key, data: bytes | memoryview) -> None:
        """Without shards a chunk is a file, which appears at once."""
        replace_file(self._file_path(array, file), data)

    def _shard(self, key: Key) -> FixedShard | TailShard:
        """The shard of that key, made when its first frame comes."""
        with self._lock:
            shard = self._shards.get(key)
            if shard is None:
                shard = self._shards[key] = self._new_shard(key)
            self._recent[key] = None
            self._recent.move_to_end(key)
            while len(self._recent) > _MAX_OPEN_FILES:
                oldest, _ = self._recent.popitem(last=False)
                with self._shards[oldest].lock:
                    self._shards[oldest].release()
            return shard

    def _new_shard(self, key: Key) -> FixedShard | TailShard:
        array, *file = key
        geometry, plan = self._geometry[array], self._arrays[array]
        path = self._file_path(array, tuple(file))
        n_blocks = geometry.n_blocks(file[:-2], self._extent)
        if self._encode is None:
            return FixedShard(
                path, n_chunks=geometry.n_chunks if plan.shards else 1, chunk_bytes=geometry.chunk_bytes,
                n_blocks=n_blocks, indexed=plan.shards is not None, sparse=self._sparse,
            )  # fmt: skip
        # A chunk of several frames may be flushed, and so stored, once for each of them.
        times = 1 if geometry.n_deep == 1 else geometry.n_deep + 1
        largest = geometry.chunk_bytes + geometry.chunk_bytes // 128 + 1024  # bound of blosc and zstd
        return TailShard(
            path, n_chunks=geometry.n_chunks, capacity=geometry.n_chunks * times * largest,
            n_publish=min(n_blocks * times + 64, 10_000), n_blocks=n_blocks, sparse=self._sparse,
        )  # fmt: skip

    def _came(self, key: Key, shard: FixedShard | TailShard) -> None:
        """A block is there for good; the last one completes its shard."""
        with shard.lock:
            shard.n_left -= 1
            if shard.n_left:
                return
            shard.finish()
        with self._lock:
            del self._shards[key]
            self._recent.pop(key, None)

    def _file_path(self, array: int, file: Key) -> Path:
        *folders, name = map(str, file)
        folder = self._paths[array].joinpath("c", *folders)
        if folder not in self._folders:
            folder.mkdir(parents=True, exist_ok=True)
            self._folders.add(folder)
        return folder / name


def _bytes(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _chunk(block: np.ndarray, row: int, column: int, shape: tuple[int, ...]) -> np.ndarray:
    """A chunk of the full shape, C-contiguous, zeros past the edge of the array."""
    height, width = shape[-2:]
    part = block[..., row * height : (row + 1) * height, column * width : (column + 1) * width]
    if part.shape == shape:
        return np.ascontiguousarray(part)
    chunk = np.zeros(shape, part.dtype)
    chunk[tuple(slice(size) for size in part.shape)] = part
    return chunk


def _encoder(array: ArrayPlan) -> Callable[[np.ndarray], bytes] | None:
    """Compresses one chunk with the GIL released; None without a codec."""
    codec, itemsize = array.codec, array.dtype.itemsize
    if codec.name == "none":
        return None
    if codec.name == "zstd":
        return lambda chunk: zstd.compress(_bytes(chunk), codec.level)
    name, shuffle = codec.name.removeprefix("blosc-").encode(), _SHUFFLE[codec.shuffle]
    return lambda chunk: blosc.compress(_bytes(chunk), name, codec.level, shuffle, typesize=itemsize)
