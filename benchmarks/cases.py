"""What is acquired, as frozen objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal

_TILES = {"y": 256, "x": 256}
_ROWS, _COLUMNS = "ABCDEFGHIJKLMNOP", range(1, 25)  # of a plate with 384 wells
_FIELDS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One acquisition of uint16 frames. Sizes are in elements.

    frame      (Y, X)
    loop       what goes round the frames in acquisition order, slowest first; "p" are positions
    unbounded  whether the writers are told the count of the first dimension
    chunk      what a chunk is long along each axis; 1 where it is not named, the whole frame for y and x
    shard      the same of shards, which hold whole frames; None where every chunk is a file
    level      of the codec
    plate      whether the positions are fields in the wells of a plate
    scaled_by  the dimension that grows with `scale`
    patience   how many times the usual deadline it may take
    by_name    runs only when it is asked for
    """

    name: str
    what: str
    frame: tuple[int, int] = (2048, 2048)
    loop: tuple[tuple[str, int], ...]
    unbounded: bool = False
    chunk: Mapping[str, int]
    shard: Mapping[str, int] | None
    codec: Literal["none", "blosc-lz4", "blosc-zstd"] = "none"
    level: int = 0
    levels: int | Literal["auto"] = 1
    plate: bool = False
    scaled_by: str = "t"
    memory_limit: int = 128_000_000
    patience: float = 1.0
    by_name: bool = False

    @property
    def n_frames(self) -> int:
        return prod(count for _, count in self.loop)

    @property
    def frame_bytes(self) -> int:
        return self.frame[0] * self.frame[1] * 2

    @property
    def payload_bytes(self) -> int:
        return self.n_frames * self.frame_bytes

    @property
    def n_images(self) -> int:
        return dict(self.loop).get("p", 1)

    def scaled(self, factor: float) -> Case:
        """The same with that many times the frames, at least one item."""
        loop = tuple(
            (name, max(1, round(count * factor)) if name == self.scaled_by else count) for name, count in self.loop
        )
        return replace(self, loop=loop)

    def wells(self) -> list[tuple[str, str, int]]:
        """(row, column, field) of each position of a plate."""
        fields = [(row, str(column), field) for row in _ROWS for column in _COLUMNS for field in range(_FIELDS)]
        return fields[: self.n_images]

    def settings(self, path: str, backend: str, memory_limit: int) -> dict[str, Any]:
        """Fields of AcquisitionSettings."""
        dimensions: list[dict[str, Any]] = [{"name": name, "count": count} for name, count in self.loop]
        if self.unbounded:
            dimensions[0]["count"] = None
        plate = None
        if self.plate:
            coords = [{"name": f"{row}{column}-{n}", "row": row, "column": column} for row, column, n in self.wells()]
            dimensions = [{"name": "p", "coords": coords} if d["name"] == "p" else d for d in dimensions]
            plate = {"rows": list(_ROWS), "columns": [str(column) for column in _COLUMNS]}
        dimensions += [{"name": "y", "count": self.frame[0]}, {"name": "x", "count": self.frame[1]}]
        codec = {"name": self.codec} if self.codec == "none" else {"name": self.codec, "level": self.level}
        return {
            "path": path, "dtype": "uint16", "dimensions": dimensions, "plate": plate, "backend": backend,
            "chunks": dict(self.chunk), "shards": None if self.shard is None else dict(self.shard), "codec": codec,
            "levels": self.levels, "memory_limit": memory_limit,
        }  # fmt: skip


_ALL = (
    Case(
        name="full frames",
        what="a chunk is a frame, every chunk a file",
        loop=(("t", 128),),
        chunk={"y": 2048, "x": 2048},
        shard=None,
    ),
    Case(
        name="tiles", what="tiles of 256 x 256, shards of 16 frames", loop=(("t", 128),), chunk=_TILES, shard={"t": 16}
    ),
    Case(
        name="tiles, lz4",
        what="tiles compressed with blosc-lz4 level 5",
        loop=(("t", 128),),
        chunk=_TILES,
        shard={"t": 16},
        codec="blosc-lz4",
        level=5,
    ),
    Case(
        name="tiles, zstd",
        what="tiles compressed with blosc-zstd level 1",
        loop=(("t", 128),),
        chunk=_TILES,
        shard={"t": 16},
        codec="blosc-zstd",
        level=1,
    ),
    Case(
        name="tiles, zstd 3",
        what="tiles compressed with blosc-zstd level 3, the only level of ome-writers",
        loop=(("t", 64),),
        chunk=_TILES,
        shard={"t": 16},
        codec="blosc-zstd",
        level=3,
    ),
    Case(
        name="small frames",
        what="frames of 512 x 512 in tiles, shards of 256 frames",
        frame=(512, 512),
        loop=(("t", 2048),),
        chunk=_TILES,
        shard={"t": 256},
    ),
    Case(
        name="3-d chunks",
        what="chunks of 16 planes of z, frames of 1024 x 1024",
        frame=(1024, 1024),
        loop=(("t", 16), ("z", 32)),
        chunk={"z": 16, **_TILES},
        shard={"t": 1, "z": 32},
    ),
    Case(
        name="positions",
        what="16 positions that take turns, shards of 4 frames",
        loop=(("t", 8), ("p", 16)),
        chunk=_TILES,
        shard={"t": 4},
    ),
    Case(
        name="unbounded",
        what="nobody knows how many frames come; 1024 x 1024, shards of 64 frames",
        frame=(1024, 1024),
        loop=(("t", 512),),
        unbounded=True,
        chunk=_TILES,
        shard={"t": 64},
    ),
    Case(
        name="transposed",
        what="arrives as z, c, t and is stored as t, c, z; 1024 x 1024, shards of 8 times and 4 planes",
        frame=(1024, 1024),
        loop=(("z", 8), ("c", 2), ("t", 32)),
        chunk=_TILES,
        shard={"t": 8, "z": 4},
    ),
    Case(
        name="plate",
        what="384 wells with 4 fields each, 2 frames of 512 x 512 a field",
        frame=(512, 512),
        loop=(("p", 1536), ("t", 2)),
        chunk=_TILES,
        shard={"t": 2},
        plate=True,
        scaled_by="p",
    ),
    Case(
        name="pyramid",
        what="tiles, with all levels down to 256 x 256",
        loop=(("t", 128),),
        chunk=_TILES,
        shard={"t": 16},
        levels="auto",
    ),
    Case(
        name="tiles, 48 MB",
        what="tiles with memory for five frames only",
        loop=(("t", 512),),
        chunk=_TILES,
        shard={"t": 16},
        memory_limit=48_000_000,
        by_name=True,
    ),
    Case(
        name="sustained",
        what="tiles, and more of them than fit into memory",
        loop=(("t", 128),),
        chunk=_TILES,
        shard={"t": 16},
        patience=15,
        by_name=True,
    ),
    Case(
        name="million",
        what="a million frames of 64 x 64, shards of 4096 frames",
        frame=(64, 64),
        loop=(("t", 1_000_000),),
        chunk={"y": 64, "x": 64},
        shard={"t": 4096},
        patience=6,
        by_name=True,
    ),
)
CASES: dict[str, Case] = {case.name: case for case in _ALL}
