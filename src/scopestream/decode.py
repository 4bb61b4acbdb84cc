"""Encoded chunks back to pixels, whoever encoded them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numcodecs import blosc, zstd

from scopestream.plan import ArrayPlan

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
    """Of the first frame, None where it does not say (RFC 8878, "frame header"). Raises ValueError."""
    if data[:4] != b"\x28\xb5\x2f\xfd" or len(data) < 6:
        raise ValueError("it is no Zstandard frame")
    descriptor = data[4]
    is_single, size_flag = bool(descriptor & 0x20), descriptor >> 6
    start = 5 + (not is_single) + (0, 1, 2, 4)[descriptor & 3]
    n_bytes = (int(is_single), 2, 4, 8)[size_flag]
    if not n_bytes:
        return None
    return int.from_bytes(data[start : start + n_bytes], "little") + 256 * (n_bytes == 2)
