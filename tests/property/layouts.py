"""Settings of small acquisitions, whatever they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from scopestream import AcquisitionSettings
from scopestream.contract import Backend
from scopestream.plan import ArrayPlan
from scopestream.planning import make_plan
from scopestream.registry import load_backend, problems_of

BACKENDS = ("inplace", "tensorstore", "zarr-python", "zarrs", "acquire-zarr")
MOST_FILES = 500  # zarr-python takes milliseconds for each, and each flush stores those of a block again


@st.composite
def acquisitions(
    draw: st.DrawFn, backends: Sequence[str] = BACKENDS, *, most_frames: int = 448, most_chunks: int | None = None
) -> list[AcquisitionSettings]:
    """Any settings of a small acquisition, with each of the backends that can write it.

    most_frames  of it, those of an unbounded axis not counted
    most_chunks  of all arrays
    """
    names = draw(st.permutations(["t", "p", "c", "z", "angle"]))[: draw(st.integers(0, 4))]
    cameras = draw(_cameras(min(2, most_frames)))
    most_frames //= max(1, len(cameras))
    dimensions: list[dict[str, Any]] = []
    for name in names:
        dimensions.append({"name": name, "count": draw(st.integers(1, min(7 if name == "z" else 4, most_frames)))})
        most_frames //= dimensions[-1]["count"]
    if names and names[0] == "t" and draw(st.booleans()):
        dimensions[0]["count"] = None
    merge = draw(_merged(dimensions))
    frame = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    dimensions += [{"name": "y", "count": frame[0]}, {"name": "x", "count": frame[1]}]
    base: dict[str, Any] = {
        "path": "unset",
        "dtype": draw(st.sampled_from(["bool", "uint8", "uint16", "int32", "float32"])),
        "dimensions": dimensions,
        "codec": draw(st.sampled_from(["none", "none", "zstd", "blosc-lz4", "blosc-zstd"])),
        "levels": draw(st.integers(1, 3)),
        "downscale_z": draw(st.booleans()),
    }
    if base["dtype"] != "float32":
        base["downscale"] = draw(st.sampled_from(["mean", "nearest", "mode"]))
    base |= {"merge": merge, "cameras": cameras}
    if cameras and all(camera.keys() == {"name"} for camera in cameras):
        base["camera_axis"] = draw(st.sampled_from(["images", "channels"]))
    if "p" in names and draw(st.booleans()):
        draw(_own_counts(base))
    stored = AcquisitionSettings(**base).axes
    chunks = {axis.name: draw(st.integers(1, axis.count or 3)) for axis in stored}
    shards = {name: size * draw(st.integers(1, 3)) for name, size in chunks.items()}
    sizes: dict[str, Any] = {"chunks": chunks, "shards": shards}
    # A growing axis gets shards for thousands of frames, if nobody says otherwise.
    automatic = [] if dimensions[0]["count"] is None else [{}, {"chunks": chunks}]
    base |= draw(st.sampled_from([*automatic, sizes, {"chunks": chunks, "shards": None}]))
    able = []
    for name in backends:
        candidate = AcquisitionSettings(**base, backend=name)
        backend: Backend = load_backend(name)
        plan = make_plan(candidate, backend)
        fits = not problems_of(plan, backend) and plan.peak_bytes <= candidate.memory_limit
        fits = fits and sum(map(_n_files, plan.arrays)) <= MOST_FILES
        fits = fits and (most_chunks is None or sum(map(_n_chunks, plan.arrays)) <= most_chunks)
        if fits:
            able.append(candidate)
    assume(able)
    return able


@st.composite
def _cameras(draw: st.DrawFn, most: int) -> list[dict[str, Any]]:
    """None in most cases; all alike, or each with frames of its own."""
    if draw(st.integers(0, 3)):
        return []
    cameras: list[dict[str, Any]] = [{"name": f"camera {n}"} for n in range(draw(st.integers(1, most)))]
    if draw(st.booleans()):
        for camera in cameras:
            camera["shape"] = draw(st.integers(1, 70)), draw(st.integers(1, 70))
            camera["dtype"] = draw(st.sampled_from(["bool", "uint8", "uint16", "int32"]))
    return cameras


@st.composite
def _merged(draw: st.DrawFn, dimensions: Sequence[dict[str, Any]]) -> list[str]:
    """Names of dimensions that are one channel axis; none in most cases."""
    names = [one["name"] for one in dimensions if one["name"] in ("angle", "c", "t") and one["count"] is not None]
    if draw(st.integers(0, 3)):
        return []
    merge = draw(st.permutations(names))[: draw(st.integers(0, 3))]
    return [*merge, "c"] if merge and "c" in names and "c" not in merge else merge


@st.composite
def _own_counts(draw: st.DrawFn, base: dict[str, Any]) -> None:
    """Let positions have fewer items of what are axes of their images."""
    parts = [part for axis in AcquisitionSettings(**base).parted_axes[:-2] for part in axis.parts]
    counts = {part.name: part.count for part in parts if part.count is not None and part.name != "camera"}
    (positions,) = (dimension for dimension in base["dimensions"] if dimension["name"] == "p")
    positions["coords"] = [
        {"counts": {name: draw(st.integers(1, count)) for name, count in counts.items() if draw(st.booleans())}}
        for _ in range(positions["count"])
    ]


def _n_files(array: ArrayPlan) -> int:
    return _whole(array).n_files() or 0


def _n_chunks(array: ArrayPlan) -> int:
    whole = _whole(array)
    return prod(-(-size // chunk) for size, chunk in zip(whole.shape, whole.chunks, strict=True))


def _whole(array: ArrayPlan) -> ArrayPlan:
    """The array; of one that grows, 12 items of its first axis."""
    return replace(array, growable=False, shape=(12, *array.shape[1:])) if array.growable else array
