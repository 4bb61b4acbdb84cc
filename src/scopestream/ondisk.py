"""Frames of a dataset that may still be written, by whomever, read from its files."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Lock
from time import sleep

import numpy as np

from scopestream.errors import NotReadableError
from scopestream.plan import LayoutPlan
from scopestream.route import Route
from scopestream.stored import Index, StoredArray

_KEPT_ARRAYS, _INDEX_CACHE_BYTES = 64, 2**20  # open at once, and indexes of shards for each of them
# A file may be looked at just while its index moves, or while another takes its place.
_ATTEMPTS, _FIRST_PAUSE_S = 8, 0.001
Signature = tuple[int, int, int]  # inode, size and time of a file
Layer = tuple[int, Index]  # image, and first frame of the chunks that hold a frame


class DiskFrames:
    """Reads frames at full resolution. Safe from several threads, which take turns."""

    def __init__(self, plan: LayoutPlan, route: Route) -> None:
        self._plan = plan
        self._locate = route.locate
        self._lock = Lock()
        self._arrays: OrderedDict[int, _GrowingArray] = OrderedDict()

    def layers(self, numbers: Iterable[tuple[int, int]]) -> Iterator[tuple[Layer, list[tuple[int, int, Index]]]]:
        """Frames that lie in the same chunks: (layer, [(which, number, place in the layer)]).

        numbers  (which, number) of each frame that is wanted
        """
        found: dict[Layer, list[tuple[int, int, Index]]] = {}
        for which, number in numbers:
            image, index = self._locate(number)
            depth = self._plan.arrays[self._plan.images[image].arrays[0]].chunks
            origin = tuple([i // d * d for i, d in zip(index, depth, strict=False)])
            local = tuple([i - o for i, o in zip(index, origin, strict=True)])
            found.setdefault((image, origin), []).append((which, number, local))
        yield from found.items()

    def read(self, layer: Layer) -> np.ndarray:
        """All frames of the same chunks, (*depth, Y, X); those that are not there are zeros.

        Raises NotReadableError for what is there and cannot be read.
        """
        image, origin = layer
        with self._lock:
            return self._array(image).read(origin)

    def is_blank(self, image: int, frame: np.ndarray) -> bool:
        """Whether any tile of a frame is all zeros: as if its chunk was not there, or not yet."""
        y, x = self._plan.arrays[self._plan.images[image].arrays[0]].tile
        tiles = (
            frame[top : top + y, left : left + x]
            for top in range(0, frame.shape[0], y)
            for left in range(0, frame.shape[1], x)
        )
        # Some of the pixels tell it of nearly every tile.
        return any(not tile[::16, ::16].any() and not tile.any() for tile in tiles)

    def _array(self, image: int) -> _GrowingArray:
        array = self._arrays.pop(image, None) or self._new_array(image)
        self._arrays[image] = array
        if len(self._arrays) > _KEPT_ARRAYS:
            self._arrays.popitem(last=False)
        return array

    def _new_array(self, image: int) -> _GrowingArray:
        plan = self._plan.arrays[self._plan.images[image].arrays[0]]
        problems: list[str] = []
        folder = self._plan.root / plan.path
        return _GrowingArray(StoredArray(folder, plan, problems.append, _INDEX_CACHE_BYTES), problems)


class _GrowingArray:
    """An array whose files change, and are replaced, while they are read.

    problems  what `stored` has to say of files
    """

    def __init__(self, stored: StoredArray, problems: list[str]) -> None:
        self._stored = stored
        self._problems = problems
        self._seen: OrderedDict[Path, Signature | None] = OrderedDict()

    def read(self, origin: Index) -> np.ndarray:
        stored = self._stored
        file, _, _ = stored.geometry.locate(origin)
        paths = [stored.path((*file, *at)) for at, _ in stored.geometry.tiles]
        pause_s = _FIRST_PAUSE_S
        for attempt in range(_ATTEMPTS):
            before = [self._look(path) for path in paths]
            self._problems.clear()
            pixels, is_sound = stored.layer(origin)
            after = [_signature(path) for path in paths]
            # A file of another number took its place: what was read may be of both.
            if is_sound and [one and one[0] for one in before] == [one and one[0] for one in after]:
                return pixels
            for path in paths:
                stored.forget(path)
            if attempt < _ATTEMPTS - 1:
                sleep(pause_s)
                pause_s *= 2
        reason = self._problems[0] if self._problems else f"the index of {paths[0]} is damaged"
        raise NotReadableError(
            f"Frame {origin} of {stored.array.path or 'the image'} is on the disk, but cannot be read: {reason}. "
            f"`scopestream verify` says what else is damaged."
        )

    def _look(self, path: Path) -> Signature | None:
        """What tells whether a file has changed; its index is read again then."""
        signature = _signature(path)
        if signature != self._seen.pop(path, None):
            self._stored.forget(path)
        self._seen[path] = signature
        if len(self._seen) > 4 * _KEPT_ARRAYS:
            forgotten, _ = self._seen.popitem(last=False)
            self._stored.forget(forgotten)
        return signature


def _signature(path: Path) -> Signature | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
