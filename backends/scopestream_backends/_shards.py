"""Shard files that are complete Zarr v3 shards at every instant (docs/format.md tells the whole format).

The index of a shard is read from its last bytes. So it moves in two steps that a kill can fall between without harm:
the new index is written to a place that no reader looks at, then the file is cut off behind it. A power loss may keep
the second step and lose the first: once frames were promised to survive one, a sync lies between the two. It may as
well lose the cut, and keep the zeros that the system puts behind it up to the end of a block: then no part of the old
index lies in the block where the file is cut off.
"""

from __future__ import annotations

import errno
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

import numpy as np

from scopestream.document import replacing
from scopestream.durable import Unsynced, sync_data
from scopestream.holes import end_of_data
from scopestream.shardindex import MISSING, encode_index, index_bytes, read_index
from scopestream.tiling import round_up
from scopestream_backends._files import (
    O_BINARY,
    allocate,
    copy_range,
    open_direct,
    write_all_at,
    write_at,
    write_direct,
)

Piece = tuple[int, bytes | memoryview]
Move = tuple[int, int, int]  # from one offset to another, so many bytes
_WINDOW_BYTES = 2**22  # asked of the file system at once, at the least
_CAREFUL_EVERY_S = 1.0  # seconds between two indexes of compressed chunks, at the least, where each costs syncs
_MAX_AHEAD_BYTES = 2**24  # of compressed chunks, whose sizes nobody knows
_MAX_CAREFUL_MOVES = 256  # of an index, a block each, before the shard is copied


class ShardFile(ABC):
    """One file that is being written. Safe from any thread.

    n_blocks  that will come, and `n_left` of them still to come, which whoever uses it counts with `lock` held
    unsynced  is told what changes, and knows whether care is needed
    """

    def __init__(self, path: Path, n_blocks: int, unsynced: Unsynced) -> None:
        self.path = path
        self.n_left = n_blocks
        self.lock = threading.RLock()
        self._unsynced = unsynced
        self._sync_error: OSError | None = None
        self._file = -1

    @abstractmethod
    def store(self, pieces: list[Piece]) -> None:
        """Put pieces of chunks where they belong: (offset, bytes), or (chunk, its encoded bytes)."""

    def flush(self) -> None:  # noqa: B027  # not abstract, and empty where nothing waits
        """Let readers see all that was stored."""

    def release(self) -> None:
        """Give the file handle back; the next write opens it again."""
        with self.lock:
            if self._file >= 0:
                file, self._file = self._file, -1
                os.close(file)

    def finish(self) -> None:
        """Nothing more will come."""
        self.release()

    def _create(self, data: bytes, offset: int, size: int, moved: Sequence[Move] | None = None) -> None:
        """Let the file appear at once, with `data` at `offset`, all else zeros, and that size.

        moved  chunks of the file that was there, and that the new one replaces
        """
        if moved is None and self.path.exists():
            raise FileExistsError(f"{self.path} was complete, and would be lost")
        self._unsynced.make_folders(self.path.parent)
        # What was promised before must not hang on a file that is not.
        with replacing(self.path, synced=self._unsynced.careful or moved is not None) as temporary:
            file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | O_BINARY, 0o666)
            try:
                if moved is not None:
                    self._copy(file, moved)
                write_at(file, data, offset)
                os.ftruncate(file, size)
            finally:
                os.close(file)  # before the rename, which Windows refuses for an open file
        self._unsynced.named(self.path)

    def _settle(self) -> None:
        """Bring all that was written to stable storage, where care is needed, before the next step relies on it.

        Raises OSError, and from then on always: what could not be synced is never taken for synced.
        """
        if not self._unsynced.careful:
            return
        if self._sync_error is not None:
            raise OSError(self._sync_error.errno, f"{self.path} could not be synced before: {self._sync_error}")
        file = os.open(self.path, os.O_RDWR | O_BINARY)  # the other handle may be given back meanwhile
        try:
            sync_data(file)
        except OSError as error:
            self._sync_error = error
            raise
        finally:
            os.close(file)

    def _cut(self, size: int) -> None:
        os.ftruncate(self._open(), size)
        self._unsynced.changed(self.path)

    def _before(self, offset: int) -> int:
        """Where the file may be cut off, at the most, without a change to what lies at `offset` and behind."""
        return offset // self._unsynced.block * self._unsynced.block if self._unsynced.careful else offset

    def _blanked(self, size: int) -> int:
        """Up to where bytes change when the file is cut off to that size."""
        return round_up(size, self._unsynced.block) if self._unsynced.careful else size

    def _index_found(self, n_chunks: int) -> np.ndarray:
        """The index of the file that is there. Raises OSError when no reader could open it."""
        index = read_index(self.path, n_chunks)
        if index is None:
            raise OSError(errno.EIO, f"{self.path} has a damaged index; `scopestream recover` mends it")
        return index

    def _copy(self, file: int, moved: Sequence[Move]) -> None:
        source = os.open(self.path, os.O_RDONLY | O_BINARY)
        try:
            for source_at, target_at, n_bytes in moved:
                copy_range(source, file, source_at, target_at, n_bytes)
        finally:
            os.close(source)

    def _open(self) -> int:
        if self._file < 0:
            self._file = os.open(self.path, os.O_RDWR | O_BINARY)
        return self._file


