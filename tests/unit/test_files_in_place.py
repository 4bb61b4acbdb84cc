"""The files of the inplace backend: space that is asked for ahead, and writes that the system cuts short."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scopestream import AcquisitionSettings, open_stream
from scopestream.testing import read_array, stamped_frame
from scopestream_backends import _files, _shards

SHAPE = (256, 256)
FRAME_BYTES = 256 * 256 * 2
WINDOW_BYTES = 2**22


def settings(tmp_path: Path, **fields: Any) -> AcquisitionSettings:
    base: dict[str, Any] = {
        "path": tmp_path / "a.ome.zarr",
        "dtype": "uint16",
        "dimensions": [{"name": "t", "count": 400}, {"name": "y", "count": 256}, {"name": "x", "count": 256}],
        "backend": "inplace",
    }
    return AcquisitionSettings(**{**base, **fields})


def frames(n: int) -> np.ndarray:
    return np.stack([stamped_frame(number, SHAPE, "uint16") for number in range(n)])


@pytest.mark.skipif(not hasattr(os.stat_result, "st_blocks"), reason="this system does not tell the space of a file")
def test_space_is_taken_in_windows_and_given_back_at_the_end(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path)) as stream:
        stream.extend(frames(3))
        stream.flush()
        (shard,) = [path for path in (stream.plan.root / "0" / "c").rglob("*") if path.is_file()]
        assert shard.stat().st_size > 400 * FRAME_BYTES
        assert shard.stat().st_blocks * 512 <= WINDOW_BYTES + 2**20
    assert shard.stat().st_blocks * 512 <= 3 * FRAME_BYTES + 2**16
    np.testing.assert_array_equal(read_array(stream.plan.root / "0", "tensorstore")[:3], frames(3))


@pytest.mark.parametrize("codec", ["none", "blosc-lz4"])
def test_without_space_ahead_frames_are_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    asked: list[int] = []

    def refuse(file: int, offset: int, n_bytes: int) -> bool:
        asked.append(n_bytes)
        return False

    monkeypatch.setattr(_shards, "allocate", refuse)
    with open_stream(settings(tmp_path, codec=codec)) as stream:
        stream.extend(frames(8))
    assert len(asked) == 1  # it is not asked for again
    np.testing.assert_array_equal(read_array(stream.plan.root / "0", "tensorstore")[:8], frames(8))


@pytest.mark.parametrize("codec", ["none", "blosc-lz4"])
def test_writes_that_the_system_cuts_short_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str) -> None:
    if not hasattr(os, "pwritev"):
        return  # there the pieces are written one by one

    def short(file: int, pieces: Sequence[bytes | memoryview], offset: int) -> int:
        data = b"".join(pieces)[: FRAME_BYTES // 3]
        return os.pwrite(file, data, offset)

    monkeypatch.setattr(_files.os, "pwritev", short)
    with open_stream(settings(tmp_path, codec=codec, chunks={"y": 64, "x": 64})) as stream:
        stream.extend(frames(40))
    np.testing.assert_array_equal(read_array(stream.plan.root / "0", "tensorstore")[:40], frames(40))
