"""`scopestream bench`: what it measures, what it advises, and that nothing of it stays on the disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from scopestream import AcquisitionSettings
from scopestream.bench.advice import advice, ranked
from scopestream.bench.camera import BenchError, Camera, noisy_frames, parse_camera
from scopestream.bench.timing import flat_out, paced
from scopestream.bench.trials import Candidate, Pace, Trial, candidates
from scopestream.cli import app

CAMERA = Camera(32, 64, 100.0)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["bench", *map(str, arguments)], env={"COLUMNS": "160"})


def one_line(result: Any) -> str:
    return " ".join(result.output.split())


def trial(backend: str, margin: float, *, late: int = 0, stored: float = 1.0, codec: str = "none") -> Trial:
    pace = Pace(append_p50_ms=1, append_p99_ms=2, append_max_ms=3, queue_peak=1, n_late=late, behind=late)
    return Trial(
        candidate=Candidate(backend=backend, codec=codec, shard_frames=8), shard_frames=8,
        bytes_per_s=margin * CAMERA.bytes_per_s, margin=margin, stored=stored, pace=pace if margin >= 1 else None,
    )  # fmt: skip


class Recorder:
    """Takes frames, each for `delay_s`."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.frames: list[np.ndarray] = []
        self.closed = False
        self._delay_s = delay_s

    def append(self, frame: np.ndarray, /) -> None:
        self.frames.append(frame)
        sleep(self._delay_s)

    def close(self) -> None:
        self.closed = True


class TestCamera:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("2048x1024@100", Camera(1024, 2048, 100.0)),
            (" 64 X 32 @ 12.5 fps", Camera(32, 64, 12.5)),
            ("64\u00d732@1e", None),
            ("2048", None),
            ("2048x2048", None),
            ("2048x2048@", None),
            ("2048x2048@0", None),
            ("0x2048@10", None),
            ("-1x5@10", None),
            ("99999x5@10", None),
            ("5x5@9999999", None),
            ("", None),
        ],
    )
    def test_width_height_and_rate_are_read_or_refused(self, text: str, expected: Camera | None) -> None:
        if expected is None:
            with pytest.raises(BenchError, match="--camera"):
                parse_camera(text)
        else:
            assert parse_camera(text) == expected

    def test_a_refusal_shows_what_is_meant(self) -> None:
        with pytest.raises(BenchError, match=r"WIDTHxHEIGHT@FRAMES_PER_SECOND.*2048x2048@100"):
            parse_camera("2048")

    def test_a_dtype_that_no_camera_has_is_refused(self) -> None:
        with pytest.raises(BenchError, match="complex64"):
            parse_camera("64x32@10", "complex64")

    @pytest.mark.parametrize(("dtype", "least", "most"), [("uint8", 10, 255), ("uint16", 100, 4095)])
    def test_frames_are_noisy_and_of_the_bits_that_a_camera_has(self, dtype: str, least: int, most: int) -> None:
        frames = noisy_frames((32, 64), dtype)
        assert {(frame.shape, frame.dtype.name) for frame in frames} == {((32, 64), dtype)}
        assert all(frame.min() >= least and frame.max() <= most and frame.std() > 3 for frame in frames)
        assert len({frame.tobytes() for frame in frames}) == len(frames)


class TestTiming:
    def test_flat_out_sends_frames_over_and_over_and_closes(self) -> None:
        recorder, frames = Recorder(), noisy_frames((4, 4), n_frames=3)
        timing = flat_out(recorder, frames, 7, max_s=60)
        assert [id(frame) for frame in recorder.frames] == [id(frames[number % 3]) for number in range(7)]
        assert timing.n_frames == 7
        assert recorder.closed

    def test_flat_out_stops_when_its_time_is_over(self) -> None:
        timing = flat_out(Recorder(0.01), noisy_frames((4, 4)), 10_000, max_s=0.05)
        assert 1 <= timing.n_frames < 10_000

    def test_an_error_of_append_is_raised_after_closing(self) -> None:
        recorder = Recorder()
        recorder.append = lambda frame: 1 / 0  # type: ignore[assignment, method-assign]
        with pytest.raises(ZeroDivisionError):
            flat_out(recorder, noisy_frames((4, 4)), 3, max_s=60)
        assert recorder.closed

    def test_a_recorder_that_takes_longer_than_a_period_gets_later_and_later(self) -> None:
        timing = paced(Recorder(0.02), noisy_frames((4, 4)), frames_per_s=100, max_s=0.1)
        assert timing.n_frames == 10
        assert (np.diff(timing.late_s) > 0).all()
        assert timing.late_s[-1] > 0.05


