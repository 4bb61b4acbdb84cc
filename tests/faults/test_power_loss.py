"""With every sync replayed: a power loss at any moment leaves what was promised, and arrays that open.

And `recover` makes a dataset of it that is sound, and has all of that.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scopestream import AcquisitionSettings, open_stream, recover, verify
from scopestream.plan import LayoutPlan
from scopestream.testing import read_array, stamped_frame
from scopestream.testing.levels import next_level
from tests.faults.power import Disk, Recorder
from tests.faults.results import Numbers, Results

SHAPE = (40, 33)
N_FRAMES = 11
_TILES = {"y": 16, "x": 16}

#: name -> settings besides path, dtype and codec
LAYOUTS: Mapping[str, Mapping[str, Any]] = {
    "shards": {"count": N_FRAMES, "chunks": _TILES, "shards": {"t": 4}},
    "one long shard": {"count": 40, "chunks": _TILES, "shards": {"t": 40}},
    "unbounded": {"count": None, "chunks": _TILES, "shards": {"t": 4}},
    "deep chunks": {"count": 40, "chunks": {"t": 3, **_TILES}, "shards": {"t": 6}},
    "files of chunks": {"count": None, "chunks": _TILES, "shards": None},
    "deep files of chunks": {"count": N_FRAMES, "chunks": {"t": 3, **_TILES}, "shards": None},
    "levels": {"count": None, "chunks": _TILES, "shards": {"t": 4}, "levels": 2},
    "positions": {"count": N_FRAMES, "positions": 2, "chunks": _TILES, "shards": {"t": 4}},
}


def settings(path: Path, layout: str, codec: str, **fields: Any) -> AcquisitionSettings:
    rest = dict(LAYOUTS[layout])
    dimensions = [{"name": "t", "count": rest.pop("count")}]
    if n_positions := rest.pop("positions", 0):
        coords = [{"name": f"p{number}", "x": 0.0, "y": 0.0} for number in range(n_positions)]
        dimensions.append({"name": "p", "coords": coords})
    dimensions += [{"name": "y", "count": SHAPE[0]}, {"name": "x", "count": SHAPE[1]}]
    return AcquisitionSettings(
        path=path, dtype="uint16", dimensions=dimensions, codec=codec, backend="inplace", **rest, **fields
    )


def recorded(folder: Path, acquisition: AcquisitionSettings) -> tuple[Disk, LayoutPlan]:
    """An acquisition with flushes of both kinds; its frames were promised as soon as `flush(durable=True)` returned."""
    recorder = Recorder(folder)
    with recorder.recording():
        with open_stream(acquisition) as stream:
            if acquisition.durability == "disk":
                recorder.promise(0)
            for number in range(N_FRAMES):
                stream.append(stamped_frame(number, SHAPE, "uint16"), metadata={"number": number})
                if number % 3 == 1:
                    stream.flush()
                elif number % 3 == 2:
                    stream.flush(durable=True)
                    recorder.promise(number + 1)
                if number == 7:
                    stream.set_metadata("lab", {"operator": "Ada"})
        recorder.promise(N_FRAMES)
    return Disk(recorder.steps), stream.plan


def check(root: Path, plan: LayoutPlan, n_promised: int, reader: str) -> None:
    """Every document is whole, every array can be read to its end, and the promised frames are exact."""
    for document in root.rglob("zarr.json"):
        assert json.loads(document.read_bytes())["zarr_format"] == 3, document
    n_images = len(plan.images)
    full = {}
    for image in plan.images:
        numbers = range(int(image.path or 0), n_promised, n_images)
        expected = np.array([stamped_frame(number, SHAPE, "uint16") for number in numbers]).reshape(-1, *SHAPE)
        for level, array in enumerate(image.arrays):
            expected = next_level(expected, "mean", None) if level else expected
            found = read_array(root / plan.arrays[array].path, reader)
            full.setdefault(image.path, found)
            np.testing.assert_array_equal(found[: len(expected)], expected, err_msg=plan.arrays[array].path)
    assert_log_keeps_its_word(root, full)


def assert_log_keeps_its_word(root: Path, images: Mapping[str, np.ndarray]) -> None:
    """All frames that the log calls written, up to where it says that they are safe, are there."""
    log = (root / "scopestream" / "frames.jsonl").read_bytes()
    records = [(end, json.loads(line)) for end, line in _whole_lines(log)]
    safe = max([record["synced"] for _, record in records if "synced" in record], default=0)
    for end, record in records:
        if end <= safe and record.get("status") == "written":
            found = images[record["image"]][record["index"]["t"]]
            np.testing.assert_array_equal(found, stamped_frame(record["frame"], SHAPE, "uint16"))


def _whole_lines(log: bytes) -> list[tuple[int, bytes]]:
    """Lines with their ends; what a power loss cut to pieces is no JSON, and left out."""
    lines, end = [], 0
    for line in log.splitlines(keepends=True):
        end += len(line)
        if line.startswith(b"{") and line.endswith(b"}\n") and b"\0" not in line:
            try:
                json.loads(line)
            except ValueError:
                continue
            lines.append((end, line))
    return lines


def recorded_twice(folder: Path, acquisition: AcquisitionSettings) -> tuple[Disk, LayoutPlan]:
    """Frames that were promised, and a second stream that goes on with them without a promise of its own."""
    recorder = Recorder(folder)
    with recorder.recording():
        with open_stream(acquisition) as stream:
            for number in range(6):
                stream.append(stamped_frame(number, SHAPE, "uint16"))
            stream.flush(durable=True)
            recorder.promise(6)
        with open_stream(acquisition.model_copy(update={"on_exists": "resume"})) as stream:
            for number in range(6, N_FRAMES):
                stream.append(stamped_frame(number, SHAPE, "uint16"))
                stream.flush()
    return Disk(recorder.steps), stream.plan


def make_whole(root: Path) -> None:
    """Recover, on a computer that was started again since, and verify."""
    (root / "scopestream" / "lock").write_text(json.dumps({"run": "the one before"}))
    recover(root)
    found = verify(root)
    assert found.sound, found


def lose_power(
    tmp_path: Path,
    acquisition: AcquisitionSettings,
    *,
    n_cuts: int | None,
    seeds: range,
    results: Results,
    acquire: Callable[[Path, AcquisitionSettings], tuple[Disk, LayoutPlan]] = recorded,
) -> None:
    """At `n_cuts` moments (None: all), with every seed."""
    (tmp_path / "disk").mkdir()
    disk, plan = acquire(tmp_path / "disk", acquisition)
    cuts = [cut for cut in disk.cuts() if disk.promised(cut) is not None]
    if n_cuts is not None:
        cuts = sorted({cuts[-1], *random.Random(0).sample(cuts, min(n_cuts, len(cuts)))})
    assert len(cuts) > 1
    for cut in cuts:
        for seed in seeds:
            left = tmp_path / f"left-{cut}-{seed}"
            disk.left(cut, seed, left)
            reader = ("zarr", "tensorstore", "zarrs")[(cut + seed) % 3]
            n_promised, what = disk.promised(cut) or 0, f"power lost before step {cut}, seed {seed}, reader {reader}"
            held = False
            try:
                check(left / plan.root.name, plan, n_promised, reader)
                make_whole(left / plan.root.name)
                check(left / plan.root.name, plan, n_promised, reader)
                held = True
            except Exception as error:
                error.add_note(what)
                raise
            finally:  # of a check that fails nobody knows how many frames it cost: all of them, at the most
                numbers = Numbers(n_promised, 0 if held else n_promised, n_promised, n_promised if held else 0)
                results.add("power loss, replayed", "inplace", what, opened=held, numbers=numbers)
            shutil.rmtree(left)


@pytest.mark.parametrize("durability", ["process", "disk"])
@pytest.mark.parametrize("codec", ["none", "zstd"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_power_loss_leaves_what_was_promised(
    tmp_path: Path, layout: str, codec: str, durability: str, results: Results
) -> None:
    acquisition = settings(tmp_path / "disk" / "a.ome.zarr", layout, codec, durability=durability)
    lose_power(tmp_path, acquisition, n_cuts=5, seeds=range(5), results=results)


@pytest.mark.parametrize("codec", ["none", "zstd"])
@pytest.mark.parametrize("layout", ["one long shard", "unbounded", "deep chunks"])
def test_a_stream_that_goes_on_keeps_what_was_promised_before(
    tmp_path: Path, layout: str, codec: str, results: Results
) -> None:
    acquisition = settings(tmp_path / "disk" / "a.ome.zarr", layout, codec)
    lose_power(tmp_path, acquisition, n_cuts=8, seeds=range(5), results=results, acquire=recorded_twice)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("durability", ["process", "disk"])
@pytest.mark.parametrize("codec", ["none", "zstd", "blosc-lz4"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_power_losses_at_every_sync(tmp_path: Path, layout: str, codec: str, durability: str, results: Results) -> None:
    acquisition = settings(tmp_path / "disk" / "a.ome.zarr", layout, codec, durability=durability)
    lose_power(tmp_path, acquisition, n_cuts=None, seeds=range(12), results=results)
