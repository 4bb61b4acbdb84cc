"""Frames on the disk, compared with what the frame log says of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from scopestream.checksum import crc32c
from scopestream.dataset import Dataset
from scopestream.stored import Index, StoredArray

_N_THREADS = 4  # decoding needs no lock of the interpreter, but reading waits for the disk
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
        # Libraries leave out files in which every pixel is zero.
        array = dataset.plan.arrays[0]
        self._black = crc32c(np.zeros(array.frame_shape, array.dtype))

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

    def glance(self, stored: StoredArray, group: Index) -> bool:
        """Look at frames of the finest level only where some may be missing: of all others nothing is read.

        Returns whether any frame of the group is not what it should be. With chunks missing it cannot be
        told without a look at the pixels: libraries leave out chunks of zeros.
        """
        bad = False
        for origin in stored.origins(group):
            entries = self._entries(stored, origin)
            if not entries:
                continue
            if not stored.may_lack_frames(origin) and not self._in_doubt[entries].any():
                self.seen[entries] = True
                self.corrupt[entries] = False
            else:
                self._compare(stored, origin, *stored.layer(origin))
                bare = [entry for entry in entries if self._history.checksums[entry] < 0]
                self.corrupt[bare] |= stored.lacks_chunks(origin)
                bad |= bool(self.corrupt[entries].any())
        return bad

    def _entries(self, stored: StoredArray, origin: Index) -> list[int]:
        """Of the frames of a layer that were logged as written."""
        numbers = [self._dataset.route.number(stored.array.image, index) for index in stored.places(origin)]
        found = [self._history.find(number) for number in numbers]
        return [entry for entry in found if entry is not None and self._written[entry]]

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
    """The origin of every layer of a group with what is read there, in order; a few are read ahead."""
    waiting: deque[tuple[Index, Future[_Layer]]] = deque()
    for origin in stored.origins(group):
        waiting.append((origin, pool.submit(stored.layer, origin)))
        if len(waiting) > _N_THREADS:
            first, layer = waiting.popleft()
            yield first, layer.result()
    for first, layer in waiting:
        yield first, layer.result()
