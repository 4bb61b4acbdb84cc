"""`stream.view()` and `open_view`: all frames as one array, while they come and afterwards."""

from __future__ import annotations

import os
import shutil
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scopestream.live
import scopestream.ondisk
import scopestream.stored
import scopestream_backends.inplace
from scopestream import (
    AcquisitionSettings,
    Channel,
    DatasetError,
    Dimension,
    FrameIndexError,
    NotReadableError,
    Position,
    Stream,
    StreamClosedError,
    View,
    WriteError,
    open_stream,
    open_view,
)
from scopestream.registry import backend_names, load_backend
from scopestream.testing import acquire, stamped_frame
from scopestream.testing.disks import FaultyBackend

Y, X = 24, 40
DTYPE = "uint16"
FRAME = [Dimension(name="y", count=Y, scale=0.5, unit="um"), Dimension(name="x", count=X, scale=0.5, unit="um")]
TIME = Dimension(name="t", count=None, scale=0.5, unit="s", origin=1.0)
STAGE = Dimension(name="p", coords=[Position(name="left"), Position(name="right")])
CHANNELS = Dimension(name="c", coords=[Channel(name="DAPI"), Channel(name="GFP")])
DEPTH = Dimension(name="z", count=3, scale=2.0, unit="um")
LIVE = [name for name in backend_names() if load_backend(name).capabilities.live_read]
HANG_S = 60  # far more than anything here takes


def settings(tmp_path: Path, *dimensions: Dimension, **fields: Any) -> AcquisitionSettings:
    base: dict[str, Any] = {
        "path": tmp_path / "a.ome.zarr",
        "dtype": DTYPE,
        "dimensions": [*(dimensions or (TIME, STAGE, CHANNELS, DEPTH)), *FRAME],
        "backend": "inplace",
    }
    return AcquisitionSettings(**{**base, **fields})


def stamped(number: int) -> np.ndarray:
    return stamped_frame(number, (Y, X), DTYPE)


def stack(*counts: int) -> np.ndarray:
    """All frames of an acquisition with these counts, in acquisition order."""
    frames = [stamped(number) for number in range(int(np.prod(counts)))]
    return np.array(frames).reshape(*counts, Y, X)


@contextmanager
def acquired(settings: AcquisitionSettings, n_frames: int) -> Iterator[tuple[Stream, View]]:
    """A stream with so many frames, and its view."""
    with open_stream(settings) as stream:
        view = stream.view()
        acquire(settings, n_frames, stream=stream)
        yield stream, view


class TestShape:
    def test_it_has_the_dimensions_in_acquisition_order(self, tmp_path: Path) -> None:
        # On disk the channels come before z, whatever the order of arrival.
        with acquired(settings(tmp_path, DEPTH, STAGE, CHANNELS), 12) as (_, view):
            assert view.dims == ("z", "p", "c", "y", "x")
            assert view.shape == (3, 2, 2, Y, X)
            assert (view.ndim, view.size, view.nbytes, len(view)) == (5, 12 * Y * X, 24 * Y * X, 3)
            assert view.dtype == np.uint16
            np.testing.assert_array_equal(view, stack(3, 2, 2))

    def test_coords_are_names_or_coordinates(self, tmp_path: Path) -> None:
        with acquired(settings(tmp_path), 12) as (_, view):
            coords = view.coords
        assert (coords["p"], coords["c"]) == (("left", "right"), ("DAPI", "GFP"))
        np.testing.assert_array_equal(coords["t"], [1.0])
        np.testing.assert_array_equal(coords["z"], [0.0, 2.0, 4.0])
        np.testing.assert_array_equal(coords["x"], 0.5 * np.arange(X))

    def test_an_unbounded_axis_is_as_long_as_frames_came(self, tmp_path: Path) -> None:
        with open_stream(settings(tmp_path, TIME, CHANNELS)) as stream:
            view = stream.view()
            assert view.shape == (0, 2, Y, X)
            for number in range(3):
                stream.append(stamped(number))
            assert view.shape == (2, 2, Y, X)
            stream.skip(4)
            assert view.shape == (4, 2, Y, X)
            stream.write(stamped(18), index={"t": 9, "c": 0})
            assert view.shape == (10, 2, Y, X)
        assert view.shape == (10, 2, Y, X)
        assert open_view(stream.path).shape == (10, 2, Y, X)

    def test_a_single_frame_is_an_array_of_two_axes(self, tmp_path: Path) -> None:
        one = AcquisitionSettings(path=tmp_path / "a.ome.zarr", dtype=DTYPE, dimensions=FRAME, backend="inplace")
        with acquired(one, 1) as (stream, view):
            np.testing.assert_array_equal(view[...], stamped(0))
            latest = view.latest()
            assert latest is not None
            assert (latest.number, latest.index) == (0, {})
        np.testing.assert_array_equal(open_view(stream.path), stamped(0))

    def test_it_says_what_it_is(self, tmp_path: Path) -> None:
        with acquired(settings(tmp_path, TIME, CHANNELS), 2) as (_, view):
            assert repr(view) == f"<scopestream.View (t: 1, c: 2, y: {Y}, x: {X}) uint16>"


