"""A dataset of scopestream as it lies on disk: its settings, its layout, and what its frame log says.

Nothing in it is trusted. What is opened here may have been killed, moved, or made by somebody who means no good.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from scopestream.contract import WriteUnit
from scopestream.document import array_document, read_document, stored_length
from scopestream.errors import DatasetError
from scopestream.history import History
from scopestream.plan import ArrayPlan, LayoutPlan
from scopestream.planning import make_plan
from scopestream.route import Route
from scopestream.settings import AcquisitionSettings
from scopestream.stored import StoredArray
from scopestream.untrusted import read_bounded

SETTINGS = "scopestream/settings.json"
MAX_SETTINGS_BYTES = 256_000_000
MAX_CHUNK_BYTES = 1 << 33
_MAX_NAME = 300  # characters in a message
_MAX_ERROR_TEXT = 10_000  # of what is wrong with settings, which may be wrong in a million places
_MAX_TRIED = 100  # documents that are looked at for the chunks


@dataclass(frozen=True, slots=True)
class Dataset:
    """What `open_dataset` finds.

    settings    with the path at which the dataset is now, and with the chunks, the shards and the backend that it has
    plan        the layout, as any program would read it: `unit` and memory are those of no backend
    attributes  of the root
    state       what the root says of the acquisition: version, backend, status, ...
    history     the frame log
    """

    settings: AcquisitionSettings
    plan: LayoutPlan
    route: Route
    attributes: dict[str, Any]
    state: dict[str, Any]
    history: History

    def lengths(self) -> list[int]:
        """Of the first axis of each image, in frames that came or are known not to come; planned where it is known."""
        plan = self.plan
        if not plan.finest[0].growable:
            return [plan.arrays[image.arrays[0]].shape[0] for image in plan.images]
        numbers = self.history.numbers[~self.history.are("failed")]
        lengths = np.zeros(len(self.plan.images), np.int64)
        stride, _ = self.route.step(plan.finest[0].axes[0])
        np.maximum.at(lengths, self.route.images(numbers), numbers // stride + 1)
        return lengths.tolist()

    def stored(self, number: int, on_problem: Callable[[str], None]) -> StoredArray:
        """An array of the plan on the disk."""
        array = self.plan.arrays[number]
        return StoredArray(self.plan.root / array.path, array, on_problem)


class _AnyReader:
    """What a plan needs to know of a backend, when nothing will be written."""

    def unit(self, array: ArrayPlan) -> WriteUnit:
        return WriteUnit.FRAME

    def held_bytes(self, array: ArrayPlan, n_arrays: int, room: int) -> int:
        return 0


def open_dataset(path: Path) -> Dataset:
    """Raises DatasetError when there is no dataset of scopestream at `path`, or one whose settings cannot be read."""
    path = path.absolute()
    try:
        is_folder = path.is_dir()
    except (OSError, ValueError) as error:  # a name that the system does not take
        raise DatasetError(f"{str(path)[:_MAX_NAME]!r} cannot be a dataset: {error}") from error
    if not is_folder:
        raise DatasetError(f"There is {'no folder' if path.exists() else 'nothing'} at {path}.")
    attributes = _mapping(read_document(path).get("attributes"))
    settings = stored_settings(path)
    state = _mapping(attributes.get("scopestream"))
    backend = state.get("backend")
    settings = settings.model_copy(update={"backend": backend if isinstance(backend, str) and backend else "auto"})
    plan = make_plan(settings, _AnyReader())
    settings = settings.model_copy(update=stored_tiling(plan))
    plan = replace(make_plan(settings, _AnyReader()), backend=settings.backend)
    return Dataset(settings, plan, Route(plan), attributes, state, History(plan))


def stored_settings(path: Path) -> AcquisitionSettings:
    """The settings of the dataset at `path`, with that path. Raises DatasetError."""
    file = path / SETTINGS
    try:
        text = read_bounded(file, MAX_SETTINGS_BYTES)
    except FileNotFoundError:
        raise DatasetError(f"{path} has no {SETTINGS}: scopestream did not write it.") from None
    except OSError as error:
        raise DatasetError(f"{file} cannot be read: {error.strerror or error}.") from error
    if text is None:
        raise DatasetError(f"{file} has more than {MAX_SETTINGS_BYTES} bytes, which no settings have.")
    try:
        settings = AcquisitionSettings.model_validate_json(text)
    except (ValidationError, RecursionError) as error:
        said = str(error)
        cut = said if len(said) <= _MAX_ERROR_TEXT else f"{said[:_MAX_ERROR_TEXT]}..."
        raise DatasetError(f"{file} has no settings that this version understands: {cut}") from error
    return settings.model_copy(update={"path": str(path)})


def stored_tiling(plan: LayoutPlan) -> dict[str, Any]:
    """`chunks` and `shards` of the settings, by name, as the documents of the finest arrays have them; of each camera.

    Which they are may have depended on the backend. Raises DatasetError when no document says it, and when they are
    not those of such an acquisition.
    """
    if len(plan.finest) == 1:
        return _found_tiling(plan, 0)
    tilings = [_found_tiling(plan, view) for view in range(len(plan.finest))]
    cameras = plan.settings.cameras
    # Whether there are shards is the same for all.
    shards = None if tilings[0]["shards"] is None else "auto"
    own = [camera.model_copy(update=tiling) for camera, tiling in zip(cameras, tilings, strict=True)]
    return {"cameras": tuple(own), "shards": shards}


def _found_tiling(plan: LayoutPlan, view: int) -> dict[str, Any]:
    """Of one camera."""
    problems = []
    for image in plan.images:
        if image.view != view:
            continue
        array = plan.arrays[image.arrays[0]]
        try:
            return _tiling(array, read_document(plan.root / array.path))
        except DatasetError as error:
            problems.append(str(error))
            if len(problems) == _MAX_TRIED:
                break
    raise DatasetError(f"{plan.root} does not tell its chunks: {problems[0]}")


def _tiling(array: ArrayPlan, document: dict[str, Any]) -> dict[str, Any]:
    grid = _shape(_mapping(_mapping(document.get("chunk_grid")).get("configuration")).get("chunk_shape"), array)
    codecs = document.get("codecs")
    first = _mapping(codecs[0]) if isinstance(codecs, list) and codecs else {}
    if first.get("name") == "sharding_indexed":
        chunks = _shape(_mapping(first.get("configuration")).get("chunk_shape"), array)
        shards: tuple[int, ...] | None = grid
    else:
        chunks, shards = grid, None
    if prod(chunks) * array.dtype.itemsize > MAX_CHUNK_BYTES:
        raise DatasetError(f"{array.path}: chunks {chunks} are larger than any that this program reads")
    if any(shard % chunk for shard, chunk in zip(shards or chunks, chunks, strict=True)):
        raise DatasetError(f"{array.path}: chunks {chunks} do not divide shards {shards}")
    return {
        "chunks": dict(zip(array.axes, chunks, strict=True)),
        "shards": None if shards is None else dict(zip(array.axes, shards, strict=True)),
    }


def _shape(value: object, array: ArrayPlan) -> tuple[int, ...]:
    """A chunk or shard of that array. Raises DatasetError."""
    if (
        isinstance(value, list)
        and len(value) == len(array.axes)
        and all(type(size) is int and 0 < size < 1 << 31 for size in value)
    ):
        return tuple(value)
    raise DatasetError(f"{array.path} has chunks of no shape that it could have")


def differing_documents(plan: LayoutPlan) -> list[int]:
    """Numbers of the arrays whose documents are missing or say anything but the plan, whatever their length."""
    differing = []
    for number, array in enumerate(plan.arrays):
        try:
            length = stored_length(plan.root / array.path) if array.growable else array.shape[0]
            document = read_document(plan.root / array.path)
        except DatasetError:
            differing.append(number)
            continue
        expected = array_document(array, (length, *array.shape[1:]))
        # Attributes are anybody's to add.
        if any(_plain(document.get(key)) != _plain(expected[key]) for key in expected.keys() - {"attributes"}):
            differing.append(number)
    return differing


def _plain(document: Any) -> Any:
    """Without what means nothing: the byte order of single bytes, which some libraries state."""
    if isinstance(document, list):
        return [_plain(item) for item in document]
    if isinstance(document, dict):
        if document.get("name") == "bytes":
            return "bytes"
        return {key: _plain(value) for key, value in document.items()}
    return document


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
