"""Any sequence of useq-schema: each frame has a place, the rest of the box has a reason, and all of it reads back."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from useq import MDASequence

from scopestream import open_stream, read_frames
from scopestream.testing.readers import read_array, reader_other_than
from scopestream.useq import index_of, plan_sequence, takes_image

times = st.sampled_from([{"interval": 0, "loops": 2}, {"interval": 1.5, "loops": 3},
                         [{"interval": 1, "loops": 2}, {"interval": 4, "loops": 2}]])  # fmt: skip
planes = st.sampled_from([{"range": 2, "step": 1}, {"above": 2, "below": 1, "step": 1}, {"relative": [-1, 0, 3]}])
grids = st.sampled_from([{"rows": 1, "columns": 2}, {"rows": 2, "columns": 2}])


def channels(names: list[str]) -> st.SearchStrategy[list[dict[str, Any]]]:
    one = st.fixed_dictionaries(
        {"config": st.sampled_from(names)},
        optional={"do_stack": st.booleans(), "acquire_every": st.integers(1, 3)},
    )
    return st.lists(one, min_size=1, max_size=3, unique_by=lambda channel: channel["config"])


own = st.fixed_dictionaries(
    {}, optional={"time_plan": times, "z_plan": planes, "grid_plan": grids, "channels": channels(["Cy5", "BF"])}
)
positions = st.lists(
    st.one_of(st.just({"x": 1, "y": 2, "z": 3}), own.map(lambda plans: {"x": 5, "y": 6, "z": 7, "sequence": plans})),
    min_size=1,
    max_size=3,
)
plans = st.fixed_dictionaries(
    {"axis_order": st.permutations("tpgcz").filter(lambda order: order.index("p") < order.index("z"))},
    optional={"time_plan": times, "z_plan": planes, "grid_plan": grids, "channels": channels(["DAPI", "FITC", "GFP"]),
              "stage_positions": positions},
)  # fmt: skip


@pytest.mark.filterwarnings("ignore:The planes of the z plan are not evenly spaced:RuntimeWarning")
@example({"time_plan": {"interval": 0, "loops": 2}, "channels": [{"config": "DAPI", "acquire_every": 2}],
          "stage_positions": [{"x": 5, "y": 6, "z": 7, "sequence": {}}]})  # fmt: skip
@given(plans)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_frame_of_any_sequence_is_at_a_place_of_its_own_and_nothing_is_missing(values: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what useq thinks of these
        sequence = MDASequence(**values)
        n_events = sum(map(takes_image, sequence))
    if n_events == 0 or n_events > 150:
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / "cells.ome.zarr"
        plan = plan_sequence(sequence, 3, 2, "uint16", 0.5, path=path)
        n_before: Counter[tuple[tuple[str, int], ...]] = Counter()
        sent: dict[tuple[tuple[str, int], ...], int] = {}
        with open_stream(plan.settings) as stream:
            for number, event in enumerate(filter(takes_image, sequence), 1):
                key = tuple(sorted(index_of(event).items()))
                place = plan.place(event, n_before[key])
                n_before[key] += plan.place.repeats(event)
                for hole, reason in plan.place.passed(place):
                    stream.skip(index=hole, reason=reason)
                stream.write(np.full((2, 3), number, "uint16"), index=place)
                sent[tuple(sorted(place.items()))] = number
            for hole, reason in (*plan.place.left(), *plan.place.unknown()):
                stream.skip(index=hole, reason=reason)
        assert len(sent) == n_events
        root = json.loads((path / "zarr.json").read_text())["attributes"]["scopestream"]
        assert (root["status"], root["frames"]["written"], root["frames"]["missing"]) == ("complete", n_events, 0)
        _check_pixels(path, sent)


def _check_pixels(path: Path, sent: dict[tuple[tuple[str, int], ...], int]) -> None:
    reader = reader_other_than("inplace")
    arrays: dict[str, np.ndarray] = {}
    for record in read_frames(path):
        image = record["image"]
        if image not in arrays:
            arrays[image] = read_array(path / image / "0", reader)
        at = tuple(record["index"][axis] for axis in "tcz" if axis in record["index"])
        expected = sent[tuple(sorted(record["index"].items()))] if record["status"] == "written" else 0
        assert (arrays[image][at] == expected).all()