KEYS: list[Any] = [
    0,
    -1,
    (1, 0, 1, 2),
    (slice(None), 1),
    (slice(None, None, -2), 0, slice(1, 2)),
    (..., 3, 5),
    (..., slice(2, 9, 3), slice(-3, None)),
    (-1, ..., slice(4)),
    (slice(5, 9),),
    ([1, 0],),
    (0, 1, [1, 1, 0]),
    (slice(None), np.array([False, True])),
    (slice(1), ..., [3, 1], slice(None)),
    (np.int64(1), np.uint8(1)),
    (),
    ...,
    (slice(0, 0), ...),
    ([], ...),
    (0, 0, 0, 0, 3, 7),
]


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    path = acquire(settings(tmp_path_factory.mktemp("indices")), 24).root
    return open_view(path)


class TestIndices:
    @pytest.mark.parametrize("key", KEYS, ids=str)
    def test_they_are_those_of_numpy(self, view: View, key: Any) -> None:
        np.testing.assert_array_equal(view[key], stack(2, 2, 2, 3)[key])

    def test_two_lists_pick_a_rectangle(self, view: View) -> None:
        np.testing.assert_array_equal(view[[1, 0], :, :, [0, 2]], stack(2, 2, 2, 3)[[1, 0]][:, :, :, [0, 2]])

    def test_items_have_names(self, view: View) -> None:
        every = stack(2, 2, 2, 3)
        np.testing.assert_array_equal(view[-1, "right", "GFP"], every[-1, 1, 1])
        np.testing.assert_array_equal(view[:, ["right", "left"], ["DAPI"]], every[:, ::-1, :1])

    def test_axes_have_names(self, view: View) -> None:
        every = stack(2, 2, 2, 3)
        np.testing.assert_array_equal(view.sel(c="GFP", t=-1), every[-1, :, 1])
        np.testing.assert_array_equal(view.sel(z=slice(1, None), x=[3, 2]), every[:, :, :, 1:, :, [3, 2]])
        np.testing.assert_array_equal(view.sel(), every)

    @pytest.mark.parametrize(
        ("key", "problem"),
        [
            (2, "'t' has no item 2"),
            (-3, "'t' has no item -3"),
            ((0, "nowhere"), r"'p' has no item 'nowhere' \(it has left, right\)"),
            ("DAPI", r"'t' has no item 'DAPI' \(it has no names\)"),
            ((0,) * 7, "Too many indices: 7 for the 6 axes t, p, c, z, y, x"),
            ((..., ...), "single ellipsis"),
            (1.5, "takes whole numbers"),
            (None, "takes whole numbers"),
            (True, "takes whole numbers"),
            (slice("DAPI", None), "A slice of axis 't' takes whole numbers"),
            ([True], "A mask of 1 does not fit axis 't', which has 2"),
            (np.zeros((2, 2), int), "takes a list of one dimension"),
        ],
        ids=str,
    )
    def test_what_is_not_there_is_refused(self, view: View, key: Any, problem: str) -> None:
        with pytest.raises(FrameIndexError, match=problem):
            view[key]

    def test_an_axis_that_is_not_there_is_refused(self, view: View) -> None:
        with pytest.raises(FrameIndexError, match="There is no axis 'w'; there are t, p, c, z, y, x"):
            view.sel(w=0)

    def test_it_becomes_an_array_of_any_dtype(self, view: View) -> None:
        assert np.asarray(view).dtype == np.uint16
        as_floats = np.array(view, dtype=np.float32)
        assert as_floats.dtype == np.float32
        np.testing.assert_array_equal(as_floats, stack(2, 2, 2, 3))
        with pytest.raises(ValueError, match="always a copy"):
            view.__array__(copy=False)

    def test_what_is_read_belongs_to_the_reader(self, view: View) -> None:
        view[0][:] = 0
        np.testing.assert_array_equal(view[0], stack(2, 2, 2, 3)[0])

    def test_it_can_be_gone_through(self, view: View) -> None:
        for item, expected in zip(view, stack(2, 2, 2, 3), strict=True):
            np.testing.assert_array_equal(item, expected)

    def test_an_index_reads_only_the_frames_that_it_names(self, view: View, monkeypatch: pytest.MonkeyPatch) -> None:
        read: list[int] = []
        frames = view._frames.frames
        monkeypatch.setattr(view._frames, "frames", lambda numbers: read.extend(numbers) or frames(numbers))
        _ = view[1, "left", ["DAPI", "GFP"], 2]
        assert read == [14, 17]


LAYOUTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tiles": {"chunks": {"y": 16, "x": 16}},
    "zstd": {"codec": "zstd", "shards": {"t": 8, "z": 3}},
    "deep": {"chunks": {"z": 3, "y": 16, "x": 16}},
    "deep zstd": {"codec": "zstd", "chunks": {"z": 3, "y": 16, "x": 16}},
    "no shards": {"shards": None},
    "safe from a power loss": {"codec": "zstd", "durability": "disk"},
    "frames over several shards": {"codec": "blosc-lz4", "chunks": {"y": 8, "x": 8}, "shards": {"y": 16, "x": 16}},
}


class TestWhileItIsWritten:
    @pytest.mark.parametrize("backend", backend_names())
    def test_each_frame_is_the_latest_at_once_whatever_the_backend(self, tmp_path: Path, backend: str) -> None:
        with open_stream(settings(tmp_path, backend=backend)) as stream:
            view = stream.view()
            assert view.latest() is None
            for number in range(24):
                stream.append(stamped(number))
                latest = view.latest()
                assert latest is not None
                assert latest.number == number
                np.testing.assert_array_equal(latest.image, stamped(number))
            assert latest.index == {"t": 1, "p": 1, "c": 1, "z": 2}

    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("backend", LIVE)
    def test_every_frame_that_came_is_found_without_a_flush(self, tmp_path: Path, backend: str, layout: str) -> None:
        fields = {"backend": backend, **LAYOUTS[layout]}
        with acquired(settings(tmp_path, **fields), 20) as (stream, view):
            expected = stack(2, 2, 2, 3)
            expected.reshape(-1, Y, X)[20:] = 0
            np.testing.assert_array_equal(view, expected)
            acquire_rest(stream, 20, 48)
            np.testing.assert_array_equal(view, stack(4, 2, 2, 3))
        np.testing.assert_array_equal(view, stack(4, 2, 2, 3))
        np.testing.assert_array_equal(open_view(stream.path), stack(4, 2, 2, 3))

    def test_frames_that_wait_for_the_disk_are_found_in_memory(self, tmp_path: Path, faulty: FaultyBackend) -> None:
        with faulty.held(), acquired(settings(tmp_path, backend="faulty"), 12) as (_, view):
            np.testing.assert_array_equal(view, stack(1, 2, 2, 3))
            faulty.release()

    def test_frames_that_the_caller_lent_are_found_as_well(self, tmp_path: Path, faulty: FaultyBackend) -> None:
        with faulty.held(), open_stream(settings(tmp_path, backend="faulty")) as stream:
            view = stream.view()
            frames = stack(2, 2, 2, 3)
            stream.extend(frames.reshape(-1, Y, X), copy=False)
            np.testing.assert_array_equal(view, frames)
            faulty.release()
            stream.flush()
            expected = frames.copy()
            frames[:] = 0  # the memory is the caller's again
            np.testing.assert_array_equal(view, expected)

    def test_a_frame_that_was_flushed_and_comes_with_its_block_again_is_whole(self, tmp_path: Path) -> None:
        fields: dict[str, Any] = {"codec": "zstd", "chunks": {"t": 4}, "shards": {"t": 16}}
        with open_stream(settings(tmp_path, TIME, **fields)) as stream:
            view = stream.view()
            for number in range(32):
                stream.append(stamped(number))
                if number % 3 == 0:
                    stream.flush()
                np.testing.assert_array_equal(view, stack(number + 1))

    def test_a_disk_that_hangs_is_not_waited_for_without_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(scopestream.live, "_PATIENCE_S", 0.1)
        monkeypatch.setattr(scopestream_backends.inplace, "_PUBLISH_EVERY_S", 1e9)  # only when it is asked to
        with open_stream(settings(tmp_path, TIME, codec="zstd", shards={"t": 64})) as stream:
            view = stream.view()
            with stream._delivery._publishing:  # as if it took for ever
                for number in range(40):
                    stream.append(stamped(number))
                while stream.stats.frames_waiting:
                    pass
                with pytest.raises(NotReadableError, match="has not shown what it stored"):
                    view[0]
                np.testing.assert_array_equal(view[-1], stamped(39))  # which is in memory
            np.testing.assert_array_equal(view, stack(40))

    def test_black_frames_are_black(self, tmp_path: Path) -> None:
        with open_stream(settings(tmp_path, TIME, codec="zstd")) as stream:
            view = stream.view()
            for _ in range(40):
                stream.append(np.zeros((Y, X), np.uint16))
            assert not view[...].any()
            assert view.is_there().all()

    def test_bool_frames(self, tmp_path: Path) -> None:
        frames = [stamped_frame(number, (Y, X), "bool") for number in range(3)]
        with open_stream(settings(tmp_path, TIME, dtype="bool", codec="zstd")) as stream:
            view = stream.view()
            for frame in frames:
                stream.append(frame)
            assert view.dtype == bool
            np.testing.assert_array_equal(view, frames)

    def test_the_last_frames_of_a_backend_that_shows_nothing_before_the_end_are_in_memory(self, tmp_path: Path) -> None:
        with acquired(settings(tmp_path, TIME, backend="acquire-zarr"), 200) as (stream, view):
            stream.flush()
            there = view.is_there()
            assert there.tolist() == [False] * 184 + [True] * 16
            expected = stack(200)
            expected[~there] = 0
            np.testing.assert_array_equal(view, expected)
            assert not open_view(stream.path).is_there().any()
        assert view.is_there().all()
        np.testing.assert_array_equal(view, stack(200))

    def test_readers_beside_a_fast_camera_never_see_a_frame_that_did_not_come(self, tmp_path: Path) -> None:
        """Each frame has one value: a mixture of two, or a frame of another place, would show."""
        n_frames = 4000
        for codec in ("none", "blosc-lz4"):
            path = tmp_path / f"{codec}.ome.zarr"
            done = threading.Event()

            def look(view: View, seed: int, done: threading.Event = done) -> int:
                generator, seen = np.random.default_rng(seed), 0
                while not done.is_set():
                    latest = view.latest()
                    if latest is None:
                        continue
                    assert (latest.image == latest.number + 1).all()
                    number = int(generator.integers(latest.number + 1))
                    assert (view[number] == number + 1).all()
                    seen += 1
                return seen

            with (
                open_stream(settings(tmp_path, TIME, path=path, codec=codec)) as stream,
                ThreadPoolExecutor(2) as threads,
            ):
                looks = [threads.submit(look, stream.view(), seed) for seed in range(2)]
                try:
                    for number in range(n_frames):
                        stream.append(np.full((Y, X), number + 1, np.uint16))
                    stream.flush()
                finally:
                    done.set()
                assert all(future.result(HANG_S) for future in looks)

    def test_a_view_outlives_its_stream_and_does_not_keep_it_open(self, tmp_path: Path) -> None:
        streams = [open_stream(settings(tmp_path, TIME))]
        view = streams[0].view()
        streams[0].append(stamped(0))
        gone = weakref.ref(streams[0])
        with pytest.warns(ResourceWarning, match="was not closed"):
            streams.clear()
        assert gone() is None
        np.testing.assert_array_equal(view[0], stamped(0))

    def test_views_do_not_make_a_full_memory_fuller(self, tmp_path: Path, faulty: FaultyBackend) -> None:
        """What views keep is given up before `append` waits for it, or refuses a frame."""
        limit = 8 * Y * X * 2
        full = settings(tmp_path, TIME, backend="faulty", memory_limit=limit, on_full="raise")
        with open_stream(full) as stream:
            view = stream.view()
            n_buffers = stream.plan.n_buffers
            acquire(full, 3 * n_buffers, stream=stream) if n_buffers < 2 else None
            for number in range(n_buffers):
                stream.append(stamped(number))
            stream.flush()
            with faulty.held():
                for number in range(n_buffers, 2 * n_buffers):
                    stream.append(stamped(number))
                np.testing.assert_array_equal(view, stack(2 * n_buffers))
                faulty.release()


