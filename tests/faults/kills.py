"""Random acquisitions and the moments at which they are killed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scopestream import AcquisitionSettings
from tests.faults.victim import Moment

Step = Literal["recover", "resume", "kill recover", "kill resume"]

BACKENDS = ("inplace", "tensorstore", "zarr-python", "zarrs", "acquire-zarr")
_CODECS = ("none", "none", "blosc-lz4", "blosc-zstd", "zstd")
_WELLS = [{"name": f"{row}{column}", "row": row, "column": column} for row in "AB" for column in ("1", "3")]
_LAYOUTS: dict[str, dict[str, Any]] = {
    "image": {"dimensions": [{"name": "t", "count": 24}, {"name": "c", "count": 2}]},
    "positions": {"dimensions": [{"name": "t", "count": 16}, {"name": "p", "count": 3}]},
    "plate": {
        "dimensions": [{"name": "t", "count": 10}, {"name": "p", "type": "position", "coords": _WELLS}],
        "plate": {"rows": ["A", "B"], "columns": ["1", "2", "3"]},
    },
    "unbounded": {"dimensions": [{"name": "t", "count": None}]},
    "levels": {"dimensions": [{"name": "t", "count": None}], "levels": 2},
    "levels along z": {
        "dimensions": [{"name": "t", "count": None}, {"name": "z", "count": 6}],
        "levels": 2,
        "downscale_z": True,
    },
}
_Y, _X = 40, 56
# What happens to the dataset of the killed process. A process that is killed in it, too, has done that step in part.
_SEQUELS: tuple[tuple[Step, ...], ...] = (
    ("recover", "resume"),
    ("resume",),
    ("recover", "kill resume", "recover", "resume"),
    ("kill resume", "resume"),
    ("kill recover", "recover", "resume"),
    ("kill recover", "kill resume", "resume"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One acquisition that is killed.

    sequel  what is done with its dataset, one after the other
    again   moments at which the processes of the sequel are killed
    """

    backend: str
    layout: str
    codec: str
    depth: int
    sharded: bool
    n_frames: int
    flush_every: int
    pace_s: float
    moment: Moment
    sequel: tuple[Step, ...]
    again: tuple[Moment, ...]

    @classmethod
    def draw(cls, seed: int, backend: str) -> Kill:
        """The same for the same seed, up to what the clock makes of it."""
        choose = random.Random(seed)
        layout, n_frames = choose.choice(list(_LAYOUTS)), 48 if choose.random() < 0.7 else 40
        if layout == "plate":
            n_frames = 40
        moment = _moment(choose, n_frames)
        return cls(
            backend=backend,
            layout=layout,
            codec=choose.choice([codec for codec in _CODECS if backend != "acquire-zarr" or codec != "zstd"]),
            depth=choose.choice((1, 2)),
            sharded=choose.random() < 0.75,
            n_frames=n_frames,
            flush_every=choose.randint(1, 7),
            pace_s=choose.choice((0.0, 0.001, 0.004)),
            moment=moment,
            sequel=choose.choice(_SEQUELS),
            again=tuple(_moment(choose, n_frames) for _ in range(2)),
        )

    @property
    def total(self) -> int:
        """Frames that the acquisition would have had."""
        return AcquisitionSettings(**self.settings(Path("any.ome.zarr"))).plan().n_frames or self.n_frames

    def settings(self, path: Path) -> dict[str, Any]:
        fields = dict(_LAYOUTS[self.layout])
        axis = "z" if self.layout == "levels along z" else "t"
        fields["dimensions"] = [*fields["dimensions"], {"name": "y", "count": _Y}, {"name": "x", "count": _X}]
        return {
            **fields, "path": str(path), "dtype": "uint16", "backend": self.backend, "codec": self.codec,
            "chunks": {axis: self.depth, "y": 20, "x": 28}, "shards": {axis: 4 * self.depth} if self.sharded else None,
        }  # fmt: skip


def _moment(choose: random.Random, n_frames: int) -> Moment:
    phase = choose.choices(("starting", "recording", "closing"), (1, 8, 1))[0]
    return Moment(
        phase=phase,
        sent=choose.randint(1, n_frames) if phase == "recording" else 0,
        sleep_s=choose.uniform(0.0, 0.1 if phase == "starting" else 0.02),
    )
