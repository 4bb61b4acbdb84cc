"""Programs that end, fork, forget to close, or do everything at once."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest

from scopestream import (
    AcquisitionSettings,
    FrameIndexError,
    Stats,
    Stream,
    StreamClosedError,
    WriteError,
    open_stream,
    read_frames,
)
from scopestream.testing import read_array, reader_other_than, stamped_frame
from scopestream.testing.disks import FaultyBackend

Y, X = 24, 40
N_FRAMES = 12
HANG_S = 60
BACKENDS = ["inplace", "tensorstore", "acquire-zarr", "zarr-python", "zarrs"]


def settings(tmp_path: Path, **fields: Any) -> AcquisitionSettings:
    base: dict[str, Any] = {
        "path": tmp_path / "a.ome.zarr",
        "dtype": "uint16",
        "dimensions": [{"name": "t", "count": N_FRAMES}, {"name": "y", "count": Y}, {"name": "x", "count": X}],
        "backend": "inplace",
        "shards": {"t": 4},
    }
    return AcquisitionSettings(**{**base, **fields})


def frame(number: int) -> np.ndarray:
    return stamped_frame(number, (Y, X), "uint16")


def check(path: Path | str, n_frames: int, backend: str = "inplace") -> None:
    """The first frames are there, with a line for each, and the dataset was finalised."""
    pixels = read_array(Path(path) / "0", reader_other_than(backend))
    expected = np.zeros((N_FRAMES, Y, X), np.uint16)
    expected[:n_frames] = [frame(number) for number in range(n_frames)]
    np.testing.assert_array_equal(pixels, expected)
    assert sorted(record["frame"] for record in read_frames(path)) == list(range(n_frames))
    assert state(path)["status"] == ("complete" if n_frames == N_FRAMES else "incomplete")


def state(path: Path | str) -> dict[str, Any]:
    own: dict[str, Any] = json.loads((Path(path) / "zarr.json").read_text())["attributes"]["scopestream"]
    return own


# -- the program ends ------------------------------------------------------------------------------------------------


def run(tmp_path: Path, code: str, **fields: Any) -> subprocess.CompletedProcess[str]:
    """A program that has `stream`, whose frames are few and small, and does not close it."""
    program = (
        "import os, sys, threading, time\n"
        "from scopestream import AcquisitionSettings, StreamClosedError, open_stream\n"
        "from scopestream.testing import stamped_frame\n"
        f"settings = AcquisitionSettings.model_validate_json({settings(tmp_path, **fields).model_dump_json()!r})\n"
        f"def frame(number):\n    return stamped_frame(number, ({Y}, {X}), 'uint16')\n"
        "def append(numbers):\n    for number in numbers:\n        stream.append(frame(number))\n"
        "if __name__ == '__main__':\n    stream = open_stream(settings)\n"
    ) + "".join(f"    {line}\n" for line in code.splitlines())
    options = ["-W", "error", "-W", "always::ResourceWarning", "-W", "always::RuntimeWarning"]
    return subprocess.run(
        [sys.executable, *options, "-c", program], capture_output=True, text=True, timeout=HANG_S, check=False
    )


class TestTheProgramEnds:
    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize(
        ("ending", "code"), [("pass", 0), ("sys.exit(3)", 3), ("raise RuntimeError('the stage is stuck')", 1)]
    )
    def test_what_arrived_is_stored_and_finalised(self, tmp_path: Path, backend: str, ending: str, code: int) -> None:
        done = run(tmp_path, f"append(range(7))\n{ending}", backend=backend)
        assert done.returncode == code
        assert "ResourceWarning: The stream to" in done.stderr
        assert "Open streams by `with open_stream(...) as stream:`" in done.stderr
        check(tmp_path / "a.ome.zarr", 7, backend)

    def test_nothing_is_said_of_a_stream_that_was_closed(self, tmp_path: Path) -> None:
        done = run(tmp_path, "append(range(7))\nstream.close()")
        assert (done.returncode, done.stderr) == (0, "")
        check(tmp_path / "a.ome.zarr", 7)

    @pytest.mark.parametrize("backend", ["inplace", "acquire-zarr"])
    def test_threads_that_go_on_may_append(self, tmp_path: Path, backend: str) -> None:
        code = (
            "append(range(3))\nstarted = threading.Event()\n"
            "def later():\n    append(range(3, 6))\n    started.set()\n    time.sleep(0.3)\n    append(range(6, 12))\n"
            "threading.Thread(target=later).start()\nstarted.wait()"
        )
        done = run(tmp_path, code, backend=backend)
        assert done.returncode == 0
        assert "ResourceWarning" in done.stderr
        check(tmp_path / "a.ome.zarr", 12, backend)

    def test_threads_that_are_daemons_find_it_closed(self, tmp_path: Path) -> None:
        """What they appended until then is stored."""
        code = (
            "def for_ever():\n    number = 0\n    while True:\n"
            "        stream.append(frame(number))\n        number += 1\n        n.append(number)\n"
            "n = []\nthreading.Thread(target=for_ever, daemon=True).start()\n"
            "while len(n) < 50: time.sleep(0.001)"
        )
        dimensions = [{"name": "t", "count": None}, *settings(tmp_path).dimensions[1:]]
        done = run(tmp_path, code, dimensions=dimensions)
        assert done.returncode == 0
        path = tmp_path / "a.ome.zarr"
        numbers = sorted(record["frame"] for record in read_frames(path))
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= 50
        pixels = read_array(path / "0", "zarr")
        np.testing.assert_array_equal(pixels, [frame(number) for number in numbers])
        assert state(path)["status"] == "complete"

    def test_os_exit_is_like_a_kill(self, tmp_path: Path) -> None:
        done = run(tmp_path, "append(range(3))\nstream.flush()\nos._exit(0)")
        assert done.stderr == ""
        assert state(tmp_path / "a.ome.zarr")["status"] == "recording"
        np.testing.assert_array_equal(read_array(tmp_path / "a.ome.zarr" / "0", "zarr")[2], frame(2))

    def test_it_waits_for_a_close_that_took_too_long(self, tmp_path: Path) -> None:
        code = (
            "from scopestream import CloseTimeoutError\n"
            "slow = stream._delivery.finish\n"
            "stream._closing._delivery.finish = lambda: (time.sleep(0.5), slow())\n"
            "append(range(7))\n"
            "try:\n    stream.close(timeout=0.01)\nexcept CloseTimeoutError:\n    print('too long')"
        )
        done = run(tmp_path, code)
        assert (done.returncode, done.stdout) == (0, "too long\n")
        assert "RuntimeWarning: The program waits until" in done.stderr
        check(tmp_path / "a.ome.zarr", 7)


# -- nobody refers to the stream any more ----------------------------------------------------------------------------


class TestGarbage:
    @pytest.mark.parametrize("fields", [{}, {"backend": "tensorstore"}])
    def test_what_arrived_is_stored_and_finalised(self, tmp_path: Path, fields: dict[str, Any]) -> None:
        stream = open_stream(settings(tmp_path, **fields))
        for number in range(7):
            stream.append(frame(number))
        path = stream.path
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del stream
            gc.collect()
        assert [warning.category for warning in caught] == [ResourceWarning]
        assert "nothing refers to it any more" in str(caught[0].message)
        check(path, 7, fields.get("backend", "inplace"))
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("scopestream")]

    def test_so_it_is_when_statistics_are_reported(self, tmp_path: Path) -> None:
        got: list[Stats] = []
        stream = open_stream(settings(tmp_path), on_stats=got.append, stats_interval_s=0.01)
        stream.append(frame(0))
        path = stream.path
        with pytest.warns(ResourceWarning):
            del stream
        check(path, 1)
        assert got[-1].frames_written == 1

    def test_so_it_is_in_whatever_thread_the_garbage_is_collected(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Even in one of the stream's own, which then waits for nothing."""
        stream = open_stream(settings(tmp_path))
        path, closing, delivery = stream.path, stream._closing, stream._delivery
        stream.append(frame(0))
        stream.flush()
        closed = threading.Event()
        close = closing.close
        monkeypatch.setattr(closing, "close", lambda: (close(), closed.set()))
        publish, done = delivery.publish, threading.Event()

        def collect() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                closing.abandoned()
            publish()
            done.set()

        monkeypatch.setattr(stream._writer, "_idle", collect)
        stream.append(frame(1))
        assert done.wait(HANG_S)
        assert closed.wait(HANG_S)
        check(path, 2)

    def test_a_disk_that_fails_then_is_not_passed_over(
        self, tmp_path: Path, faulty: FaultyBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        raised: list[Any] = []
        monkeypatch.setattr(sys, "unraisablehook", raised.append)
        stream = open_stream(settings(tmp_path, backend="faulty"))
        faulty.error = OSError(28, "No space left on device")
        stream.append(frame(0))
        with pytest.warns(ResourceWarning):
            del stream
        assert [type(each.exc_value) for each in raised] == [WriteError]

    def test_nothing_is_said_of_a_stream_that_was_closed(self, tmp_path: Path) -> None:
        with open_stream(settings(tmp_path)) as stream:
            stream.append(frame(0))
        del stream
        gc.collect()  # a warning would be an error


# -- another process -------------------------------------------------------------------------------------------------

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except StreamClosedError as error:
        return "belongs to process" in str(error)
    return False


def as_a_child(stream: Stream) -> bool:
    """What a forked process meets."""
    calls: list[Callable[[], object]] = [
        lambda: stream.append(frame(0)),
        lambda: stream.extend(np.stack([frame(0)])),
        lambda: stream.write(frame(0), index={"t": 0}),
        stream.skip,
        stream.flush,
        lambda: stream.set_metadata("a", {}),
        lambda: stream.stats,
        lambda: stream.next_frame,
    ]
    all_refused = all(refused(call) for call in calls)
    stream.close()
    with stream:
        pass
    return all_refused and stream.error is None and stream.path in repr(stream)


def forked(child: Callable[[], bool]) -> int:
    """How a forked process ended: 0 when `child` was right."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forks of programs with threads, from Python 3.12 on
        pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if child() else 1)
        except BaseException:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@needs_fork
class TestFork:
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_a_child_has_no_part_in_the_stream(self, tmp_path: Path, backend: str) -> None:
        with open_stream(settings(tmp_path, backend=backend)) as stream:
            for number in range(N_FRAMES):
                stream.append(frame(number))
                if number in (1, 6):
                    assert forked(lambda: as_a_child(stream)) == 0
        check(stream.path, N_FRAMES, backend)

    def test_whatever_the_threads_of_the_parent_hold(self, tmp_path: Path, faulty: FaultyBackend) -> None:
        """Here the locks of the stream and of its statistics."""
        with faulty.held(), open_stream(settings(tmp_path, backend="faulty")) as stream:
            stream.append(frame(0))
            flushing = threading.Thread(target=stream.flush)
            flushing.start()
            with stream._counters._lock, stream._writer._lock:
                assert forked(lambda: as_a_child(stream)) == 0
            faulty.release()
            flushing.join()
        check(stream.path, 1)

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_a_child_that_ends_as_programs_do_leaves_the_files_alone(self, tmp_path: Path, backend: str) -> None:
        """It collects its garbage, and calls what is registered for the end of a program."""
        code = (
            "append(range(3))\nstream.flush()\n"
            "import warnings\nwarnings.simplefilter('ignore', DeprecationWarning)\n"
            "if os.fork() == 0:\n    del stream\n    import gc\n    gc.collect()\n    sys.exit()\n"
            "assert os.wait()[1] == 0\nappend(range(3, 9))\nstream.close()"
        )
        if backend == "acquire-zarr":  # cannot flush
            code = code.replace("stream.flush()\n", "")
        done = run(tmp_path, code, backend=backend)
        assert (done.returncode, done.stderr) == (0, "")
        check(tmp_path / "a.ome.zarr", 9, backend)

    def test_so_it_is_with_multiprocessing(self, tmp_path: Path) -> None:
        with open_stream(settings(tmp_path)) as stream:
            stream.append(frame(0))
            context = multiprocessing.get_context("fork")
            results = context.SimpleQueue()
            child = context.Process(target=lambda: results.put(as_a_child(stream)))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                child.start()
            child.join()
            assert results.get()
            stream.append(frame(1))
        check(stream.path, 2)


# -- many threads ----------------------------------------------------------------------------------------------------


class TestManyThreads:
    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"chunks": {"t": 4, "y": Y, "x": X}, "codec": "blosc-lz4"},
            {"backend": "tensorstore", "shards": {"t": 8}},
            {"memory_limit": 3 * Y * X * 2},
        ],
    )
    def test_each_frame_lands_in_one_place(self, tmp_path: Path, fields: dict[str, Any]) -> None:
        """Some append, some write from the end, some skip, some flush; who comes too late is told so."""
        n_frames = 200
        dimensions = [{"name": "t", "count": n_frames}, *settings(tmp_path).dimensions[1:]]
        stamps = iter(range(10**6))
        sent: dict[int, bytes] = {}  # pixels -> who took them, for those that were taken
        lock = threading.Lock()

        def stamp() -> np.ndarray:
            with lock:
                return frame(next(stamps))

        def append(stream: Stream, worker: int) -> None:
            for number in range(40):
                pixels = stamp()
                stream.append(pixels, {"worker": worker, "number": number})
                with lock:
                    sent[len(sent)] = pixels.tobytes()

        def write(stream: Stream, worker: int) -> None:
            for number in range(n_frames - 1 - worker, 120, -3):
                pixels = stamp()
                stream.write(pixels, index={"t": number})
                with lock:
                    sent[len(sent)] = pixels.tobytes()

        def skip(stream: Stream, worker: int) -> None:
            for _ in range(10):
                stream.skip(reason=f"worker {worker}")

        def flush(stream: Stream, worker: int) -> None:
            for _ in range(10):
                stream.flush()

        failures: list[BaseException] = []

        def guarded(job: Callable[[Stream, int], None], worker: int) -> None:
            try:
                job(stream, worker)
            except BaseException as error:
                failures.append(error)

        with open_stream(settings(tmp_path, dimensions=dimensions, **fields)) as stream:
            jobs = [append, append, write, write, write, skip, skip, flush]
            numbered = [(job, jobs[:at].count(job)) for at, job in enumerate(jobs)]
            threads = [threading.Thread(target=guarded, args=each) for each in numbered]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert failures == []
        pixels = read_array(stream.plan.root / "0", reader_other_than(stream.plan.backend))
        found = Counter(each.tobytes() for each in pixels if each.any())
        assert found == Counter(sent.values())
        lines = Counter((record["frame"], record["status"]) for record in read_frames(stream.path))
        assert set(lines.values()) == {1}
        written = {number for number, status in lines if status == "written"}
        assert written == {number for number, each in enumerate(pixels) if each.any()}
        assert sum(status == "skipped" for _, status in lines) == 20
        assert stream.stats.frames_in == stream.stats.frames_written == len(sent)

    def test_close_comes_between_the_calls_of_others(self, tmp_path: Path) -> None:
        dimensions = [{"name": "t", "count": None}, *settings(tmp_path).dimensions[1:]]
        stream = open_stream(settings(tmp_path, dimensions=dimensions))
        n_taken = Counter[int]()
        going = threading.Barrier(4)

        def append(worker: int) -> None:
            going.wait()
            with pytest.raises(StreamClosedError):  # noqa: PT012
                while True:
                    stream.append(frame(worker))
                    n_taken[worker] += 1

        threads = [threading.Thread(target=append, args=(worker,)) for worker in range(3)]
        for thread in threads:
            thread.start()
        going.wait()
        while sum(n_taken.values()) < 30:
            sleep(0.001)
        stream.close()
        for thread in threads:
            thread.join()
        pixels = read_array(stream.plan.root / "0", "zarr")
        found = Counter(each.tobytes() for each in pixels)
        assert found == {frame(worker).tobytes(): n for worker, n in n_taken.items()}
        assert stream.stats.frames_written == len(pixels)


# -- after close, and in callbacks -----------------------------------------------------------------------------------


def test_after_close_every_call_is_refused_and_what_is_known_stays_known(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path)) as stream:
        stream.append(frame(0))
    calls: list[Callable[[], object]] = [
        lambda: stream.append(frame(0)),
        lambda: stream.extend(np.stack([frame(0)])),
        lambda: stream.write(frame(0), index={"t": 5}),
        stream.skip,
        stream.flush,
        lambda: stream.set_metadata("a", {}),
    ]
    for call in calls:
        with pytest.raises(StreamClosedError, match="is closed; nothing was written"):
            call()
    stream.close()
    assert stream.stats.frames_written == 1
    assert stream.error is None
    assert stream.next_frame == 1
    assert stream.plan.root == Path(stream.path)
    check(stream.path, 1)


def test_next_frame_is_none_when_all_have_come(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path)) as stream:
        assert stream.next_frame == 0
        stream.write(frame(1), index={"t": 1})
        assert stream.next_frame == 0
        stream.skip(N_FRAMES - 1)
        assert stream.next_frame == N_FRAMES - 1
        stream.append(frame(0))
        assert stream.next_frame is None
        with pytest.raises(FrameIndexError):
            stream.append(frame(0))


def test_a_callback_may_append(tmp_path: Path) -> None:
    """Until the stream is closed, as any other thread."""
    came = threading.Event()
    streams: list[Stream] = []
    answers: list[str] = []

    def append(stats: Stats) -> None:
        if streams:
            try:
                streams[0].append(frame(stats.frames_in))
            except StreamClosedError:
                answers.append("closed")
            else:
                answers.append("taken")
                came.set()

    with open_stream(settings(tmp_path), on_stats=append, stats_interval_s=0.01) as stream:
        streams.append(stream)
        assert came.wait(HANG_S)
    n_taken = answers.count("taken")
    check(stream.path, n_taken)
    assert answers[-1] == "closed"


# -- the body of `with` ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_whatever_ends_the_body_what_came_is_finalised(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, open_stream(settings(tmp_path)) as stream:  # noqa: PT012
        stream.append(frame(0))
        raise error
    assert caught.value is error
    check(stream.path, 1)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_whatever_ends_the_body_it_learns_that_close_failed(
    tmp_path: Path, faulty: FaultyBackend, error: BaseException
) -> None:
    with pytest.raises(type(error)) as caught, open_stream(settings(tmp_path, backend="faulty")) as stream:  # noqa: PT012
        faulty.error = OSError(5, "Input/output error")
        stream.append(frame(0))
        raise error
    assert caught.value is error
    assert "Input/output error" in "".join(error.__notes__)
    assert isinstance(stream.error, OSError)


def test_a_generator_that_is_dropped_finalises_its_stream(tmp_path: Path) -> None:
    def camera() -> Iterator[Stream]:
        with open_stream(settings(tmp_path)) as stream:
            while True:
                stream.append(frame(stream.next_frame or 0))
                yield stream

    frames = camera()
    path = next(frames).path
    next(frames)
    del frames
    gc.collect()
    check(path, 2)


@pytest.mark.parametrize(("error", "status"), [(ValueError(), "incomplete"), (KeyboardInterrupt(), "complete")])
def test_an_acquisition_without_an_end_is_incomplete_when_an_error_ends_it(
    tmp_path: Path, error: BaseException, status: str
) -> None:
    dimensions = [{"name": "t", "count": None}, {"name": "y", "count": Y}, {"name": "x", "count": X}]
    unbounded = settings(tmp_path, dimensions=dimensions)
    with pytest.raises(type(error)), open_stream(unbounded) as stream:  # noqa: PT012
        stream.append(frame(0))
        raise error
    assert state(stream.path)["status"] == status


@pytest.mark.parametrize(("n_frames", "status"), [(N_FRAMES, "complete"), (3, "incomplete")])
def test_of_one_with_an_end_the_frames_say_whether_it_ended_early(tmp_path: Path, n_frames: int, status: str) -> None:
    stream = open_stream(settings(tmp_path))
    for number in range(n_frames):
        stream.append(frame(number))
    stream.close(ended_early=True)
    assert state(stream.path)["status"] == status
