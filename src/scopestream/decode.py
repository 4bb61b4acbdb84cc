"""Encoded chunks back to pixels, whoever encoded them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numcodecs import blosc, zstd

from scopestream.plan import ArrayPlan

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
Decoder = Callable[[bytes, np.ndarray], None]


def decoder(array: ArrayPlan) -> Decoder:
    """A function that decodes one chunk into a C-contiguous array of `array.chunks`.

    It raises ValueError when the bytes are not such a chunk, and never takes more memory than the chunk has.
    """
    name = array.codec.name
    return _copy if name == "none" else _zstd if name == "zstd" else _blosc


def _copy(data: bytes, chunk: np.ndarray) -> None:
    if len(data) != chunk.nbytes:
        raise ValueError(f"it has {len(data)} bytes, not {chunk.nbytes}")
    chunk.reshape(-1).view(np.uint8)[:] = np.frombuffer(data, np.uint8)


def _zstd(data: bytes, chunk: np.ndarray) -> None:
    size = zstd_content_size(data)
    if size is not None and size != chunk.nbytes:
        raise ValueError(f"it has {size} bytes of pixels, not {chunk.nbytes}")
    _decoded(zstd.decompress, data, chunk)


def _blosc(data: bytes, chunk: np.ndarray) -> None:
    # The header has the size of what was compressed at byte 4 (c-blosc, "README_CHUNK_FORMAT").
    if len(data) < 16 or int.from_bytes(data[4:8], "little") != chunk.nbytes:
        raise ValueError(f"it is no blosc buffer of {chunk.nbytes} bytes")
    _decoded(blosc.decompress, data, chunk)


def _decoded(decompress: Callable[[bytes, np.ndarray], object], data: bytes, chunk: np.ndarray) -> None:
    try:
        decompress(data, chunk)
    except RuntimeError as error:  # what numcodecs raises for data that no compressor wrote
        raise ValueError(str(error)) from error


def zstd_content_size(data: bytes) -> int | None:
    """Of the first frame, None where it does not say (RFC 8878, 3.1.1.1). Raises ValueError."""
    if data[:4] != ZSTD_MAGIC or len(data) < 6:
        raise ValueError("it is no Zstandard frame")
    n_bytes = _size_bytes(data[4])
    end = zstd_header_bytes(data[4])
    return int.from_bytes(data[end - n_bytes : end], "little") + 256 * (n_bytes == 2) if n_bytes else None


def zstd_header_bytes(descriptor: int) -> int:
    """Length of the header of a frame: magic number, descriptor, window, dictionary, content size."""
    is_single = descriptor >> 5 & 1
    return 5 + (not is_single) + (0, 1, 2, 4)[descriptor & 3] + _size_bytes(descriptor)


def _size_bytes(descriptor: int) -> int:
    return (descriptor >> 5 & 1, 2, 4, 8)[descriptor >> 6]
