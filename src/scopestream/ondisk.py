"""Frames of a dataset that may still be written, by whomever, read from its files."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from threading import Lock
from time import sleep, time_ns
from typing import NamedTuple

import numpy as np

from scopestream.document import read_document
from scopestream.errors import DatasetError, NotReadableError
from scopestream.plan import LayoutPlan
from scopestream.route import Route
from scopestream.stored import Index, StoredArray

_KEPT_ARRAYS, _INDEX_CACHE_BYTES = 64, 2**20  # open at once, and indexes of shards for each of them
# Layers several frames deep, so that going through them frame by frame does not decode each of them for every frame.
_MAX_LAYERS, _MAX_LAYER_BYTES = 2, 2**28
# A file may be looked at just while its index moves, or while another takes its place.
_ATTEMPTS, _FIRST_PAUSE_S = 8, 0.001
Signature = tuple[int, int, int]  # inode, size and time of a file
Layer = tuple[int, Index]  # image, and first frame of the chunks that hold a frame


class _Kept(NamedTuple):
    """A layer that was decoded.

    files  that it is in, and what tells which state of each was read; None where nothing does
    """

    pixels: np.ndarray
    files: Sequence[tuple[Path, Signature | None]]


class DiskFrames:
    """Reads frames at full resolution. Safe from several threads, none of which waits while another reads."""

    def __init__(self, plan: LayoutPlan, route: Route) -> None:
        self._plan = plan
        self._locate = route.locate
        self._lock = Lock()
        # Each is read by one thread at a time, which takes it out meanwhile.
        self._arrays: OrderedDict[int, _GrowingArray] = OrderedDict()
        self._kept: OrderedDict[Layer, _Kept] = OrderedDict()

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

    def read(self, layer: Layer, settled_s: float | None = None) -> np.ndarray:
        """All frames of the same chunks, (*depth, Y, X), to be left alone; those that are not there are zeros.

        settled_s  how long its files must not have changed for it to be kept, so that the next read of it costs
                   nothing until they do; None neither keeps it nor takes what was kept
        Raises NotReadableError for what is there and cannot be read.
        """
        with self._lock:
            kept = self._kept.get(layer)
        if kept is None or settled_s is None or any(_signature(path) != state for path, state in kept.files):
            kept = self._read(layer)
        is_worth_it = settled_s is not None and self._may_keep(kept, settled_s)
        with self._lock:
            self._kept.pop(layer, None)
            if is_worth_it:
                self._kept[layer] = kept
            while len(self._kept) > _MAX_LAYERS or self._kept_bytes() > _MAX_LAYER_BYTES:
                self._kept.popitem(last=False)
        return kept.pixels

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

    def _read(self, layer: Layer) -> _Kept:
        image, origin = layer
        with self._lock:
            array = self._arrays.pop(image, None)
        array = array or self._new_array(image)
        try:
            return array.read(origin)
        finally:
            with self._lock:
                self._arrays[image] = array
                if len(self._arrays) > _KEPT_ARRAYS:
                    self._arrays.popitem(last=False)

    def _kept_bytes(self) -> int:
        return sum(one.pixels.nbytes for one in self._kept.values())

    def _may_keep(self, layer: _Kept, settled_s: float) -> bool:
        """Whether it is worth it, and files that change from now on will look different."""
        if prod(layer.pixels.shape[:-2]) == 1:
            return False
        latest_ns = time_ns() - int(settled_s * 1e9)
        return all(state is not None and state[2] <= latest_ns for _, state in layer.files)

    def _new_array(self, image: int) -> _GrowingArray:
        plan = self._plan.arrays[self._plan.images[image].arrays[0]]
        problems: list[str] = []
        folder = self._plan.root / plan.path
        if plan.shards is None and _has_index(folder):
            plan = replace(plan, shards=plan.chunks)
        return _GrowingArray(StoredArray(folder, plan, problems.append, _INDEX_CACHE_BYTES), problems)


class _GrowingArray:
    """An array whose files change, and are replaced, while they are read.

    problems  what `stored` has to say of files
    """

    def __init__(self, stored: StoredArray, problems: list[str]) -> None:
        self._stored = stored
        self._problems = problems
        self._seen: OrderedDict[Path, Signature | None] = OrderedDict()

    def read(self, origin: Index) -> _Kept:
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
                # Of a file that changed meanwhile nobody knows which state was read.
                steady = [now if now == was else None for was, now in zip(before, after, strict=True)]
                files = list(zip(paths, steady, strict=True))
                return _Kept(pixels, files)
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


def _has_index(folder: Path) -> bool:
    """Whether chunks are shards of one chunk although the plan has no shards, as some libraries write nothing else."""
    try:
        codecs = read_document(folder).get("codecs")
    except DatasetError:
        return False
    return isinstance(codecs, list) and any(
        isinstance(codec, dict) and codec.get("name") == "sharding_indexed" for codec in codecs
    )


def _signature(path: Path) -> Signature | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
