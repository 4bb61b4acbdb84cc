"""Shards in place: frames go straight to their place in the files, which any reader opens at any instant."""

from __future__ import annotations

import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from math import prod
from operator import itemgetter
from pathlib import Path
from typing import ClassVar

import numpy as np
from numcodecs import blosc, zstd

from scopestream.contract import Block, Capabilities, WriteUnit
from scopestream.document import array_document, replacing, stored_length, write_document
from scopestream.durable import Unsynced
from scopestream.geometry import Geometry
from scopestream.memory import PAGE
from scopestream.plan import BATCH_BYTES, ArrayPlan, LayoutPlan, block_bytes, max_threads
from scopestream.shardindex import index_bytes
from scopestream.tiling import round_up
from scopestream_backends._files import (
    O_BINARY,
    allocate,
    open_direct,
    open_file_allowance,
    supports_direct_io,
    supports_sparse_files,
    write_at,
    write_direct,
)
from scopestream_backends._shards import FixedShard, Piece, ShardFile, TailShard

_PUBLISH_EVERY_S = 0.02  # seconds between two indexes of a shard that is written to all the time
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
        batches=True,
        direct_io=True,
        resumes=True,
        durable=True,
    )

    def unit(self, array: ArrayPlan) -> WriteUnit:
        deep = prod(array.chunks[:-2]) > 1
        return WriteUnit.CHUNK if deep and array.codec.name != "none" else WriteUnit.TILED_FRAME

    def held_bytes(self, array: ArrayPlan, n_arrays: int, room: int) -> int:
        """Nothing; with a codec a block, or several small ones, in encoded form, for each thread.

        And the indexes of all shards that are open at once, of all positions together.
        """
        if array.codec.name == "none":
            return 0
        block = block_bytes(array, WriteUnit.TILED_FRAME) * prod(array.chunks[:-2])
        if self.unit(array) is WriteUnit.TILED_FRAME:
            block = max(block, BATCH_BYTES)
        geometry = Geometry(array)
        indexes = n_arrays * geometry.n_open_files * index_bytes(geometry.n_chunks)
        return (block + block // 16) * max_threads(array, self.unit(array)) + indexes

    def check(self, plan: LayoutPlan) -> Sequence[str]:
        problems = [text for array in plan.finest for text in self._problems(array, plan.settings.direct_io)]
        return list(dict.fromkeys(problems))

    def _problems(self, array: ArrayPlan, direct_io: bool) -> Sequence[str]:
        nbytes = prod(array.chunks) * array.dtype.itemsize
        if array.codec.name != "none" and nbytes >= 2**31:
            return [f"chunks of {nbytes} bytes are too large to compress; make them smaller than 2 GiB"]
        if direct_io and array.codec.name != "none":
            return ["direct_io is for frames that are not compressed; leave it out"]
        if direct_io and Geometry(array).slab_bytes % PAGE:
            return [f"direct_io needs tiles whose bytes are a multiple of {PAGE}, such as 256 x 256 pixels"]
        return []

    def open(self, plan: LayoutPlan) -> InplaceSink:
        return InplaceSink(plan, self.unit(plan.finest[0]), resumes=False)

    def reopen(self, plan: LayoutPlan) -> InplaceSink:
        return InplaceSink(plan, self.unit(plan.finest[0]), resumes=True)


class InplaceSink:
    """Writes all arrays of one dataset. Threads may write different blocks at the same time."""

    def __init__(self, plan: LayoutPlan, unit: WriteUnit, *, resumes: bool) -> None:
        self._arrays = plan.arrays
        self._paths = [plan.root / array.path for array in plan.arrays]
        self._encoders = [_encoder(array) for array in plan.finest]  # one for each camera
        self._encoder_of = [plan.images[array.image].view for array in plan.arrays]
        self._is_encoded = self._encoders[0] is not None
        self._unit, self._tiled = unit, unit is WriteUnit.TILED_FRAME
        known: dict[tuple[object, ...], Geometry] = {}
        self._geometry = []
        for array in plan.arrays:
            key = (array.shape, array.chunks, array.shards, array.dtype)
            self._geometry.append(known.get(key) or known.setdefault(key, Geometry(array)))
        # Without shards a chunk that comes at once, and not frame by frame, is a file that is written once.
        self._files_of_chunks = [
            array.shards is None and (self._is_encoded or geometry.n_deep == 1)
            for array, geometry in zip(plan.arrays, self._geometry, strict=True)
        ]
        self._resumes = resumes
        self._checksums = plan.settings.checksums
        self._lengths = [array.shape[0] for array in plan.arrays]
        self._published = list(self._lengths)  # what the documents say
        self._unsynced = Unsynced(plan.root, careful=plan.settings.durability == "disk")
        self._extending = threading.Lock()  # for the lengths
        self._lock = threading.Lock()  # for what follows
        self._shards: dict[Key, ShardFile] = {}
        self._recent: OrderedDict[Key, None] = OrderedDict()  # shards that may have an open file, the last used last
        self._closed = False
        self._max_open_files = open_file_allowance(_MAX_OPEN_FILES)
        if resumes:
            self._published = [stored_length(folder) for folder in self._paths]
        else:
            for array, folder in zip(plan.arrays, self._paths, strict=True):
                folder.mkdir(parents=True)
                write_document(folder, array_document(array, array.shape))
        self._sparse = supports_sparse_files(plan.root)
        self._direct = plan.settings.direct_io and supports_direct_io(plan.root)
        if plan.settings.direct_io and not self._direct:
            warnings.warn(
                f"The file system of {plan.root} cannot be written past the page cache; direct_io has no effect.",
                RuntimeWarning,
                stacklevel=4,
            )
        if not self._sparse:
            warnings.warn(
                f"The file system of {plan.root} stores the holes of files as zeros. A shard can be read once it is "
                f"complete (with a codec, whenever flush() returned), not at every instant.",
                RuntimeWarning,
                stacklevel=4,
            )

    def write(self, array: int, origin: tuple[int, ...], block: np.ndarray, *, final: bool = True) -> None:
        self._store((Block(array, origin, block),), final=final)

    def write_many(self, blocks: Sequence[Block]) -> None:
        self._store(blocks, final=True)

    def extend(self, array: int, length: int) -> None:
        """The shape that readers see grows by whole files, so that it changes once per file, not once per frame."""
        with self._extending:
            self._lengths[array] = max(self._lengths[array], length)
            if length > self._published[array]:
                self._publish_length(array, round_up(length, self._arrays[array].file_shape[0]))

    def flush(self) -> None:
        with self._lock:
            shards = list(self._shards.values())
        for shard in shards:
            shard.flush()

    def sync(self) -> None:
        self._unsynced.careful = True
        self.flush()
        self._unsynced.sync()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        errors: list[OSError] = []
        lengths = [number for number, length in enumerate(self._lengths) if length != self._published[number]]
        steps = [shard.finish for shard in self._shards.values()]
        steps += [partial(self._publish_length, number, self._lengths[number]) for number in lengths]
        if self._unsynced.careful:
            steps.append(self._unsynced.sync)
        for step in steps:
            try:
                step()
            except OSError as error:  # all the others must be finished all the same
                errors.append(error)
        if errors:
            raise errors[0]

    def _publish_length(self, array: int, length: int) -> None:
        plan = self._arrays[array]
        document = array_document(plan, (length, *plan.shape[1:]))
        write_document(self._paths[array], document, synced=self._unsynced.careful)
        self._unsynced.named(self._paths[array] / "zarr.json")
        self._published[array] = length

    def _store(self, blocks: Sequence[Block], *, final: bool) -> None:
        """Put the pieces of all blocks into their files, then count the blocks: one that failed may come again."""
        by_file: dict[Key, list[Piece]] = {}
        n_blocks: dict[Key, int] = {}
        for block in blocks:
            encode = self._encoders[self._encoder_of[block.array]]
            for key, pieces in self._plain(block) if encode is None else self._encoded(block, encode):
                if self._files_of_chunks[block.array]:
                    self._replace_chunk(key, pieces[0][1])
                elif key in by_file:
                    by_file[key] += pieces
                    n_blocks[key] += 1
                else:
                    by_file[key], n_blocks[key] = pieces, 1
        for key, pieces in by_file.items():
            if n_blocks[key] > 1:
                pieces.sort(key=_place)
            self._shard(key).store(pieces)
        if final:
            for key, n in n_blocks.items():
                self._came(key, n)

    def _plain(self, block: Block) -> Iterator[tuple[Key, list[Piece]]]:
        """The bytes of one frame, and where they belong in each of its files."""
        array, origin, tiles = block
        geometry = self._geometry[array]
        file, first_chunk, slab = geometry.locate(origin[:-2])
        offset = first_chunk * geometry.chunk_bytes + slab * geometry.slab_bytes
        for at, runs in geometry.runs:
            yield (
                (array, *file, *at),
                [(offset + chunk * geometry.chunk_bytes, _bytes(tiles[part])) for chunk, part in runs],
            )

    def _encoded(self, block: Block, encode: Callable[[np.ndarray], bytes]) -> Iterator[tuple[Key, list[Piece]]]:
        """The compressed chunks of a block, and their numbers in each of its files."""
        array, origin, data = block
        geometry, shape = self._geometry[array], self._arrays[array].chunks
        file, first_chunk, _ = geometry.locate(origin[:-2])
        for at, tiles in geometry.tiles:
            yield (
                (array, *file, *at),
                [
                    (first_chunk + chunk, encode(data[y, x] if self._tiled else _chunk(data, y, x, shape)))
                    for chunk, y, x in tiles
                ],
            )

    def _replace_chunk(self, key: Key, data: bytes | memoryview) -> None:
        """Without shards a chunk is a file, which appears at once."""
        path = self._file_path(key)
        try:
            self._write_chunk(path, data)
        except FileNotFoundError:
            self._unsynced.make_folders(path.parent)
            self._write_chunk(path, data)
        self._unsynced.named(path)

    def _write_chunk(self, path: Path, data: bytes | memoryview) -> None:
        with replacing(path, synced=self._unsynced.careful) as temporary:
            file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | O_BINARY, 0o666)
            try:
                if self._sparse:
                    allocate(file, 0, len(data))
                if not (self._direct and self._write_direct(temporary, data)):
                    write_at(file, data, 0)
            finally:
                os.close(file)

    def _write_direct(self, path: Path, data: bytes | memoryview) -> bool:
        file = open_direct(path)
        if file is None:
            return False
        try:
            return write_direct(file, [data], 0)
        finally:
            os.close(file)

    def _shard(self, key: Key) -> ShardFile:
        """The shard of that key, made when its first frame comes."""
        with self._lock:
            shard = self._shards.get(key)
            if shard is None:
                shard = self._shards[key] = self._new_shard(key)
            self._recent[key] = None
            self._recent.move_to_end(key)
            while len(self._recent) > self._max_open_files:
                oldest, _ = self._recent.popitem(last=False)
                with suppress(OSError):  # its index is still to be published, which `flush` and `close` try again
                    self._shards[oldest].release()
            return shard

    def _new_shard(self, key: Key) -> ShardFile:
        array, *file = key
        geometry, plan = self._geometry[array], self._arrays[array]
        path = self._file_path(key)
        n_blocks = geometry.n_blocks(file[:-2], plan.block_extent(self._unit))
        if not self._is_encoded:
            return FixedShard(
                path, n_chunks=geometry.n_chunks if plan.shards else 1, n_used=geometry.n_used(file),
                chunk_bytes=geometry.chunk_bytes,
                n_blocks=n_blocks, indexed=plan.shards is not None, sparse=self._sparse, direct=self._direct,
                resumes=self._resumes,
                unsynced=self._unsynced,
            )  # fmt: skip
        # A chunk of several frames may be flushed, and so stored, once for each of them.
        times = 1 if geometry.n_deep == 1 else geometry.n_deep + 1
        largest = geometry.chunk_bytes + geometry.chunk_bytes // 128 + 1024  # bound of blosc and zstd
        return TailShard(
            path, n_chunks=geometry.n_chunks, capacity=geometry.n_chunks * times * largest,
            n_publish=min(n_blocks * times + 64, 10_000), n_blocks=n_blocks,
            # After a kill, chunks that no index names are found by the checksum of the frame that they make up, if it
            # has one. Of a frame in several files nobody knows which chunks go together.
            every_s=_PUBLISH_EVERY_S if self._checksums and geometry.files == (1, 1) else 0.0,
            sparse=self._sparse, resumes=self._resumes,
            unsynced=self._unsynced,
        )  # fmt: skip

    def _came(self, key: Key, n_blocks: int) -> None:
        """Blocks are there for good; the last one completes its shard.

        When it cannot be completed now, `close` tries again and says why: the blocks themselves are stored.
        """
        shard = self._shards[key]
        with shard.lock:
            shard.n_left -= n_blocks
            if shard.n_left:
                return
        try:
            shard.finish()
        except OSError:
            return
        with self._lock:
            del self._shards[key]
            self._recent.pop(key, None)

    def _file_path(self, key: Key) -> Path:
        array, *file = key
        return self._paths[array].joinpath("c", *map(str, file))


_place = itemgetter(0)


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
