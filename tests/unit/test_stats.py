"""What the statistics mean, and the callback that gets them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scopestream.reporter
import scopestream.stats
import scopestream.stream
from scopestream import AcquisitionSettings, FrameMismatchError, Stats, StreamClosedError, WriteError, open_stream
from scopestream.testing.disks import FaultyBackend

Y, X = 24, 40
FRAME = np.ones((Y, X), np.uint16)
HANG_S = 60  # far more than anything here takes


def settings(tmp_path: Path, **fields: Any) -> AcquisitionSettings:
    base: dict[str, Any] = {
        "path": tmp_path / "a.ome.zarr",
        "dtype": "uint16",
        "dimensions": [{"name": "t", "count": None}, {"name": "y", "count": Y}, {"name": "x", "count": X}],
        "backend": "inplace",
    }
    return AcquisitionSettings(**{**base, **fields})


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> int:
        return round(self.now_s * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(scopestream.stats, "perf_counter_ns", clock)
    monkeypatch.setattr(scopestream.stream, "perf_counter_ns", clock)
    return clock


class TestWaiting:
    def test_a_frame_waits_until_the_backend_has_it(self, tmp_path: Path, clock: Clock, faulty: FaultyBackend) -> None:
        with faulty.held(), open_stream(settings(tmp_path, backend="faulty")) as stream:
            assert (stream.stats.frames_waiting, stream.stats.behind_s) == (0, 0)
            stream.append(FRAME)
            clock.now_s += 2
            stream.append(FRAME)
            clock.now_s += 0.5
            assert (stream.stats.frames_waiting, stream.stats.behind_s) == (2, 2.5)
            faulty.release()
            stream.flush()
            assert (stream.stats.frames_waiting, stream.stats.behind_s) == (0, 0)

    def test_the_oldest_frame_counts_in_whatever_order_blocks_are_stored(self, tmp_path: Path, clock: Clock) -> None:
        dimensions = [
            {"name": "c", "count": 2},
            {"name": "t", "count": 2},
            {"name": "y", "count": Y},
            {"name": "x", "count": X},
        ]
        fields = {"dimensions": dimensions, "codec": "zstd", "chunks": {"t": 2, "c": 1}, "shards": {"t": 2, "c": 1}}
        stored = threading.Event()

        def look(stats: Stats) -> None:
            if stats.frames_written:
                stored.set()

        with open_stream(settings(tmp_path, **fields), on_stats=look, stats_interval_s=0.01) as stream:
            stream.write(FRAME, index={"c": 0, "t": 0})  # a block that waits for its second frame
            clock.now_s += 3
            stream.write(FRAME, index={"c": 1, "t": 0})
            stream.write(FRAME, index={"c": 1, "t": 1})
            clock.now_s += 1
            assert stored.wait(HANG_S)
            assert (stream.stats.frames_waiting, stream.stats.behind_s) == (1, 4)
            stream.flush()
            assert (stream.stats.frames_waiting, stream.stats.behind_s) == (0, 0)
            stream.write(FRAME, index={"c": 0, "t": 1})  # the block is stored once more, its first frame counts once
        assert (stream.stats.frames_in, stream.stats.frames_written) == (4, 4)

    def test_a_frame_that_failed_waits_no_more(self, tmp_path: Path, faulty: FaultyBackend) -> None:
        stream = open_stream(settings(tmp_path, backend="faulty"))
        faulty.error = OSError(28, "No space left on device")
        stream.append(FRAME)
        with pytest.raises(WriteError):
            stream.close()
        stats = stream.stats
        assert (stats.frames_in, stats.frames_failed, stats.frames_waiting, stats.behind_s) == (1, 1, 0, 0)

    def test_a_frame_that_could_not_be_logged_has_failed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*args: Any) -> None:
            raise OSError(28, "No space left on device")

        stream = open_stream(settings(tmp_path))
        monkeypatch.setattr(stream._delivery._log, "add", full)
        stream.append(FRAME)
        with pytest.raises(WriteError, match="0 of 1 accepted frames are safe, 1 could not be stored"):
            stream.close()
        assert stream.stats.frames_waiting == 0


class TestRates:
    def test_they_are_those_of_the_last_second_and_of_all_the_time(self, tmp_path: Path, clock: Clock) -> None:
        with open_stream(settings(tmp_path)) as stream:
            for fps in (100, 10):
                for _ in range(3 * fps):
                    stream.append(FRAME)
                    clock.now_s += 1 / fps
            stats = stream.stats
        assert stats.seconds == pytest.approx(6)
        assert stats.frames_per_s == pytest.approx(55)
        assert stats.mb_per_s == pytest.approx(55 * FRAME.nbytes / 1e6)
        # The window is not a whole number of frames.
        assert stats.recent_frames_per_s == pytest.approx(10, rel=0.1)
        assert stats.recent_mb_per_s == pytest.approx(stats.recent_frames_per_s * FRAME.nbytes / 1e6)

    def test_what_is_written_has_a_rate_of_its_own(self, tmp_path: Path, clock: Clock, faulty: FaultyBackend) -> None:
        with faulty.held(), open_stream(settings(tmp_path, backend="faulty")) as stream:
            for _ in range(20):
                stream.append(FRAME)
            clock.now_s += 5
            assert stream.stats.recent_written_mb_per_s == 0
            assert stream.stats.recent_frames_per_s == 0
            assert stream.stats.frames_per_s == 4
            faulty.release()
            stream.flush()
            stats = stream.stats
        assert stats.recent_frames_per_s == 0
        assert stats.recent_written_mb_per_s == pytest.approx(20 * FRAME.nbytes / 1e6, rel=0.1)
        assert stats.written_mb_per_s == pytest.approx(4 * FRAME.nbytes / 1e6)

    def test_a_pause_ends_them_and_frames_after_it_count_from_the_start_of_the_second(
        self, tmp_path: Path, clock: Clock
    ) -> None:
        with open_stream(settings(tmp_path)) as stream:
            stream.append(FRAME)
            clock.now_s += 100
            assert stream.stats.recent_frames_per_s == 0
            for _ in range(5):
                stream.append(FRAME)
            assert stream.stats.recent_frames_per_s == pytest.approx(5, rel=0.1)
            clock.now_s += 0.9
            assert stream.stats.recent_frames_per_s == pytest.approx(5, rel=0.1)
            clock.now_s += 0.2
            assert stream.stats.recent_frames_per_s == 0

    def test_a_stream_that_is_younger_than_a_second_has_them_too(self, tmp_path: Path, clock: Clock) -> None:
        with open_stream(settings(tmp_path)) as stream:
            assert stream.stats.recent_frames_per_s == 0
            stream.append(FRAME)
            assert stream.stats.recent_frames_per_s == 10  # the least time that is looked at is a tenth of a second
            clock.now_s += 0.5
            stream.append(FRAME)
            assert stream.stats.recent_frames_per_s == pytest.approx(4)

    def test_after_close_nothing_flows_and_the_clock_stands_still(self, tmp_path: Path, clock: Clock) -> None:
        with open_stream(settings(tmp_path)) as stream:
            stream.append(FRAME)
            clock.now_s += 0.5
        stats = stream.stats
        clock.now_s += 5
        assert stream.stats == stats
        assert stats.seconds == 0.5
        assert stats.frames_per_s == 2
        assert (stats.recent_frames_per_s, stats.recent_mb_per_s, stats.recent_written_mb_per_s) == (0, 0, 0)


class TestLatencies:
    def test_the_histogram_counts_every_call_that_was_taken(self, tmp_path: Path, clock: Clock) -> None:
        times_s = [0.001] * 97 + [0.01, 0.02, 0.5]
        with open_stream(settings(tmp_path)) as stream:
            put = stream._intake.put

            def slow_put(*args: Any) -> None:
                put(*args)
                clock.now_s += times_s[stream.stats.frames_in - 1]

            stream._intake.put = slow_put  # type: ignore[method-assign]
            for _ in times_s:
                stream.append(FRAME)
            with pytest.raises(FrameMismatchError):
                stream.append(FRAME[1:])
        histogram = stream.stats.append_histogram
        assert [count for _, count in histogram] == [97, 1, 1, 1]
        for (edge_ms, _), time_ms in zip(histogram, (1, 10, 20, 500), strict=True):
            assert time_ms < edge_ms <= time_ms * 1.126
        assert stream.stats.append_p50_ms == histogram[0][0]
        assert stream.stats.append_p99_ms == histogram[2][0]
        assert stream.stats.append_max_ms == pytest.approx(500)

    def test_without_calls_it_is_empty(self, tmp_path: Path) -> None:
        with open_stream(settings(tmp_path)) as stream:
            stats = stream.stats
        assert stats.append_histogram == ()
        assert (stats.append_p50_ms, stats.append_p99_ms, stats.append_max_ms) == (0, 0, 0)


def test_a_few_figures_stay_with_the_dataset(tmp_path: Path, clock: Clock) -> None:
    with open_stream(settings(tmp_path)) as stream:
        for _ in range(20):
            stream.append(FRAME)
            clock.now_s += 0.1
    own = json.loads((tmp_path / "a.ome.zarr" / "zarr.json").read_text())["attributes"]["scopestream"]
    assert own["statistics"] == {
        "seconds": 2.0,
        "mb_per_s": round(10 * FRAME.nbytes / 1e6, 3),
        "append_p99_ms": 0.0,
        "append_max_ms": 0.0,
        "queue_peak": stream.stats.queue_peak,
    }


def nonsense(stats: Stats, n_threads: int) -> list[str]:
    """What cannot be true at any instant."""
    n_timed = sum(count for _, count in stats.append_histogram)
    edges = [edge for edge, _ in stats.append_histogram]
    rules = {
        "nothing is stored before it came": stats.frames_waiting >= 0,
        "bytes are those of the frames": stats.bytes_in == stats.frames_in * FRAME.nbytes,
        "bytes written are those of the frames": stats.bytes_written == stats.frames_written * FRAME.nbytes,
        "behind only when frames wait": stats.behind_s == 0 or stats.frames_waiting > 0,
        "nobody is behind for longer than it runs": 0 <= stats.behind_s <= stats.seconds,
        "the queue": 0 <= stats.queue_depth <= stats.queue_peak,
        "percentiles": stats.append_p50_ms <= stats.append_p99_ms <= stats.append_max_ms,
        "edges ascend": edges == sorted(set(edges)),
        "calls under way": n_timed >= stats.frames_in - n_threads,
        "rates": min(stats.recent_frames_per_s, stats.recent_mb_per_s, stats.recent_written_mb_per_s) >= 0,
    }
    return [rule for rule, holds in rules.items() if not holds]


def test_a_snapshot_makes_sense_at_every_instant(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path, memory_limit=100 * FRAME.nbytes)) as stream:
        threads = [threading.Thread(target=lambda: [stream.append(FRAME) for _ in range(1000)]) for _ in range(2)]
        for thread in threads:
            thread.start()
        before = stream.stats
        while any(thread.is_alive() for thread in threads):
            stats = stream.stats
            assert nonsense(stats, len(threads)) == []
            assert stats.frames_in >= before.frames_in
            assert stats.frames_written >= before.frames_written
            before = stats
    assert stream.stats.frames_written == 2000


class Listener:
    """A callback that keeps what it gets; `came` is set at each call."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self.then = then
        self.got: list[Stats] = []
        self.threads: set[threading.Thread] = set()
        self.came = threading.Event()

    def __call__(self, stats: Stats) -> None:
        self.got.append(stats)
        self.threads.add(threading.current_thread())
        self.came.set()
        self.then()