class TestWhatIsThere:
    def test_frames_that_did_not_come_are_zeros_and_known_as_such(self, tmp_path: Path) -> None:
        bounded = settings(tmp_path, Dimension(name="t", count=4), CHANNELS)
        with open_stream(bounded) as stream:
            view = stream.view()
            stream.append(stamped(0))
            stream.skip(2, reason="autofocus failed")
            stream.append(stamped(3))
            stream.write(stamped(6), index={"t": 3, "c": "DAPI"})
            expected = [[True, False], [False, True], [False, False], [True, False]]
            np.testing.assert_array_equal(view.is_there(), expected)
            assert view.is_there(0, "DAPI") is True
            assert view.is_there(2, "DAPI") is False
            np.testing.assert_array_equal(view.is_there(slice(None), "GFP"), [False, True, False, False])
            pixels = stack(4, 2)
            pixels[~np.array(expected)] = 0
            np.testing.assert_array_equal(view, pixels)
        np.testing.assert_array_equal(view.is_there(), expected)
        np.testing.assert_array_equal(open_view(stream.path).is_there(), expected)

    def test_frames_that_were_dropped_are_not_there(self, tmp_path: Path, faulty: FaultyBackend) -> None:
        limit = 8 * Y * X * 2
        dropping = settings(tmp_path, TIME, backend="faulty", memory_limit=limit, on_full="drop")
        with faulty.held(), open_stream(dropping) as stream:
            view = stream.view()
            for number in range(2 * stream.plan.n_buffers):
                stream.append(stamped(number))
            n_in = stream.stats.frames_in
            assert view.is_there().tolist() == [True] * n_in + [False] * stream.stats.frames_dropped
            latest = view.latest()
            assert latest is not None
            assert latest.number == n_in - 1
            faulty.release()

    def test_frames_that_could_not_be_stored_are_not_there(self, tmp_path: Path, faulty: FaultyBackend) -> None:
        faulty.broken = {(1, 0, 0)}
        stream = open_stream(settings(tmp_path, TIME, backend="faulty"))
        view = stream.view()
        stream.extend(stack(3))
        with pytest.raises(WriteError):
            stream.close()
        assert view.is_there().tolist() == [True, False, True]
        pixels = stack(3)
        pixels[1] = 0
        np.testing.assert_array_equal(view, pixels)
        assert open_view(stream.path).is_there().tolist() == [True, False, True]

    def test_the_latest_frame_is_the_one_that_came_last_wherever_it_belongs(self, tmp_path: Path) -> None:
        with open_stream(settings(tmp_path, Dimension(name="t", count=9), CHANNELS)) as stream:
            view = stream.view()
            for number in (17, 4, 9):
                stream.write(stamped(number), index={"t": number // 2, "c": number % 2})
                latest = view.latest()
                assert latest is not None
                assert (latest.number, latest.index) == (number, {"t": number // 2, "c": number % 2})

    def test_a_stream_that_goes_on_shows_what_was_there(self, tmp_path: Path) -> None:
        with acquired(settings(tmp_path, TIME), 5) as (stream, _):
            stream.skip(1)
        with open_stream(settings(tmp_path, TIME, on_exists="resume")) as stream:
            view = stream.view()
            latest = view.latest()
            assert latest is not None
            assert latest.number == 4
            assert view.is_there().tolist() == [True] * 5 + [False]
            stream.append(stamped(6))
            pixels = stack(7)
            pixels[5] = 0
            np.testing.assert_array_equal(view, pixels)

    def test_what_is_damaged_is_not_taken_for_zeros(self, tmp_path: Path) -> None:
        with acquired(settings(tmp_path, TIME, codec="zstd", shards={"t": 4}), 8) as (_, view):
            pass
        shard = next((tmp_path / "a.ome.zarr" / "0" / "c").rglob("0"))
        while shard.is_dir():
            shard = shard / "0"
        shard.write_bytes(shard.read_bytes()[:-10])
        with pytest.raises(NotReadableError, match="cannot be read"):
            view[0]
        np.testing.assert_array_equal(view[4], stamped(4))


def aged(root: Path | str) -> None:
    """As if nobody had written to it for a minute."""
    for path in Path(root).rglob("c/**/*"):
        if path.is_file():
            found = path.stat()
            os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns - 60 * 10**9))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """First frames of the layers that were read from files, in order."""
    origins: list[tuple[int, ...]] = []
    layer = scopestream.stored.StoredArray.layer

    def note(array: scopestream.stored.StoredArray, origin: tuple[int, ...]) -> tuple[np.ndarray, bool]:
        origins.append(origin)
        return layer(array, origin)

    monkeypatch.setattr(scopestream.stored.StoredArray, "layer", note)
    return origins


DEEP: dict[str, Any] = {"codec": "zstd", "chunks": {"t": 8}, "shards": {"t": 16}}


class TestDeepChunks:
    def test_frame_by_frame_each_is_decoded_once_when_nobody_writes(
        self, tmp_path: Path, decoded: list[tuple[int, ...]]
    ) -> None:
        with acquired(settings(tmp_path, TIME, **DEEP), 40) as (stream, live):
            pass
        aged(stream.path)
        for view in (live, open_view(stream.path)):
            decoded.clear()
            for number in range(40):
                np.testing.assert_array_equal(view[number], stamped(number))
            assert decoded == [(0,), (8,), (16,), (24,), (32,)]

    def test_what_was_decoded_is_bounded(
        self, tmp_path: Path, decoded: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(scopestream.ondisk, "_MAX_LAYER_BYTES", 8 * Y * X)
        acquire(settings(tmp_path, TIME, **DEEP), 8)
        aged(tmp_path)
        view = open_view(tmp_path / "a.ome.zarr")
        for number in range(2):
            np.testing.assert_array_equal(view[number], stamped(number))
        assert decoded == [(0,), (0,)]

    def test_frames_that_come_later_into_the_same_chunk_are_seen(
        self, tmp_path: Path, decoded: list[tuple[int, ...]]
    ) -> None:
        first = settings(tmp_path, TIME, **DEEP)
        acquire(first, 3)
        aged(tmp_path)
        view = open_view(tmp_path / "a.ome.zarr")
        np.testing.assert_array_equal(view, stack(3))
        with open_stream(first.model_copy(update={"on_exists": "resume"})) as stream:
            for number in range(3, 8):
                stream.append(stamped(number))
                stream.flush()
                np.testing.assert_array_equal(view, stack(number + 1))
        np.testing.assert_array_equal(view, stack(8))

    def test_nobody_waits_while_another_reads(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        acquire(settings(tmp_path, TIME, **DEEP), 16)
        view = open_view(tmp_path / "a.ome.zarr")
        is_in, go_on = threading.Event(), threading.Event()
        layer = scopestream.stored.StoredArray.layer

        def hang(array: scopestream.stored.StoredArray, origin: tuple[int, ...]) -> tuple[np.ndarray, bool]:
            if origin == (0,):
                is_in.set()
                go_on.wait(HANG_S)
            return layer(array, origin)

        monkeypatch.setattr(scopestream.stored.StoredArray, "layer", hang)
        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(view.__getitem__, 1)
            assert is_in.wait(HANG_S)
            np.testing.assert_array_equal(view[9], stamped(9))
            assert not slow.done()
            go_on.set()
            np.testing.assert_array_equal(slow.result(), stamped(1))


class TestRagged:
    @pytest.mark.parametrize("backend", LIVE)
    def test_a_view_is_as_large_as_the_largest_position_and_zeros_elsewhere(self, tmp_path: Path, backend: str) -> None:
        stage = Dimension(name="p", coords=[Position(name="thin", counts={"z": 1, "c": 1}), Position(name="thick")])
        ragged = settings(tmp_path, Dimension(name="t", count=2), stage, CHANNELS, DEPTH, backend=backend)
        expected, there = np.zeros((2, 2, 2, 3, Y, X), np.uint16), np.zeros((2, 2, 2, 3), bool)
        with open_stream(ragged) as stream:
            view = stream.view()
            for t in range(2):
                for place in [(t, 0, 0, 0), *[(t, 1, c, z) for c in range(2) for z in range(3)]]:
                    frame = stamped(int(np.ravel_multi_index(place, there.shape)))
                    stream.append(frame)
                    expected[place], there[place] = frame, True
                    latest = view.latest()
                    assert latest is not None
                    assert tuple(latest.index.values()) == place
            assert view.shape == (2, 2, 2, 3, Y, X)
            np.testing.assert_array_equal(view, expected)
            np.testing.assert_array_equal(view.is_there(), there)
        for closed in (view, open_view(stream.path)):
            np.testing.assert_array_equal(closed, expected)
            np.testing.assert_array_equal(closed.is_there(), there)

    def test_a_name_means_the_channel_that_the_position_has_by_that_name(self, tmp_path: Path) -> None:
        own = Position(name="own", channels=[Channel(name="Cy5"), Channel(name="DAPI")])
        less = Position(name="less", channels=[Channel(name="DAPI")])
        stage = Dimension(name="p", coords=[Position(name="left"), own, less, Position(name="right")])
        # The channels may come before the positions.
        for number, loop in enumerate(((TIME, stage, CHANNELS), (TIME, CHANNELS, stage))):
            layout = settings(tmp_path, *loop, path=tmp_path / f"{number}.ome.zarr")
            with open_stream(layout) as stream:
                live = stream.view()
                for p, names in (("left", ("DAPI", "GFP")), ("own", ("Cy5", "DAPI")), ("less", ("DAPI",))):
                    for name in names:
                        pixel = 10 * ("left", "own", "less").index(p) + ("DAPI", "GFP", "Cy5").index(name) + 1
                        stream.write(np.full((Y, X), pixel, DTYPE), index={"t": 0, "p": p, "c": name})
                stream.flush()
                for view in (live, open_view(stream.path)):
                    seen = [
                        int(view.sel(t=0, p=p, c=name)[0, 0])
                        for p, name in (("left", "DAPI"), ("left", "GFP"), ("own", "Cy5"), (1, "DAPI"), (-2, "DAPI"))
                    ]
                    assert seen == [1, 2, 13, 11, 21]
                    assert view.sel(t=0, p=["own"], c=["DAPI", "Cy5"])[..., 0, 0].reshape(-1).tolist() == [11, 13]
                    # Where it is the same item of each it is known of several, and zeros where one has no such item.
                    assert view.sel(t=0, p=["less", "left"], c="DAPI")[..., 0, 0].tolist() == [21, 1]
                    assert view.sel(t=0, p=["less", "left"], c="GFP")[..., 0, 0].tolist() == [0, 2]
                    assert view.sel(t=0, c=0)[:3, 0, 0].tolist() == [1, 13, 21]
                    with pytest.raises(FrameIndexError, match=r"no item 'GFP' \(position 'own' has Cy5, DAPI\)"):
                        view.sel(p="own", c="GFP")
                    with pytest.raises(FrameIndexError, match=r"no item 'DAPI' \(.*differ, so name a single position"):
                        view.sel(c="DAPI")
        assert view.is_there(0, "DAPI", "own")
        assert view.sel(p=[], c=0).shape == (1, 0, Y, X)
        with pytest.raises(FrameIndexError, match="name a single position"):
            view.sel(p=[], c="DAPI")
        assert not view.is_there(0, "GFP", "right")

    def test_coords_say_only_what_holds_for_all_positions_and_those_of_one_say_all(self, tmp_path: Path) -> None:
        own = Position(name="own", channels=["Cy5"], scales={"z": 0.5}, counts={"z": 2}, x=250.0, z=7.0)
        stage = Dimension(name="p", coords=[Position(name="left", x=100.0), own])
        depth = DEPTH.model_copy(update={"origin": -2.0})
        with open_stream(settings(tmp_path, TIME, stage, CHANNELS, depth)) as stream:
            stream.write(stamped(0), index={"t": 0, "p": 0, "c": 0, "z": 0})
            live = stream.view()
        for view in (live, open_view(stream.path)):
            coords, left, right = view.coords, view.coords_at(0), view.coords_at("own")
            assert coords["p"] == left["p"] == right["p"] == ("left", "own")
            np.testing.assert_array_equal(coords["c"], [0, 1])
            assert (left["c"], right["c"]) == (("DAPI", "GFP"), ("Cy5",))
            np.testing.assert_array_equal(coords["z"], [0, 1, 2])
            np.testing.assert_array_equal(left["z"], [-2.0, 0.0, 2.0])
            np.testing.assert_array_equal(right["z"], [7.0, 7.5])
            np.testing.assert_array_equal(coords["x"], 0.5 * np.arange(X))
            np.testing.assert_array_equal(right["x"], 250 + 0.5 * np.arange(X))
            for same in (coords, left, right):
                np.testing.assert_array_equal(same["t"], [1.0])
                np.testing.assert_array_equal(same["y"], 0.5 * np.arange(Y))
            for wrong, problem in ((2, "no item 2"), ("up", "no item 'up'"), ([0], "takes one position")):
                with pytest.raises(FrameIndexError, match=problem):
                    view.coords_at(wrong)  # type: ignore[arg-type]

    def test_positions_that_agree_have_coords_in_common(self, tmp_path: Path) -> None:
        channels = [Channel(name="Cy5"), Channel(name="DAPI")]
        places = [Position(name=name, channels=channels, scales={"z": 0.5}, z=7.0) for name in ("left", "right")]
        with open_stream(settings(tmp_path, TIME, Dimension(name="p", coords=places), CHANNELS, DEPTH)) as stream:
            view = stream.view()
            stream.append(stamped(0))
            assert view.coords["c"] == ("Cy5", "DAPI")
            np.testing.assert_array_equal(view.coords["z"], [7.0, 7.5, 8.0])
            np.testing.assert_array_equal(view[0, :, "Cy5", 0], [stamped(0), np.zeros((Y, X))])

    def test_without_positions_none_has_coords_of_its_own(self, tmp_path: Path) -> None:
        with open_stream(settings(tmp_path, TIME)) as stream, pytest.raises(FrameIndexError, match="no positions"):
            stream.view().coords_at(0)

    def test_merged_dimensions_are_apart_in_a_view(self, tmp_path: Path) -> None:
        phase = Dimension(name="phase", coords=["0", "120", "240"])
        merged = settings(tmp_path, Dimension(name="t", count=2), phase, CHANNELS, merge=("phase", "c"))
        with acquired(merged, 12) as (stream, view):
            assert view.dims == ("t", "phase", "c", "y", "x")
            np.testing.assert_array_equal(view, stack(2, 3, 2))
            np.testing.assert_array_equal(view[:, "120", "GFP"], stack(2, 3, 2)[:, 1, 1])
        np.testing.assert_array_equal(open_view(stream.path), stack(2, 3, 2))


class TestCameras:
    def test_cameras_that_are_alike_are_an_axis(self, tmp_path: Path) -> None:
        cameras = [{"name": "left"}, {"name": "right"}]
        for camera_axis in ("images", "channels"):
            path = tmp_path / f"{camera_axis}.ome.zarr"
            both = settings(tmp_path, TIME, CHANNELS, path=path, cameras=cameras, camera_axis=camera_axis)
            with open_stream(both) as stream:
                view = stream.view()
                for number in range(8):
                    stream.append(stamped(number), camera=("left", "right")[number % 2])
                stream.flush()
                assert view.dims == ("t", "c", "camera", "y", "x")
                for seen in (view, open_view(path)):
                    np.testing.assert_array_equal(seen, stack(2, 2, 2))
                    np.testing.assert_array_equal(seen[-1, "GFP", "right"], stack(2, 2, 2)[-1, 1, 1])
                np.testing.assert_array_equal(stream.view(camera="right"), stack(2, 2, 2)[:, :, 1])
                np.testing.assert_array_equal(open_view(path, camera="left"), stack(2, 2, 2)[:, :, 0])

    def test_cameras_that_differ_have_views_of_their_own(self, tmp_path: Path) -> None:
        cameras = [{"name": "left"}, {"name": "right", "shape": (16, 8), "dtype": "uint8", "scale": (2.0, 2.0)}]
        small = [stamped_frame(number, (16, 8), "uint8") for number in range(3)]
        with open_stream(settings(tmp_path, TIME, codec="zstd", cameras=cameras)) as stream:
            left, right = stream.view(camera="left"), stream.view("right")
            assert left.latest() is None
            for frame in small:
                stream.append(frame, camera="right")
            stream.append(stamped(0), camera="left")
            assert (left.dims, left.shape, left.dtype) == (("t", "y", "x"), (3, Y, X), np.uint16)
            assert (right.shape, right.dtype) == ((3, 16, 8), np.uint8)
            np.testing.assert_array_equal(right.coords["y"], 2.0 * np.arange(16))
            stream.flush()
            for one, other in ((left, right), [open_view(stream.path, name) for name in ("left", "right")]):
                np.testing.assert_array_equal(other, small)
                np.testing.assert_array_equal(one[0], stamped(0))
                assert one.is_there().tolist() == [True, False, False]
                of_left, of_right = one.latest(), other.latest()
                assert of_left is not None
                assert of_right is not None
                assert (of_left.number, of_left.index) == (0, {"t": 0, "camera": 0})
                assert (of_right.number, of_right.index) == (5, {"t": 2, "camera": 1})
                np.testing.assert_array_equal(of_right.image, small[2])
            with pytest.raises(FrameIndexError, match="say camera=, one of 'left', 'right'"):
                stream.view()
            with pytest.raises(FrameIndexError, match="There is no camera 'top'; there are 'left', 'right'"):
                stream.view(camera="top")

    def test_coords_of_cameras_with_pixels_of_different_sizes_are_numbers(self, tmp_path: Path) -> None:
        cameras = [{"name": "left"}, {"name": "right", "scale": (2.0, 2.0)}]
        with open_stream(settings(tmp_path, TIME, cameras=cameras)) as stream:
            np.testing.assert_array_equal(stream.view().coords["x"], np.arange(X))
            np.testing.assert_array_equal(stream.view(camera="right").coords["x"], 2.0 * np.arange(X))
            np.testing.assert_array_equal(stream.view(camera="left").coords["x"], 0.5 * np.arange(X))

    def test_without_cameras_none_can_be_named(self, tmp_path: Path) -> None:
        with open_stream(settings(tmp_path, TIME)) as stream, pytest.raises(FrameIndexError, match="no cameras"):
            stream.view(camera="left")


class TestOfAnotherProcess:
    def test_a_view_of_a_dataset_on_disk_grows_with_it(self, tmp_path: Path) -> None:
        for codec in ("none", "blosc-zstd"):
            path = tmp_path / f"{codec}.ome.zarr"
            with open_stream(settings(tmp_path, TIME, CHANNELS, path=path, codec=codec)) as stream:
                view = open_view(path)
                assert view.shape == (0, 2, Y, X)
                assert view.latest() is None
                for number in range(6):
                    stream.append(stamped(number))
                    stream.flush()
                    latest = view.latest()
                    assert latest is not None
                    assert latest.number == number
                    np.testing.assert_array_equal(latest.image, stamped(number))
                np.testing.assert_array_equal(view, stack(3, 2))

    def test_a_frame_that_is_logged_is_shown_once_it_is_published(self, tmp_path: Path) -> None:
        """Compressed chunks are in no index for a moment; the checksum tells them from black ones."""
        with open_stream(settings(tmp_path, TIME, codec="zstd")) as stream:
            view = open_view(stream.path)
            for number in range(200):
                stream.append(stamped(number))
                latest = view.latest()
                if latest is not None:
                    np.testing.assert_array_equal(latest.image, stamped(latest.number))
            stream.flush()
            latest = view.latest()
            while latest is None or latest.number != 199:  # a view looks again after a moment
                latest = view.latest()
            np.testing.assert_array_equal(latest.image, stamped(199))

    def test_chunks_that_a_library_makes_shards_of_are_read_as_such(self, tmp_path: Path) -> None:
        with open_stream(settings(tmp_path, TIME, shards=None, backend="acquire-zarr")) as stream:
            view = stream.view()
            for number in range(3):
                stream.append(stamped(number))
        np.testing.assert_array_equal(view[:3], stack(3)[:3])

    def test_a_dataset_that_took_its_place_is_not_mixed_with_it(self, tmp_path: Path) -> None:
        path = acquire(settings(tmp_path, TIME), 2).root
        view = open_view(path)
        acquire(settings(tmp_path, TIME, on_exists="overwrite"), 3)
        with pytest.raises(DatasetError, match="open the view again"):
            _ = view.shape
        np.testing.assert_array_equal(open_view(path), stack(3))

    def test_what_is_no_dataset_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError):
            open_view(tmp_path / "nothing")
        path = acquire(settings(tmp_path, TIME), 2).root
        shutil.rmtree(path / "scopestream")
        with pytest.raises(DatasetError, match="scopestream did not write it"):
            open_view(path)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_a_forked_process_cannot_read_through_the_stream(self, tmp_path: Path) -> None:
        with acquired(settings(tmp_path, TIME), 2) as (stream, view):
            child = os.fork()
            if child == 0:
                outcomes = []
                for attempt in (stream.view, lambda: view[0]):
                    try:
                        attempt()
                    except StreamClosedError:
                        outcomes.append(True)
                os._exit(0 if outcomes == [True, True] else 1)
            _, status = os.waitpid(child, 0)
            assert status == 0


def acquire_rest(stream: Stream, first: int, end: int) -> None:
    for number in range(first, end):
        stream.append(stamped(number))
