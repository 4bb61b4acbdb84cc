"""What a stream says when the disk fails, and that nobody waits for ever: neither `append` nor `close`."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest

from scopestream import (
    AcquisitionSettings,
    CloseTimeoutError,
    Stream,
    StreamClosedError,
    WriteError,
    open_stream,
    read_frames,
)
from scopestream.contract import Sink
from scopestream.plan import LayoutPlan
from scopestream.testing import read_array, stamped_frame
from scopestream.testing.disks import FaultyBackend

Y, X = 24, 40
N_FRAMES = 60
THREE_FRAMES = 3 * Y * X * 2
HANG_S = 60


def settings(tmp_path: Path, **fields: Any) -> AcquisitionSettings:
    base: dict[str, Any] = {
        "path": tmp_path / "a.ome.zarr",
        "dtype": "uint16",
        "dimensions": [{"name": "t", "count": N_FRAMES}, {"name": "y", "count": Y}, {"name": "x", "count": X}],
        "backend": "faulty",
        "shards": {"t": 20},
    }
    return AcquisitionSettings(**{**base, **fields})


def frame(number: int) -> np.ndarray:
    return stamped_frame(number, (Y, X), "uint16")


def origins(*numbers: int) -> set[tuple[int, ...]]:
    return {(number, 0, 0) for number in numbers}


def status(stream: Stream) -> str:
    text: str = json.loads((stream.plan.root / "zarr.json").read_text())["attributes"]["scopestream"]["status"]
    return text


def close_and_catch(stream: Stream) -> WriteError:
    with pytest.raises(WriteError) as caught:
        stream.close()
    return caught.value


# -- which frames ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "ranges", "words"),
    [
        ((0,), ((0, 0),), r"1 could not be stored \(frame 0\)"),
        ((7, 8, 9, 10, 20), ((7, 10), (20, 20)), r"5 could not be stored \(frames 7 to 10 and 20\)"),
        ((1, 3, 4, 6), ((1, 1), (3, 4), (6, 6)), r"4 could not be stored \(frames 1, 3 to 4 and 6\)"),
        (
            tuple(range(0, 40, 2)),
            tuple((number, number) for number in range(0, 40, 2)),
            r"20 could not be stored \(frames 0, 2, 4, 6, 8, 10 and 14 more\)",
        ),
    ],
)
def test_the_error_names_the_frames_that_are_not_safe(
    tmp_path: Path, faulty: FaultyBackend, broken: tuple[int, ...], ranges: tuple[tuple[int, int], ...], words: str
) -> None:
    faulty.broken = origins(*broken)
    stream = open_stream(settings(tmp_path))
    stream.extend(np.stack([frame(number) for number in range(N_FRAMES)]))
    error = close_and_catch(stream)
    assert re.search(f"{N_FRAMES - len(broken)} of {N_FRAMES} accepted frames are safe, {words}", str(error))
    assert (error.n_safe, error.failed) == (N_FRAMES - len(broken), ranges)
    assert isinstance(error.__cause__, OSError)
    assert stream.error is error.__cause__
    assert status(stream) == "incomplete"
    assert {line["frame"] for line in read_frames(stream.path) if line["status"] == "failed"} == set(broken)


def test_a_block_that_fails_costs_all_its_frames(tmp_path: Path, faulty: FaultyBackend) -> None:
    faulty.broken = origins(20)
    fields = {"chunks": {"t": 10, "y": Y, "x": X}, "codec": "blosc-lz4"}
    stream = open_stream(settings(tmp_path, **fields))
    for number in range(35):
        stream.append(frame(number))
        if number in (5, 15):
            stream.flush()
    error = close_and_catch(stream)
    assert (error.n_safe, error.failed) == (25, ((20, 29),))


def test_the_first_error_is_the_cause_and_later_ones_are_notes(tmp_path: Path, faulty: FaultyBackend) -> None:
    faulty.broken = origins(3, 5, 6)
    stream = open_stream(settings(tmp_path))
    stream._delivery.finish = lambda: (_ for _ in ()).throw(ValueError("a level is lost"))  # type: ignore[method-assign, assignment]
    stream.extend(np.stack([frame(number) for number in range(10)]))
    error = close_and_catch(stream)
    assert "broken at (3, 0, 0)" in str(error.__cause__)
    assert [note.partition(":")[0] for note in error.__notes__] == ["Later"] * len(error.__notes__)
    assert "a level is lost" in error.__notes__[-1]


def test_many_errors_are_told_in_few_words(tmp_path: Path, faulty: FaultyBackend) -> None:
    faulty.broken = origins(*range(40))
    stream = open_stream(settings(tmp_path, chunks={"t": 1, "y": Y, "x": X}, codec="blosc-lz4", shards=None))
    for number in range(40):
        try:
            stream.append(frame(number))
        except WriteError:
            break
        if number % 2 == 0:
            stream._writer.drain()
    error = close_and_catch(stream)
    assert len(error.__notes__ if hasattr(error, "__notes__") else ()) <= 9
    assert len(str(error)) < 700


def test_errors_survive_pickling() -> None:
    failed = WriteError("a", n_safe=2, failed=((1, 2),))
    stuck = CloseTimeoutError("b", n_safe=3, waiting=((4, 5),))
    again, stuck_again = pickle.loads(pickle.dumps((failed, stuck)))
    assert (str(again), again.n_safe, again.failed) == ("a", 2, ((1, 2),))
    assert (str(stuck_again), stuck_again.n_safe, stuck_again.waiting) == ("b", 3, ((4, 5),))
    assert isinstance(stuck_again, TimeoutError)


# -- nobody waits for ever -------------------------------------------------------------------------------------------


def test_an_append_that_waits_for_room_learns_that_the_disk_failed(tmp_path: Path, faulty: FaultyBackend) -> None:
    stream = open_stream(settings(tmp_path, memory_limit=THREE_FRAMES, on_full="block"))
    caught: list[BaseException] = []

    def append() -> None:
        try:
            stream.append(frame(3))
        except WriteError as error:
            caught.append(error)

    with faulty.held():
        for number in range(3):
            stream.append(frame(number))
        waiting = threading.Thread(target=append)
        waiting.start()
        while not stream._writer._waiting:
            sleep(0.001)
        faulty.error = OSError(28, "No space left on device")
    waiting.join(HANG_S)
    assert len(caught) == 1
    assert stream.next_frame == 3  # it was not taken
    assert close_and_catch(stream).failed == ((0, 2),)


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit(), MemoryError()])
def test_whatever_a_backend_raises_its_thread_lives_on(
    tmp_path: Path, faulty: FaultyBackend, error: BaseException
) -> None:
    stream = open_stream(settings(tmp_path, memory_limit=THREE_FRAMES))
    faulty.error = error  # type: ignore[assignment]
    stream.append(frame(0))
    with pytest.raises(WriteError, match=type(error).__name__ if not str(error) else str(error)):
        stream.flush()
    faulty.error = None
    assert close_and_catch(stream).failed == ((0, 0),)
    assert stream.error is error


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), SystemExit("the library gave up")])
def test_what_publishing_raises_is_told_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Whether a thread publishes because no frame came for a while, or because of `flush`."""
    failed = threading.Event()

    def fail() -> None:
        failed.set()
        raise error

    stream = open_stream(settings(tmp_path, backend="inplace"))
    monkeypatch.setattr(stream._delivery._sink, "flush", fail)
    stream.append(frame(0))
    with pytest.raises(WriteError, match=str(error.args[-1])):
        stream.flush()
    assert failed.is_set()
    with pytest.raises(WriteError):
        stream.append(frame(1))
    monkeypatch.undo()
    assert close_and_catch(stream).failed == ()
    assert status(stream) == "incomplete"
    np.testing.assert_array_equal(read_array(stream.plan.root / "0", "zarr")[0], frame(0))


