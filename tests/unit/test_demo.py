"""`scopestream demo`: both cameras, the three layouts, and the honesty of the comparison."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from scopestream import demo, read_frames
from scopestream.cli import app
from scopestream.demo.check import checksum, compare, open_reader
from scopestream.demo.progress import StatsBar
from scopestream.demo.synthetic import BACKGROUND, SyntheticCamera

run = CliRunner().invoke


def synthetic(path: Path, *options: str) -> list[str]:
    return ["demo", "--camera", "synthetic", "--frames", "10", "--output", str(path), *options]


def attributes(path: Path) -> dict:
    return json.loads((path / "zarr.json").read_text())["attributes"]


@pytest.mark.parametrize(
    ("layout", "n_frames", "root_key"),
    [("image", 10, "multiscales"), ("positions", 20, "bioformats2raw.layout"), ("plate", 60, "plate")],
)
def test_every_layout_reads_back_bit_for_bit(tmp_path: Path, layout: str, n_frames: int, root_key: str) -> None:
    path = tmp_path / "here.ome.zarr"
    result = run(app, synthetic(path, "--layout", layout))
    assert result.exit_code == 0, result.output
    assert f"All {n_frames} frames are bit for bit what the camera sent" in result.output
    root = attributes(path)
    assert root_key in root["ome"]
    assert root["scopestream"]["status"] == "complete"
    assert sum(1 for record in read_frames(path) if record["status"] == "written") == n_frames


def test_it_says_what_was_planned_what_happened_and_where_everything_is(tmp_path: Path) -> None:
    path = tmp_path / "here.ome.zarr"
    output = " ".join(run(app, synthetic(path), env={"COLUMNS": "200"}).output.split())
    for part in ("kind bioformats2raw", "peak memory, inplace", "frames written 20", "append, 99th percentile", "MB/s"):
        assert part in output
    for place in (path, path / "scopestream" / "frames.jsonl", path / "OME" / "METADATA.ome.xml"):
        assert str(place) in output
        assert place.exists()


def test_the_contact_sheet_is_a_picture_in_the_colours_of_the_channels(tmp_path: Path) -> None:
    assert run(app, synthetic(tmp_path / "here.ome.zarr")).exit_code == 0
    with Image.open(tmp_path / "here_contact_sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    assert min(pixels.shape[:2]) > 200
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    assert ((blue - red > 100) & (blue - green > 60)).sum() > 500  # DAPI
    assert ((green - red > 100) & (green - blue > 60)).sum() > 500  # FITC


def drawn(bar: StatsBar, width: int = 80) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        for part in bar.get_renderables():
            console.print(part)
    return capture.get()


def test_the_progress_bar_says_how_it_goes(tmp_path: Path) -> None:
    settings = demo.demo_settings(demo.DemoOptions(output=tmp_path / "a.ome.zarr"), (512, 512), 1.0)
    with demo.open_stream(settings) as stream:
        nothing = stream.stats
    now = replace(
        nothing, frames_in=120, recent_frames_per_s=21.55, recent_mb_per_s=11.3, queue_depth=2,
        append_p99_ms=0.456, behind_s=1.25, frames_dropped=3,
    )  # fmt: skip
    with StatsBar(Console(file=io.StringIO())) as bar:
        bar.begin(240)
        bar.show(replace(now, frames_dropped=0))
        assert "120/240 frames" in drawn(bar)
        assert "dropped" not in drawn(bar)
        bar.show(now)
        bar_line, line = drawn(bar).splitlines()
        assert "123/240 frames" in bar_line
        assert line.strip() == "21.6 frames/s  11.3 MB/s  queue 2  p99 0.46 ms  behind 1.25 s  3 dropped"
    assert "frames/s" not in drawn(bar)


def test_a_demo_that_cannot_start_draws_no_bar(tmp_path: Path) -> None:
    result = run(app, synthetic(tmp_path / "here.ome.zarr", "--backend", "nobody"))
    assert result.exit_code == 1
    assert "recording" not in result.output


def test_a_second_run_leaves_the_first_one_alone(tmp_path: Path) -> None:
    for _ in range(2):
        assert run(app, synthetic(tmp_path / "here.ome.zarr", "--layout", "image")).exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "here.ome.zarr",
        "here_1.ome.zarr",
        "here_1_contact_sheet.png",
        "here_contact_sheet.png",
    ]


def test_a_codec_and_a_backend_can_be_chosen(tmp_path: Path) -> None:
    path = tmp_path / "here.ome.zarr"
    result = run(app, synthetic(path, "--codec", "blosc-lz4", "--backend", "inplace", "--layout", "image"))
    assert result.exit_code == 0, result.output
    assert "blosc" in (path / "0" / "zarr.json").read_text()


def test_a_frame_that_reads_otherwise_is_reported_and_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = iter(range(1000))

    def wrong_at_7(frame: np.ndarray) -> int:
        return 0 if next(frames) == 7 else checksum(frame)

    monkeypatch.setattr(demo, "checksum", wrong_at_7)
    result = run(app, synthetic(tmp_path / "here.ome.zarr", "--layout", "image"))
    assert result.exit_code == 1
    assert "1 of 10 frames are not as they were recorded" in result.output
    assert "frames 7" in result.output


def test_one_changed_pixel_on_disk_is_found(tmp_path: Path) -> None:
    camera = demo.SyntheticSource()
    settings = demo.demo_settings(
        demo.DemoOptions(layout=demo.Layout.IMAGE, frames=10, output=tmp_path / "a.ome.zarr"), camera.frame_shape, 1.0
    )
    checksums: dict[int, int] = {}
    with demo.open_stream(settings) as stream:

        def take(frame: np.ndarray, index: object, metadata: object) -> None:
            checksums[len(checksums)] = checksum(frame)
            stream.append(frame)

        camera.record(settings, take)
    shard = next(
        path for path in (tmp_path / "a.ome.zarr" / "0").rglob("*") if path.is_file() and path.name != "zarr.json"
    )
    frame_bytes = 2 * 512 * 512
    with shard.open("r+b") as file:
        file.seek(3 * frame_bytes + 100)
        file.write(bytes([file.read(1)[0] ^ 1]))
    reader = open_reader(stream.plan, ())
    assert reader is not None
    result = compare(stream.plan, checksums, reader.read)
    assert result.n_frames == 10
    assert len(result.different) == 1


def test_the_reader_is_another_library_than_the_writer(tmp_path: Path) -> None:
    settings = demo.demo_settings(demo.DemoOptions(output=tmp_path / "a.ome.zarr"), (512, 512), 1.0)
    plan = settings.plan()
    by_zarr, by_tensorstore = open_reader(plan, ("tensorstore",)), open_reader(plan, ("zarr", "zarrs"))
    assert by_zarr is not None
    assert by_tensorstore is not None
    assert by_zarr.library.startswith("zarr-python")
    assert by_tensorstore.library.startswith("tensorstore")
    assert by_zarr.other
    assert by_tensorstore.other


def test_frames_out_of_place_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = demo.SyntheticSource.record

    def shuffled(self: demo.SyntheticSource, settings: object, take: demo.TakeFrame) -> None:
        record(self, settings, lambda frame, index, metadata: take(frame, {**index, "z": 4 - index["z"]}, metadata))  # type: ignore[arg-type]

    monkeypatch.setattr(demo.SyntheticSource, "record", shuffled)
    path = tmp_path / "here.ome.zarr"
    result = run(app, synthetic(path))
    assert result.exit_code == 1
    assert "The camera sent frame 0" in result.output
    assert attributes(path)["scopestream"]["status"] == "incomplete"


def test_a_missing_demo_camera_names_the_extra_and_the_way_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pymmcore_plus", None)
    result = run(app, ["demo", "--output", str(tmp_path / "here.ome.zarr")], env={"COLUMNS": "300"})
    assert result.exit_code == 1
    assert "pip install 'scopestream[demo]'" in result.output
    assert "--camera synthetic" in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(importlib.util.find_spec("pymmcore_plus") is None, reason="the extra demo is not installed")
def test_the_real_demo_camera_is_recorded_with_its_metadata(tmp_path: Path) -> None:
    # In a process of its own: the core of Micro-Manager has threads that outlive a test.
    command = [sys.executable, "-m", "scopestream", "demo", "--frames", "40", "--output", "real.ome.zarr"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All 40 frames are bit for bit what the camera sent" in done.stdout
    path = tmp_path / "real.ome.zarr"
    records = sorted(read_frames(path), key=lambda record: record["frame"])
    assert len(records) == 40
    first, last = records[0]["metadata"], records[-1]["metadata"]
    assert [first[name] for name in ("exposure_time", "position_z")] == [0.01, -2.5]
    assert last["exposure_time"] == 0.02
    assert last["position_x"] == pytest.approx(255, abs=0.1)  # the second position, after one step of drift
    assert 1.0 <= last["delta_t"] < 20
    assert 'PositionXUnit="µm"' in (path / "OME" / "METADATA.ome.xml").read_text(encoding="utf-8")


class TestSyntheticCamera:
    camera = SyntheticCamera((128, 128), {"p": 2, "c": 2, "z": 3}, seed=1)

    def test_the_same_seed_and_place_give_the_same_frame(self) -> None:
        again = SyntheticCamera((128, 128), {"p": 2, "c": 2, "z": 3}, seed=1)
        np.testing.assert_array_equal(self.camera.frame(t=3, c=1), again.frame(t=3, c=1))
        assert (self.camera.frame() != SyntheticCamera((128, 128), {"c": 2, "z": 3}, seed=2).frame()).any()

    @pytest.mark.parametrize("axis", ["t", "p", "c", "z"])
    def test_every_axis_changes_the_picture_and_not_only_the_noise(self, axis: str) -> None:
        change = self.camera.frame(**{axis: 1}).astype(float) - self.camera.frame()
        assert np.abs(change).max() > 200

    def test_counts_are_realistic_and_their_noise_is_that_of_photons(self) -> None:
        frame = SyntheticCamera((512, 512), {}).frame()
        assert frame.dtype == np.uint16
        assert frame.max() > 5 * BACKGROUND
        left, middle, right = (frame[:, i : 510 + i].astype(float) for i in range(3))
        # The square of a normal number, wherever the blobs are nearly straight over three pixels.
        spread = (left - 2 * middle + right) ** 2 / (2 * (left + middle + right))
        assert np.median(spread) == pytest.approx(0.455, rel=0.05)
