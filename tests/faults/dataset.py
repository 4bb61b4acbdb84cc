"""What is left of a dataset after a fault, as programs see it that know nothing of scopestream."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from scopestream import AcquisitionSettings, read_frames
from scopestream.plan import ArrayPlan, LayoutPlan
from scopestream.registry import load_backend
from scopestream.route import Route
from scopestream.testing import expected_images, read_array, stamped_frame
from scopestream.testing.levels import next_level


class Planes(NamedTuple):
    """An array: its shape, and the SHA-256 of each (Y, X) plane in C order, little endian."""

    shape: tuple[int, ...]
    digests: list[str]


Reader = Callable[[Path], Planes]


def python_reader(name: str) -> Reader:
    """A reader of `scopestream.testing.readers`."""

    def read(path: Path) -> Planes:
        return planes_of(read_array(path, name))

    return read


def planes_of(pixels: np.ndarray) -> Planes:
    return Planes(pixels.shape, [digest(plane) for plane in pixels.reshape(-1, *pixels.shape[-2:])])


def digest(plane: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(plane).tobytes()).hexdigest()


@cache
def _stamp(number: int, shape: tuple[int, int], dtype: str, level: int) -> str:
    plane = stamped_frame(number, shape, dtype)
    for _ in range(level):
        plane = next_level(plane)
    return digest(plane)


class Dataset:
    """The dataset of these settings, in which the frames are stamped with their numbers."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = AcquisitionSettings(**settings)
        self.plan: LayoutPlan = self.settings.plan()
        self.root = self.plan.root
        self._route = Route(self.plan)
        self.is_live = load_backend(self.plan.backend).capabilities.live_read  # `flush` makes frames visible

    def logged(self) -> dict[int, str]:
        """The last status of each frame in the log."""
        return {record["frame"]: record["status"] for record in read_frames(self.root)}

    def status(self) -> str:
        """What the dataset says of itself."""
        document = json.loads((self.root / "zarr.json").read_bytes())
        return str(document["attributes"]["scopestream"]["status"])

    def broken_documents(self) -> list[str]:
        """Documents that are there and not whole."""
        broken = []
        for pattern, parse in (("zarr.json", json.loads), ("settings.json", json.loads), ("*.ome.xml", _parse_xml)):
            for path in self.root.rglob(pattern):
                try:
                    parse(path.read_bytes())
                except (ValueError, ElementTree.ParseError) as error:
                    broken.append(f"{path}: {error}")
        return broken

    def read(self, reader: Reader) -> dict[int, Planes | str]:
        """Every array of the plan, or why it cannot be opened and read."""
        found: dict[int, Planes | str] = {}
        for number, array in enumerate(self.plan.arrays):
            try:
                found[number] = reader(self.root / array.path)
            except Exception as error:  # each library has its own
                found[number] = f"{array.path}: {type(error).__name__}: {error}"
        return found

    def exact(self, arrays: dict[int, Planes | str], numbers: Iterable[int]) -> set[int]:
        """Which of the frames are there as they were sent, at every level that a frame has by itself."""
        n_levels = 1 if self.settings.downscale_z else len(self.plan.images[0].arrays)
        return {number for number in numbers if all(self._is_exact(arrays, number, level) for level in range(n_levels))}

    def expected(self, numbers: Collection[int], known: Collection[int]) -> dict[int, Planes]:
        """Every array of the plan when exactly these frames are there; of the others that are `known` nobody waits."""
        frames = {number: stamped_frame(number, self.settings.frame_shape, self.settings.dtype) for number in numbers}
        arrays: dict[int, Planes] = {}
        for image, pixels in zip(self.plan.images, expected_images(self.plan, frames, known), strict=True):
            for level, number in enumerate(image.arrays):
                pixels = next_level(pixels, z=self.settings.halved_z) if level else pixels
                arrays[number] = planes_of(pixels)
        return arrays

    def wrong_pairs(self, arrays: dict[int, Planes | str], n_frames: int) -> list[int]:
        """Of `downscale_z`: second frames of pairs whose plane at level 1 is neither theirs nor still empty."""
        axis = self.settings.halved_z
        wrong = []
        for number in range(n_frames if axis is not None else 0):
            image, index = self._route.locate(number)
            planes = arrays[self.plan.images[image].arrays[1]]
            if index[axis] % 2 == 0 or isinstance(planes, str) or index[0] >= planes.shape[0]:
                continue
            place = np.ravel_multi_index((*index[:axis], index[axis] // 2, *index[axis + 1 :]), planes.shape[:-2])
            first = self._route.number(image, (*index[:axis], index[axis] - 1, *index[axis + 1 :]))
            if planes.digests[int(place)] not in self._stamps_of_pair(first, number):
                wrong.append(number)
        return wrong

    def covers(self, number: int) -> bool:
        """Whether the shapes in the documents are large enough for that frame."""
        image, index = self._route.locate(number)
        folders = [self.root / self.plan.arrays[array].path for array in self.plan.images[image].arrays]
        return all(json.loads((folder / "zarr.json").read_bytes())["shape"][0] > index[0] for folder in folders)

    def files_of(self, number: int) -> list[tuple[Path, int]]:
        """The files that hold parts of a frame, at every level, and how many chunks each has."""
        image, index = self._route.locate(number)
        files = []
        for array in [self.plan.arrays[at] for at in self.plan.images[image].arrays]:
            folder, n_chunks = self.root / array.path / "c", chunks_of_a_file(array)
            halved = [i >> (array.level * (axis == self.settings.halved_z)) for axis, i in enumerate(index)]
            place = [i // size for i, size in zip(halved, array.file_shape, strict=False)]
            counts = [-(-size // step) for size, step in zip(array.frame_shape, array.file_shape[-2:], strict=True)]
            for tile in product(*map(range, counts)):
                files.append((folder.joinpath(*map(str, (*place, *tile))), n_chunks))
        return files

    def _stamps_of_pair(self, first: int, second: int) -> tuple[str, str]:
        frames = [stamped_frame(number, self.settings.frame_shape, self.settings.dtype) for number in (first, second)]
        plane = next_level(np.stack(frames), z=0)[0]
        return digest(plane), digest(np.zeros_like(plane))

    def _is_exact(self, arrays: dict[int, Planes | str], number: int, level: int) -> bool:
        image, index = self._route.locate(number)
        planes = arrays[self.plan.images[image].arrays[level]]
        if isinstance(planes, str):
            return False
        if any(i >= size for i, size in zip(index, planes.shape, strict=False)):
            return False
        place = int(np.ravel_multi_index(index, planes.shape[:-2])) if index else 0
        return planes.digests[place] == _stamp(number, self.settings.frame_shape, self.settings.dtype, level)


def chunks_of_a_file(array: ArrayPlan) -> int:
    return prod(array.file_shape) // prod(array.chunks)


def unreadable(arrays: dict[int, Planes | str]) -> list[str]:
    return [planes for planes in arrays.values() if isinstance(planes, str)]


def differing(expected: Mapping[int, Planes], found: Mapping[int, Planes | str]) -> list[str]:
    """What is not as expected, in words."""
    return _differing(expected, found, lambda number, place, stamp: stamp == expected[number].digests[place])


def differing_known(
    known: Mapping[int, Planes],
    everything: Mapping[int, Planes],
    found: Mapping[int, Planes | str],
    *,
    halves_may_lack: bool = False,
) -> list[str]:
    """What is not as expected, in words, when frames that nobody knows of may be there, whole or in part.

    known            what is expected of the frames that are known
    everything       the same, had all frames come
    halves_may_lack  whether planes of coarser levels may be empty of which not all frames are known
    """
    empty = {number: digest(np.zeros(planes.shape[-2:], np.uint16)) for number, planes in known.items()}

    def may_be(number: int, place: int, stamp: str) -> bool:
        wanted, whole = known[number].digests[place], everything[number].digests[place]
        lacks = halves_may_lack and stamp == empty[number] and wanted != whole
        return lacks or wanted == empty[number] or stamp in (wanted, whole)

    return _differing(known, found, may_be)


def _differing(
    expected: Mapping[int, Planes], found: Mapping[int, Planes | str], may_be: Callable[[int, int, str], bool]
) -> list[str]:
    differences = []
    for number, planes in expected.items():
        other = found[number]
        if isinstance(other, str):
            differences.append(other)
        elif other.shape != planes.shape:
            differences.append(f"array {number} has shape {other.shape}, expected {planes.shape}")
        elif wrong := [at for at, stamp in enumerate(other.digests) if not may_be(number, at, stamp)]:
            differences.append(f"array {number}, {planes.shape}: planes {wrong} differ")
    return differences


def written(log: dict[int, str]) -> Collection[int]:
    return {number for number, status in log.items() if status == "written"}


def _parse_xml(text: bytes) -> object:
    return ElementTree.fromstring(text)
