"""Levels where z is halved too: what waits for the next plane, and what it costs."""

from __future__ import annotations

import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scopestream import AcquisitionSettings, LayoutPlan, MemoryLimitError, open_stream
from scopestream.levels import next_levels
from scopestream.plan import block_bytes
from scopestream.planning import make_plan
from scopestream.registry import load_backend
from scopestream.stack import Stack
from scopestream.testing import read_array, stamped_frame
from scopestream.testing.levels import next_level
from scopestream.tiles import Tiler

Y, X = 30, 43
Levels = list[np.ndarray]


def settings(path: Path | str = "a.ome.zarr", frame: tuple[int, int] = (Y, X), **fields: Any) -> AcquisitionSettings:
    counts = fields.pop("counts", {"z": 9})
    dimensions = [{"name": n, "count": c} for n, c in {**counts, "y": frame[0], "x": frame[1]}.items()]
    base: dict[str, Any] = {"dtype": "uint16", "levels": 3, "downscale_z": True, "backend": "inplace"}
    return AcquisitionSettings(path=str(path), dimensions=dimensions, **{**base, **fields})


def plan(**fields: Any) -> LayoutPlan:
    chosen = settings(**fields)
    return make_plan(chosen, load_backend(chosen.backend))


def expected(pixels: np.ndarray, z: int) -> Levels:
    second = next_level(pixels, "mean", z)
    return [pixels, second, next_level(second, "mean", z)]


def read(path: Path) -> Levels:
    return [read_array(path / str(level), "zarr") for level in range(3)]


def test_arrays_have_half_the_planes_at_each_level_and_files_no_larger_than_they_need() -> None:
    layout = plan(counts={"t": 4, "z": 9}, chunks={"z": 2, "y": 16, "x": 16}, shards={"t": 2, "z": 6}, levels=5)
    assert [array.shape[1] for array in layout.arrays] == [9, 5, 3, 2, 1]
    assert [array.chunks[1] for array in layout.arrays] == [2, 2, 2, 2, 1]
    assert [array.shards and array.shards[1] for array in layout.arrays] == [6, 6, 4, 2, 1]
    assert {array.shards and array.shards[0] for array in layout.arrays} == {2}


def test_without_a_z_axis_nothing_changes() -> None:
    layout = plan(counts={"t": 4})
    assert layout.z_steps() == ()
    assert layout.arrays == plan(counts={"t": 4}, downscale_z=False).arrays


@pytest.mark.parametrize(
    ("counts", "n_waiting"), [({"t": 5, "z": 8}, 1), ({"z": 8, "t": 5}, 5), ({"t": 2, "z": 8, "p": 3, "c": 2}, 6)]
)
def test_the_plan_counts_the_planes_that_wait_when_frames_come_in_order(counts: dict[str, int], n_waiting: int) -> None:
    layout, flat = plan(counts=counts), plan(counts=counts, downscale_z=False)
    frame = block_bytes(layout.arrays[0], layout.unit)
    assert layout.pair_bytes >= n_waiting * frame
    assert layout.pair_bytes < (n_waiting + 8) * frame * 4 // 3
    assert layout.held_bytes >= flat.held_bytes + layout.pair_bytes


@pytest.mark.parametrize("backend", ["inplace", "tensorstore"])
@pytest.mark.parametrize("counts", [{"z": 12, "t": 10}, {"t": 10, "z": 12}])
def test_memory_stays_within_the_plan(tmp_path: Path, counts: dict[str, int], backend: str) -> None:
    shape = (256, 300)
    fields: dict[str, Any] = {"frame": shape, "backend": backend, "counts": counts, "shards": {"t": 1, "z": 3}}
    peak = settings(**fields).plan().peak_bytes
    frames = [np.full(shape, number, np.uint16) for number in range(4)]

    def acquire(name: str) -> None:
        with open_stream(settings(tmp_path / name, memory_limit=peak, **fields)) as stream:
            for number in range(120):
                stream.append(frames[number % 4])
        assert stream.stats.frames_written == 120

    acquire("first.ome.zarr")  # what is imported now stays in memory
    tracemalloc.start()
    try:
        acquire("second.ome.zarr")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 8 * frames[0].nbytes < most < peak  # buffers were counted


