"""Reads a demo back with another library than the one that wrote it, and compares every frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from scopestream.plan import LayoutPlan
from scopestream.route import Route

ReadFrame = Callable[[int, tuple[int, ...]], np.ndarray]  # (array in plan.arrays, index before the frame) -> (Y, X)


def checksum(frame: np.ndarray) -> int:
    """CRC32C of the pixels, in C order."""
    return int(google_crc32c.value(frame.tobytes()))


@dataclass(frozen=True, slots=True)
class Comparison:
    """How many frames were compared, and which of them (by number) read otherwise than they were recorded."""

    n_frames: int
    different: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reader:
    """A library that reads frames. `other` is False when it is the one that wrote them."""

    library: str
    other: bool
    read: ReadFrame


def open_reader(plan: LayoutPlan, writer_modules: Sequence[str]) -> Reader | None:
    """A reader of the dataset, None when no library for it is installed.

    writer_modules  what the backend that wrote it imports; another library is preferred
    """
    installed = [name for name in _OPENERS if find_spec(name) is not None]
    others = [name for name in installed if name not in writer_modules]
    if not installed:
        return None
    name = (others or installed)[0]
    arrays: dict[int, Any] = {}

    def read(number: int, index: tuple[int, ...]) -> np.ndarray:
        if number not in arrays:
            arrays[number] = _OPENERS[name](plan.root / plan.arrays[number].path)
        return np.asarray(arrays[number][index])

    return Reader(f"{_TITLES[name]} {version(name)}", bool(others), read)


def compare(plan: LayoutPlan, checksums: Mapping[int, int], read: ReadFrame) -> Comparison:
    """Read every recorded frame at full resolution; `checksums` is by frame number."""
    route = Route(plan)
    different = []
    for number, expected in checksums.items():
        image, index = route.locate(number)
        frame = read(plan.images[image].arrays[0], index)
        if (
            frame.shape != plan.arrays[0].frame_shape
            or frame.dtype != plan.arrays[0].dtype
            or checksum(frame) != expected
        ):
            different.append(number)
    return Comparison(len(checksums), tuple(different))


# By name, since no backend's library may be needed to import scopestream (import-linter holds us to it).
def _open_with_zarr(path: Path) -> Any:
    return import_module("zarr").open_array(str(path), mode="r")


def _open_with_tensorstore(path: Path) -> Any:
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
    return import_module("tensorstore").open(spec, read=True).result()


_OPENERS: Mapping[str, Callable[[Path], Any]] = {"zarr": _open_with_zarr, "tensorstore": _open_with_tensorstore}
_TITLES = {"zarr": "zarr-python", "tensorstore": "tensorstore"}
