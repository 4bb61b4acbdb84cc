"""Whatever the settings: what is read back is what was sent, at its place, by a NumPy model."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as st

from scopestream import AcquisitionSettings, open_stream
from scopestream.contract import Backend
from scopestream.plan import ArrayPlan
from scopestream.planning import make_plan
from scopestream.registry import load_backend
from scopestream.route import Route
from scopestream.testing import expected_images, read_array, reader_other_than, stamped_frame
from scopestream.testing.levels import next_level
from scopestream.testing.readers import describe_mismatch

BACKENDS = ("inplace", "tensorstore", "zarr-python", "zarrs", "acquire-zarr")
MOST_FILES = 500  # zarr-python takes milliseconds for each, and each flush stores those of a block again


@st.composite
def acquisitions(draw: st.DrawFn) -> AcquisitionSettings:
    """Any settings of a small acquisition, for a backend that can write them."""
    names = draw(st.permutations(["t", "p", "c", "z", "angle"]))[: draw(st.integers(0, 4))]
    dimensions: list[dict[str, Any]] = [
        {"name": name, "count": draw(st.integers(1, 7 if name == "z" else 4))} for name in names
    ]
    if names and names[0] == "t" and draw(st.booleans()):
        dimensions[0]["count"] = None
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
    stored = AcquisitionSettings(**base).axes
    chunks = {axis.name: draw(st.integers(1, axis.count or 3)) for axis in stored}
    shards = {name: size * draw(st.integers(1, 3)) for name, size in chunks.items()}
    sizes: dict[str, Any] = {"chunks": chunks, "shards": shards}
    # A growing axis gets shards for thousands of frames, if nobody says otherwise.
    automatic = [] if dimensions[0]["count"] is None else [{}, {"chunks": chunks}]
    base |= draw(st.sampled_from([*automatic, sizes, {"chunks": chunks, "shards": None}]))
    able = []
    for name in BACKENDS:
        candidate = AcquisitionSettings(**base, backend=name)
        backend: Backend = load_backend(name)
        plan = make_plan(candidate, backend)
        fits = candidate.codec.name in backend.capabilities.codecs and plan.peak_bytes <= candidate.memory_limit
        fits = fits and sum(map(n_files, plan.arrays)) <= MOST_FILES
        if fits and not backend.check(plan):
            able.append(candidate)
    assume(able)
    return draw(st.sampled_from(able))


def n_files(array: ArrayPlan) -> int:
    """Files of a whole array; of one that grows, those that 12 items of its first axis fill."""
    whole = replace(array, growable=False, shape=(12, *array.shape[1:])) if array.growable else array
    return whole.n_files() or 0


@pytest.mark.timeout(600)  # for 200 acquisitions, not for one
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(acquisition=acquisitions(), data=st.data())
def test_what_is_read_back_is_what_was_sent(acquisition: AcquisitionSettings, data: st.DataObject) -> None:
    note(acquisition.to_yaml())
    with tempfile.TemporaryDirectory() as folder:
        chosen = acquisition.model_copy(update={"path": str(Path(folder) / "a.ome.zarr")})
        can = load_backend(chosen.backend).capabilities
        came: dict[int, np.ndarray] = {}
        with open_stream(chosen) as stream:
            plan, route = stream.plan, Route(stream.plan)
            total = plan.n_frames if plan.n_frames is not None else data.draw(st.integers(0, 12))
            in_order = not can.any_order or data.draw(st.booleans())
            numbers = list(range(total)) if in_order else data.draw(st.permutations(range(total)))
            for number in numbers:
                event = data.draw(st.sampled_from(["frame", "frame", "frame", "skip", "flush"]))
                if event == "flush":
                    stream.flush()
                if event == "skip":
                    if in_order:
                        stream.skip()
                    continue
                frame = stamped_frame(number, chosen.frame_shape, chosen.dtype)
                if in_order:
                    stream.append(frame)
                else:
                    stream.write(frame, index=dict(zip(route.names, route.coords(number), strict=True)))
                came[number] = frame
        reader = reader_other_than(chosen.backend)
        skipped = set(range(total)) - came.keys() if in_order else set()
        for image, model in zip(plan.images, expected_images(plan, came, skipped), strict=True):
            expected = model
            for level, number in enumerate(image.arrays):
                expected = next_level(expected, chosen.downscale, chosen.halved_z) if level else expected
                found = read_array(plan.root / plan.arrays[number].path, reader)
                assert not (wrong := describe_mismatch(expected, found)), f"level {level}: {wrong}"
