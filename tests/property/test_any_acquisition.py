"""Whatever the settings: what is read back is what was sent, at its place, by a NumPy model."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from scopestream import AcquisitionSettings, open_stream
from scopestream.registry import load_backend
from scopestream.route import Route
from scopestream.testing import frame_numbers, mismatch, reader_other_than, stamped_frames
from tests.property.layouts import acquisitions


@pytest.mark.timeout(600)  # for 200 acquisitions, not for one
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(acquisition=acquisitions().flatmap(st.sampled_from), data=st.data())
def test_what_is_read_back_is_what_was_sent(acquisition: AcquisitionSettings, data: st.DataObject) -> None:
    note(acquisition.to_yaml())
    with tempfile.TemporaryDirectory() as folder:
        chosen = acquisition.model_copy(update={"path": str(Path(folder) / "a.ome.zarr")})
        can = load_backend(chosen.backend).capabilities
        came: dict[int, np.ndarray] = {}
        with open_stream(chosen) as stream:
            plan, route = stream.plan, Route(stream.plan)
            there = frame_numbers(plan, data.draw(st.integers(0, 12)) if plan.n_frames is None else None)
            frames = stamped_frames(plan, there)
            cameras = [camera.name for camera in chosen.cameras] or [None]
            in_order = not can.any_order or data.draw(st.booleans())
            for number in there if in_order else data.draw(st.permutations(there)):
                camera = cameras[number % len(cameras)]
                event = data.draw(st.sampled_from(["frame", "frame", "frame", "skip", "flush"]))
                if event == "flush":
                    stream.flush()
                if event == "skip":
                    if in_order:
                        stream.skip(camera=camera)
                    continue
                if in_order:
                    stream.append(frames[number], camera=camera)
                else:
                    stream.write(frames[number], index=dict(zip(route.names, route.coords(number), strict=True)))
                came[number] = frames[number]
        skipped = set(there) - came.keys() if in_order else set()
        assert not (wrong := mismatch(plan, came, reader_other_than(chosen.backend), skipped)), wrong
