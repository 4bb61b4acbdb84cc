"""Acquisitions with the demo camera, and what a dataset must hold after them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pymmcore_plus import CMMCorePlus
from useq import MDAEvent

import pymmcore
from scopestream import read_frames
from scopestream.pymmcore import Sink, run_mda
from scopestream.testing.readers import read_array, reader_other_than

SHAPE = (32, 48)
OF_THE_ENGINE = ("the camera gave no image", "no focus")  # why events may have no frame
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
        self.events: list[MDAEvent] = []
        self.metas: list[Mapping[str, Any]] = []

    def __call__(self, image: np.ndarray, event: MDAEvent, meta: Mapping[str, Any]) -> None:
        self.frames.append((key_of(event.index), image.copy()))
        self.events.append(event)
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


class Image(NamedTuple):
    """One image, read by a library that did not write it.

    axes    names of those before the frame
    origin  of the axes by name, and `scale`, as OME-Zarr has them
    """

    path: str
    axes: list[str]
    pixels: np.ndarray
    scale: dict[str, float]
    origin: dict[str, float]

    def is_at(self, event: MDAEvent) -> bool:
        """Whether it was taken where the event sends the stage, as far as the event says."""
        wanted = {"x": event.x_pos, "y": event.y_pos}
        return all(at is None or abs(self.origin[axis] - at) < 1e-3 for axis, at in wanted.items())

    def item(self, axis: str, event: MDAEvent, rounds: int) -> int:
        """Where along an axis the frame must be: planes by their coordinate, the others by the index of the event."""
        if axis == "z" and event.z_pos is not None:
            return round((event.z_pos - self.origin["z"]) / self.scale["z"])
        return int(event.index.get(axis, 0)) + (rounds if axis == "t" else 0)


def images_of(path: str | Path) -> list[Image]:
    images = []
    for name, pixels in arrays_of(path).items():
        multiscales = image_attributes(path, name)["multiscales"][0]
        axes = [axis["name"] for axis in multiscales["axes"]]
        changes = {one["type"]: one[one["type"]] for one in multiscales["datasets"][0]["coordinateTransformations"]}
        origin = changes.get("translation", [0.0] * len(axes))
        scale, begin = (dict(zip(axes, values, strict=True)) for values in (changes["scale"], origin))
        images.append(Image(name, axes[:-2], pixels, scale, begin))
    return images


def check(
    path: str | Path, seen: Seen, n_events: int | None = None, *, is_one_stack: bool = False
) -> dict[Key, dict[str, int]]:
    """Each frame that was seen is once where its event says, bit for bit, nothing else is, and the log says the same.

    The event says it by its index, and by the stage positions that it asks for, which are compared with the coordinates
    of the images. An index that comes again belongs to later time points.

    n_events      of the sequence, each of which must have been seen, or be in the log with the reason of the engine
    is_one_stack  frames follow one another whatever their events say
    Returns the place of each index, as the log has it.
    """
    images = images_of(path)
    filled = {image.path: np.zeros(image.pixels.shape[:-2], bool) for image in images}
    found: dict[tuple[str, tuple[int, ...]], Key] = {}
    used: set[str] = set()
    for field in _fields(seen):
        events = [(seen.frames[number], seen.events[number]) for number in field]
        n_times = 1 + max(event.index.get("t", 0) for _, event in events)
        n_before: Counter[Key] = Counter()
        wanted = []
        for number, ((key, frame), event) in zip(field, events, strict=True):
            rounds = number - event.index.get("t", 0) if is_one_stack else n_before[key] * n_times
            wanted.append((key, frame, event, rounds))
            n_before[key] += 1
        there = [image for image in images if is_one_stack or all(image.is_at(event) for _, event in events)]
        image = max(there, key=lambda image: sum(_is_there(image, *one[1:]) for one in wanted))
        assert image.path not in used or is_one_stack
        used.add(image.path)
        for key, frame, event, rounds in wanted:
            at = tuple(image.item(axis, event, rounds) for axis in image.axes)
            assert not filled[image.path][at]
            filled[image.path][at] = True
            np.testing.assert_array_equal(image.pixels[at], frame)
            found[image.path, at] = key
    for image in images:
        assert not image.pixels[~filled[image.path]].any()
    return _logged(path, {image.path: image.axes for image in images}, found, n_events)


def _fields(seen: Seen) -> list[list[int]]:
    """Numbers of the frames of each field and camera."""
    fields: dict[tuple[int | None, ...], list[int]] = {}
    for number, event in enumerate(seen.events):
        index = {str(axis): item for axis, item in event.index.items()}
        fields.setdefault((index.get("p"), index.get("g"), index.get("cam")), []).append(number)
    return list(fields.values())


def _is_there(image: Image, frame: np.ndarray, event: MDAEvent, rounds: int) -> bool:
    at = tuple(image.item(axis, event, rounds) for axis in image.axes)
    is_inside = all(0 <= item < size for item, size in zip(at, image.pixels.shape, strict=False))
    return is_inside and np.array_equal(image.pixels[at], frame)


def _logged(
    path: str | Path, axes: Mapping[str, list[str]], found: dict[tuple[str, tuple[int, ...]], Key], n_events: int | None
) -> dict[Key, dict[str, int]]:
    """The log has a line for each frame, at the same place and with the same index."""
    places = {}
    records = list(read_frames(path))
    for record in records:
        if record["status"] == "written":
            at = tuple(record["index"][axis] for axis in axes[record["image"]])
            key = found.pop((record["image"], at))
            assert key == key_of(record["metadata"]["pymmcore_plus"]["mda_event"].get("index", {}))
            places[key] = record["index"]
    assert not found
    if n_events is not None:
        given_up = [record for record in records if record.get("reason") in OF_THE_ENGINE]
        assert sum(record["status"] == "written" for record in records) + len(given_up) == n_events
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
