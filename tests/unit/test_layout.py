"""How chunks, shards, images and memory follow from the settings."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import pytest

from scopestream import AcquisitionSettings, LayoutPlan, MemoryLimitError, PlanError, Plate, open_stream
from scopestream.planning import make_plan
from scopestream.registry import load_backend
from scopestream.tiling import tile_shape
from scopestream_backends._whole_files import WholeFileBackend

MB = 1_000_000


def plan(dimensions: list[dict[str, Any]], backend: str = "inplace", **fields: Any) -> LayoutPlan:
    settings = AcquisitionSettings(path="a.ome.zarr", dimensions=dimensions, **{"dtype": "uint16", **fields})
    return make_plan(settings, load_backend(backend))


def dims(y: int, x: int, **counts: int | None) -> list[dict[str, Any]]:
    return [{"name": name, "count": count} for name, count in {**counts, "y": y, "x": x}.items()]


@pytest.mark.parametrize(
    ("frame", "itemsize", "tile"),
    [
        ((512, 512), 2, (512, 512)),  # EMCCD: a small frame is one chunk
        ((1024, 1024), 2, (1024, 1024)),
        ((1200, 1200), 2, (1200, 1200)),  # 95 % QE sCMOS with large pixels
        ((2048, 2048), 2, (1024, 1024)),  # sCMOS
        ((2048, 2048), 1, (2048, 2048)),
        ((2304, 2304), 2, (256, 256)),  # larger powers of two would pad by a tenth and more
        ((2160, 2560), 2, (256, 512)),
        ((3200, 3200), 2, (256, 256)),
        ((4096, 4096), 2, (1024, 1024)),
        ((2304, 4096), 2, (256, 2048)),
        ((97, 131), 2, (97, 131)),
    ],
)
def test_automatic_chunks_suit_common_cameras(frame: tuple[int, int], itemsize: int, tile: tuple[int, int]) -> None:
    assert tile_shape(frame, itemsize, 4 * 2**20) == tile


@pytest.mark.parametrize("frame", [(512, 640), (2048, 2048), (2304, 2304), (3000, 4096), (2960, 5056), (9000, 9000)])
@pytest.mark.parametrize("itemsize", [1, 2, 4])
def test_automatic_chunks_are_small_powers_of_two_that_pad_little(frame: tuple[int, int], itemsize: int) -> None:
    height, width = tile_shape(frame, itemsize, 4 * 2**20)
    assert height * width * itemsize <= 4 * 2**20
    padded = -(-frame[0] // height) * height * -(-frame[1] // width) * width
    assert padded * 6 <= 7 * prod(frame)
    for side, size in ((height, frame[0]), (width, frame[1])):
        assert side == size or side & (side - 1) == 0, "a power of two, or the whole side"


@pytest.mark.parametrize(
    ("dimensions", "shards"),
    [
        # Whole z-stacks and channels, then as many time points as fit.
        (dims(2048, 2048, t=100, c=2, z=20), (1, 2, 20, 2048, 2048)),
        (dims(1024, 1024, t=1000, c=2, z=20), (6, 2, 20, 1024, 1024)),
        (dims(512, 512, t=None), (976, 512, 512)),
        (dims(512, 512, t=10), (10, 512, 512)),
        # Frames that are small: no more chunks than an index of 128 KiB lists.
        (dims(64, 64, t=None), (8192, 64, 64)),
        # Too long for one shard: equal parts.
        (dims(2048, 2048, z=100), (50, 2048, 2048)),
    ],
)
def test_automatic_shards_grow_along_arrival_to_half_a_gigabyte(
    dimensions: list[dict[str, Any]], shards: tuple[int, ...]
) -> None:
    array = plan(dimensions).arrays[0]
    assert array.shards == shards
    assert prod(shards) * 2 <= 512 * MB


def test_a_plate_has_one_shard_for_each_field() -> None:
    positions = [
        {"name": f"{row}{column}", "row": row, "column": column} for row in "ABCDEFGH" for column in range(1, 13)
    ]
    dimensions = [{"name": "p", "coords": positions}, *dims(2048, 2048, c=4, z=5)]
    layout = plan(dimensions, plate=Plate.standard(96))
    assert (layout.kind, len(layout.images), layout.n_files) == ("plate", 96, 96)
    assert layout.images[-1].path == "H/12/0"


@pytest.mark.parametrize("backend", ["tensorstore", "zarr-python", "zarrs"])
def test_automatic_shards_fit_into_memory_where_they_are_held_whole(backend: str) -> None:
    dimensions = [{"name": "t", "count": 100}, {"name": "p", "count": 16}, *dims(2048, 2048, c=2)]
    layout = plan(dimensions, backend, memory_limit=1000 * MB)
    assert layout.peak_bytes <= 1000 * MB
    assert layout.unit == "shard"


def test_interleaved_positions_keep_a_shard_open_each() -> None:
    dimensions = [{"name": "t", "count": 8}, {"name": "p", "count": 16}, *dims(64, 64)]
    layout = plan(dimensions, "tensorstore", shards={"t": 4})
    frame = 64 * 64 * 2
    assert layout.peak_bytes - layout.held_bytes == (16 + 1) * 4 * frame


def test_an_inplace_backend_holds_no_shards() -> None:
    dimensions = [{"name": "t", "count": 100}, {"name": "p", "count": 16}, *dims(2048, 2048)]
    # One that comes, one on its way, and for each of two threads the tiles of a frame that was not copied on arrival.
    assert plan(dimensions, shards={"t": 50}).peak_bytes <= 4 * 2048 * 2048 * 2


def test_too_little_memory_is_refused_with_the_setting_to_change(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.zarr"
    settings = AcquisitionSettings(
        path=path, dtype="uint16", dimensions=dims(2048, 2048, t=64), shards={"t": 64}, backend="tensorstore",
        memory_limit="100MB",
    )  # fmt: skip
    with pytest.raises(MemoryLimitError, match="make shards smaller or raise memory_limit"):
        open_stream(settings)
    assert not path.exists()


def test_chunks_and_shards_are_bytes_too() -> None:
    array = plan(dims(2048, 2048, t=64), chunks="512kB", shards="64MB").arrays[0]
    assert prod(array.chunks) * 2 <= 512_000
    assert array.shards is not None
    assert prod(array.shards) * 2 <= 64 * MB


def test_automatic_chunks_divide_the_shards_that_were_asked_for() -> None:
    array = plan(dims(2048, 2048, t=4), shards={"y": 1024, "x": 768}).arrays[0]
    assert array.shards == (1, 1024, 768)
    assert 1024 % array.chunks[1] == 0
    assert 768 % array.chunks[2] == 0


def test_six_axes_become_series_named_by_the_extra_index() -> None:
    dimensions = [{"name": "angle", "coords": [0, 90]}, *dims(64, 64, t=3, c=2, z=4)]
    layout = plan(dimensions)
    assert layout.kind == "bioformats2raw"
    assert [image.name for image in layout.images] == ["angle=0", "angle=90"]
    assert layout.arrays[0].axes == ("t", "c", "z", "y", "x")


def test_a_custom_axis_is_stored_when_there_is_room_for_it() -> None:
    layout = plan([{"name": "angle", "coords": [0, 90]}, *dims(64, 64, t=3)])
    assert layout.arrays[0].axes == ("t", "angle", "y", "x")
    assert layout.kind == "image"


def test_levels_halve_down_to_256_pixels() -> None:
    layout = plan(dims(2048, 1000, t=4), levels="auto")
    assert [array.frame_shape for array in layout.arrays] == [(2048, 1000), (1024, 500), (512, 250), (256, 125)]
    assert len({array.shards[0] for array in layout.arrays if array.shards}) == 1


def test_a_plan_prints_what_it_comes_to() -> None:
    settings = AcquisitionSettings(path="a.ome.zarr", dtype="uint16", dimensions=dims(2048, 2048, t=100, c=2))
    text = str(settings.plan())
    for fact in ("image", "t=100 c=2 y=2048 x=2048", "1.68 GB", "inplace", "peak memory, tensorstore", "data files"):
        assert fact in text


def test_the_automatic_backend_says_why() -> None:
    settings = AcquisitionSettings(path="a.ome.zarr", dtype="uint16", dimensions=dims(64, 64, t=4))
    layout = settings.plan()
    assert layout.backend == "inplace"
    assert layout.reason.startswith("readable while it grows, any order, stores each tiled frame as it comes")
    assert {fit.name for fit in layout.fits} >= {"inplace", "tensorstore", "acquire-zarr", "zarr-python", "zarrs"}


def test_an_unknown_scheme_is_refused_by_every_backend() -> None:
    settings = AcquisitionSettings(path="ftp://host/a.ome.zarr", dtype="uint16", dimensions=dims(64, 64, t=4))
    with pytest.raises(PlanError, match="inplace: it cannot write to ftp"):
        settings.plan()


def test_the_indexes_of_all_compressed_shards_that_are_open_at_once_are_counted() -> None:
    dimensions = [{"name": "t", "count": 32}, {"name": "p", "count": 8}, {"name": "z", "count": 50}, *dims(64, 64)]
    fields = {"shards": {"t": 16}, "codec": "zstd"}
    together = plan(dimensions, **fields).held_bytes
    in_turn = plan([dimensions[1], dimensions[2], dimensions[0], *dims(64, 64)], **fields).held_bytes
    assert together - in_turn == 8 * (50 - 1) * (16 * 16 + 4)


@pytest.mark.parametrize(
    ("name", "memory_limit", "at_once"),
    [("tensorstore", "400MB", 1), ("tensorstore", "8GB", 2), ("zarrs", "500MB", 1), ("zarrs", "1GB", 2)],
)
def test_two_large_shards_are_stored_at_once_where_memory_allows(name: str, memory_limit: str, at_once: int) -> None:
    shards, backend = {"t": 12, "y": 2048, "x": 2048}, load_backend(name)
    layout = plan(dims(2048, 2048, t=48), name, shards=shards, memory_limit=memory_limit)
    assert isinstance(backend, WholeFileBackend)
    assert backend.at_once(layout) == at_once
    assert layout.peak_bytes <= layout.settings.memory_limit
