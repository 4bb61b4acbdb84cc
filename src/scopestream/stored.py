"""Arrays on disk, read with NumPy and numcodecs alone, and trusted in nothing.

The plan says what must be in the files; what they say themselves is believed only where it fits.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import groupby, product
from math import prod
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import numpy as np

from scopestream.aside import original_name
from scopestream.decode import decoder
from scopestream.geometry import Geometry
from scopestream.plan import ArrayPlan
from scopestream.shardindex import MISSING, index_bytes, read_index
from scopestream.untrusted import open_regular

MAX_CHUNKS_OF_SHARD = 1 << 24  # with 256 MiB of index; scopestream makes thousands
_INDEX_CACHE_BYTES = 1 << 26
Index = tuple[int, ...]


class StoredArray:
    """One array. Safe from several threads.

    ends         of the axes before the frame, 2^62 where one grows
    max_encoded  bytes that a compressed chunk may have

    folder      of the array
    on_problem  told in a sentence what is wrong with a file
    """

    def __init__(self, folder: Path, array: ArrayPlan, on_problem: Callable[[str], None]) -> None:
        self.array = array
        self.geometry = Geometry(array)
        self._folder = folder / "c"
        self._on_problem = on_problem
        self._decode = decoder(array)
        self._before = len(array.axes) - 2
        self.ends = tuple(
            1 << 62 if array.growable and axis == 0 else size for axis, size in enumerate(array.shape[: self._before])
        )
        # Files along each axis.
        self._limits = [
            None if array.growable and axis == 0 else -(-size // step)
            for axis, (size, step) in enumerate(zip(array.shape, array.file_shape, strict=True))
        ]
        # A compressed chunk is at most a little larger than its pixels.
        self.max_encoded = self.geometry.chunk_bytes + self.geometry.chunk_bytes // 8 + 4096
        self._indexes: OrderedDict[Path, np.ndarray | None] = OrderedDict()
        self._given_up: set[Path] = set()
        self._lock = Lock()
        if self.geometry.n_chunks > MAX_CHUNKS_OF_SHARD:
            raise ValueError(f"{self.geometry.n_chunks} chunks in a shard are more than this program reads")

    @property
    def is_sharded(self) -> bool:
        return self.array.shards is not None

    @property
    def stores_again(self) -> bool:
        """Whether a chunk that was flushed is stored again, behind it, with the frames that came later.

        A kill can come before the index names that one, which then lies in what the shard has in reserve.
        """
        return self.is_sharded and self.array.codec.name != "none" and prod(self.geometry.depth) > 1

    def files(self) -> Iterator[tuple[Index, Path]]:
        """The data files that there are: number along each axis, and path; ascending."""
        yield from self._files_below(self._folder, (), self._limits)

    def set_aside(self) -> Iterator[Index]:
        """Files that are gone, since a recovery has put them aside: number along each axis."""
        for path in self._folder.rglob(".*.damaged*"):
            *folders, _ = path.relative_to(self._folder).parts
            at = tuple([_number(name) for name in (*folders, original_name(path))])
            if (
                len(at) == len(self._limits)
                and all(i >= 0 and (limit is None or i < limit) for i, limit in zip(at, self._limits, strict=True))
                and not self.path(at).exists()
            ):
                yield at

    def groups(self) -> Iterator[tuple[Index, list[tuple[Index, Path]]]]:
        """Places along the axes before the frame at which there are files, and these; ascending."""
        for group, files in groupby(self.files(), key=lambda file: file[0][: self._before]):
            yield group, list(files)

    def ranges(self, group: Index) -> list[range]:
        """Of the frames in the files of a group, along each axis, within the array."""
        return [
            range(i * span, min((i + 1) * span, end))
            for i, span, end in zip(group, self.geometry.span, self.ends, strict=True)
        ]

    def origins(self, group: Index) -> Iterator[Index]:
        """The first frame of every layer of chunks in the files of a group, within the array."""
        ranges = zip(self.ranges(group), self.geometry.depth, strict=True)
        yield from product(*[range(items.start, items.stop, depth) for items, depth in ranges])

    def layers(self, origins: Sequence[Index]) -> list[tuple[np.ndarray, bool]]:
        """`layer` of each, with files that are opened once."""
        with ExitStack() as files:
            opened: dict[Path, BinaryIO] = {}

            def open_file(path: Path) -> BinaryIO:
                if path not in opened:
                    opened[path] = files.enter_context(open_regular(path))
                return opened[path]

            return [self._layer(origin, open_file) for origin in origins]

    def layer(self, origin: Index) -> tuple[np.ndarray, bool]:
        """All frames of the chunks whose first frame is at `origin`: (*depth, Y, X), and whether they are sound.

        Missing chunks are zeros. Frames past the end of a bounded axis are there as well, and are padding.
        """
        return self.layers([origin])[0]

    def _layer(self, origin: Index, open_file: Callable[[Path], BinaryIO]) -> tuple[np.ndarray, bool]:
        geometry = self.geometry
        file, first, _ = geometry.locate(origin)
        height, width = geometry.tile
        pixels = np.zeros((*geometry.depth, *self.array.frame_shape), self.array.dtype)
        chunk = np.empty(self.array.chunks, self.array.dtype.newbyteorder("<"))
        sound = True
        for at, tiles in geometry.tiles:
            path = self.path((*file, *at))
            try:
                if self.is_sharded and self.index(path) is None:
                    sound = False  # which `check_index` tells once, and not for every chunk
                    continue
                for row, column, data in self._chunks(path, first, tiles, open_file):
                    self._decode(data, chunk)
                    _place(pixels, chunk, row * height, column * width)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                sound = False
                self._on_problem(f"{path}: a chunk of frame {origin} cannot be read: {_reason(error)}")
        return pixels, sound

    def layer_of(self, chunks: Iterable[bytes]) -> np.ndarray | None:
        """The layer that these encoded chunks of one file make up, in the order of `geometry.tiles`; None if none."""
        ((_, tiles),) = self.geometry.tiles
        height, width = self.geometry.tile
        layer = np.zeros((*self.geometry.depth, *self.array.frame_shape), self.array.dtype)
        chunk = np.empty(self.array.chunks, self.array.dtype.newbyteorder("<"))
        try:
            for (_, row, column), data in zip(tiles, chunks, strict=True):
                self._decode(data, chunk)
                _place(layer, chunk, row * height, column * width)
        except ValueError:
            return None
        return layer

    def places(self, origin: Index) -> Iterator[Index]:
        """Of every frame of a layer that is in the array; the others are padding."""
        ranges = [
            range(o, min(o + depth, end)) for o, depth, end in zip(origin, self.geometry.depth, self.ends, strict=True)
        ]
        return product(*ranges)

    def frames(self, origin: Index, layer: np.ndarray) -> Iterator[tuple[Index, np.ndarray]]:
        """(index, frame) of every frame of a layer that is in the array."""
        for index in self.places(origin):
            yield index, layer[tuple([i - o for i, o in zip(index, origin, strict=True)])]

    def lacks_chunks(self, origins: Sequence[Index]) -> np.ndarray:
        """Which of these layers, all in the same files, lack a chunk, as far as an index or a folder tells."""
        lacks: np.ndarray = np.asarray(self._missing(origins).any(axis=1))
        return lacks

    def lacks_all_chunks(self, origin: Index) -> bool:
        """Whether nothing of that layer is there, or a part of it was in a file that was given up."""
        if any(path in self._given_up for path in self.paths(origin)):
            return True
        return bool(self._missing([origin]).all())

    def give_up(self, path: Path) -> None:
        """From now on, what was in that file is not there."""
        self._given_up.add(path)
        self.forget(path)

    def _missing(self, origins: Sequence[Index]) -> np.ndarray:
        """Which chunks, or which files where there are no shards, of these layers are missing: (layers, chunks)."""
        places = [self.geometry.locate(origin) for origin in origins]
        if not self.is_sharded:
            there = [[self.path((*file, *at)).is_file() for at, _ in self.geometry.tiles] for file, _, _ in places]
            return ~np.array(there, bool)
        firsts = np.array([first for _, first, _ in places])
        missing = []
        for at, tiles in self.geometry.tiles:
            try:
                index = self.index(self.path((*places[0][0], *at)))
            except OSError:
                index = None
            chunks = firsts[:, None] + np.array([number for number, _, _ in tiles])
            missing.append(np.ones(chunks.shape, bool) if index is None else index[chunks, 0] == MISSING)
        return np.concatenate(missing, axis=1)

    def may_lack_frames(self, origin: Index) -> bool:
        """Whether frames of that layer may be missing, as far as can be told without a look at the pixels."""
        if self.lacks_chunks([origin])[0]:
            return True
        if not self.stores_again:
            return False
        return any(map(self.has_reserve, self.paths(origin)))

    def has_reserve(self, path: Path) -> bool:
        """Whether there is anything between the last chunk that the index of a shard names and the index."""
        try:
            index, size = self.index(path), path.stat().st_size
        except OSError:
            return True
        if index is None:
            return True
        there = index[index[:, 0] != MISSING]
        end = int((there[:, 0] + there[:, 1]).max()) if len(there) else 0
        return end < size - index_bytes(self.geometry.n_chunks)

    def paths(self, origin: Index) -> list[Path]:
        """Of the files that the layer at `origin` is in, whether they are there or not."""
        file, _, _ = self.geometry.locate(origin)
        return [self.path((*file, *at)) for at, _ in self.geometry.tiles]

    def path(self, file: Index) -> Path:
        """Of the file with that number along each axis."""
        return self._folder.joinpath(*map(str, file))

    def index(self, path: Path) -> np.ndarray | None:
        """(n_chunks, 2) of a shard, with every entry inside the file; None when it is damaged. Raises OSError."""
        with self._lock:
            if path in self._indexes:
                self._indexes.move_to_end(path)
                return self._indexes[path]
        index = self._checked_index(path)
        with self._lock:
            self._indexes[path] = index
            while len(self._indexes) * index_bytes(self.geometry.n_chunks) > _INDEX_CACHE_BYTES:
                self._indexes.popitem(last=False)
        return index

    def forget(self, path: Path) -> None:
        """The file at `path` has changed."""
        with self._lock:
            self._indexes.pop(path, None)

    def assume(self, path: Path, index: np.ndarray) -> None:
        """Go on as if that were the index of the file at `path`."""
        with self._lock:
            self._indexes[path] = index

    def check_index(self, path: Path) -> bool:
        """Whether the index of a shard is whole and names chunks inside the file; says so where it is not."""
        try:
            if self.index(path) is not None:
                return True
            self._on_problem(f"{path}: its index is damaged; no reader can open this shard")
        except OSError as error:
            self._on_problem(f"{path} cannot be read: {_reason(error)}")
        return False

    # -- inside -----------------------------------------------------------------------------------------------------

    def _checked_index(self, path: Path) -> np.ndarray | None:
        index = read_index(path, self.geometry.n_chunks)
        if index is None:
            return None
        there = index[(index != MISSING).any(axis=1)]
        end = path.stat().st_size - index_bytes(self.geometry.n_chunks)
        offsets, lengths = there[:, 0], there[:, 1]
        if (offsets > end).any() or (lengths > self.max_encoded).any() or (offsets + lengths > end).any():
            return None
        return index

    def _chunks(
        self,
        path: Path,
        first: int,
        tiles: tuple[tuple[int, int, int], ...],
        open_file: Callable[[Path], BinaryIO],
    ) -> Iterator[tuple[int, int, bytes]]:
        """(row, column, encoded bytes) of those tiles of a file that are there. Raises OSError or ValueError."""
        index = self.index(path) if self.is_sharded else None
        file = open_file(path)
        for number, row, column in tiles:
            if index is None:
                file.seek(0)
                data = file.read(self.max_encoded + 1)
            else:
                offset, length = map(int, index[first + number])
                if offset == length == MISSING:
                    continue
                file.seek(offset)
                data = file.read(length)
            yield row, column, data

    def _files_below(self, folder: Path, at: Index, limits: list[int | None]) -> Iterator[tuple[Index, Path]]:
        if len(at) == len(limits):
            yield at, folder
            return
        limit = limits[len(at)]
        try:
            with os.scandir(folder) as entries:
                numbers = sorted(number for entry in entries if (number := _number(entry.name)) >= 0)
        except OSError as error:
            if error.errno != errno.ENOENT:
                self._on_problem(f"{folder} cannot be listed: {_reason(error)}")
            return
        for number in numbers:
            if limit is None or number < limit:
                yield from self._files_below(folder / str(number), (*at, number), limits)
            else:
                self._on_problem(f"{folder / str(number)} lies outside the array")


def _place(layer: np.ndarray, chunk: np.ndarray, top: int, left: int) -> None:
    """Copy a chunk into a layer, without what lies past its edges."""
    part = layer[..., top : top + chunk.shape[-2], left : left + chunk.shape[-1]]
    part[...] = chunk[..., : part.shape[-2], : part.shape[-1]]


def _number(name: str) -> int:
    """Of a file or folder, as the writer names them, else -1; "007" and a Bengali 7 are somebody else's."""
    is_number = name.isascii() and name.isdigit() and len(name) < 20 and name == str(int(name))
    return int(name) if is_number else -1


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
