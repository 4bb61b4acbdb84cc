"""The index at the end of a shard (Zarr v3 "sharding_indexed", index codecs "bytes" and "crc32c")."""

from __future__ import annotations

import os
from pathlib import Path

import google_crc32c
import numpy as np

from scopestream.untrusted import open_regular

MISSING = np.iinfo(np.uint64).max


def index_bytes(n_chunks: int) -> int:
    """Length of an encoded index: offset and length of every chunk, and a CRC32C."""
    return 16 * n_chunks + 4


def encode_index(index: np.ndarray) -> bytes:
    """(n_chunks, 2) uint64 -> little endian bytes with their CRC32C."""
    data = index.astype("<u8", copy=False).tobytes()
    checksum: int = google_crc32c.value(data)
    return data + checksum.to_bytes(4, "little")


def decode_index(data: bytes) -> np.ndarray | None:
    """The (n_chunks, 2) offsets and lengths, in memory of their own; None when the CRC32C is wrong."""
    if google_crc32c.value(data[:-4]) != int.from_bytes(data[-4:], "little"):
        return None
    return np.frombuffer(data[:-4], "<u8").astype(np.uint64).reshape(-1, 2)


def read_index(path: Path, n_chunks: int) -> np.ndarray | None:
    """The index that readers of the file see; None when it ends with no index that is whole. Raises OSError."""
    length = index_bytes(n_chunks)
    with open_regular(path) as file:
        size = file.seek(0, os.SEEK_END)
        if size < length:
            return None
        file.seek(size - length)
        data = file.read(length)
    return decode_index(data) if len(data) == length else None
