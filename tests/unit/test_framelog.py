"""The frame log survives whatever cuts it off."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scopestream import AcquisitionSettings, WriteError, open_stream, read_frames
from scopestream.testing import stamped_frame


def settings(tmp_path: Path) -> AcquisitionSettings:
    dimensions = [{"name": "t", "count": 5}, {"name": "y", "count": 8}, {"name": "x", "count": 8}]
    return AcquisitionSettings(path=tmp_path / "a.ome.zarr", dtype="uint8", dimensions=dimensions, backend="inplace")


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path)) as stream:
        stream.append(stamped_frame(0, (8, 8), "uint8"))
    log = stream.plan.root / "scopestream" / "frames.jsonl"
    log.write_bytes(log.read_bytes() + b'{"frame":1,"image":"","ind')
    assert [record["frame"] for record in read_frames(stream.path)] == [0]


def test_a_line_that_a_full_disk_cut_off_spoils_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write = os.write

    def half_then_full(file: int, data: memoryview) -> int:
        monkeypatch.setattr(os, "write", full)
        return real_write(file, data[: len(data) // 2])

    def full(file: int, data: memoryview) -> int:
        monkeypatch.setattr(os, "write", real_write)
        raise OSError(28, "No space left on device")

    stream = open_stream(settings(tmp_path))
    stream.skip(reason="before")
    stream.flush()
    monkeypatch.setattr(os, "write", half_then_full)
    stream.skip(reason="the disk is full")
    stream.skip(reason="after")
    with pytest.raises(WriteError, match="No space left"):
        stream.close()
    records = list(read_frames(stream.path))
    assert [(record["frame"], record["reason"]) for record in records] == [(0, "before"), (2, "after")]
