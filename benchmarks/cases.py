"""What is acquired, as frozen objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One acquisition: uint16 frames (Y, X) along `dimensions`, and the settings besides."""

    name: str
    frame: tuple[int, int] = (2048, 2048)
    dimensions: tuple[tuple[str, int | None], ...]
    n_frames: int
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def payload_bytes(self) -> int:
        return self.n_frames * self.frame[0] * self.frame[1] * 2

    def settings(self, path: str, backend: str) -> dict[str, Any]:
        """Fields of AcquisitionSettings."""
        named = [*self.dimensions, ("y", self.frame[0]), ("x", self.frame[1])]
        dimensions = [{"name": name, "count": count} for name, count in named]
        return {"path": path, "dtype": "uint16", "dimensions": dimensions, "backend": backend, **self.fields}


_TILES = {"y": 256, "x": 256}
CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Case(
            name="tiles",
            dimensions=(("t", 128),),
            n_frames=128,
            fields={"chunks": _TILES, "shards": {"t": 16}, "memory_limit": "1GB"},
        ),
        Case(
            name="tiles, 48 MB",
            dimensions=(("t", 512),),
            n_frames=512,
            fields={"chunks": _TILES, "shards": {"t": 16}, "memory_limit": "48MB"},
        ),
        Case(
            name="small frames",
            frame=(512, 512),
            dimensions=(("t", 2048),),
            n_frames=2048,
            fields={"chunks": _TILES, "shards": {"t": 64}},
        ),
        Case(
            name="lz4",
            dimensions=(("t", 128),),
            n_frames=128,
            fields={"chunks": _TILES, "shards": {"t": 16}, "codec": "blosc-lz4"},
        ),
    )
}
