"""Memory for pixels."""

from __future__ import annotations

import numpy as np

PAGE = 4096  # what writing past the page cache wants of addresses, places in a file, and lengths


def page_aligned(n_bytes: int) -> np.ndarray:
    """That many zeros as bytes, starting at a page."""
    memory = np.zeros(n_bytes + PAGE, np.uint8)
    first = -memory.ctypes.data % PAGE
    return memory[first : first + n_bytes]
