"""CRC32C of frames as they arrive: what the frame log keeps, and `verify` compares with."""

from __future__ import annotations

import sys

import google_crc32c
import numpy as np

# The interpreter's lock is held while a piece is summed up, so that is no more than about a millisecond.
_PIECE_BYTES = 2**24


def crc32c(pixels: np.ndarray) -> int:
    """Of the pixels in C order, little endian, whatever their layout in memory."""
    if not (pixels.flags.c_contiguous and (pixels.dtype.isnative and sys.byteorder == "little")):
        pixels = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
    if pixels.nbytes <= _PIECE_BYTES:
        whole: int = google_crc32c.value(pixels)
        return whole
    flat, checksum = pixels.reshape(-1).view(np.uint8), 0
    for first in range(0, flat.size, _PIECE_BYTES):
        checksum = google_crc32c.extend(checksum, flat[first : first + _PIECE_BYTES])
    return checksum
