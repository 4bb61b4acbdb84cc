"""An in-place dataset is read by three libraries after every single frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scopestream import AcquisitionSettings, open_stream
from scopestream.testing import read_array, stamped_frame
from scopestream.testing.readers import READERS

Y, X = 96, 128


@pytest.mark.parametrize("codec", ["none", "zstd", "blosc-lz4"])
@pytest.mark.parametrize(
    "layout",
    [
        {"chunks": {"y": 32, "x": 32}, "shards": {"t": 4}},
        {"chunks": {"y": 32, "x": 32, "t": 3}, "shards": {"t": 6}},
        {"chunks": {"y": 32, "x": 32}, "shards": {"t": 4, "y": 64, "x": 64}},
        {"chunks": {"t": 2}, "shards": None},
    ],
    ids=["tiles", "deep chunks", "several files a frame", "no shards"],
)
@pytest.mark.parametrize("count", [10, None], ids=["bounded", "unbounded"])
def test_every_frame_is_read_as_soon_as_flush_returned(
    tmp_path: Path, codec: str, layout: dict[str, Any], count: int | None
) -> None:
    dimensions = [{"name": "t", "count": count}, {"name": "y", "count": Y}, {"name": "x", "count": X}]
    settings = AcquisitionSettings(
        path=tmp_path / "a.ome.zarr", dtype="uint16", dimensions=dimensions, codec=codec, backend="inplace", **layout
    )
    frames = [stamped_frame(number, (Y, X), "uint16") for number in range(10)]
    with open_stream(settings) as stream:
        for number, frame in enumerate(frames):
            stream.append(frame)
            stream.flush()
            for reader in READERS:
                pixels = read_array(stream.plan.root / "0", reader)
                np.testing.assert_array_equal(pixels[: number + 1], frames[: number + 1], err_msg=reader)
                assert not pixels[number + 1 :].any(), reader
    for reader in READERS:
        np.testing.assert_array_equal(read_array(stream.plan.root / "0", reader), frames, err_msg=reader)
