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
from scopestream.testing import expected_images, read_array, reader_other_than, stamped_frame
from scopestream.testing.levels import next_level
from scopestream.testing.readers import describe_mismatch
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
