"""Some frames read back, bit for bit, by another library than the one that wrote them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import Case
from benchmarks.geometry import Geometry
from benchmarks.runners.session import Runner, Session
from scopestream.bench.camera import Frames
from scopestream.testing import reader_other_than

Index = tuple[int, ...]


def sampled_frames_read_back(case: Case, runner: Runner, session: Session, frames: Frames, n_frames: int) -> int:
    """How many of the `n_frames` frames that were taken were compared. Raises AssertionError when one differs.

    Of a pyramid the next level is compared as well, where writers may round either way.
    """
    if not session.arrays:
        return 0
    geometry = Geometry(case)
    read = _reader(reader_other_than(runner.library))
    numbers = sorted({0, 1, n_frames // 3, n_frames // 2, n_frames - 1} & set(range(n_frames)))
    for number in numbers:
        image, index = geometry.locate(number)
        expected, path = frames[number % len(frames)], session.arrays[image]
        np.testing.assert_array_equal(read(path, index), expected, f"frame {number} of {runner.name}")
        if session.levels > 1:
            y, x = expected.shape
            mean = expected.reshape(y // 2, 2, x // 2, 2).mean(axis=(1, 3))
            np.testing.assert_allclose(
                read(path.with_name("1"), index), mean, atol=1, rtol=0, err_msg=f"frame {number}, level 1"
            )
    return len(numbers)


def _reader(library: str) -> Callable[[Path, Index], Any]:
    def read_tensorstore(path: Path, index: Index) -> Any:
        import tensorstore

        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/"}}
        return tensorstore.open(spec, read=True).result()[index].read().result()

    def read_zarr(path: Path, index: Index) -> Any:
        import zarr

        return zarr.open_array(str(path), mode="r")[index]

    return read_tensorstore if library == "tensorstore" else read_zarr
