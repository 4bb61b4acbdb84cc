"""ome-writers with each of its backends for OME-Zarr, by its public API."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.cases import Case
from benchmarks.runners.session import RefusedError, Runner, Session
from scopestream.bench.camera import Frames

BACKENDS = {"tensorstore": "tensorstore", "acquire-zarr": "acquire-zarr", "zarr-python": "zarr", "zarrs-python": "zarr"}
_SYNCS = "syncs each file to the disk, as tensorstore does unless it is told not to"
_BY_REFERENCE = "append keeps the frame by reference, so that a camera must not use its memory again"
_LEVELS = {"blosc-zstd": 3, "blosc-lz4": 5}  # the only ones it has


def _dimension(case: Case, name: str, count: int | None) -> Any:
    from ome_writers import Dimension, Position

    chunk = case.chunk.get(name, 1)
    fields: dict[str, Any] = {"name": name, "count": count, "chunk_size": chunk}
    if case.shard is not None and name != "p":
        whole = case.shard.get(name, {"y": case.frame[0], "x": case.frame[1]}.get(name, 1))
        size = whole if count is None else min(whole, count)
        fields["shard_size_chunks"] = -(-size // chunk)
    if name == "p":
        fields = {"name": "p", "type": "position", "count": count}
        if case.plate:
            wells = case.wells()
            fields["coords"] = [Position(name=str(n), plate_row=row, plate_column=column) for row, column, n in wells]
    else:
        fields["type"] = {"t": "time", "c": "channel"}.get(name, "space")
    return Dimension(**fields)


def _settings(case: Case, folder: Path, backend: str) -> Any:
    from ome_writers import AcquisitionSettings, Plate

    dimensions = [
        _dimension(case, name, None if case.unbounded and number == 0 else count)
        for number, (name, count) in enumerate([*case.loop, ("y", case.frame[0]), ("x", case.frame[1])])
    ]
    return AcquisitionSettings(
        root_path=str(folder / "a.ome.zarr"),
        dimensions=tuple(dimensions),
        dtype="uint16",
        format=backend,
        compression=case.codec,
        plate=Plate.from_standard_wells(384) if case.plate else None,
    )


def _opener(backend: str) -> Callable[[Case, Path, Frames], Session]:
    def open_case(case: Case, folder: Path, frames: Frames) -> Session:
        from ome_writers import create_stream

        if case.levels != 1:
            raise RefusedError("ome-writers writes no pyramids")
        try:
            stream = create_stream(_settings(case, folder, backend))
        except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            raise RefusedError(str(error)) from error
        is_flat = all(case.chunk.get(name, 1) == 1 for name, _ in case.loop)  # it collects frames of deep chunks
        notes = [_SYNCS] if backend == "tensorstore" else []
        if backend == "tensorstore" and is_flat:
            notes.append(_BY_REFERENCE)
        if (level := _LEVELS.get(case.codec, 0)) != case.level:
            notes.append(f"compresses at level {level}, the only one it has")
        return Session(
            stream.append,
            stream.close,
            tuple(folder / "a.ome.zarr" / path / "0" for path in _groups(case)),
            note="; ".join(notes),
        )

    return open_case


def _groups(case: Case) -> list[str]:
    if case.plate:
        return [f"{row}/{column}/{field}" for row, column, field in case.wells()]
    return [str(image) for image in range(case.n_images)] if case.n_images > 1 else ["."]


RUNNERS = tuple(
    Runner(f"ome-writers/{backend}", "ome-writers", library, _opener(backend)) for backend, library in BACKENDS.items()
)
