"""The signals of `stream.events`, and that nobody who listens holds anything up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scopestream.events
from scopestream import AcquisitionSettings, Stats, Stream, WriteError, open_stream, read_frames
from scopestream.testing.disks import FaultyBackend

Y, X = 8, 16
FRAME = np.ones((Y, X), np.uint16)
HANG_S = 60  # far more than anything here takes


def settings(tmp_path: Path, **fields: Any) -> AcquisitionSettings:
    base: dict[str, Any] = {
        "path": tmp_path / "a.ome.zarr",
        "dtype": "uint16",
        "dimensions": [
            {"name": "t", "count": None},
            {"name": "c", "coords": ["DAPI", "GFP"]},
            {"name": "y", "count": Y},
            {"name": "x", "count": X},
        ],
        "backend": "inplace",
    }
    return AcquisitionSettings(**{**base, **fields})


def event_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "scopestream-events"]


class Diary:
    """Keeps what the signals say, in order."""

    def __init__(self, stream: Stream) -> None:
        self.entries: list[tuple[str, Any]] = []
        events = stream.events
        events.frame_written.connect(self.frame_written)
        events.extent_grown.connect(self.extent_grown)
        events.stats.connect(self.stats)
        events.error.connect(self.error)
        events.closed.connect(self.closed)

    def frame_written(self, number: int, index: dict[str, int]) -> None:
        self.entries.append(("frame_written", (number, index)))

    def extent_grown(self, shape: tuple[int, ...]) -> None:
        self.entries.append(("extent_grown", shape))

    def stats(self, stats: Stats) -> None:
        self.entries.append(("stats", stats))

    def error(self, error: BaseException) -> None:
        self.entries.append(("error", error))

    def closed(self) -> None:
        self.entries.append(("closed", None))

    def of(self, name: str) -> list[Any]:
        return [entry for kind, entry in self.entries if kind == name]


class TestSignals:
    def test_every_frame_that_is_written_is_told_with_its_place(self, tmp_path: Path) -> None:
        with open_stream(settings(tmp_path)) as stream:
            diary = Diary(stream)
            for _ in range(4):
                stream.append(FRAME)
            stream.skip(3)
            stream.append(FRAME)
        written = [(r["frame"], r["index"]) for r in read_frames(stream.path) if r["status"] == "written"]
        assert diary.of("frame_written") == written
        assert written[-1] == (7, {"t": 3, "c": 1})

    def test_the_extent_is_told_before_the_frames_in_it(self, tmp_path: Path) -> None:
        with open_stream(settings(tmp_path)) as stream:
            diary = Diary(stream)
            extents: list[int] = []

            def check(number: int, index: dict[str, int]) -> None:
                extents.append(diary.of("extent_grown")[-1][0] - index["t"])

            stream.events.frame_written.connect(check)
            for _ in range(50):
                stream.append(FRAME)
        assert min(extents) >= 1
        assert diary.of("extent_grown")[-1] == (25, 2, Y, X)

    def test_a_bounded_acquisition_does_not_grow(self, tmp_path: Path) -> None:
        dimensions = [{"name": "t", "count": 3}, {"name": "y", "count": Y}, {"name": "x", "count": X}]
        with open_stream(settings(tmp_path, dimensions=dimensions)) as stream:
            diary = Diary(stream)
            stream.append(FRAME)
        assert diary.of("extent_grown") == []

    def test_the_end_comes_last_and_once_after_the_final_figures(self, tmp_path: Path) -> None:
        with open_stream(settings(tmp_path)) as stream:
            diary = Diary(stream)
            stream.append(FRAME)
        stream.close()
        names = [name for name, _ in diary.entries]
        assert names[-2:] == ["stats", "closed"]
        assert names.count("closed") == 1
        assert diary.of("stats")[-1] == stream.stats
        assert not event_threads()

    def test_the_first_error_is_told_once(self, tmp_path: Path, faulty: FaultyBackend) -> None:
        stream = open_stream(settings(tmp_path, backend="faulty"))
        diary = Diary(stream)
        faulty.error = OSError(28, "No space left on device")
        stream.append(FRAME)
        with pytest.raises(WriteError) as raised:
            stream.close()
        assert diary.of("error") == [raised.value.__cause__]
        assert diary.of("frame_written") == []
        assert diary.entries[-1] == ("closed", None)

    def test_frames_of_before_somebody_listened_are_not_told(self, tmp_path: Path) -> None:
        with open_stream(settings(tmp_path)) as stream:
            stream.append(FRAME)
            stream.flush()
            diary = Diary(stream)
            stream.append(FRAME)
        assert [number for number, _ in diary.of("frame_written")] == [1]

    def test_without_anybody_who_asks_there_is_no_thread(self, tmp_path: Path) -> None:
        with open_stream(settings(tmp_path)) as stream:
            stream.append(FRAME)
            assert not event_threads()
            _ = stream.events
            assert len(event_threads()) == 1
        assert not event_threads()
        stream.events.closed.connect(lambda: None)  # in vain, and without harm
        assert not event_threads()


class TestCallbacks:
    def test_all_run_on_one_thread_which_is_none_of_the_stream(self, tmp_path: Path) -> None:
        threads: set[str] = set()

        def note(*arguments: Any) -> None:
            threads.add(threading.current_thread().name)

        with open_stream(settings(tmp_path)) as stream:
            for signal in ("frame_written", "extent_grown", "stats", "closed"):
                getattr(stream.events, signal).connect(note)
            stream.append(FRAME)
        assert threads == {"scopestream-events"}

    def test_a_slow_one_holds_up_neither_the_camera_nor_the_disk(self, tmp_path: Path) -> None:
        go_on = threading.Event()
        n_frames = 3 * scopestream.events.MAX_WAITING
        numbers: list[int] = []

        def wait(number: int, index: dict[str, int]) -> None:
            numbers.append(number)
            go_on.wait(HANG_S)

        with open_stream(settings(tmp_path)) as stream:
            stream.events.frame_written.connect(wait)
            stream.append(FRAME)
            while not numbers:
                stream.flush()
            for _ in range(n_frames - 1):
                stream.append(FRAME)
            stream.flush()
            assert stream.stats.frames_written == n_frames
            assert numbers == [0]
            go_on.set()
        # Those that could not wait are left out: the oldest.
        assert numbers[1:] == list(range(n_frames - scopestream.events.MAX_WAITING, n_frames))

    def test_one_that_raises_costs_a_warning_and_is_called_again(self, tmp_path: Path) -> None:
        calls: list[int] = []

        def fail(number: int, index: dict[str, int]) -> None:
            calls.append(number)
            raise RuntimeError("the window is gone")

        stream = open_stream(settings(tmp_path))
        diary = Diary(stream)
        stream.events.frame_written.connect(fail)
        stream.extend(np.repeat(FRAME[None], 5, axis=0))
        with pytest.warns(RuntimeWarning, match=r"(?s)frame_written failed.*the window is gone") as warned:
            stream.close()
        assert calls == list(range(5))
        assert len(warned) == 1
        assert len(diary.of("frame_written")) == 5
        assert diary.entries[-1] == ("closed", None)
        assert stream.stats.frames_written == 5

    @pytest.mark.parametrize("way_out", [SystemExit, KeyboardInterrupt])
    def test_one_that_ends_the_program_ends_no_thread(self, tmp_path: Path, way_out: type[BaseException]) -> None:
        def leave(number: int, index: dict[str, int]) -> None:
            raise way_out("the window is gone")

        stream = open_stream(settings(tmp_path))
        diary = Diary(stream)
        stream.events.frame_written.connect(leave)
        stream.extend(np.repeat(FRAME[None], 5, axis=0))
        with pytest.warns(RuntimeWarning, match=r"(?s)frame_written failed.*the window is gone"):
            stream.close()
        assert len(diary.of("frame_written")) == 5
        assert diary.entries[-1] == ("closed", None)
        assert not event_threads()

    def test_one_may_use_the_stream_and_even_close_it(self, tmp_path: Path) -> None:
        stream = open_stream(settings(tmp_path))
        closed = threading.Event()
        shown: list[bool] = []

        def look(number: int, index: dict[str, int]) -> None:
            shown.append(bool((stream.view()[index["t"], index["c"]] == 1).all()))
            if number == 3:
                stream.close()

        stream.events.frame_written.connect(look)
        stream.events.closed.connect(closed.set)
        for _ in range(4):
            stream.append(FRAME)
        assert closed.wait(HANG_S)
        assert shown == [True] * 4
        assert stream.stats.frames_written == 4

    def test_one_that_never_returns_is_left_behind(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(scopestream.events, "_PATIENCE_S", 0.1)
        go_on = threading.Event()

        def hang(*arguments: Any) -> None:
            go_on.wait(HANG_S)

        stream = open_stream(settings(tmp_path))
        stream.events.frame_written.connect(hang)
        stream.append(FRAME)
        with pytest.warns(RuntimeWarning, match=r"Callbacks of stream.events have not returned for 0.1 s"):
            stream.close()
        assert stream.stats.frames_written == 1
        go_on.set()
        for thread in event_threads():
            thread.join(HANG_S)

    def test_signals_go_through_every_end_of_a_stream(self, tmp_path: Path) -> None:
        def forget(stream: Stream) -> None:
            streams.clear()

        ends: list[Callable[[Stream], object]] = [Stream.close, lambda stream: stream.close(HANG_S), forget]
        for number, end in enumerate(ends):
            streams = [open_stream(settings(tmp_path, path=tmp_path / f"{number}.ome.zarr"))]
            diary = Diary(streams[0])
            streams[0].append(FRAME)
            if end is forget:
                with pytest.warns(ResourceWarning, match="was not closed"):
                    streams.clear()
            else:
                end(streams[0])
            assert [name for name, _ in diary.entries][-1] == "closed"