class TestAdvice:
    def test_the_largest_margin_without_late_frames_is_recommended(self) -> None:
        trials = [trial("b", 2), trial("a", 3, late=1), trial("c", 1.2), trial("d", 0.5)]
        sentence, lines = advice(trials, CAMERA, disk_bytes_per_s=1e12)
        assert sentence.startswith("Use 'b' with codec 'none' and shards of 8 frames: it takes 2.0 times")
        assert lines == "backend: b\ncodec: none\nshards: {t: 8}"
        assert [one.candidate.backend for one in ranked(trials)] == ["a", "b", "c", "d"]

    def test_a_small_margin_is_called_tight(self) -> None:
        assert "tight" in advice([trial("a", 1.1)], CAMERA, 1e12)[0]

    def test_where_the_disk_is_too_slow_what_stores_least_is_recommended(self) -> None:
        trials = [trial("a", 9), trial("a", 4, stored=0.5, codec="blosc-lz4"), trial("a", 1.1, stored=0.4)]
        sentence, _ = advice(trials, CAMERA, disk_bytes_per_s=0.6 * CAMERA.bytes_per_s)
        assert "'blosc-lz4'" in sentence
        assert "stores 50%" in sentence
        assert "fall behind" not in sentence
        assert "fall behind" in advice(trials, CAMERA, disk_bytes_per_s=0.3 * CAMERA.bytes_per_s)[0]

    @pytest.mark.parametrize(
        ("trials", "words"),
        [
            ([trial("a", 0.5), trial("b", 0.8)], "shards of 8 frames is the fastest, and takes 80 frames/s"),
            ([trial("a", 4, late=9), trial("b", 3, late=2)], "nearest is 'b'"),
            ([Trial(candidate=Candidate(backend="a", codec="none", shard_frames=1), problem="no")], "reasons"),
        ],
    )  # fmt: skip
    def test_when_nothing_keeps_up_it_says_what_is_nearest(self, trials: Sequence[Trial], words: str) -> None:
        sentence, lines = advice(trials, CAMERA, 1e12)
        assert words in sentence
        assert not lines

    @pytest.mark.parametrize("shard_frames", [None, 4])
    def test_lines_to_paste_are_the_settings_that_were_measured(self, shard_frames: int | None, tmp_path: Path) -> None:
        candidate = Candidate(backend="inplace", codec="blosc-lz4", shard_frames=shard_frames)
        measured = candidate.settings(CAMERA, tmp_path / "a.ome.zarr")
        others = measured.model_dump(mode="json", exclude={"backend", "codec", "shards"})
        assert AcquisitionSettings.model_validate({**others, **yaml.safe_load(candidate.yaml())}) == measured


class TestCommand:
    def test_it_tells_what_keeps_up_and_leaves_nothing(self, tmp_path: Path) -> None:
        result = run(
            "--camera", "64x32@50", "--seconds", "0.1", "--folder", tmp_path, "--backend", "inplace",
            "--backend", "tensorstore", "--codec", "none", "--codec", "blosc-lz4", "--shard-frames", 512,
        )  # fmt: skip
        assert isinstance(result.exception, SystemExit | None), result.exception
        said = one_line(result)
        assert "64x32@50 uint16, 0.000205 GB/s" in said
        assert "noisy 12-bit" in said
        rows = [
            line.split()[:3] for line in result.output.splitlines() if line.strip().startswith(("inplace", "tensor"))
        ]
        assert sorted(rows) == [
            [backend, codec, "512"] for backend in ("inplace", "tensorstore") for codec in ("blosc-lz4", "none")
        ]
        assert not list(tmp_path.iterdir())

    def test_what_a_backend_cannot_do_is_said_and_the_others_are_measured(self, tmp_path: Path) -> None:
        result = run("--camera", "64x32@10", "--seconds", "0.1", "--folder", tmp_path, "--codec", "zstd",
                     "--backend", "inplace", "--backend", "acquire-zarr", "--shard-frames", 512)  # fmt: skip
        assert "acquire-zarr, zstd: Backend 'acquire-zarr' cannot write these settings" in one_line(result)
        assert "inplace zstd 512" in one_line(result)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--camera", "2048"], "is not WIDTHxHEIGHT@FRAMES_PER_SECOND"),
            (["--camera", "64x32@10", "--dtype", "nope"], "--dtype 'nope'"),
            (["--camera", "64x32@10", "--backend", "nope"], "no backend 'nope'"),
            (["--camera", "64x32@10", "--codec", "lzma"], "no codec 'lzma'"),
            (["--camera", "64x32@10", "--folder", "/no/such/folder"], "is not a folder"),
            (["--camera", "64x32@10", "--shard-frames", "0"], "shard-frames"),
            (["--camera", "60000x60000@1", "--dtype", "uint32"], "too little space"),
            ([], "--camera"),
        ],
    )
    def test_wrong_options_are_short_messages(
        self, arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        result = run(*arguments)
        assert result.exit_code in (1, 2)
        assert words in one_line(result)
        assert "Traceback" not in result.output
        assert not list(tmp_path.iterdir())

    @pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
    def test_an_interrupt_removes_what_was_written(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "scopestream", "bench", "--camera", "64x32@10", "--seconds", "60",
                   "--backend", "inplace", "--folder", str(tmp_path)]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            end = monotonic() + 60
            while not list(tmp_path.glob("*/*.ome.zarr")) and monotonic() < end:
                sleep(0.02)
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=60)
        assert process.returncode not in (0, None)
        assert "Traceback" not in said
        assert not list(tmp_path.iterdir())


class TestCandidates:
    def test_all_installed_backends_usual_codecs_and_two_sizes_are_tried(self) -> None:
        found = candidates(Camera(2048, 2048, 100.0), (), (), ())
        assert {one.codec for one in found} == {"none", "blosc-lz4", "blosc-zstd"}
        assert {one.shard_frames for one in found} == {None, 8}
        assert "inplace" in {one.backend for one in found}

    def test_what_is_named_is_tried_in_that_order(self) -> None:
        found = candidates(CAMERA, ["inplace"], ["zstd", "none"], [4, 2])
        assert [(one.codec, one.shard_frames) for one in found] == [("zstd", 4), ("zstd", 2), ("none", 4), ("none", 2)]
