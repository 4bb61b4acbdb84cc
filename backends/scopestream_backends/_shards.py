"""Shard files that are complete Zarr v3 shards at every instant (docs/format.md tells the whole format).

The index of a shard is read from its last bytes. So it moves in two steps that a kill can fall between without harm:
the new index is written to a place that no reader looks at, then the file is cut off behind it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

import google_crc32c
import numpy as np

MISSING = np.iinfo(np.uint64).max
_O_BINARY = getattr(os, "O_BINARY", 0)
# An index up to this size is published with every write, a larger one as often as this many seconds.
_SMALL_INDEX_BYTES = 16_384
_PUBLISH_EVERY_S = 0.02
_seek_lock = threading.Lock()


def index_bytes(n_chunks: int) -> int:
    """Length of an encoded index: offset and length of every chunk, and a CRC32C."""
    return 16 * n_chunks + 4


def encode_index(index: np.ndarray) -> bytes:
    """(n_chunks, 2) uint64 -> little endian bytes with their CRC32C (Zarr v3 "sharding_indexed", "crc32c")."""
    data = index.astype("<u8", copy=False).tobytes()
    checksum: int = google_crc32c.value(data)
    return data + checksum.to_bytes(4, "little")


def write_at(file: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`. Raises OSError; then any part of it may be there."""
    rest = memoryview(data).cast("B")
    while rest:
        if hasattr(os, "pwrite"):
            n = os.pwrite(file, rest, offset)
        else:  # Windows
            with _seek_lock:
                os.lseek(file, offset, os.SEEK_SET)
                n = os.write(file, rest)
        rest, offset = rest[n:], offset + n


class ShardFile:
    """One file that is being written; `lock` is held by whoever uses it.

    n_blocks  that will come, and `n_left` of them still to come
    """

    def __init__(self, path: Path, n_blocks: int) -> None:
        self.path = path
        self.n_left = n_blocks
        self.lock = threading.Lock()
        self._file = -1

    @property
    def is_open(self) -> bool:
        return self._file >= 0

    def _create(self, data: bytes, offset: int, size: int) -> None:
        """Let the file appear at once, with `data` at `offset`, all else zeros, and that size."""
        if self.path.exists():
            raise FileExistsError(f"{self.path} was complete, and would be lost")
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _O_BINARY, 0o666)
        try:
            write_at(file, data, offset)
            os.ftruncate(file, size)
        finally:
            os.close(file)  # before the rename, which Windows refuses for an open file
        os.replace(temporary, self.path)

    def open(self) -> int:
        if self._file < 0:
            self._file = os.open(self.path, os.O_RDWR | _O_BINARY)
        return self._file

    def release(self) -> None:
        """Give the file handle back; the next write opens it again."""
        if self._file >= 0:
            file, self._file = self._file, -1
            os.close(file)

    def flush(self) -> None:
        """Let readers see all that was written."""

    def finish(self) -> None:
        """Nothing more will come."""
        self.release()


