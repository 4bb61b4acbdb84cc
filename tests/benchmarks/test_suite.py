"""The benchmark suite: every case on every runner gives a row or a reason, and rows give tables and pictures."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import __main__ as command
from benchmarks.cases import CASES, Case
from benchmarks.geometry import Geometry
from benchmarks.measure import measure
from benchmarks.plots import draw
from benchmarks.report import with_results
from benchmarks.runners import RUNNERS, Session
from benchmarks.tables import by_case, case_table
from scopestream import AcquisitionSettings
from scopestream.bench.camera import Frames
from scopestream.route import Route

ROOT = Path(__file__).resolve().parents[2]
PAGE = (
    "# Title\n\n<!-- results: made by python -m benchmarks.report -->\nNothing yet.\n<!-- end of results -->\n\nend\n"
)
NUMBERS = ("gb_per_s", "append_p50_ms", "append_p99_ms", "append_max_ms", "open_s", "close_s", "peak_mib", "n_files")


def tiny(case: Case) -> Case:
    """The same shape of acquisition with few frames of few pixels."""
    by = 32 if case.frame[0] > 512 else 8
    pixels = {axis: size // by for axis, size in case.chunk.items() if axis in "yx"}
    wanted = {"t": 12, "p": 3, "z": 4, "c": 2}
    if len(case.loop) > 1:
        wanted["t"] = 2
    return replace(
        case,
        frame=(case.frame[0] // by, case.frame[1] // by),
        loop=tuple((name, min(count, wanted[name])) for name, count in case.loop),
        chunk={axis: min(size, 4) for axis, size in case.chunk.items()} | pixels,
        shard=None if case.shard is None else {axis: min(size, 4) for axis, size in case.shard.items()},
    )


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("case", CASES)
def test_every_case_on_every_runner_is_measured_or_refused_with_a_reason(
    case: str, runner: str, tmp_path: Path
) -> None:
    row = json.loads(json.dumps(measure(tiny(CASES[case]), RUNNERS[runner], tmp_path, max_s=20)))
    assert not list(tmp_path.iterdir())
    if "refused" in row:
        assert len(row["refused"]) > 10
        return
    assert row["frames"] == tiny(CASES[case]).n_frames
    assert all(math.isfinite(row[name]) for name in NUMBERS)
    assert row["verified_frames"] == 0 if row["kind"] == "limit" else row["verified_frames"] >= 2


@pytest.mark.parametrize("name", CASES)
def test_shapes_and_places_are_those_of_the_plan(name: str, tmp_path: Path) -> None:
    """The geometry that the check goes by is worked out apart from scopestream, and must agree with it."""
    case, geometry = CASES[name], Geometry(CASES[name])
    plan = AcquisitionSettings(**case.settings(str(tmp_path / "a.ome.zarr"), "inplace", case.memory_limit)).plan()
    array, route = plan.arrays[0], Route(plan)
    assert (array.axes, array.chunks, array.shards) == (geometry.axes, geometry.chunk, geometry.shard)
    assert array.shape[array.growable :] == geometry.shape[array.growable :]
    assert len(plan.images) == geometry.n_images
    for number in {0, 1, 7, case.n_frames // 3, case.n_frames - 1}:
        assert route.locate(number) == geometry.locate(number)


def test_a_run_that_reaches_its_deadline_counts_what_it_took(tmp_path: Path) -> None:
    row = measure(tiny(CASES["tiles"]), RUNNERS["scopestream/inplace"], tmp_path, max_s=0.0)
    assert row["cut_short"]
    assert row["frames"] == 1
    assert row["verified_frames"] == 1


def test_a_writer_that_stores_something_else_is_found_out(tmp_path: Path) -> None:
    inplace = RUNNERS["scopestream/inplace"]

    def open_liar(case: Case, folder: Path, frames: Frames) -> Session:
        session = inplace.open(case, folder, frames)
        return replace(session, append=lambda frame: session.append(frame + 1))

    row = measure(tiny(CASES["tiles"]), replace(inplace, open=open_liar), tmp_path, max_s=20)
    assert row["verified_frames"].startswith("WRONG")
    assert case_table("tiles", {"scopestream/inplace": [row]}).lines[0][-1] == "WRONG"


def test_the_command_measures_in_processes_and_the_report_shows_it(tmp_path: Path) -> None:
    results, page = tmp_path / "results.jsonl", tmp_path / "page.md"
    page.write_text(PAGE)
    runners = ("codec", "scopestream/inplace")
    options = [part for runner in runners for part in ("--runner", runner)]
    where = ("--folder", tmp_path, "--output", results)
    said = _run("benchmarks", "million", "--repeats", "1", "--scale", "0.0001", *where, *options)
    assert "first tenth" in said
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert rows[0]["command"].startswith("python -m benchmarks million")
    assert [row["runner"] for row in rows[1:]] == ["raw", *runners]
    _run("benchmarks.report", results, "--page", page, "--images", tmp_path / "images")
    text = page.read_text()
    assert "Nothing yet" not in text
    assert text.endswith("<!-- end of results -->\n\nend\n")
    assert "| scopestream/inplace | " in text
    for name in ("rates", "latency", "memory"):
        assert f"](images/{name}.png)" in text
        with Image.open(tmp_path / "images" / f"{name}.png") as picture:
            assert min(picture.size) > 200


def test_measuring_needs_no_tools_of_the_tests() -> None:
    tools = ("pytest", "hypothesis", "filelock", "tests")
    without = f"import sys; sys.modules.update(dict.fromkeys({tools}))"
    modules = "benchmarks.__main__, benchmarks.measure, benchmarks.verify, benchmarks.report, benchmarks.runners"
    subprocess.run([sys.executable, "-c", f"{without}; import {modules}"], cwd=ROOT, check=True, timeout=100)


def test_a_run_that_hangs_is_killed_and_called_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "PREPARING_S", 1.5)
    row = command.run_apart(CASES["sustained"], "raw", tmp_path, 1.0, 0.0)
    assert row == {"case": "sustained", "runner": "raw", "kind": "limit", "failed": "not done in 1.5 s"}
    assert not list(tmp_path.iterdir())


def test_a_run_that_crashes_is_a_row_with_its_last_words(tmp_path: Path) -> None:
    row = command.run_apart(replace(CASES["tiles"], name="nope"), "raw", tmp_path, 1.0, 1.0)
    assert row["failed"] == "exit code 1: KeyError: 'nope'"


def test_pictures_show_every_case_whatever_was_refused_or_failed(tmp_path: Path) -> None:
    good = [measure(tiny(CASES[case]), RUNNERS["raw"], tmp_path, max_s=20) for case in ("tiles", "plate", "pyramid")]
    other = {"case": "tiles", "kind": "ours"}
    bad = [{**other, "runner": "a", "refused": "it cannot"}, {**other, "runner": "b", "failed": "not done in 60 s"}]
    runs = by_case([*good, *bad])
    assert [path.name for path in draw(runs, tmp_path / "images")] == ["rates.png", "latency.png", "memory.png"]
    table = case_table("tiles", runs["tiles"])
    assert [line[:2] for line in table.lines[1:]] == [("a", "refused"), ("b", "failed")]
    assert table.notes == ["a: refused: it cannot.", "b: failed: not done in 60 s."]


def test_a_page_without_marks_is_left_alone() -> None:
    with pytest.raises(ValueError, match="no lines"):
        with_results("# A page", "tables")


@pytest.mark.parametrize(
    ("arguments", "words"), [(["nope"], "no case nope"), (["tiles", "--runner", "nope"], "no runner nope")]
)
def test_unknown_names_are_refused_before_anything_runs(arguments: list[str], words: str, tmp_path: Path) -> None:
    said = _run("benchmarks", *arguments, "--output", tmp_path / "results.jsonl", code=2)
    assert words in " ".join(said.split())
    assert not list(tmp_path.iterdir())


def _run(module: str, *arguments: object, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=100,
        env={**os.environ, "COLUMNS": "170"},
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr
