"""The conformance suite: every promise that a backend makes, checked through the public API.

```python
from scopestream.testing import BackendConformance

class TestMyBackend(BackendConformance):
    backend = "my-backend"
```
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from scopestream.contract import WriteUnit
from scopestream.dataset import open_dataset
from scopestream.errors import FrameIndexError, FrameMismatchError, NotDurableError, PlanError
from scopestream.framelog import read_frames
from scopestream.plan import LayoutPlan
from scopestream.planning import make_plan
from scopestream.registry import load_backend, problems_of
from scopestream.route import Route
from scopestream.settings import AcquisitionSettings
from scopestream.stream import open_stream
from scopestream.testing.frames import acquire, frame_numbers, stamped_frame, stamped_frames
from scopestream.testing.images import mismatch
from scopestream.testing.readers import reader_other_than
from scopestream.verification import verify

Y, X = 70, 97  # odd on purpose: tiles are cut at both edges, levels are rounded


def _dims(**counts: int | None) -> list[dict[str, Any]]:
    return [{"name": name, "count": count} for name, count in counts.items()] + [
        {"name": "y", "count": Y},
        {"name": "x", "count": X},
    ]


_POSITIONS = [{"name": "left", "x": 0.0, "y": 0.0}, {"name": "right", "x": 250.0, "y": 0.0}]
_WELLS = [
    {"name": "A1 first", "row": "A", "column": 1},
    {"name": "A1 second", "row": "A", "column": 1},
    {"name": "H12", "row": "H", "column": 12},
]
_RAGGED = [
    {"name": "short", "counts": {"t": 1, "z": 2}},
    {"name": "flat", "counts": {"z": 1}, "channels": ["GFP"]},
    {"name": "whole"},
]
_CAMERAS = [{"name": "left"}, {"name": "right", "shape": (41, 64), "dtype": "uint8"}]
_TILES = {"y": 32, "x": 32}
_PLATE = {"rows": list("ABCDEFGH"), "columns": [str(number) for number in range(1, 13)]}

#: name -> settings besides path, dtype and backend
LAYOUTS: Mapping[str, Mapping[str, Any]] = {
    "single frame": {"dimensions": _dims()},
    "time": {"dimensions": _dims(t=5)},
    "five axes": {"dimensions": _dims(t=3, c=2, z=4), "chunks": _TILES},
    "arrives as t z c": {"dimensions": _dims(t=2, z=3, c=2), "chunks": _TILES, "shards": {"z": 3, "c": 2}},
    "arrives as z c t": {"dimensions": _dims(z=3, c=2, t=2)},
    "positions outside": {"dimensions": [{"name": "p", "coords": _POSITIONS}, *_dims(t=3, c=2)]},
    "positions inside": {"dimensions": [*_dims(t=3)[:1], {"name": "p", "coords": _POSITIONS}, *_dims(c=2)]},
    "positions innermost": {"dimensions": [*_dims(t=3, c=2)[:2], {"name": "p", "coords": _POSITIONS}, *_dims()]},
    "plate": {"dimensions": [{"name": "p", "coords": _WELLS}, *_dims(c=2)], "plate": _PLATE},
    "plate, time outside": {
        "dimensions": [*_dims(t=3)[:1], {"name": "p", "coords": _WELLS}, *_dims(z=2)],
        "plate": _PLATE,
        "shards": {"t": 2, "z": 2},
    },
    "six axes": {"dimensions": _dims(t=2, angle=2, c=2, z=2)},
    "ragged": {
        "dimensions": [*_dims(t=3)[:1], {"name": "p", "coords": _RAGGED}, *_dims(c=2, z=3)],
        "chunks": _TILES,
        "shards": {"t": 2, "z": 2},
    },
    "ragged, positions outside": {"dimensions": [{"name": "p", "coords": _RAGGED}, *_dims(t=3, c=2, z=3)]},
    "ragged, deep chunks": {
        "dimensions": [*_dims(t=3)[:1], {"name": "p", "coords": _RAGGED}, *_dims(c=2, z=3)],
        "chunks": {"t": 2, "z": 2, **_TILES},
        "shards": {"t": 2, "z": 4},
    },
    "ragged plate": {
        "dimensions": [
            {"name": "p", "coords": [{**well, "counts": {"z": 1 + n}} for n, well in enumerate(_WELLS)]},
            *_dims(c=2, z=3),
        ],
        "plate": _PLATE,
    },
    "two cameras": {"dimensions": _dims(t=3, c=2), "cameras": _CAMERAS},
    "two cameras, tiles": {
        "dimensions": _dims(t=5, z=2),
        "cameras": _CAMERAS,
        "chunks": {"z": 2, **_TILES},
        "shards": {"t": 4, "z": 2},
    },
    "two cameras, ragged plate": {
        "dimensions": [
            {"name": "p", "coords": [{**well, "counts": {"t": 1 + n}} for n, well in enumerate(_WELLS)]},
            *_dims(t=3),
        ],
        "plate": _PLATE,
        "cameras": _CAMERAS,
    },
    "cameras are channels": {"dimensions": _dims(t=3, z=2), "cameras": ["left", "right"], "camera_axis": "channels"},
    "cameras times channels": {"dimensions": _dims(t=3, c=2), "cameras": ["left", "right"], "camera_axis": "channels"},
    "merged": {"dimensions": _dims(t=2, phase=3, c=2, z=2), "merge": ("phase", "c")},
    "merged from afar": {
        "dimensions": [*_dims(phase=2)[:1], {"name": "p", "coords": _RAGGED}, *_dims(t=3, c=2, z=3)],
        "merge": ("phase", "c"),
        "chunks": {"c": 2, **_TILES},
        "shards": {"c": 4, "z": 2},
    },
    "tiles": {"dimensions": _dims(t=5), "chunks": _TILES, "shards": {"t": 4}},
    "several files a frame": {"dimensions": _dims(t=5), "chunks": _TILES, "shards": {"t": 2, "y": 64, "x": 32}},
    "deep chunks": {"dimensions": _dims(t=2, z=7), "chunks": {"z": 3, **_TILES}, "shards": {"t": 2, "z": 6}},
    "deep along two axes": {"dimensions": _dims(t=5, z=3), "chunks": {"t": 2, "z": 2, **_TILES}, "shards": {"t": 4}},
    "deep along two of three axes": {
        "dimensions": _dims(t=4, c=2, z=3),
        "chunks": {"t": 2, "z": 3, **_TILES},
        "shards": {"t": 4, "c": 2},
    },
    "without shards": {"dimensions": _dims(t=3), "chunks": _TILES, "shards": None},
    "without shards, deep": {"dimensions": _dims(t=5), "chunks": {"t": 2, **_TILES}, "shards": None},
    "odd tiles": {"dimensions": _dims(t=3), "chunks": {"y": 33, "x": 32}, "shards": {"t": 2}},
    "large tiles": {"dimensions": _dims(t=3), "chunks": {"y": 48, "x": 64}, "shards": {"t": 2}},
    "whole rows": {"dimensions": _dims(t=5), "chunks": {"y": 32, "x": X}, "shards": {"t": 2}},
}
_OTHER_SHAPES = ("ragged", "ragged, deep chunks", "two cameras", "merged from afar")
_SHORT = ("five axes", "deep chunks", "positions inside", *_OTHER_SHAPES)
_OF_LEVELS = (
    *("five axes", "deep chunks", "positions inside", "time", "whole rows", "odd tiles", "large tiles"),
    *("ragged", "two cameras"),
)
#: layouts whose levels may be halved along z, with at least 12 frames
_WITH_Z: Mapping[str, Mapping[str, Any]] = {
    **{name: LAYOUTS[name] for name in ("five axes", "arrives as t z c", "arrives as z c t", "deep chunks")},
    **{name: LAYOUTS[name] for name in ("deep along two axes", "deep along two of three axes")},
    "z alone": {"dimensions": _dims(z=13), "chunks": _TILES, "shards": {"z": 4}},
    "odd shards": {"dimensions": _dims(z=13), "chunks": _TILES, "shards": {"z": 3}},
    "z without shards": {"dimensions": _dims(t=2, z=7), "chunks": _TILES, "shards": None},
    "positions inside z": {
        "dimensions": [*_dims(z=4)[:1], {"name": "p", "coords": _POSITIONS}, *_dims(c=2)],
        "chunks": {"y": 33, "x": 33},
    },
    **{name: LAYOUTS[name] for name in ("ragged", "ragged, positions outside", "ragged, deep chunks")},
    "two cameras and z": {"dimensions": _dims(t=2, z=5), "cameras": _CAMERAS, "shards": {"z": 2}},
}
_CODECS = ("none", "zstd", "blosc-zstd", "blosc-lz4")
_DTYPES = ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")


class BackendConformance:
    """Subclass it in a test module and name the backend.

    backend  as registered under the entry point group `scopestream.backends`
    """

    backend: ClassVar[str]

    # -- what comes in is what is read back -------------------------------------------------------------------------

    @pytest.mark.parametrize("codec", _CODECS)
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_frames_are_read_back_exactly(self, tmp_path: Path, layout: str, codec: str) -> None:
        self._check(self.settings(tmp_path, **LAYOUTS[layout], codec=codec))

    @pytest.mark.parametrize("dtype", _DTYPES)
    def test_every_dtype(self, tmp_path: Path, dtype: str) -> None:
        self._check(self.settings(tmp_path, dtype=dtype, **LAYOUTS["tiles"]))

    @pytest.mark.parametrize("shuffle", ["none", "byte", "bit"])
    def test_every_shuffle_of_blosc(self, tmp_path: Path, shuffle: str) -> None:
        codec = {"name": "blosc-lz4", "level": 3, "shuffle": shuffle}
        self._check(self.settings(tmp_path, **LAYOUTS["tiles"], codec=codec))

    @pytest.mark.parametrize("layout", [*_SHORT, "plate, time outside"])
    @pytest.mark.parametrize("codec", ["none", "blosc-lz4"])
    def test_skipped_frames_read_as_zeros_and_shift_nothing(self, tmp_path: Path, layout: str, codec: str) -> None:
        self._check(self.settings(tmp_path, **LAYOUTS[layout], codec=codec), skipped={0, 4, 5})

    @pytest.mark.parametrize("layout", [*_SHORT, "without shards, deep", "time"])
    @pytest.mark.parametrize("codec", ["none", "blosc-lz4"])
    def test_an_acquisition_that_ends_early_keeps_what_came(self, tmp_path: Path, layout: str, codec: str) -> None:
        self._check(self.settings(tmp_path, **LAYOUTS[layout], codec=codec), n_frames=3)

    def test_an_acquisition_without_frames_is_still_a_dataset(self, tmp_path: Path) -> None:
        self._check(self.settings(tmp_path, **LAYOUTS["positions inside"]), n_frames=0)

    @pytest.mark.parametrize("n_frames", [1, 8, 11])
    @pytest.mark.parametrize("codec", ["none", "blosc-lz4"])
    @pytest.mark.parametrize(
        ("chunks", "shards"), [(_TILES, {"t": 4}), ({"t": 2, **_TILES}, {"t": 4}), ({"t": 2, **_TILES}, None)]
    )
    def test_an_unbounded_axis_ends_with_the_last_frame(
        self, tmp_path: Path, chunks: Mapping[str, int], shards: Mapping[str, int] | None, codec: str, n_frames: int
    ) -> None:
        dimensions = _dims(t=None, c=1)
        settings = self.settings(tmp_path, dimensions=dimensions, chunks=chunks, shards=shards, codec=codec)
        self._check(settings, n_frames=n_frames)

    def test_an_unbounded_axis_with_positions_inside(self, tmp_path: Path) -> None:
        dimensions = [{"name": "t", "count": None}, {"name": "p", "coords": _POSITIONS}, *_dims(c=2)]
        self._check(self.settings(tmp_path, dimensions=dimensions, shards={"t": 2}), n_frames=11)

    @pytest.mark.parametrize("layout", _SHORT)
    @pytest.mark.parametrize("codec", ["none", "blosc-zstd"])
    def test_levels_are_the_mean_of_the_level_before(self, tmp_path: Path, layout: str, codec: str) -> None:
        self._check(self.settings(tmp_path, **LAYOUTS[layout], codec=codec, levels=3))

    @pytest.mark.parametrize("layout", _OF_LEVELS)
    @pytest.mark.parametrize(("downscale", "dtype"), [("nearest", "int16"), ("mode", "uint8"), ("mode", "bool")])
    def test_levels_may_be_of_labels(self, tmp_path: Path, layout: str, downscale: str, dtype: str) -> None:
        self._check(self.settings(tmp_path, **LAYOUTS[layout], dtype=dtype, levels=3, downscale=downscale))

    @pytest.mark.parametrize("layout", _WITH_Z)
    @pytest.mark.parametrize("downscale", ["mean", "nearest", "mode"])
    def test_levels_may_have_fewer_planes(self, tmp_path: Path, layout: str, downscale: str) -> None:
        self._check(self.settings(tmp_path, **_WITH_Z[layout], levels=4, downscale=downscale, downscale_z=True))

    @pytest.mark.parametrize("layout", _WITH_Z)
    @pytest.mark.parametrize("codec", ["none", "blosc-zstd"])
    @pytest.mark.parametrize("skipped", [{1}, {0, 3}, {4, 5, 6, 7}, {2, 5, 6, 9, 11}])
    def test_planes_that_do_not_come_count_as_zeros(
        self, tmp_path: Path, layout: str, codec: str, skipped: set[int]
    ) -> None:
        settings = self.settings(tmp_path, **_WITH_Z[layout], levels=3, downscale_z=True, codec=codec)
        self._check(settings, skipped=skipped, n_frames=12)
        self._check(settings.model_copy(update={"path": f"{settings.path}-2"}), skipped=skipped, n_frames=8)

    @pytest.mark.parametrize("n_frames", [1, 5, 11, 13])
    @pytest.mark.parametrize(("chunks", "shards"), [(1, 1), (1, 3), (2, 2), (3, 3), (2, 6)])
    def test_an_unbounded_axis_with_fewer_planes(self, tmp_path: Path, chunks: int, shards: int, n_frames: int) -> None:
        sizes: dict[str, Any] = {"chunks": {"z": chunks, **_TILES}, "shards": {"t": 2, "z": shards}}
        settings = self.settings(tmp_path, dimensions=_dims(t=None, z=5), **sizes, levels=4, downscale_z=True)
        self._check(settings, n_frames=n_frames)

    # -- order ------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("layout", [*_SHORT, "arrives as t z c"])
    @pytest.mark.parametrize("codec", ["none", "blosc-lz4"])
    @pytest.mark.parametrize("levels", [1, 3])
    def test_frames_may_come_in_any_order(self, tmp_path: Path, layout: str, codec: str, levels: int) -> None:
        settings = self.settings(tmp_path, **LAYOUTS[layout], codec=codec, levels=levels, downscale_z=True)
        if not load_backend(self.backend).capabilities.any_order:
            pytest.skip(f"{self.backend} does not declare any_order")
        if self._refused(settings):
            return
        with open_stream(settings) as stream:
            route, numbers = Route(stream.plan), frame_numbers(stream.plan)
            frames = stamped_frames(stream.plan, numbers)
            for number in np.random.default_rng(1).permutation(numbers).tolist():
                stream.write(frames[number], index=dict(zip(route.names, route.coords(number), strict=True)))
        self._compare(stream.plan, set(numbers))

    def test_a_backend_that_needs_order_refuses_a_late_frame_and_keeps_the_rest(self, tmp_path: Path) -> None:
        if load_backend(self.backend).capabilities.any_order:
            pytest.skip(f"{self.backend} declares any_order")
        settings = self.settings(tmp_path, **LAYOUTS["time"])
        with open_stream(settings) as stream:
            stream.write(stamped_frame(2, (Y, X), settings.dtype), index={"t": 2})
            with pytest.raises(FrameIndexError, match="acquisition order only"):
                stream.write(stamped_frame(1, (Y, X), settings.dtype), index={"t": 1})
            stream.write(stamped_frame(4, (Y, X), settings.dtype), index={"t": 4})
        self._compare(stream.plan, {2, 4})

    def test_a_refused_frame_keeps_its_slot(self, tmp_path: Path) -> None:
        settings = self.settings(tmp_path, **LAYOUTS["time"])
        with open_stream(settings) as stream:
            stream.append(stamped_frame(0, (Y, X), settings.dtype))
            with pytest.raises(FrameMismatchError, match="the 1 frames before it are safe"):
                stream.append(stamped_frame(1, (Y, X + 1), settings.dtype))
            for number in range(1, 5):
                stream.append(stamped_frame(number, (Y, X), settings.dtype))
        self._compare(stream.plan, set(range(5)))

    # -- how frames are handed over ---------------------------------------------------------------------------------

    @pytest.mark.parametrize("layout", ["time", "tiles", "whole rows", "deep chunks", "positions inside"])
    @pytest.mark.parametrize("codec", ["none", "blosc-lz4"])
    def test_frames_that_are_not_copied(self, tmp_path: Path, layout: str, codec: str) -> None:
        settings = self.settings(tmp_path, **LAYOUTS[layout], codec=codec)
        if self._refused(settings):
            return
        with open_stream(settings) as stream:
            n_frames = stream.plan.n_frames or 0
            for number in range(n_frames):
                stream.append(stamped_frame(number, (Y, X), settings.dtype), copy=False)
        self._compare(stream.plan, set(range(n_frames)))

    @pytest.mark.parametrize("layout", ["time", "deep chunks", "positions inside"])
    @pytest.mark.parametrize("codec", ["none", "blosc-lz4"])
    @pytest.mark.parametrize("copy", [True, False])
    def test_stacks_of_frames(self, tmp_path: Path, layout: str, codec: str, copy: bool) -> None:
        settings = self.settings(tmp_path, **LAYOUTS[layout], codec=codec)
        if self._refused(settings):
            return
        with open_stream(settings) as stream:
            n_frames = stream.plan.n_frames or 0
            frames = np.stack([stamped_frame(number, (Y, X), settings.dtype) for number in range(n_frames)])
            stream.extend(frames[:1], copy=copy)
            stream.extend(frames[1:], copy=copy)
        self._compare(stream.plan, set(range(n_frames)))

    @pytest.mark.filterwarnings("ignore:The file system .* cannot be written past the page cache")
    @pytest.mark.parametrize("copy", [True, False])
    def test_frames_that_go_past_the_page_cache(self, tmp_path: Path, copy: bool) -> None:
        if not load_backend(self.backend).capabilities.direct_io:
            pytest.skip(f"{self.backend} does not declare direct_io")
        shape = (200, 300)
        dimensions = [{"name": "t", "count": 6}, {"name": "y", "count": shape[0]}, {"name": "x", "count": shape[1]}]
        settings = self.settings(
            tmp_path, dimensions=dimensions, chunks={"y": 64, "x": 64}, shards={"t": 4}, levels=2, direct_io=True
        )
        with open_stream(settings) as stream:
            for number in range(6):
                stream.append(stamped_frame(number, shape, settings.dtype), copy=copy)
        self._compare(stream.plan, set(range(6)))

    @pytest.mark.parametrize("codec", ["none", "blosc-lz4"])
    @pytest.mark.parametrize("shards", [{"t": 100}, {"t": 7}, None])
    def test_hundreds_of_small_frames_at_once(
        self, tmp_path: Path, shards: Mapping[str, int] | None, codec: str
    ) -> None:
        dimensions = [{"name": "t", "count": 200}, {"name": "p", "coords": _POSITIONS}, *_dims()]
        settings = self.settings(tmp_path, dimensions=dimensions, shards=shards, codec=codec)
        if self._refused(settings):
            return
        frames = np.stack([stamped_frame(number, (Y, X), settings.dtype) for number in range(400)])
        with open_stream(settings) as stream:
            stream.extend(frames)
        self._compare(stream.plan, set(range(400)))

    # -- while it grows ---------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("layout", ["tiles", "deep chunks", "without shards, deep"])
    @pytest.mark.parametrize("codec", ["none", "blosc-lz4"])
    def test_flushed_frames_are_read_while_the_rest_is_missing(self, tmp_path: Path, layout: str, codec: str) -> None:
        if not load_backend(self.backend).capabilities.live_read:
            pytest.skip(f"{self.backend} does not declare live_read")
        settings = self.settings(tmp_path, **LAYOUTS[layout], codec=codec)
        if self._refused(settings):
            return
        with open_stream(settings) as stream:
            for number in range(stream.plan.n_frames or 0):
                stream.append(stamped_frame(number, (Y, X), settings.dtype))
                stream.flush()
                self._compare(stream.plan, set(range(number + 1)))
        self._compare(stream.plan, set(range(stream.plan.n_frames or 0)))

    # -- through a power failure ------------------------------------------------------------------------------------

    @pytest.mark.parametrize("layout", ["tiles", "deep chunks", "without shards", "without shards, deep"])
    @pytest.mark.parametrize("codec", ["none", "blosc-lz4"])
    @pytest.mark.parametrize("durability", ["process", "disk"])
    def test_synced_frames_are_read_while_the_rest_is_missing(
        self, tmp_path: Path, layout: str, codec: str, durability: str
    ) -> None:
        if not load_backend(self.backend).capabilities.durable:
            pytest.skip(f"{self.backend} does not declare durable")
        settings = self.settings(tmp_path, **LAYOUTS[layout], codec=codec, durability=durability, levels=2)
        if self._refused(settings):
            return
        with open_stream(settings) as stream:
            n_frames = stream.plan.n_frames or 0
            for number in range(n_frames):
                stream.append(stamped_frame(number, (Y, X), settings.dtype))
                stream.flush(durable=number % 3 != 1)
                self._compare(stream.plan, set(range(number + 1)))
        self._compare(stream.plan, set(range(n_frames)))
        assert open_dataset(stream.plan.root).history.synced.all()

    def test_an_unbounded_axis_grows_while_it_is_synced(self, tmp_path: Path) -> None:
        if not load_backend(self.backend).capabilities.durable:
            pytest.skip(f"{self.backend} does not declare durable")
        dimensions = [{"name": "t", "count": None}, {"name": "p", "coords": _POSITIONS}, *_dims()]
        settings = self.settings(tmp_path, dimensions=dimensions, shards={"t": 2}, checkpoint_s=0.01, durability="disk")
        plan = acquire(settings, 11)
        self._compare(plan, set(range(11)))

    def test_a_backend_that_cannot_sync_says_so(self, tmp_path: Path) -> None:
        if load_backend(self.backend).capabilities.durable:
            pytest.skip(f"{self.backend} declares durable")
        settings = self.settings(tmp_path, **LAYOUTS["time"])
        with pytest.raises(PlanError, match="durability"):
            open_stream(settings.model_copy(update={"durability": "disk"}))
        with open_stream(settings) as stream:
            stream.append(stamped_frame(0, (Y, X), settings.dtype))
            with pytest.raises(NotDurableError):
                stream.flush(durable=True)
        self._compare(stream.plan, {0})

    # -- going on ---------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("layout", ["time", "tiles", "several files a frame", *_SHORT])
    @pytest.mark.parametrize("codec", ["none", "blosc-lz4"])
    def test_a_stream_goes_on_where_another_ended(self, tmp_path: Path, layout: str, codec: str) -> None:
        if not load_backend(self.backend).capabilities.resumes:
            pytest.skip(f"{self.backend} does not declare resumes")
        settings = self.settings(tmp_path, **LAYOUTS[layout], codec=codec, levels=2, on_exists="resume")
        if self._refused(settings):
            return
        plan = acquire(settings, 3, skipped={1})
        names: list[str | None] = [camera.name for camera in settings.cameras]
        with open_stream(settings) as stream:
            first, second, third = frame_numbers(plan, 3)
            self._compare(plan, {first, third})
            while (number := stream.next_frame) is not None:
                stream.append(
                    stamped_frames(plan, [number])[number], camera=names[number % len(names)] if names else None
                )
                stream.flush()
        self._compare(plan, set(frame_numbers(plan)) - {second})
        assert verify(plan.root).sound

    def test_an_unbounded_axis_goes_on(self, tmp_path: Path) -> None:
        if not load_backend(self.backend).capabilities.resumes:
            pytest.skip(f"{self.backend} does not declare resumes")
        settings = self.settings(tmp_path, dimensions=_dims(t=None, c=2), shards={"t": 4}, on_exists="resume")
        if self._refused(settings):
            return
        for end in (3, 8, 13):
            with open_stream(settings) as stream:
                for number in range(stream.next_frame or 0, end):
                    stream.append(stamped_frame(number, (Y, X), settings.dtype))
            self._compare(stream.plan, set(range(end)))

    # -- the contract -----------------------------------------------------------------------------------------------

    def test_arrays_exist_before_the_first_frame(self, tmp_path: Path) -> None:
        with open_stream(self.settings(tmp_path, **LAYOUTS["positions inside"])) as stream:
            for array in stream.plan.arrays:
                document = json.loads((stream.plan.root / array.path / "zarr.json").read_text())
                assert document["node_type"] == "array"

    def test_close_is_idempotent(self, tmp_path: Path) -> None:
        settings = self.settings(tmp_path, **LAYOUTS["time"])
        stream = open_stream(settings)
        acquire(settings, 2, stream=stream)
        stream.close()
        stream.close()
        self._compare(stream.plan, {0, 1})

    def test_the_log_has_every_frame_once(self, tmp_path: Path) -> None:
        settings = self.settings(tmp_path, **LAYOUTS["positions inside"])
        plan = acquire(settings, skipped={3})
        records = {record["frame"]: record for record in read_frames(plan.root)}
        route = Route(plan)
        assert sorted(records) == list(range(plan.n_frames or 0))
        for number, record in records.items():
            assert record["status"] == ("skipped" if number == 3 else "written")
            assert record["image"] == plan.images[route.locate(number)[0]].path
            assert record["index"] == dict(zip(route.names, route.coords(number), strict=True))

    def test_unit_and_capabilities_agree(self, tmp_path: Path) -> None:
        backend = load_backend(self.backend)
        assert backend.name == self.backend
        plan = make_plan(self.settings(tmp_path, **LAYOUTS["deep chunks"]), backend)
        if not backend.capabilities.any_order:
            assert plan.unit is WriteUnit.FRAME, (
                "blocks that must come in order cannot be flushed before they are final"
            )

    # -- inside -----------------------------------------------------------------------------------------------------

    def settings(self, tmp_path: Path, *, dtype: str = "uint16", **fields: Any) -> AcquisitionSettings:
        """Settings for this backend, with a dataset below `tmp_path`."""
        path = tmp_path / "test.ome.zarr"
        return AcquisitionSettings(path=str(path), dtype=dtype, backend=self.backend, **fields)

    def _refused(self, settings: AcquisitionSettings) -> bool:
        """Whether the backend says that it cannot write these settings; then it says so before anything is written."""
        backend = load_backend(self.backend)
        plan = make_plan(settings, backend)
        if not problems_of(plan, backend):
            return False
        with pytest.raises(PlanError, match=self.backend):
            open_stream(settings)
        assert not plan.root.exists()
        return True

    def _check(
        self, settings: AcquisitionSettings, n_frames: int | None = None, skipped: Set[int] = frozenset()
    ) -> None:
        """Write and read back, unless the backend refuses."""
        if self._refused(settings):
            return
        plan = acquire(settings, n_frames, skipped=skipped)
        self._compare(plan, set(frame_numbers(plan, n_frames)) - skipped)

    def _compare(self, plan: LayoutPlan, came: Set[int]) -> None:
        """Every level of every image, read by another library, against the model of these frames."""
        assert not (wrong := mismatch(plan, stamped_frames(plan, came), reader_other_than(self.backend))), wrong
