"""Metadata of pymmcore-plus: whole in the dataset, and in OME where OME has a place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import useq
from ome_types import from_xml
from pymmcore_plus import CMMCorePlus
from pymmcore_plus.mda import MDAEngine
from useq import MDAEvent

from scopestream import read_frames
from tests.pymmcore.acquisition import acquire, check, root_attributes
from tests.pymmcore.kinds import PLANES, POSITIONS, sequence

PLAN = sequence(stage_positions=POSITIONS, z_plan=PLANES, metadata={"operator": "Ada"})


def frames(path: str) -> list[dict[str, Any]]:
    return [record for record in read_frames(path) if record["status"] == "written"]


def test_the_summary_is_in_the_root_document(core: CMMCorePlus, tmp_path: Path) -> None:
    sink, _ = acquire(core, PLAN, tmp_path / "cells.ome.zarr")
    summary = root_attributes(sink.path)["pymmcore_plus"]["summary_metadata"]
    assert (summary["format"], summary["version"]) == ("summary-dict", "1.0")
    assert summary["image_infos"][0]["camera_label"] == "Camera"
    assert {device["label"] for device in summary["devices"]} >= {"Camera", "Objective", "XY", "Z"}
    assert summary["system_info"]["pymmcore_plus_version"]
    assert useq.MDASequence(**summary["mda_sequence"]) == PLAN


def test_the_affine_transform_of_the_camera_is_kept(core: CMMCorePlus, tmp_path: Path) -> None:
    config = core.getCurrentPixelSizeConfig()
    core.setPixelSizeAffine(config, [0.5, 0.1, 0.0, -0.1, 0.5, 0.0])
    try:
        sink, _ = acquire(core, PLAN, tmp_path / "cells.ome.zarr")
    finally:
        core.setPixelSizeAffine(config, [1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
    info = root_attributes(sink.path)["pymmcore_plus"]["summary_metadata"]["image_infos"][0]
    assert info["pixel_size_affine"] == [0.5, 0.1, 0.0, -0.1, 0.5, 0.0]


def test_each_frame_has_all_that_pymmcore_plus_says_of_it(core: CMMCorePlus, tmp_path: Path) -> None:
    sink, seen = acquire(core, PLAN, tmp_path / "cells.ome.zarr")
    records = sorted(frames(sink.path), key=lambda record: record["frame"])
    assert len(records) == len(seen.metas) == 12
    for record, meta in zip(records, seen.metas, strict=True):
        kept, event = record["metadata"]["pymmcore_plus"], meta["mda_event"]
        assert set(kept) == set(meta)
        assert kept["runner_time_ms"] == meta["runner_time_ms"]
        assert kept["property_values"] == list(meta["property_values"])
        assert kept["mda_event"]["index"] == dict(event.index)
        assert kept["mda_event"]["channel"]["config"] == event.channel.config
        assert "sequence" not in kept["mda_event"]
        assert record["metadata"]["delta_t"] == meta["runner_time_ms"] / 1000
        assert record["metadata"]["exposure_time"] == meta["exposure_ms"] / 1000
        assert record["metadata"]["position_z"] == pytest.approx(event.z_pos)


def test_ome_xml_has_times_exposures_and_positions(core: CMMCorePlus, tmp_path: Path) -> None:
    sink, _ = acquire(core, PLAN, tmp_path / "cells.ome.zarr")
    ome = from_xml((Path(sink.path) / "OME" / "METADATA.ome.xml").read_text())
    planes = {(plane.the_c, plane.the_z): plane for plane in ome.images[1].pixels.planes}
    assert [planes[0, z].position_z for z in range(3)] == pytest.approx([0, 1, 2])
    assert [plane.position_x for plane in planes.values()] == pytest.approx([20] * 6, abs=0.1)
    assert all(plane.delta_t is not None and plane.exposure_time == 0.001 for plane in planes.values())


def test_ome_xml_has_positions_in_micrometers_also_without_planes(core: CMMCorePlus, tmp_path: Path) -> None:
    sink, _ = acquire(core, sequence(stage_positions=POSITIONS), tmp_path / "cells.ome.zarr")
    ome = from_xml((Path(sink.path) / "OME" / "METADATA.ome.xml").read_text())
    for plane in (plane for image in ome.images for plane in image.pixels.planes):
        assert plane.position_z is not None
        assert {plane.position_x_unit.value, plane.position_y_unit.value, plane.position_z_unit.value} == {"µm"}


def test_triggered_frames_say_so_and_are_where_the_stage_was_sent(core: CMMCorePlus, tmp_path: Path) -> None:
    core.setProperty("Z", "UseSequences", "Yes")
    try:
        sink, seen = acquire(core, useq.MDASequence(channels=["DAPI"], z_plan=PLANES), tmp_path / "a.ome.zarr")
    finally:
        core.setProperty("Z", "UseSequences", "No")
    assert all(meta["hardware_triggered"] for meta in seen.metas)
    for z, record in enumerate(sorted(frames(sink.path), key=lambda record: record["frame"])):
        kept = record["metadata"]["pymmcore_plus"]
        assert kept["camera_metadata"]["Camera"] == "Camera"
        assert "position" not in kept
        assert record["metadata"]["position_z"] == z - 1


def test_what_json_cannot_hold_becomes_text_and_costs_no_frame(core: CMMCorePlus, tmp_path: Path) -> None:
    class Strange(MDAEngine):
        def exec_single_event(self, event: MDAEvent) -> Iterator[Any]:
            for image, at, meta in super().exec_single_event(event):
                extra = {"array": np.arange(3), "object": object(), "bytes": b"raw", "nan": float("nan"), 5: {1, 2}}
                yield image, at, {**meta, "extra": extra}

    core.mda.set_engine(Strange(core, use_hardware_sequencing=False))
    plan = sequence(metadata={"function": len})
    sink, seen = acquire(core, plan, tmp_path / "cells.ome.zarr")
    check(sink.path, seen)
    for record in frames(sink.path):
        extra = record["metadata"]["pymmcore_plus"]["extra"]
        assert extra["array"] == [0, 1, 2]
        assert extra["object"].startswith("<object object")
        assert (extra["bytes"], extra["nan"], sorted(extra["5"])) == ("b'raw'", "NaN", [1, 2])
    summary = root_attributes(sink.path)["pymmcore_plus"]["summary_metadata"]
    assert "built-in function len" in summary["mda_sequence"]["metadata"]["function"]


def test_metadata_without_end_are_left_out_with_a_warning(core: CMMCorePlus, tmp_path: Path) -> None:
    class Verbose(MDAEngine):
        def exec_single_event(self, event: MDAEvent) -> Iterator[Any]:
            for image, at, meta in super().exec_single_event(event):
                yield image, at, {**meta, "extra": {"text": "x" * 9_000_000}}

    core.mda.set_engine(Verbose(core, use_hardware_sequencing=False))
    with pytest.warns(RuntimeWarning, match="metadata of a frame at .* was left out"):
        sink, seen = acquire(core, sequence(), tmp_path / "cells.ome.zarr")
    check_pixels = [record["metadata"]["pymmcore_plus"] for record in frames(sink.path)]
    assert len(check_pixels) == len(seen) == 2
    assert all("too large" in kept["left_out"] for kept in check_pixels)