# -- close that takes long -------------------------------------------------------------------------------------------


class TestCloseInTime:
    def test_it_says_which_frames_wait_and_goes_on(self, tmp_path: Path, faulty: FaultyBackend) -> None:
        stream = open_stream(settings(tmp_path))
        for number in range(4):
            stream.append(frame(number))
        stream.flush()
        with faulty.held():
            for number in range(4, 10):
                stream.append(frame(number))
            for _ in range(2):
                with pytest.raises(
                    CloseTimeoutError,
                    match=r"blocks wait for backend 'faulty' \(frames 4 to 9, the oldest for .* s\). "
                    r"4 of 10 accepted frames are safe. The work goes on",
                ) as caught:
                    stream.close(timeout=0.01)
                assert (caught.value.n_safe, caught.value.waiting) == (4, ((4, 9),))
            with pytest.raises(StreamClosedError):
                stream.append(frame(10))
            assert status(stream) == "recording"
        stream.close(timeout=HANG_S)
        stream.close()
        assert status(stream) == "incomplete"  # of 60 frames
        np.testing.assert_array_equal(
            read_array(stream.plan.root / "0", "zarr")[:10], [frame(number) for number in range(10)]
        )

    def test_the_work_goes_on_though_nobody_waits(self, tmp_path: Path, faulty: FaultyBackend) -> None:
        stream = open_stream(settings(tmp_path))
        with faulty.held():
            stream.append(frame(0))
            with pytest.raises(CloseTimeoutError):
                stream.close(timeout=0)
        for thread in [thread for thread in threading.enumerate() if thread.name.startswith("scopestream-writer")]:
            thread.join(HANG_S)
        assert status(stream) == "incomplete"
        stream.close(timeout=0)

    def test_it_says_that_the_backend_does_not_close(
        self, tmp_path: Path, faulty: FaultyBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        go, closing = threading.Event(), threading.Event()
        opened = faulty.open

        def open_one_that_closes_slowly(plan: LayoutPlan) -> Sink:
            sink = opened(plan)
            close = sink.close

            def slowly() -> None:
                closing.set()
                go.wait(HANG_S)
                close()

            sink.close = slowly  # type: ignore[method-assign]
            return sink

        monkeypatch.setattr(faulty, "open", open_one_that_closes_slowly)
        stream = open_stream(settings(tmp_path))
        stream.append(frame(0))
        with pytest.raises(CloseTimeoutError):
            stream.close(timeout=0)
        assert closing.wait(HANG_S)
        with pytest.raises(CloseTimeoutError, match=r"Not done for .* s: closing backend 'faulty'. 1 of 1 accepted"):
            stream.close(timeout=0)
        go.set()
        stream.close(timeout=HANG_S)

    def test_it_says_that_another_call_has_not_returned(self, tmp_path: Path, faulty: FaultyBackend) -> None:
        stream = open_stream(settings(tmp_path))
        with faulty.held():
            stream.append(frame(0))
            flushing = threading.Thread(target=stream.flush)
            flushing.start()
            while not stream._writer._waiting:
                sleep(0.001)
            with pytest.raises(
                CloseTimeoutError, match="A call of append, write, skip or flush, or a checkpoint, has not returned"
            ):
                stream.close(timeout=0.01)
        flushing.join()
        stream.close(timeout=HANG_S)
        assert stream.stats.frames_written == 1

    def test_what_failed_meanwhile_is_told_then(self, tmp_path: Path, faulty: FaultyBackend) -> None:
        stream = open_stream(settings(tmp_path))
        with faulty.held():
            stream.append(frame(0))
            with pytest.raises(CloseTimeoutError):
                stream.close(timeout=0)
            faulty.error = OSError(5, "Input/output error")
        with pytest.raises(WriteError, match="Input/output error") as caught:
            stream.close(timeout=HANG_S)
        assert caught.value.failed == ((0, 0),)

    @pytest.mark.parametrize(("timeout", "error"), [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError)])
    def test_a_timeout_that_cannot_be_leaves_the_stream_open(
        self, tmp_path: Path, timeout: Any, error: type[Exception]
    ) -> None:
        with open_stream(settings(tmp_path, backend="inplace")) as stream:
            with pytest.raises(error, match="The stream is as it was"):
                stream.close(timeout=timeout)
            stream.append(frame(0))

    def test_any_longer_time_will_do(self, tmp_path: Path) -> None:
        for number, timeout in enumerate((1e300, float("inf"), np.float32(HANG_S))):
            stream = open_stream(settings(tmp_path, path=tmp_path / f"{number}.ome.zarr", backend="inplace"))
            stream.close(timeout=timeout)  # type: ignore[arg-type]