def test_planes_out_of_order_are_taken_as_long_as_they_fit(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"frame": (256, 256), "counts": {"z": 64}, "shards": {"z": 8}}
    limit = settings(**fields).plan().peak_bytes + 20 * 256 * 256 * 2
    pixels = np.zeros((64, 256, 256), np.uint16)
    with open_stream(settings(tmp_path / "a.ome.zarr", memory_limit=limit, **fields)) as stream:

        def write(z: int) -> None:
            stream.write(stamped_frame(z, (256, 256), "uint16"), index={"z": z})
            pixels[z] = stamped_frame(z, (256, 256), "uint16")

        for z in range(0, 16, 2):
            write(z)
        with pytest.raises(MemoryLimitError, match="wait for the next one along z"):
            list(map(write, range(16, 64, 2)))
        first_refused = int(np.flatnonzero(~pixels.any(axis=(1, 2))[::2])[0]) * 2
        for z in range(1, first_refused, 2):  # those that the others wait for are welcome, and make room
            write(z)
        write(first_refused)
    for found, wanted in zip(read(tmp_path / "a.ome.zarr"), expected(pixels, 0), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("backend", ["inplace", "tensorstore"])
def test_nothing_waits_for_planes_that_were_skipped(tmp_path: Path, backend: str) -> None:
    fields: dict[str, Any] = {"counts": {"z": 4, "t": 50}, "backend": backend, "shards": {"z": 1, "t": 1}}
    limit = settings(**fields).plan().peak_bytes
    pixels = np.zeros((50, 4, Y, X), np.uint16)
    with open_stream(settings(tmp_path / "a.ome.zarr", memory_limit=limit, **fields)) as stream:
        for z in range(4):
            for t in range(50):
                if z % 2 and t % 3:
                    stream.skip(reason="test")
                else:
                    pixels[t, z] = stamped_frame(t, (Y, X), "uint16")
                    stream.append(pixels[t, z])
    for found, wanted in zip(read(tmp_path / "a.ome.zarr"), expected(pixels, 1), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("seed", range(8))
def test_a_backend_in_order_takes_planes_that_were_passed_over_as_missing(tmp_path: Path, seed: int) -> None:
    counts = {"t": 3, "z": 5, "c": 2}
    generator = np.random.default_rng(seed)
    pixels = np.zeros((3, 2, 5, Y, X), np.uint16)
    with open_stream(settings(tmp_path / "a.ome.zarr", counts=counts, backend="acquire-zarr")) as stream:
        for number in np.flatnonzero(generator.random(30) < 0.5).tolist():
            t, z, c = np.unravel_index(number, (3, 5, 2))
            pixels[t, c, z] = stamped_frame(number, (Y, X), "uint16")
            stream.write(pixels[t, c, z], index={"t": int(t), "z": int(z), "c": int(c)})
    for found, wanted in zip(read(tmp_path / "a.ome.zarr"), expected(pixels, 2), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("backend", ["inplace", "tensorstore"])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_blocks_may_come_from_many_threads_in_any_order(backend: str, depth: int) -> None:
    layout = plan(
        counts={"t": 6, "z": 13}, backend=backend, chunks={"y": 16, "x": 16}, shards={"t": 2, "z": depth}, levels=3,
        memory_limit="100MB",
    )  # fmt: skip
    pixels = np.stack([stamped_frame(n, (Y, X), "uint16") for n in range(78)]).reshape(6, 13, Y, X)
    stored: dict[tuple[int, tuple[int, ...]], np.ndarray] = {}
    own = threading.local()

    def steps(image: int) -> Any:
        if not hasattr(own, "steps"):
            own.steps = next_levels(layout)
        return own.steps

    def write(level: int, image: int, origin: tuple[int, ...], data: np.ndarray) -> None:
        assert (level, origin) not in stored, "every block is stored once"
        stored[level, origin] = data.copy()

    stack = Stack(layout, steps, write, in_order=False)
    jobs = list(_blocks(layout, pixels))
    np.random.default_rng(depth).shuffle(jobs)  # type: ignore[arg-type]
    threads = [threading.Thread(target=_feed, args=(stack, jobs[number::8])) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    n_blocks = len(stored)
    stack.finish()
    assert len(stored) == n_blocks, "nothing waits when everything came"
    for level, wanted in enumerate(expected(pixels, 1)[1:], start=1):
        for origin, data in _blocks(layout, wanted, level):
            np.testing.assert_array_equal(stored.pop((level, origin)), data)
    assert not stored


def _blocks(layout: LayoutPlan, pixels: np.ndarray, level: int = 0) -> Any:
    """(origin, block) of a level, as the sink takes them."""
    array = layout.arrays[level]
    t_extent, z_extent = array.block_extent(layout.unit)
    for t in range(0, pixels.shape[0], t_extent):
        for z in range(0, pixels.shape[1], z_extent):
            block = np.ascontiguousarray(pixels[t : t + t_extent, z : z + z_extent])
            if layout.tiled_on_arrival:
                tiler = Tiler(array.frame_shape, array.tile)
                tiles = np.zeros(tiler.shape, block.dtype)
                tiler.cut(block[0, 0], tiles)
                block = tiles
            yield (t, z, 0, 0), block


def _feed(stack: Stack, jobs: list[tuple[tuple[int, ...], np.ndarray]]) -> None:
    for origin, block in jobs:
        stack.add(0, 0, origin, block)
