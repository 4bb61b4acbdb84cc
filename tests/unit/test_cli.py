"""`scopestream plan`, `info` and `backends`: what they say, and that nothing makes them crash."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from scopestream import AcquisitionSettings, cli, open_stream
from scopestream.cli import app
from scopestream.errors import BackendNotFoundError
from scopestream.registry import backend_names

POSITIONS = [{"name": "left", "x": 0.0, "y": 0.0}, {"name": "right", "x": 250.0, "y": 0.0}]


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})


def one_line(result: Any) -> str:
    return " ".join(result.output.split())


def settings(path: Path, **changes: Any) -> AcquisitionSettings:
    dimensions = [
        {"name": "t", "count": 3, "scale": 0.5, "unit": "s"},
        {"name": "p", "coords": POSITIONS},
        {"name": "c", "coords": [{"name": "DAPI", "color": "blue"}, "GFP"]},
        {"name": "y", "count": 64, "scale": 0.1, "unit": "um"},
        {"name": "x", "count": 32, "scale": 0.1, "unit": "um"},
    ]
    return AcquisitionSettings.model_validate({"path": path, "dtype": "uint16", "dimensions": dimensions, **changes})


def record(path: Path, **changes: Any) -> Path:
    plan = settings(path, **changes)
    with open_stream(plan) as stream:
        for number in range(12):
            stream.append(np.full((64, 32), number + 1, plan.dtype))
    return path


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return record(tmp_path / "a.ome.zarr")


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((path / "zarr.json").read_text())
    edit(document)
    (path / "zarr.json").write_text(json.dumps(document))


class TestPlan:
    @pytest.mark.parametrize("form", ["yaml", "json"])
    def test_the_layout_of_a_file_is_printed_and_nothing_written(self, tmp_path: Path, form: str) -> None:
        plan = settings(tmp_path / "a.ome.zarr")
        file = tmp_path / f"settings.{form}"
        file.write_text(plan.to_yaml() if form == "yaml" else plan.model_dump_json())
        result = run("plan", file)
        assert result.exit_code == 0, result.output
        assert "kind bioformats2raw images 2 (left ... right)" in one_line(result)
        assert "shape t=3 c=2 y=64 x=32 uint16" in one_line(result)
        assert "peak memory, inplace" in result.output
        assert not (tmp_path / "a.ome.zarr").exists()

    def test_every_mistake_is_one_line_without_a_traceback(self, tmp_path: Path) -> None:
        file = tmp_path / "settings.yaml"
        file.write_text(
            "path: a.ome.zarr\ndtype: complex64\ncodec: lzma\ncolour: red\n"
            "dimensions: [{name: t, count: 3}, {name: y, count: 8, scale: -1, unit: um}, {name: x, count: 8}]\n"
        )
        result = run("plan", file)
        assert result.exit_code == 2
        lines = [line for line in result.output.splitlines() if line.startswith("  - ")]
        assert len(lines) == 4
        for mistake in ("dtype 'complex64'", "dimensions.1.scale: ", "codec.name: ", "colour: "):
            assert any(mistake in line for line in lines), mistake
        assert "Traceback" not in result.output
        assert "pydantic.dev" not in result.output

    def test_settings_that_no_backend_can_write_are_refused_with_the_reason(self, tmp_path: Path) -> None:
        file = tmp_path / "settings.yaml"
        file.write_text(settings(tmp_path / "a.ome.zarr", memory_limit=100).to_yaml())
        result = run("plan", file)
        assert result.exit_code == 1
        assert "memory_limit" in result.output

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"a: [", "neither YAML nor JSON"),
            (b"- 1", "valid dictionary"),
            (b"", "valid dictionary"),
            (b"\xff\xfe\x00", "not text in UTF-8"),
            (b"a: \x07", "neither YAML nor JSON"),
            (b"[" * 100_000, "neither YAML nor JSON"),
        ],
    )
    def test_a_file_that_is_no_settings_file_is_called_that(self, tmp_path: Path, content: bytes, words: str) -> None:
        (tmp_path / "bad.yaml").write_bytes(content)
        result = run("plan", tmp_path / "bad.yaml")
        assert result.exit_code == 2
        assert words in one_line(result)

    def test_a_missing_file_is_called_missing(self, tmp_path: Path) -> None:
        result = run("plan", tmp_path / "none.yaml")
        assert result.exit_code == 2
        assert "No such file" in one_line(result)


class TestInfo:
    def test_positions_are_listed_with_shapes_axes_channels_and_log(self, dataset: Path) -> None:
        result = run("info", dataset)
        assert result.exit_code == 0, result.output
        said = one_line(result)
        assert "kind bioformats2raw OME-Zarr 0.5 status complete: 12 written" in said
        assert "frame log 12 written" in said
        for row in ("0 left 3x2x64x32 uint16 1x1x64x32", "1 right 3x2x64x32 uint16 1x1x64x32"):
            assert row in said
        assert re.search(r"recorded in \d+\.\d s, \d+\.\d MB/s, append p99 .* ms, queue at most \d", said)
        assert "t time 3 0.5 s 0 s 1.5 s" in said
        assert "y space 64 0.1 µm 0 µm 6.4 µm" in said
        assert "DAPI ■ #0000ff" in said

    def test_levels_codec_and_missing_shards_are_shown(self, tmp_path: Path) -> None:
        result = run("info", record(tmp_path / "a.ome.zarr", codec="blosc-lz4", shards=None, levels=2))
        assert result.exit_code == 0
        assert "none blosc-lz4 level 5 2: 64x32, 32x16" in one_line(result)

    def test_a_plate_counts_its_wells_and_the_images_that_are_not_shown(self, tmp_path: Path) -> None:
        coords = [
            {"name": f"B{well}-{field}", "row": "B", "column": str(well)} for well in (2, 3, 4) for field in (0, 1)
        ]
        dimensions = [
            {"name": "p", "coords": coords},
            {"name": "t", "count": 2},
            *({"name": n, "count": 64} for n in "yx"),
        ]
        plate = {"rows": ["A", "B"], "columns": list("1234"), "name": "my plate"}
        plan = settings(tmp_path / "plate.ome.zarr", dimensions=dimensions, plate=plate)
        with open_stream(plan) as stream:
            stream.append(np.zeros((64, 64), np.uint16))
        result = run("info", tmp_path / "plate.ome.zarr", "--images", 4)
        assert result.exit_code == 0, result.output
        said = one_line(result)
        assert "kind plate OME-Zarr 0.5 name my plate status incomplete: 1 written" in said
        assert "wells 3 images 6" in said
        assert "B/3/1" in said
        assert "B/4/0" not in said
        assert "and 2 more" in said

    def test_a_dataset_that_is_being_recorded_can_be_looked_at(self, tmp_path: Path) -> None:
        with open_stream(settings(tmp_path / "a.ome.zarr")) as stream:
            stream.append(np.zeros((64, 32), np.uint16))
            stream.skip(2, reason="focus")
            stream.flush()
            result = run("info", tmp_path / "a.ome.zarr")
        assert result.exit_code == 0, result.output
        assert "status recording" in one_line(result)
        assert "1 written" in one_line(result)
        assert "2 skipped" in one_line(result)

    def test_a_dataset_of_another_program_needs_nothing_of_ours(self, dataset: Path) -> None:
        image = dataset / "0"
        change(image, lambda document: document["attributes"]["ome"].pop("omero"))
        result = run("info", image)
        assert result.exit_code == 0, result.output
        said = one_line(result)
        assert "kind image" in said
        assert "status" not in said
        assert "frame log" not in said

    def test_a_log_that_a_kill_cut_off_is_no_damage_and_garbage_is(self, dataset: Path) -> None:
        log = dataset / "scopestream" / "frames.jsonl"
        with log.open("ab") as lines:
            lines.write(b'{"frame":12,"ima')
        result = run("info", dataset)
        assert result.exit_code == 0
        assert "12 written, 1 cut off" in one_line(result)
        log.write_bytes(b"[]\n\xff\n{}\n")
        result = run("info", dataset)
        assert result.exit_code == 1
        assert "3 lines that are not records" in one_line(result)

    @pytest.mark.parametrize(
        ("edit", "words"),
        [
            (lambda d: d["attributes"].pop("ome"), "no attributes.ome"),
            (lambda d: d.update(zarr_format=2), "zarr_format 2, not 3"),
            (lambda d: d.update(node_type="array"), "single Zarr array"),
            (lambda d: d["attributes"]["ome"].update(multiscales=[7]), "multiscales"),
            (lambda d: d["attributes"]["ome"]["multiscales"][0].update(axes="tcyx"), "axes"),
            (lambda d: d["attributes"]["ome"]["multiscales"][0]["datasets"][0].update(path="../1/0"), "not lie inside"),
            (lambda d: d["attributes"]["ome"]["multiscales"][0]["datasets"][0].update(path="9"), "missing"),
            (lambda d: d["attributes"]["ome"]["multiscales"][0]["axes"].pop(), "3 axes, but the array has 4"),
            (lambda d: d["attributes"]["ome"].pop("multiscales"), "there is no image in it"),
        ],
    )
    def test_what_is_wrong_is_said_without_a_traceback(
        self, dataset: Path, edit: Callable[[dict[str, Any]], object], words: str
    ) -> None:
        change(dataset / "0", edit)
        result = run("info", dataset / "0")
        assert result.exit_code == 1
        assert isinstance(result.exception, SystemExit)
        assert words in one_line(result)

    @pytest.mark.parametrize(
        "content", [b"", b"[]", b"nul", b"\xff", b"{" * 100_000, b'{"zarr_format": ' + b"9" * 5000 + b"}"]
    )
    def test_a_document_that_is_no_document_is_called_that(self, dataset: Path, content: bytes) -> None:
        (dataset / "zarr.json").write_bytes(content)
        result = run("info", dataset)
        assert result.exit_code == 1
        assert isinstance(result.exception, SystemExit)
        assert "zarr.json" in result.output

    def test_statistics_that_are_none_are_left_out(self, dataset: Path) -> None:
        statistics = {"seconds": 12, "mb_per_s": "fast", "queue_peak": float("nan"), "other": 1}
        change(dataset, lambda d: d["attributes"]["scopestream"].update(statistics=statistics))
        result = run("info", dataset)
        assert result.exit_code == 0, result.output
        assert "recorded in 12.0 s written by" in one_line(result)

    def test_names_cannot_control_the_terminal_or_the_tables(self, dataset: Path) -> None:
        hostile = "\x1b[31m[/] [red]\u202e" + "x" * 5000
        change(dataset / "0", lambda d: d["attributes"]["ome"]["multiscales"][0].update(name=hostile))
        change(dataset / "0", lambda d: d["attributes"]["ome"]["omero"]["channels"][0].update(label=hostile))
        result = run("info", dataset)
        assert result.exit_code == 0, result.output
        assert "\x1b" not in result.output
        assert "\u202e" not in result.output
        assert len(result.output) < 10_000

    @pytest.mark.parametrize("damage", ["missing image", "no series"])
    def test_one_broken_image_does_not_hide_the_others(self, dataset: Path, damage: str) -> None:
        (dataset / ("0" if damage == "missing image" else "OME") / "zarr.json").unlink()
        result = run("info", dataset)
        assert "1 right 3x2x64x32" in one_line(result)
        assert result.exit_code == (1 if damage == "missing image" else 0)

    def test_paths_without_a_dataset_are_called_that(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        (tmp_path / "v2").mkdir()
        (tmp_path / "v2" / ".zattrs").write_text("{}")
        said = {name: run("info", tmp_path / name) for name in ("none", "file", "v2", "")}
        assert {result.exit_code for result in said.values()} == {1}
        for name, words in {"none": "nothing at", "file": "is a file", "v2": "Zarr v2", "": "no zarr.json"}.items():
            assert words in one_line(said[name])

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
    def test_a_pipe_in_place_of_a_document_does_not_hang(self, dataset: Path) -> None:
        (dataset / "0" / "zarr.json").unlink()
        os.mkfifo(dataset / "0" / "zarr.json")
        result = run("info", dataset)
        assert result.exit_code == 1
        assert "is not a file" in one_line(result)


class TestBackends:
    def test_every_registered_backend_has_a_row(self) -> None:
        result = run("backends")
        assert result.exit_code == 0, result.output
        rows = {line.split()[0]: line for line in result.output.splitlines() if line.strip()}
        assert set(backend_names()) <= rows.keys()
        assert rows["inplace"].split()[1:6] == ["yes", "tiled", "frame", "yes", "yes"]
        assert "pip install 'scopestream[EXTRA]'" in one_line(result)

    def test_one_that_cannot_load_is_a_row_with_the_reason(self, monkeypatch: pytest.MonkeyPatch) -> None:
        load = cli.load_backend

        def load_or_not(name: str) -> Any:
            if name == "tensorstore":
                raise BackendNotFoundError("Backend 'tensorstore' cannot be loaded") from ImportError("no such planet")
            return load(name)

        monkeypatch.setattr(cli, "load_backend", load_or_not)
        result = run("backends")
        assert result.exit_code == 0
        row = next(line for line in result.output.splitlines() if line.startswith("tensorstore"))
        assert "broken" in row
        assert "no such planet" in row

    def test_one_without_its_library_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            cli, "missing_library", lambda backend: "not installed" if backend.name == "zarrs" else None
        )
        row = next(line for line in run("backends").output.splitlines() if line.startswith("zarrs"))
        assert row.split()[1] == "no"
        assert row.split()[-1] == "zarrs"


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "code", "words"),
        [
            (["--backend", "nope"], 1, "no backend 'nope'"),
            (["--codec", "lzma"], 2, "codec.name"),
            (["--frames", "0"], 2, "frames"),
            (["--layout", "cube"], 2, "layout"),
        ],
    )
    def test_wrong_options_of_the_demo_are_short_red_messages(
        self, tmp_path: Path, arguments: list[str], code: int, words: str
    ) -> None:
        result = run("demo", "--camera", "synthetic", "--output", tmp_path / "a.ome.zarr", *arguments)
        assert result.exit_code == code
        assert words in one_line(result)
        assert "Traceback" not in result.output
        assert not list(tmp_path.iterdir())

    def test_the_package_runs_as_a_module(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "scopestream", "--help"], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0
        assert "backends" in done.stdout
