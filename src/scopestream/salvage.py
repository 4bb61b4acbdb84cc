"""Chunks of a shard whose index is damaged, found again.

Nothing in a shard but its index says which chunk is which. But the frame log has a checksum of every frame: chunks that
make up a frame with that checksum are its chunks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from scopestream.checksum import crc32c
from scopestream.dataset import Dataset
from scopestream.decode import ZSTD_MAGIC, zstd_header_bytes
from scopestream.shardindex import MISSING
from scopestream.stored import Index, StoredArray
from scopestream.untrusted import open_regular

Piece = tuple[int, int]  # offset and length in the damaged file


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What was found, by number of the chunk, of `n_chunks`.

    is_all  whether all that is in the file has a name now
    """

    n_chunks: int
    chunks: dict[int, Piece]
    is_all: bool

    def index(self, known: np.ndarray | None = None) -> np.ndarray:
        """(n_chunks, 2) with these chunks, and those that were `known` before."""
        index = np.full((self.n_chunks, 2), MISSING, np.uint64) if known is None else known.copy()
        for number, piece in self.chunks.items():
            index[number] = piece
        return index


def salvage(dataset: Dataset, stored: StoredArray, at: Index, path: Path, start: int = 0) -> Salvaged | None:
    """Chunks of a shard that its index does not name, as far as they can be told; None when none can.

    at     number of the file along each axis
    start  where the chunks that the index names end
    """
    if stored.array.level or stored.geometry.files != (1, 1):
        return None  # there are checksums of whole frames of the finest level
    ((_, tiles),) = stored.geometry.tiles
    chunks: dict[int, Piece] = {}
    with open_regular(path) as file:
        finder = _Finder(dataset, stored, at, file)
        in_place = stored.array.codec.name == "none"
        layers = _layers_in_place(stored, at, file) if in_place else _layers_in_a_row(stored, file, start)
        for pieces in layers:
            origin = finder.origin(pieces)
            if origin is not None:
                _, first, _ = stored.geometry.locate(origin)
                # The last one counts: a chunk that was flushed before it was complete came again.
                chunks.update({first + number: piece for (number, _, _), piece in zip(tiles, pieces, strict=True)})
    return Salvaged(stored.geometry.n_chunks, chunks, not finder.n_unknown) if chunks else None


class _Finder:
    """Tells by checksums which layer of a shard some chunks are.

    n_unknown  layers with pixels that it could not tell
    """

    def __init__(self, dataset: Dataset, stored: StoredArray, at: Index, file: BinaryIO) -> None:
        self._stored, self._file = stored, file
        history = dataset.history
        written = history.are("written")
        self._known: dict[int, list[Index]] = {}  # places of frames by checksum
        self._checksums: dict[Index, int] = {}
        self._unchecked: set[Index] = set()  # of a stream without checksums that went before
        for origin in stored.origins(at[: len(stored.array.axes) - 2]):
            for index in stored.places(origin):
                entry = history.find(dataset.route.number(stored.array.image, index))
                if entry is None or not written[entry]:
                    continue
                if history.checksums[entry] < 0:
                    self._unchecked.add(index)
                else:
                    self._checksums[index] = int(history.checksums[entry])
                    self._known.setdefault(self._checksums[index], []).append(index)
        self._found: set[Index] = set()
        self.n_unknown = 0
        self._black = crc32c(np.zeros(stored.array.frame_shape, stored.array.dtype))

    def origin(self, pieces: Sequence[Piece]) -> Index | None:
        """First frame of the layer that these encoded chunks make up, None when nobody can tell."""
        layer = self._stored.layer_of(self._read(*piece) for piece in pieces)
        if layer is None:
            self.n_unknown += 1
            return None
        checksums = {local: crc32c(layer[local]) for local in np.ndindex(layer.shape[:-2])}
        possible = [
            tuple([i - o for i, o in zip(index, local, strict=True)])
            for local, checksum in checksums.items()
            for index in self._known.get(checksum, ())
        ]
        fitting = [origin for origin in possible if self._fits(origin, checksums)]
        # Of frames that are equal each has a place of its own.
        origin = next((one for one in fitting if one not in self._found), fitting[0] if fitting else None)
        if origin is not None:
            self._found.add(origin)
        elif any(checksum != self._black for checksum in checksums.values()):
            self.n_unknown += 1
        return origin

    def _fits(self, origin: Index, checksums: Mapping[Index, int]) -> bool:
        """Whether every frame there is the one that was logged, as far as anybody knows, or did not come."""
        if any(o % depth for o, depth in zip(origin, self._stored.geometry.depth, strict=True)):
            return False
        places = {tuple([o + i for o, i in zip(origin, local, strict=True)]): checksums[local] for local in checksums}
        return all(
            place in self._unchecked or checksum in (self._checksums.get(place), self._black)
            for place, checksum in places.items()
        )

    def _read(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(length)


def _layers_in_place(stored: StoredArray, at: Index, file: BinaryIO) -> Iterator[Sequence[Piece]]:
    """Chunks that are not compressed, where the writer puts them: each at its number times its size."""
    size, n_bytes = file.seek(0, os.SEEK_END), stored.geometry.chunk_bytes
    ((_, tiles),) = stored.geometry.tiles
    for origin in stored.origins(at[: len(stored.array.axes) - 2]):
        _, first, _ = stored.geometry.locate(origin)
        pieces = [((first + number) * n_bytes, n_bytes) for number, _, _ in tiles]
        if pieces[-1][0] + n_bytes <= size:
            yield pieces


def _layers_in_a_row(stored: StoredArray, file: BinaryIO, offset: int) -> Iterator[Sequence[Piece]]:
    """Compressed chunks, one behind the other, as many as make up a layer."""
    n = len(stored.geometry.tiles[0][1])
    encoded_size = _zstd_size if stored.array.codec.name == "zstd" else _blosc_size
    pieces: list[Piece] = []
    while (length := encoded_size(file, offset, stored.max_encoded)) is not None:
        pieces.append((offset, length))
        offset += length
        if len(pieces) == n:
            yield pieces
            pieces = []


def _blosc_size(file: BinaryIO, offset: int, most: int) -> int | None:
    """Length of the blosc buffer at `offset`, None when there is none (c-blosc, "README_CHUNK_FORMAT").

    most  bytes that it may have
    """
    file.seek(offset)
    header = file.read(16)
    length = int.from_bytes(header[12:16], "little")
    return length if len(header) == 16 and header[0] == 2 and 16 < length <= most else None


def _zstd_size(file: BinaryIO, offset: int, most: int) -> int | None:
    """Length of the Zstandard frame at `offset`, None when there is none of at most `most` bytes (RFC 8878, 3.1.1)."""
    file.seek(offset)
    header = file.read(5)
    if len(header) < 5 or header[:4] != ZSTD_MAGIC:
        return None
    end = offset + zstd_header_bytes(header[4])
    while True:
        file.seek(end)
        block = file.read(3)
        value = int.from_bytes(block, "little")
        is_last, kind, size = value & 1, value >> 1 & 3, value >> 3
        if len(block) < 3 or kind == 3 or end - offset > most:
            return None
        end += 3 + (1 if kind == 1 else size)
        if is_last:
            return end + 4 * (header[4] >> 2 & 1) - offset
