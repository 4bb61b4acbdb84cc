"""Arrays read back by libraries that have nothing to do with scopestream."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np


def _read_tensorstore(path: Path) -> np.ndarray:
    import tensorstore

    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
    pixels: np.ndarray = tensorstore.open(spec, read=True).result().read().result()
    return pixels


def _read_zarr(path: Path) -> np.ndarray:
    import zarr

    return np.asarray(zarr.open_array(str(path), mode="r")[...])


def _read_zarrs(path: Path) -> np.ndarray:
    import zarr

    # The pipeline is chosen when the array is opened, but looked up again when it reads.
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        return np.asarray(zarr.open_array(zarr.storage.LocalStore(path, read_only=True), mode="r")[...])


READERS: dict[str, Callable[[Path], np.ndarray]] = {
    "tensorstore": _read_tensorstore,
    "zarr": _read_zarr,
    "zarrs": _read_zarrs,
}


def read_array(path: str | Path, reader: str) -> np.ndarray:
    """All pixels of the array at `path`, read by "tensorstore", "zarr" (zarr-python) or "zarrs"."""
    return READERS[reader](Path(path))


def reader_other_than(*writers: str) -> str:
    """An installed reader that shares no code with the writers. Raises LookupError when none is installed."""
    used = {module: any(module in writer.replace("-", "_") for writer in writers) for module in ("tensorstore", "zarr")}
    for reader in ("tensorstore", "zarr"):
        if find_spec(reader) is not None and not used[reader]:
            return reader
    raise LookupError("install tensorstore or zarr, whichever did not write the data")


def describe_mismatch(expected: np.ndarray, found: np.ndarray) -> str:
    """What differs, in words; empty when nothing does."""
    if expected.shape != found.shape:
        return f"shape {found.shape}, expected {expected.shape}"
    if expected.dtype != found.dtype:
        return f"dtype {found.dtype}, expected {expected.dtype}"
    if np.array_equal(expected, found):
        return ""
    wrong: Any = np.argwhere((expected != found).reshape(*expected.shape[:-2], -1).any(axis=-1))
    return f"{len(wrong)} of {int(np.prod(expected.shape[:-2]))} frames differ, first {wrong[0].tolist()}"
