"""Acquisitions with the demo camera, and what a dataset must hold after them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pymmcore_plus import CMMCorePlus
from useq import MDAEvent

import pymmcore
from scopestream import read_frames
from scopestream.pymmcore import Sink, run_mda
from scopestream.testing.readers import read_array, reader_other_than

SHAPE = (32, 48)
Key = tuple[tuple[str, int], ...]


def shut_down(core: CMMCorePlus) -> None:
    core.unloadAllDevices()
    pymmcore.CMMCore.registerCallback(core, None)  # or the interpreter sometimes aborts at its end


def key_of(index: Mapping[str, int]) -> Key:
    return tuple(sorted((str(axis), number) for axis, number in index.items()))


class Seen:
    """Everything that `frameReady` told: frames by index, in rounds where an index comes again."""

    def __init__(self) -> None:
        self.frames: list[tuple[Key, np.ndarray]] = []
        self.metas: list[Mapping[str, Any]] = []

    def __call__(self, image: np.ndarray, event: MDAEvent, meta: Mapping[str, Any]) -> None:
        self.frames.append((key_of(event.index), image.copy()))
        self.metas.append(meta)

    def __len__(self) -> int:
        return len(self.frames)


@contextmanager
def watching(core: CMMCorePlus) -> Iterator[Seen]:
    seen = Seen()
    core.mda.events.frameReady.connect(seen)
    try:
        yield seen
    finally:
        core.mda.events.frameReady.disconnect(seen)


def acquire(core: CMMCorePlus, events: Iterable[MDAEvent], output: Any, **options: Any) -> tuple[Sink, Seen]:
    with watching(core) as seen:
        sink = run_mda(core, events, output, **options)
    return sink, seen


def arrays_of(path: str | Path) -> dict[str, np.ndarray]:
    """The pixels of each image by its path, read by a library that did not write them."""
    images = {record["image"] for record in read_frames(path)}
    reader = reader_other_than("inplace")
    return {image: read_array(Path(path) / image / "0", reader) for image in images}


def axes_of(path: Path) -> list[str]:
    document = json.loads((path / "zarr.json").read_text())
    return [axis["name"] for axis in document["attributes"]["ome"]["multiscales"][0]["axes"]]


def check(path: str | Path, seen: Seen) -> dict[Key, dict[str, int]]:
    """Each frame that was seen is there once, bit for bit, and nothing else is; returns the place of each index.

    The first frame of an index is compared with the first that the log has, and so on.
    """
    arrays = arrays_of(path)
    written: dict[Key, list[dict[str, Any]]] = {}
    for record in sorted(read_frames(path), key=lambda record: record["time"]):
        if record["status"] == "written":
            event = record["metadata"]["pymmcore_plus"]["mda_event"]
            written.setdefault(key_of(event.get("index", {})), []).append(record)
    assert sum(map(len, written.values())) == len(seen)
    places = {}
    filled = {image: np.zeros(pixels.shape[:-2], bool) for image, pixels in arrays.items()}
    for key, frame in seen.frames:
        record = written[key].pop(0)
        image = record["image"]
        at = tuple(record["index"][axis] for axis in axes_of(Path(path) / image)[:-2])
        assert not filled[image][at]
        filled[image][at] = True
        np.testing.assert_array_equal(arrays[image][at], frame)
        places[key] = record["index"]
    for image, pixels in arrays.items():
        assert not pixels[~filled[image]].any()
    return places


def left_out(path: str | Path) -> dict[Key, str]:
    """Why frames did not come, by place."""
    return {
        key_of(record["index"]): record.get("reason", "")
        for record in read_frames(path)
        if record["status"] == "skipped"
    }


def root_attributes(path: str | Path) -> dict[str, Any]:
    attributes: dict[str, Any] = json.loads((Path(path) / "zarr.json").read_text())["attributes"]
    return attributes


def image_attributes(path: str | Path, image: str) -> dict[str, Any]:
    attributes: dict[str, Any] = json.loads((Path(path) / image / "zarr.json").read_text())["attributes"]["ome"]
    return attributes