# -- Ctrl-C while the stream waits -----------------------------------------------------------------------------------


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[Callable[[], bool], Callable[[], object]], threading.Thread]]:
    """Presses Ctrl-C in another thread as soon as something is true, then does what comes next."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def press(when: Callable[[], bool], then: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            while not when():
                sleep(0.001)
            os.kill(os.getpid(), signal.SIGINT)
            then()

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    yield press
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(os.name == "nt", reason="Windows does not interrupt a thread that waits for a lock")
class TestCtrlC:
    def test_an_append_that_waits_for_room_is_interrupted_at_once(
        self, tmp_path: Path, faulty: FaultyBackend, ctrl_c: Any
    ) -> None:
        with faulty.held(), open_stream(settings(tmp_path, memory_limit=THREE_FRAMES)) as stream:
            for number in range(3):
                stream.append(frame(number))
            thread = ctrl_c(lambda: bool(stream._writer._waiting), lambda: None)
            with pytest.raises(KeyboardInterrupt):
                stream.append(frame(3))
            thread.join()
            assert stream.next_frame == 3
            faulty.release()
            stream.append(frame(3))
        np.testing.assert_array_equal(
            read_array(stream.plan.root / "0", "zarr")[:4], [frame(number) for number in range(4)]
        )

    @pytest.mark.parametrize("method", ["flush", "close"])
    def test_flush_and_close_finish_first(
        self, tmp_path: Path, faulty: FaultyBackend, ctrl_c: Any, method: str
    ) -> None:
        fields = {"codec": "zstd", "chunks": {"t": 4}, "shards": {"t": 4}}
        stream = open_stream(settings(tmp_path, **fields))
        with faulty.held():
            for number in range(7):
                stream.append(frame(number))
            # It waits again after the interrupt.
            thread = ctrl_c(lambda: bool(stream._writer._waiting), lambda: (wait_for_two(stream), faulty.release()))
            with pytest.raises(KeyboardInterrupt):
                getattr(stream, method)()
        thread.join()
        assert stream.stats.frames_written == 7
        assert status(stream) == ("recording" if method == "flush" else "incomplete")
        np.testing.assert_array_equal(
            read_array(stream.plan.root / "0", "zarr")[:7], [frame(number) for number in range(7)]
        )
        stream.close()

    def test_a_second_one_is_not_held_back(self, tmp_path: Path, faulty: FaultyBackend, ctrl_c: Any) -> None:
        stream = open_stream(settings(tmp_path))
        with faulty.held():
            stream.append(frame(0))

            def again() -> None:
                wait_for_two(stream)
                os.kill(os.getpid(), signal.SIGINT)

            thread = ctrl_c(lambda: bool(stream._writer._waiting), again)
            with pytest.raises(KeyboardInterrupt):
                stream.close()
            thread.join()
            assert status(stream) == "recording"
        stream.close()
        assert stream.stats.frames_written == 1


def wait_for_two(stream: Stream) -> None:
    """Until a call that was interrupted while it waited waits once more."""
    while len(stream._writer._waiting) < 2:
        sleep(0.001)