def report_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "scopestream-stats"]


class TestCallback:
    def test_it_comes_while_the_stream_is_open_and_at_the_end_from_a_thread_of_its_own(self, tmp_path: Path) -> None:
        listener = Listener()
        with open_stream(settings(tmp_path), on_stats=listener, stats_interval_s=0.01) as stream:
            assert listener.came.wait(HANG_S)
            stream.append(FRAME)
        assert listener.got[0].frames_in == 0
        assert listener.got[-1] == stream.stats
        assert listener.got[-1].frames_written == 1
        assert len(listener.threads) == 1
        assert threading.current_thread() not in listener.threads
        assert report_threads() == []

    def test_the_last_call_comes_however_long_the_interval_is_and_once(self, tmp_path: Path) -> None:
        listener = Listener()
        with open_stream(settings(tmp_path), on_stats=listener, stats_interval_s=3600) as stream:
            stream.append(FRAME)
        stream.close()
        assert listener.got == [stream.stats]

    def test_the_last_call_comes_after_a_failure_too(self, tmp_path: Path, faulty: FaultyBackend) -> None:
        listener = Listener()
        stream = open_stream(settings(tmp_path, backend="faulty"), on_stats=listener, stats_interval_s=3600)
        faulty.error = OSError(5, "Input/output error")
        stream.append(FRAME)
        with pytest.raises(WriteError):
            stream.close()
        assert [stats.frames_failed for stats in listener.got] == [1]

    def test_nothing_starts_without_it(self, tmp_path: Path) -> None:
        with open_stream(settings(tmp_path)):
            assert report_threads() == []

    def test_it_never_holds_the_camera_up(self, tmp_path: Path) -> None:
        go = threading.Event()
        listener = Listener(then=lambda: go.wait(HANG_S))
        with open_stream(settings(tmp_path), on_stats=listener, stats_interval_s=0.01) as stream:
            assert listener.came.wait(HANG_S)
            for _ in range(10):
                stream.append(FRAME)
            stream.flush()
            assert stream.stats.frames_written == 10
            go.set()

    def test_an_error_in_it_is_a_warning_and_ends_the_calls_but_not_the_acquisition(self, tmp_path: Path) -> None:
        def fail() -> None:
            raise KeyError("no such label")

        listener = Listener(then=fail)
        with (  # noqa: PT031
            pytest.warns(RuntimeWarning, match=r"on_stats failed .* goes on[\s\S]*no such label") as caught,
            open_stream(settings(tmp_path), on_stats=listener, stats_interval_s=0.01) as stream,
        ):
            assert listener.came.wait(HANG_S)
            stream.append(FRAME)
        assert len(listener.got) == len(caught) == 1
        assert stream.stats.frames_written == 1

    def test_close_does_not_wait_for_ever(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(scopestream.reporter, "_PATIENCE_S", 0.01)
        go = threading.Event()
        listener = Listener(then=lambda: go.wait(HANG_S))
        stream = open_stream(settings(tmp_path), on_stats=listener, stats_interval_s=0.01)
        assert listener.came.wait(HANG_S)
        stream.append(FRAME)
        with pytest.warns(RuntimeWarning, match="on_stats has not returned"):
            stream.close()
        assert stream.stats.frames_written == 1
        go.set()
        for thread in listener.threads:
            thread.join()

    def test_it_may_close_the_stream(self, tmp_path: Path) -> None:
        opened = threading.Event()
        listener = Listener(then=lambda: opened.wait(HANG_S) and stream.close())
        stream = open_stream(settings(tmp_path), on_stats=listener, stats_interval_s=0.01)
        opened.set()
        assert listener.came.wait(HANG_S)
        for thread in report_threads():
            thread.join()
        with pytest.raises(StreamClosedError):
            stream.append(FRAME)
        assert len(listener.got) == 2  # the first one, and the final figures

    def test_it_does_not_hold_up_the_end_of_the_program(self, tmp_path: Path) -> None:
        code = (
            "import threading; from scopestream import AcquisitionSettings, open_stream\n"
            f"settings = AcquisitionSettings.model_validate_json({settings(tmp_path).model_dump_json()!r})\n"
            "came = threading.Event()\n"
            "def forever(stats):\n    came.set()\n    threading.Event().wait()\n"
            "stream = open_stream(settings, on_stats=forever, stats_interval_s=0.01)\n"
            "came.wait()\n"
        )
        done = subprocess.run([sys.executable, "-c", code], timeout=HANG_S, env=os.environ, check=False)
        assert done.returncode == 0

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"on_stats": "print"}, TypeError, "on_stats is 'print', which cannot be called"),
            ({"stats_interval_s": "1"}, TypeError, "stats_interval_s is '1', which is no number"),
            ({"stats_interval_s": True}, TypeError, "stats_interval_s is True, which is no number"),
            ({"stats_interval_s": 0}, ValueError, "stats_interval_s is 0; it must be finite and at least 0.01"),
            ({"stats_interval_s": -1.0}, ValueError, "stats_interval_s is -1.0"),
            ({"stats_interval_s": float("nan")}, ValueError, "stats_interval_s is nan"),
            ({"stats_interval_s": float("inf")}, ValueError, "stats_interval_s is inf"),
        ],
    )
    def test_arguments_that_cannot_be_are_refused_before_anything_is_written(
        self, tmp_path: Path, arguments: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            open_stream(settings(tmp_path), **arguments)
        assert list(tmp_path.iterdir()) == []
