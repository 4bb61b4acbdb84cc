"""How frames go from the camera to the writer threads: copied or not, one by one or in stacks, and never too many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest

from scopestream import (
    AcquisitionSettings,
    FrameIndexError,
    FrameMismatchError,
    MetadataError,
    Stream,
    StreamFullError,
    WriteError,
    open_stream,
    read_frames,
)
from scopestream.assemble import Job
from scopestream.testing import read_array, stamped_frame
from scopestream.testing.disks import FaultyBackend
from scopestream_backends._shards import ShardFile

Y, X = 24, 40
THREE_FRAMES = 3 * Y * X * 2


def settings(tmp_path: Path, **fields: Any) -> AcquisitionSettings:
    base: dict[str, Any] = {
        "path": tmp_path / "a.ome.zarr",
        "dtype": "uint16",
        "dimensions": [{"name": "t", "count": 12}, {"name": "y", "count": Y}, {"name": "x", "count": X}],
        "backend": "inplace",
    }
    return AcquisitionSettings(**{**base, **fields})


def stack(first: int, end: int) -> np.ndarray:
    return np.stack([stamped_frame(number, (Y, X), "uint16") for number in range(first, end)])


def pixels(stream: Stream) -> np.ndarray:
    return read_array(stream.plan.root / "0", "zarr")


def statuses(stream: Stream) -> dict[int, str]:
    return {record["frame"]: record["status"] for record in read_frames(stream.path)}


# -- copy=False ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", ["auto", {"y": 8, "x": 8}])
def test_a_frame_that_is_not_copied_is_read_when_it_is_stored(
    tmp_path: Path, faulty: FaultyBackend, chunks: Any
) -> None:
    """What a caller breaks who writes to it too early, and so the proof that nobody copied it."""
    frames = stack(0, 2)
    with faulty.held(), open_stream(settings(tmp_path, backend="faulty", chunks=chunks, shards="auto")) as stream:
        stream.append(frames[0], copy=False)
        stream.append(frames[1])
        frames[:] = 7
        faulty.release()
    if chunks == "auto":  # with tiles a thread cuts the frame, which it may have done before
        assert (pixels(stream)[0] == 7).all()
    np.testing.assert_array_equal(pixels(stream)[1], stack(1, 2)[0])


def test_after_flush_the_memory_is_the_callers_again(tmp_path: Path) -> None:
    memory = np.empty((Y, X), np.uint16)
    with open_stream(settings(tmp_path)) as stream:
        for number in range(12):
            memory[:] = stamped_frame(number, (Y, X), "uint16")
            stream.append(memory, copy=False)
            stream.flush()
    np.testing.assert_array_equal(pixels(stream), stack(0, 12))


def test_frames_that_are_not_copied_count_as_memory(tmp_path: Path, faulty: FaultyBackend) -> None:
    with (
        faulty.held(),
        open_stream(settings(tmp_path, backend="faulty", memory_limit=THREE_FRAMES, on_full="raise")) as stream,
    ):
        for number in range(3):
            stream.append(stack(number, number + 1)[0], copy=number != 1)
        for copy in (True, False):
            with pytest.raises(StreamFullError, match="behind the camera"):
                stream.append(stack(3, 4)[0], copy=copy)
        faulty.release()
        stream.flush()
        for number in range(3, 12):
            stream.append(stack(number, number + 1)[0], copy=False)
            stream.flush()
    np.testing.assert_array_equal(pixels(stream), stack(0, 12))


@pytest.mark.parametrize("kind", ["swapped", "strided", "fortran", "reversed"])
def test_frames_that_cannot_be_stored_as_they_lie_are_copied_all_the_same(tmp_path: Path, kind: str) -> None:
    frames = stack(0, 2)
    given = {
        "swapped": frames[1].astype(">u2"),
        "strided": np.repeat(frames[1], 2, axis=1)[:, ::2],
        "fortran": np.asfortranarray(frames[1]),
        "reversed": frames[1][::-1].copy()[::-1],
    }[kind]
    with open_stream(settings(tmp_path)) as stream:
        stream.append(frames[0])
        stream.append(given, copy=False)
    np.testing.assert_array_equal(pixels(stream)[:2], frames)


# -- extend ----------------------------------------------------------------------------------------------------------


def test_a_stack_is_as_many_frames_with_their_metadata(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path)) as stream:
        stream.extend(stack(0, 5), [{"exposure_time": number} if number % 2 else None for number in range(5)])
        stream.append(stack(5, 6)[0])
        stream.extend(stack(6, 7)[:0])
        stream.extend(stack(6, 12).astype(">u2"))
    np.testing.assert_array_equal(pixels(stream), stack(0, 12))
    assert stream.stats.frames_written == 12
    logged = {record["frame"]: record.get("metadata") for record in read_frames(stream.path)}
    assert logged[1] == {"exposure_time": 1}
    assert logged[2] is None


@pytest.mark.parametrize("wrong", [np.zeros((2, Y, X + 1), np.uint16), np.zeros((Y, X), np.uint16)])
def test_a_stack_of_another_shape_is_refused_whole(tmp_path: Path, wrong: np.ndarray) -> None:
    with open_stream(settings(tmp_path)) as stream:
        with pytest.raises(FrameMismatchError, match=r"the plan says \(n, 24, 40\) uint16. None of its frames"):
            stream.extend(wrong)
        with pytest.raises(FrameMismatchError):
            stream.extend(stack(0, 2).astype(np.int16))
        assert stream.stats.frames_in == 0


def test_a_stack_that_does_not_fit_is_refused_whole(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path)) as stream:
        stream.extend(stack(0, 10))
        with pytest.raises(FrameIndexError, match="All 12 frames"):
            stream.extend(stack(0, 3))
        stream.write(stack(11, 12)[0], index={"t": 11})
        with pytest.raises(FrameIndexError, match="already"):
            stream.extend(stack(10, 12))
        with pytest.raises(MetadataError, match="2 metadata for 1 frames"):
            stream.extend(stack(10, 11), [{}, {}])
        with pytest.raises(MetadataError, match="no frame was taken"):
            stream.extend(stack(10, 11), [{"raw": b""}])
        assert stream.stats.frames_in == 11
        stream.extend(stack(10, 11))
    np.testing.assert_array_equal(pixels(stream), stack(0, 12))


def test_a_stack_that_finds_no_room_says_how_far_it_came(tmp_path: Path, faulty: FaultyBackend) -> None:
    with (
        faulty.held(),
        open_stream(settings(tmp_path, backend="faulty", memory_limit=THREE_FRAMES, on_full="raise")) as stream,
    ):
        with pytest.raises(StreamFullError) as caught:
            stream.extend(stack(0, 12))
        assert caught.value.__notes__ == ["The first 3 of 12 frames were taken."]
        faulty.release()
        for number in range(3, 12):
            stream.flush()
            stream.extend(stack(number, number + 1))
    np.testing.assert_array_equal(pixels(stream), stack(0, 12))


def test_a_stack_drops_what_finds_no_room_and_shifts_nothing(tmp_path: Path, faulty: FaultyBackend) -> None:
    with (
        faulty.held(),
        open_stream(settings(tmp_path, backend="faulty", memory_limit=THREE_FRAMES, on_full="drop")) as stream,
    ):
        stream.extend(stack(0, 5))
        faulty.release()
        stream.flush()
        stream.extend(stack(5, 8))
    assert [number for number, status in statuses(stream).items() if status == "dropped"] == [3, 4]
    expected = stack(0, 12)
    expected[[3, 4, 8, 9, 10, 11]] = 0
    np.testing.assert_array_equal(pixels(stream), expected)


@pytest.mark.parametrize("memory_limit", [2 * Y * X * 2, THREE_FRAMES, "1GB"])
def test_a_stack_larger_than_the_memory_goes_through(tmp_path: Path, memory_limit: int | str) -> None:
    with open_stream(settings(tmp_path, memory_limit=memory_limit)) as stream:
        stream.extend(stack(0, 12))
    np.testing.assert_array_equal(pixels(stream), stack(0, 12))


def test_what_a_stack_drops_takes_its_turn_with_what_it_brings(tmp_path: Path, faulty: FaultyBackend) -> None:
    """Levels that halve z are told of planes that will not come, between those that came before and after."""
    dimensions = [{"name": "z", "count": 12, "type": "space"}, *settings(tmp_path).dimensions[1:]]
    fields = {"dimensions": dimensions, "levels": 2, "downscale_z": True, "on_full": "drop", "backend": "faulty"}
    with open_stream(settings(tmp_path, **fields, memory_limit="100MB")) as stream:
        submitted: list[int] = []
        submit, writer = stream._writer.submit, stream._writer
        writer._pool.n_buffers = writer._pool._allowed = 3

        def spy(jobs: Sequence[Job], n_before: int) -> None:
            submitted.extend(job.origin[0] for job in jobs if job.gone is None)
            submit(jobs, n_before)

        with faulty.held(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(writer, "submit", spy)
            stream.extend(stack(0, 6))
    assert stream.stats.frames_dropped == 3
    assert submitted == sorted(submitted)


# -- several blocks at once ------------------------------------------------------------------------------------------


def test_of_frames_stored_together_only_those_that_failed_are_said_to_have_failed(
    tmp_path: Path, faulty: FaultyBackend
) -> None:
    faulty.broken = {(3, 0, 0), (9, 0, 0)}
    stream = open_stream(settings(tmp_path, backend="faulty", shards={"t": 4}))
    stream.extend(stack(0, 12))
    with pytest.raises(WriteError, match=r"broken at .*10 of 12 .* safe, 2 could not be stored \(frames 3 and 9\)"):
        stream.close()
    assert [number for number, status in statuses(stream).items() if status == "failed"] == [3, 9]
    expected = stack(0, 12)
    expected[[3, 9]] = 0
    np.testing.assert_array_equal(pixels(stream), expected)


def test_a_lonely_small_frame_is_stored_though_no_other_comes(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path, codec="blosc-lz4")) as stream:
        stream.append(stack(0, 1)[0])
        give_up = monotonic() + 30
        while stream.stats.frames_waiting and monotonic() < give_up:
            sleep(0.001)
        assert stream.stats.frames_written == 1
        np.testing.assert_array_equal(pixels(stream)[0], stack(0, 1)[0])


@pytest.mark.parametrize("codec", ["none", "blosc-lz4"])
def test_a_shard_that_cannot_be_finished_is_tried_again_and_its_frames_are_safe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    failures = iter([OSError(28, "No space left on device")])
    original = ShardFile.release

    def fails_once(shard: ShardFile) -> None:
        for error in failures:
            raise error
        original(shard)

    monkeypatch.setattr(ShardFile, "release", fails_once)
    with open_stream(settings(tmp_path, shards={"t": 4}, codec=codec)) as stream:
        stream.extend(stack(0, 12))
    np.testing.assert_array_equal(pixels(stream), stack(0, 12))
    assert set(statuses(stream).values()) == {"written"}
