"""scopestream with each of its backends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import Case
from benchmarks.runners.session import RefusedError, Runner, Session
from scopestream import AcquisitionSettings, BackendNotFoundError, MemoryLimitError, PlanError, open_stream
from scopestream.bench.camera import Frames

_ALL_THE_MEMORY = 2**40
_DEFAULT_LIMIT = int(AcquisitionSettings.model_fields["memory_limit"].default)
_MOST_BYTES = 8 * 2**30
_DURABLE_EVERY = 16  # frames between two calls of flush(durable=True)
_VARIANTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("inplace", "inplace", {}),
    ("inplace direct", "inplace", {"direct_io": True}),
    ("inplace unchecked", "inplace", {"checksums": False}),
    ("inplace disk", "inplace", {"durability": "disk"}),
    ("tensorstore", "tensorstore", {}),
    ("acquire-zarr", "acquire-zarr", {}),
    ("zarr-python", "zarr-python", {}),
    ("zarrs", "zarrs", {}),
)


def _settings(case: Case, folder: Path, backend: str, fields: dict[str, Any]) -> tuple[AcquisitionSettings, str]:
    """Settings that the backend accepts, and a note where it needs more memory than the case says."""

    def with_limit(n_bytes: int) -> AcquisitionSettings:
        return AcquisitionSettings(**case.settings(str(folder / "a.ome.zarr"), backend, n_bytes), **fields)

    settings = with_limit(case.memory_limit)
    try:
        settings.plan()
    except MemoryLimitError as error:
        n_bytes = max(_DEFAULT_LIMIT, with_limit(_ALL_THE_MEMORY).plan().peak_bytes)
        if n_bytes > _MOST_BYTES:
            raise RefusedError(str(error)) from error
        what = "the default" if n_bytes == _DEFAULT_LIMIT else "which is what it needs"
        return with_limit(n_bytes), f"memory_limit {n_bytes / 1e9:.2g} GB, {what}"
    return settings, ""


def _opener(backend: str, fields: dict[str, Any]) -> Callable[[Case, Path, Frames], Session]:
    def open_case(case: Case, folder: Path, frames: Frames) -> Session:
        try:
            settings, note = _settings(case, folder, backend, fields)
            stream = open_stream(settings)
        except (PlanError, BackendNotFoundError) as error:
            raise RefusedError(str(error)) from error
        plan = stream.plan
        arrays = tuple(plan.root / plan.arrays[image.arrays[0]].path for image in plan.images)
        return Session(stream.append, stream.close, arrays, len(plan.images[0].arrays), note)

    return open_case


def _open_durable(case: Case, folder: Path, frames: Frames) -> Session:
    """Every few frames the camera waits until all are safe from a power loss."""
    try:
        settings, note = _settings(case, folder, "inplace", {})
        stream = open_stream(settings)
    except PlanError as error:
        raise RefusedError(str(error)) from error
    arrays = tuple(stream.plan.root / stream.plan.arrays[image.arrays[0]].path for image in stream.plan.images)
    n_frames = 0

    def append(frame: np.ndarray) -> None:
        nonlocal n_frames
        stream.append(frame)
        n_frames += 1
        if n_frames % _DURABLE_EVERY == 0:
            stream.flush(durable=True)

    return Session(append, stream.close, arrays, len(stream.plan.images[0].arrays), note)


RUNNERS = (
    *(Runner(f"scopestream/{name}", "ours", backend, _opener(backend, fields)) for name, backend, fields in _VARIANTS),
    Runner(f"scopestream/inplace durable {_DURABLE_EVERY}", "ours", "inplace", _open_durable),
)
