"""Writing past the page cache: the same dataset by another way."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scopestream import AcquisitionSettings, PlanError, open_stream
from scopestream.testing import read_array, stamped_frame
from scopestream.testing.levels import next_level
from scopestream_backends import _files

SHAPE = (300, 256)


def settings(tmp_path: Path, **fields: Any) -> AcquisitionSettings:
    base: dict[str, Any] = {
        "path": tmp_path / "a.ome.zarr",
        "dtype": "uint16",
        "dimensions": [{"name": "t", "count": 9}, {"name": "y", "count": SHAPE[0]}, {"name": "x", "count": SHAPE[1]}],
        "chunks": {"y": 64, "x": 64},
        "backend": "inplace",
        "direct_io": True,
    }
    return AcquisitionSettings(**{**base, **fields})


def frame(number: int) -> np.ndarray:
    return stamped_frame(number, SHAPE, "uint16")


@pytest.mark.parametrize(
    "fields",
    [{"shards": {"t": 4}}, {"shards": None}, {"shards": {"t": 4, "y": 128}}, {"levels": 2}, {"chunks": {"t": 3}}],
    ids=str,
)
@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.filterwarnings("ignore:The file system .* cannot be written past")
def test_the_dataset_is_the_same(tmp_path: Path, fields: dict[str, Any], copy: bool) -> None:
    if "chunks" in fields:
        fields = {"chunks": {"t": 3, "y": 64, "x": 64}}
    with open_stream(settings(tmp_path, **fields)) as stream:
        for number in range(9):
            stream.append(frame(number), copy=copy)
    expected = np.array([frame(number) for number in range(9)])
    for level in range(len(stream.plan.arrays)):
        found = read_array(stream.plan.root / str(level), "tensorstore")
        np.testing.assert_array_equal(found, expected)
        expected = next_level(expected)


def test_frames_go_past_the_page_cache_where_the_file_system_can(tmp_path: Path) -> None:
    if not _files.supports_direct_io(tmp_path):
        with pytest.warns(RuntimeWarning, match="direct_io has no effect"):
            open_stream(settings(tmp_path)).close()
        return
    direct: list[bool] = []
    original = _files.write_direct

    def counted(*arguments: Any) -> bool:
        direct.append(original(*arguments))
        return direct[-1]

    with pytest.MonkeyPatch.context() as patch, open_stream(settings(tmp_path)) as stream:
        patch.setattr("scopestream_backends._shards.write_direct", counted)
        for number in range(9):
            stream.append(frame(number))
            stream.flush()
    assert direct == [True] * 9


def test_a_file_system_that_cannot_is_told_and_written_as_usual(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scopestream_backends.inplace.supports_direct_io", lambda folder: False)
    with pytest.warns(RuntimeWarning, match="direct_io has no effect"):
        stream = open_stream(settings(tmp_path))
    with stream, warnings.catch_warnings():
        stream.append(frame(0))
    np.testing.assert_array_equal(read_array(stream.plan.root / "0", "zarr")[0], frame(0))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"codec": "zstd"}, "not compressed"),
        ({"chunks": {"y": 10, "x": 10}}, "a multiple of 4096"),
        ({"backend": "tensorstore"}, "page cache only"),
    ],
)
def test_what_cannot_be_written_so_is_refused(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        open_stream(settings(tmp_path, **fields))
    assert not (tmp_path / "a.ome.zarr").exists()
