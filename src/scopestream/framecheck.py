"""Frames on the disk, compared with what the frame log says of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from math import prod

import numpy as np

from scopestream.checksum import crc32c
from scopestream.dataset import Dataset
from scopestream.stored import Index, StoredArray

_N_THREADS = 4  # decoding needs no lock of the interpreter, but reading waits for the disk
_BATCH_BYTES = 2**22  # of layers that a thread reads at once
_Layer = tuple[np.ndarray, bool]


class FrameCheck:
    """Reads frames that were logged as written, and marks what it finds.

    By entry of the history:

    seen     which were read
    corrupt  which differ from their checksum, or lie in chunks that cannot be decoded

    in_doubt  which are compared by `glance` as well: by entry too, none if it is left out
    """

    def __init__(self, dataset: Dataset, in_doubt: np.ndarray | None = None) -> None:
        self._dataset = dataset
        self._history = dataset.history
        self._written = self._history.are("written")
        self.seen = np.zeros(len(self._written), bool)
        self.corrupt = np.zeros(len(self._written), bool)
        self._in_doubt = np.zeros(len(self._written), bool) if in_doubt is None else in_doubt
        # Libraries leave out files in which every pixel is zero. Cameras take turns in the numbers.
        black = [crc32c(np.zeros(array.frame_shape, array.dtype)) for array in dataset.plan.finest]
        self._black = np.array(black)[self._history.numbers % len(black)]

    @property
    def lost(self) -> np.ndarray:
        """Which were written, but nothing of them is on the disk. After all files were read."""
        lost: np.ndarray = self._written & ~self.seen & (self._history.checksums != self._black)
        return lost

    def read(self, stored: StoredArray, group: Index, pool: ThreadPoolExecutor) -> None:
        """Decode everything in the files of a group; of the finest level, compare it."""
        for origin, (pixels, sound) in _layers(stored, group, pool):
            if stored.array.level == 0:
                self._compare(stored, origin, pixels, sound)

    def glance(self, stored: StoredArray, group: Index, may_be_old: bool = False) -> bool:
        """Look at frames of the finest level only where chunks of them are missing: of all others nothing is read.

        Returns whether any frame of the group is not what it should be. With chunks missing it cannot be
        told without a look at the pixels: libraries leave out chunks of zeros.

        may_be_old  whether to look at all of them, since chunks may be there that lack frames which came later
        """
        history = self._history
        entries = history.find_all(self._dataset.route.numbers(stored.array.image, stored.ranges(group)))
        entries = entries[self._written[entries]]
        if not len(entries):
            return False
        self.seen[entries] = True
        self.corrupt[entries] = False
        origins = list(stored.origins(group))
        lacks = stored.lacks_chunks(origins).tolist()
        look_everywhere = may_be_old or bool(self._in_doubt[entries].any())
        for origin, is_lacking in zip(origins, lacks, strict=True):
            if is_lacking or look_everywhere:
                self._look(stored, origin, may_be_old=may_be_old)
        return bool(self.corrupt[entries].any())

    def _look(self, stored: StoredArray, origin: Index, *, may_be_old: bool) -> None:
        pixels, sound = stored.layer(origin)
        self._compare(stored, origin, pixels, sound)
        # Without a checksum, chunks that are missing may have been zeros, unless all of them are.
        is_bare = stored.lacks_all_chunks(origin)
        for index, frame in stored.frames(origin, pixels):
            entry = self._history.find(self._dataset.route.number(stored.array.image, index))
            if entry is not None and self._written[entry] and self._history.checksums[entry] < 0:
                # An older chunk would have nothing but zeros for a frame that came later.
                self.corrupt[entry] |= is_bare or (may_be_old and not frame.any())

    def _compare(self, stored: StoredArray, origin: Index, pixels: np.ndarray, sound: bool) -> None:
        history = self._history
        for index, frame in stored.frames(origin, pixels):
            entry = history.find(self._dataset.route.number(stored.array.image, index))
            if entry is None or not self._written[entry]:
                continue
            self.seen[entry] = True
            checksum = history.checksums[entry]
            self.corrupt[entry] = not sound or (checksum >= 0 and checksum != crc32c(frame))


def reading_threads() -> ThreadPoolExecutor:
    """To be used in `with`."""
    return ThreadPoolExecutor(_N_THREADS, thread_name_prefix="scopestream-reader")


def _layers(stored: StoredArray, group: Index, pool: ThreadPoolExecutor) -> Iterator[tuple[Index, _Layer]]:
    """The origin of every layer of a group with what is read there, in order; some are read ahead."""
    array = stored.array
    n_at_once = max(1, _BATCH_BYTES // (prod(array.chunks[:-2]) * array.frame_bytes))
    origins = stored.origins(group)
    waiting: deque[tuple[list[Index], Future[list[_Layer]]]] = deque()
    while batch := list(islice(origins, n_at_once)):
        waiting.append((batch, pool.submit(stored.layers, batch)))
        if len(waiting) > _N_THREADS:
            first, layers = waiting.popleft()
            yield from zip(first, layers.result(), strict=True)
    for first, layers in waiting:
        yield from zip(first, layers.result(), strict=True)