class FixedShard(ShardFile):
    """Uncompressed chunks at fixed places: chunk k lies at k * chunk_bytes.

    The file is sparse and has its final size and its whole index from the start, so that writing a frame is nothing
    but writing its bytes, and what is not written reads as zeros. Without an index it is one chunk of an array
    without shards.

    sparse  False on file systems that would store the zeros: then the index is written by `finish`
    """

    def __init__(
        self, path: Path, *, n_chunks: int, chunk_bytes: int, n_blocks: int, indexed: bool, sparse: bool
    ) -> None:
        super().__init__(path, n_blocks)
        self._n_chunks = n_chunks
        self._chunk_bytes = chunk_bytes
        self._indexed = indexed
        self._index_there = sparse and indexed
        self._end = 0
        size = n_chunks * chunk_bytes
        index = encode_index(self._index(n_chunks)) if self._index_there else b""
        self._create(index, size, size + len(index) if sparse or not indexed else 0)

    def write(self, data: memoryview, offset: int) -> None:
        """Put bytes at their place."""
        write_at(self.open(), data, offset)
        self._end = max(self._end, offset + len(data))

    def finish(self) -> None:
        """Leave out the chunks behind the last one that was written, which readers then know as missing."""
        try:
            if self._indexed and (self.n_left or not self._index_there):
                self._trim()
        finally:
            self.release()

    def _trim(self) -> None:
        n_present = -(-self._end // self._chunk_bytes)
        index = encode_index(self._index(n_present))
        near, far = n_present * self._chunk_bytes, self._n_chunks * self._chunk_bytes
        if self._index_there:
            if near + 2 * len(index) > far:
                return  # there is next to nothing to gain
            # First at the far end, so that no index names the chunks where the near one will be written.
            self._publish(index, far - len(index))
        self._publish(index, near)

    def _publish(self, index: bytes, at: int) -> None:
        file = self.open()
        write_at(file, index, at)
        os.ftruncate(file, at + len(index))

    def _index(self, n_present: int) -> np.ndarray:
        index = np.full((self._n_chunks, 2), MISSING, np.uint64)
        index[:n_present, 0] = np.arange(n_present, dtype=np.uint64) * np.uint64(self._chunk_bytes)
        index[:n_present, 1] = self._chunk_bytes
        return index


class TailShard(ShardFile):
    """Compressed chunks, one after the other as they come.

    The file is sparse, and larger at first than the chunks can become. Each time the index is published it is written
    just below the old one, and the file is cut off behind it; when the shard is complete, just behind the chunks.

    capacity  bytes that the chunks can take at the most
    n_publish how often the index can move before it is written over where it is
    sparse    False on file systems that would store the zeros: then the index lies behind the chunks, and is valid
              after `flush` and `finish` only
    """

    def __init__(
        self, path: Path, *, n_chunks: int, capacity: int, n_publish: int, n_blocks: int, sparse: bool
    ) -> None:
        super().__init__(path, n_blocks)
        self._index = np.full((n_chunks, 2), MISSING, np.uint64)
        self._index_bytes = index_bytes(n_chunks)
        self._tail = 0
        self._sparse = sparse
        self._dirty = False
        self._published_at = 0.0
        self._index_at = capacity + n_publish * self._index_bytes if sparse else 0
        self._create(encode_index(self._index), self._index_at, self._index_at + self._index_bytes)

    def append(self, chunks: Sequence[tuple[int, bytes]]) -> None:
        """Store encoded chunks, each with its number in the shard; a chunk that was there before is replaced."""
        data = b"".join([encoded for _, encoded in chunks])
        write_at(self.open(), data, self._tail)
        for number, encoded in chunks:
            self._index[number] = self._tail, len(encoded)
            self._tail += len(encoded)
        self._dirty = True
        if self._sparse and (
            self._index_bytes <= _SMALL_INDEX_BYTES or monotonic() - self._published_at >= _PUBLISH_EVERY_S
        ):
            self.flush()

    def flush(self) -> None:
        if not self._dirty:
            return
        below = self._index_at - self._index_bytes
        if not self._sparse:
            at = self._tail
        else:  # no room is left to move on only when one shard was flushed thousands of times
            at = below if below >= self._tail else self._index_at
        self._publish(at)
        self._published_at = monotonic()

    def release(self) -> None:
        if self.is_open:
            self.flush()
        super().release()

    def finish(self) -> None:
        self._publish(self._tail)
        super().release()

    def _publish(self, at: int) -> None:
        file = self.open()
        write_at(file, encode_index(self._index), at)
        os.ftruncate(file, at + self._index_bytes)
        self._index_at, self._dirty = at, False


def supports_sparse_files(folder: Path) -> bool:
    """Whether a hole in a file of that folder takes no space; no, where the system does not tell (Windows)."""
    probe, size = folder / ".scopestream-probe", 1 << 20
    try:
        file = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _O_BINARY, 0o666)
        try:
            write_at(file, b"\1", size - 1)
            blocks = getattr(os.fstat(file), "st_blocks", size)
        finally:
            os.close(file)
    finally:
        probe.unlink(missing_ok=True)
    return bool(blocks * 512 < size)
