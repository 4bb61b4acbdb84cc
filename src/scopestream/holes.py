"""Where the data of a sparse file ends."""

from __future__ import annotations

import errno
import os

_EDGE_BYTES = 2**16  # no page is larger


def end_of_data(file: int, size: int) -> int:
    """End of the last bytes below `size` that are not in a hole; `size` where the file system does not tell.

    What was allocated and never written counts as a hole, or as data that reads as zeros.
    """
    if not hasattr(os, "SEEK_DATA"):
        return size
    end = at = 0
    try:
        while at < size:
            start = os.lseek(file, at, os.SEEK_DATA)
            if start >= size:
                break
            at = os.lseek(file, start, os.SEEK_HOLE)
            # The last page may count as data for what lies behind `size` in it.
            if size - start > _EDGE_BYTES or any(os.pread(file, size - start, start)):
                end = min(at, size)
    except OSError as error:
        if error.errno != errno.ENXIO:  # what tells that no data follows
            return size
    return end