class FixedShard(ShardFile):
    """Uncompressed chunks at fixed places: chunk k lies at k * chunk_bytes.

    The file is sparse and has its final size and its whole index from the start, so that writing a frame is nothing
    but writing its bytes, and what is not written reads as zeros. Without an index it is one chunk of an array
    without shards.

    n_used  chunks up to the last one that can come: the array may end before the shard does
    sparse  False on file systems that would store the zeros: then the index is written by `finish`, unless care is
            needed, which takes the file with its zeros
    direct  whether to write past the page cache what lies as the system needs it
    resumes whether to go on with the file that may be there
    """

    def __init__(
        self,
        path: Path,
        *,
        n_chunks: int,
        n_used: int,
        chunk_bytes: int,
        n_blocks: int,
        indexed: bool,
        sparse: bool,
        direct: bool,
        resumes: bool,
        unsynced: Unsynced,
    ) -> None:
        super().__init__(path, n_blocks, unsynced)
        self._is_direct, self._direct_file = direct, -1
        self._n_chunks = n_chunks
        self._chunk_bytes = chunk_bytes
        self._indexed = indexed
        from_the_start = sparse or unsynced.careful
        self._index_there = from_the_start and indexed
        self._end = 0
        self._data_bytes = n_chunks * chunk_bytes
        self._used_bytes = n_used * chunk_bytes
        self._allocated = bytearray(-(-self._data_bytes // _WINDOW_BYTES)) if sparse else None
        if resumes and path.exists():
            self._adopt()
            return
        index = encode_index(self._index(n_chunks)) if self._index_there else b""
        self._create(index, self._data_bytes, self._data_bytes + len(index) if from_the_start or not indexed else 0)

    def store(self, pieces: list[Piece]) -> None:
        """Put bytes at their offsets, with one call for those that lie side by side."""
        with self.lock:
            file = self._open()
            start = end = pieces[0][0]
            together: list[bytes | memoryview] = []
            for offset, data in pieces:
                if offset != end:
                    self._write(file, together, start, end)
                    together, start = [], offset
                together.append(data)
                end = offset + len(data)
            self._write(file, together, start, end)
            self._unsynced.changed(self.path)

    def flush(self) -> None:
        with self.lock:
            if self._unsynced.careful and self._indexed and not self._index_there:
                write_at(self._open(), encode_index(self._index(self._n_chunks)), self._data_bytes)
                self._index_there = True
                self._unsynced.changed(self.path)

    def finish(self) -> None:
        """Leave out the chunks behind the last one that was written, which readers then know as missing."""
        with self.lock:
            try:
                is_less = self.n_left or self._used_bytes < self._data_bytes
                if self._indexed and (is_less or not self._index_there):
                    self._trim()
            finally:
                self.release()

    def _adopt(self) -> None:
        """Let the file be as it was before it was trimmed: readers never miss a chunk, so a copy takes its place."""
        if not self._indexed:
            return
        found, whole = self._index_found(self._n_chunks), self._index(self._n_chunks)
        self._index_there = True  # on any file system, or what is there could not be read until `finish`
        if np.array_equal(found, whole):
            self._end = end_of_data(self._open(), self._data_bytes)
            return
        numbers = np.flatnonzero(found[:, 0] != MISSING).tolist()
        moved = [(int(found[k, 0]), k * self._chunk_bytes, self._chunk_bytes) for k in numbers]
        index = encode_index(whole)
        self._create(index, self._data_bytes, self._data_bytes + len(index), moved)
        self._end = (numbers[-1] + 1) * self._chunk_bytes if numbers else 0

    def _write(self, file: int, pieces: list[bytes | memoryview], start: int, end: int) -> None:
        if self._allocated is not None:
            self._allocate(file, self._allocated, start, end)
        if not (self._is_direct and self._write_direct(pieces, start)):
            write_all_at(file, pieces, start)
        self._end = max(self._end, end)

    def _write_direct(self, pieces: list[bytes | memoryview], start: int) -> bool:
        if self._direct_file < 0:
            file = open_direct(self.path)
            if file is None:
                return False
            self._direct_file = file
        return write_direct(self._direct_file, pieces, start)

    def release(self) -> None:
        with self.lock:
            if self._direct_file >= 0:
                file, self._direct_file = self._direct_file, -1
                os.close(file)
            super().release()

    def _allocate(self, file: int, allocated: bytearray, start: int, end: int) -> None:
        """Ask for the windows that the range touches, unless they were asked for before."""
        first, last = start // _WINDOW_BYTES, -(-end // _WINDOW_BYTES)
        while first < last and allocated[first]:
            first += 1
        if first == last:
            return
        begin = first * _WINDOW_BYTES
        if allocate(file, begin, min(last * _WINDOW_BYTES, self._used_bytes) - begin):
            allocated[first:last] = b"\1" * (last - first)
        else:
            self._allocated = None  # not on this file system, or it is nearly full

    def _trim(self) -> None:
        n_present = -(-self._end // self._chunk_bytes)
        index = encode_index(self._index(n_present))
        near, far = n_present * self._chunk_bytes, self._n_chunks * self._chunk_bytes
        if self._index_there:
            below = self._before(far) - len(index)
            if self._blanked(near + len(index)) > below:
                return  # there is next to nothing to gain
            # First at the far end, so that no index names the chunks where the near one will be written.
            self._publish(index, below)
            self._settle()
        self._publish(index, near)

    def _publish(self, index: bytes, at: int) -> None:
        write_at(self._open(), index, at)
        self._settle()
        self._cut(at + len(index))

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
    n_publish how often the index can move before the shard is copied into a file that has room for it
    every_s   seconds between two indexes while chunks come all the time
    sparse    False on file systems that would store the zeros: then the index lies behind the chunks, and is valid
              after `flush` and `finish` only, unless care is needed, which takes the file with its zeros
    resumes   whether to go on with the file that may be there
    """

    def __init__(
        self,
        path: Path,
        *,
        n_chunks: int,
        capacity: int,
        n_publish: int,
        n_blocks: int,
        every_s: float,
        sparse: bool,
        resumes: bool,
        unsynced: Unsynced,
    ) -> None:
        super().__init__(path, n_blocks, unsynced)
        self._index = np.full((n_chunks, 2), MISSING, np.uint64)
        self._index_bytes = index_bytes(n_chunks)
        self._tail = 0
        self._walks = sparse or unsynced.careful
        self._allocated = 0 if sparse else capacity  # bytes, from the start
        self._capacity = capacity
        self._every_s = every_s
        self._n_publish = n_publish
        self._dirty = False
        self._published_at = monotonic() if unsynced.careful else 0.0
        self._publishing = threading.Lock()  # one index moves at a time; taken before `lock`, which chunks need, too
        moved = self._take_over() if resumes and path.exists() else None
        self._index_at = capacity + self._walk_bytes() if self._walks else self._tail
        self._create(encode_index(self._index), self._index_at, self._index_at + self._index_bytes, moved)

    def store(self, pieces: list[Piece]) -> None:
        """Append encoded chunks, each with its number in the shard; a chunk that was there before is replaced."""
        with self.lock:  # the system lets only one thread write to a file, and the others would spin
            file, at = self._open(), self._tail
            end = at + sum([len(data) for _, data in pieces])
            if end > self._allocated:
                self._allocate(file, end)
            write_all_at(file, [data for _, data in pieces], at)
            for number, data in pieces:
                self._index[number] = at, len(data)
                at += len(data)
            self._tail = end
            self._dirty = True
            self._unsynced.changed(self.path)
            every_s = max(self._every_s, _CAREFUL_EVERY_S) if self._unsynced.careful else self._every_s
            is_time = self._walks and monotonic() - self._published_at >= every_s
        if is_time:
            self.flush()

    def _take_over(self) -> list[Move]:
        """Let the chunks of the file that is there be the first of this one."""
        found, moved = self._index_found(len(self._index)), []
        there = np.flatnonzero(found[:, 0] != MISSING)
        for number in there[np.argsort(found[there, 0])].tolist():
            offset, length = map(int, found[number])
            moved.append((offset, self._tail, length))
            self._index[number] = self._tail, length
            self._tail += length
        return moved

    def _allocate(self, file: int, end: int) -> None:
        """Ask for what is needed now and about as much again, so that a small shard takes little more than it has."""
        ahead = min(max(end, _WINDOW_BYTES // 4), _MAX_AHEAD_BYTES)
        n_bytes = min(end + ahead, self._capacity) - self._allocated
        if n_bytes > 0 and allocate(file, self._allocated, n_bytes):
            self._allocated += n_bytes
        else:
            self._allocated = self._capacity  # not on this file system, or it is nearly full

    def flush(self) -> None:
        with self._publishing:
            if self._unsynced.careful:
                self._publish_carefully()
                return
            with self.lock:
                if self._dirty:
                    self._publish_below()

    def release(self) -> None:
        """Give the file handle back. The index is published before, unless that would cost a sync."""
        if self._file >= 0 and not self._unsynced.careful:
            try:
                self.flush()
            finally:
                super().release()
        else:
            super().release()

    def finish(self) -> None:
        with self._publishing, self.lock:
            try:
                if self._unsynced.careful and self._blanked(self._tail + self._index_bytes) > self._index_at:
                    self._move()  # the index that counts until the cut lies where the last one will be written
                self._publish(self._tail)
            except OSError:
                self._publish_below()  # in a larger file, in which the index names all chunks even so
                raise
            finally:
                super().release()

    def _walk_bytes(self) -> int:
        """Room for the indexes to come."""
        if not self._unsynced.careful:
            return self._n_publish * self._index_bytes
        return max(2, min(self._n_publish, _MAX_CAREFUL_MOVES)) * self._blanked(self._index_bytes)

    @property
    def _below(self) -> int:
        """Where the next index goes."""
        return self._before(self._index_at) - self._index_bytes if self._walks else self._tail

    def _has_room(self) -> bool:
        return self._below >= self._capacity or not self._walks

    def _publish_below(self) -> None:
        if self._has_room():
            self._publish(self._below)
        else:
            self._move()

    def _publish(self, at: int) -> None:
        """Let the index at `at` be the one that counts; `lock` is held all the time."""
        write_at(self._open(), encode_index(self._index), at)
        self._settle()
        self._cut(at + self._index_bytes)
        self._index_at, self._dirty, self._published_at = at, False, monotonic()

    def _publish_carefully(self) -> None:
        """The same, and what waits for the disk waits without `lock`, so that chunks can go on coming."""
        with self.lock:
            if not self._dirty:
                return
            was_open, at = self._file >= 0, self._below
            try:
                if not self._walks or not self._has_room():
                    self._move()
                    return
                write_at(self._open(), encode_index(self._index), at)
            finally:
                if not was_open:  # flushing many shards must not leave as many handles open
                    super().release()
            self._dirty = False
        try:
            self._settle()
            with self.lock:
                was_open = self._file >= 0
                self._cut(at + self._index_bytes)
                self._index_at, self._published_at = at, monotonic()
                if not was_open:
                    super().release()
        except BaseException:
            self._dirty = True
            raise

    def _move(self) -> None:
        """Copy the shard into a file where the index has room to walk, which takes the place of the old one at once."""
        at = max(self._capacity, self._tail) + self._walk_bytes()
        super().release()
        self._create(encode_index(self._index), at, at + self._index_bytes, [(0, 0, self._tail)])
        self._capacity = max(self._capacity, self._tail)
        self._allocated, self._walks = self._capacity, True
        self._index_at, self._dirty, self._published_at = at, False, monotonic()
