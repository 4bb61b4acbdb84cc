"""Other processes see the frames of a dataset that grows, with the libraries that they have, and without being told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scopestream import AcquisitionSettings, open_stream
from scopestream.testing import stamped_frame

Y, X = 96, 128
N_FRAMES = 8

# Looks at the dataset again and again, and says each frame that it sees; a wrong pixel ends it.
LOOK = """
import sys, time
from importlib import import_module

import numpy as np
from scopestream.testing import stamped_frame

library, path, n_frames = sys.argv[1], sys.argv[2], int(sys.argv[3])


def frame(number):
    if library == "scopestream":
        view = import_module("scopestream").open_view(path)
        return view[number] if number < len(view) else None
    if library == "tensorstore":
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/0"}}
        array = import_module("tensorstore").open(spec, read=True).result()
        return array[number].read().result() if number < array.shape[0] else None
    array = import_module("zarr").open_array(f"{path}/0", mode="r")
    return array[number] if number < array.shape[0] else None


for number in range(n_frames):
    expected = stamped_frame(number, (96, 128), "uint16")
    give_up = time.monotonic() + 30  # a frame takes a small part of a second
    while time.monotonic() < give_up:
        try:
            pixels = frame(number)
        except Exception as error:  # between two steps of the writer an index may be elsewhere: never wrong pixels
            print("again:", error, file=sys.stderr)
            pixels = None
        if pixels is not None and pixels.any():
            break
        time.sleep(0.02)
    np.testing.assert_array_equal(pixels, expected)
    print(number, flush=True)
"""


@pytest.mark.parametrize("reader", ["tensorstore", "zarr", "scopestream"])
@pytest.mark.parametrize(
    "layout",
    [
        {"backend": "inplace"},
        {"backend": "inplace", "codec": "blosc-lz4"},
        {"backend": "inplace", "codec": "zstd", "chunks": {"t": 3, "y": 32, "x": 32}, "checkpoint_s": 0.1},
        {"backend": "tensorstore", "shards": {"t": 4}, "checkpoint_s": 0.1},
    ],
    ids=["in place", "compressed", "deep chunks", "whole shards"],
)
def test_a_frame_is_seen_without_a_flush_and_without_a_frame_behind_it(
    tmp_path: Path, reader: str, layout: dict[str, Any]
) -> None:
    dimensions = [{"name": "t", "count": None}, {"name": "y", "count": Y}, {"name": "x", "count": X}]
    settings = AcquisitionSettings(path=tmp_path / "a.ome.zarr", dtype="uint16", dimensions=dimensions, **layout)
    with (
        open_stream(settings) as stream,
        subprocess.Popen(
            [sys.executable, "-c", LOOK, reader, stream.path, str(N_FRAMES)], stdout=subprocess.PIPE, text=True
        ) as looker,
    ):
        assert looker.stdout is not None
        try:
            for number in range(N_FRAMES):
                stream.append(stamped_frame(number, (Y, X), "uint16"))
                assert looker.stdout.readline() == f"{number}\n"  # only then the next frame comes
        finally:
            looker.kill()
