"""What a kill leaves: a copy of a dataset that is being written, holes in files included."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from time import sleep

from scopestream import Stream
from scopestream.geometry import Geometry
from scopestream.plan import ArrayPlan
from scopestream.shardindex import read_index

_BLOCK = 4096


def crash(stream: Stream, path: Path) -> Path:
    """A copy of the dataset as it is once all accepted frames are stored or wait in blocks. The stream goes on."""
    while stream.stats.queue_depth:
        sleep(0.001)
    # A thread that finds nothing to do may publish an index meanwhile, and half of that is what no kill leaves.
    while True:
        before = _state(stream)
        copy(Path(stream.path), path)
        if _state(stream) == before:
            return path
        shutil.rmtree(path)


def damage(shard: Path, array: ArrayPlan, origin: tuple[int, ...]) -> bytes:
    """Turn bits inside the chunk at `origin` of an array; returns what the file has then."""
    _, first, _ = Geometry(array).locate(origin[:-2])
    index = read_index(shard, Geometry(array).n_chunks)
    assert index is not None
    offset, length = map(int, index[first])
    content = bytearray(shard.read_bytes())
    middle = slice(offset + length // 4, offset + length // 4 + 8)
    content[middle] = bytes(byte ^ 0xFF for byte in content[middle])
    shard.write_bytes(content)
    return bytes(content)


def copy(source: Path, target: Path) -> Path:
    """Another dataset like that at `source`."""
    shutil.copytree(source, target, copy_function=_copy_with_holes)
    return target


def _state(stream: Stream) -> dict[Path, tuple[int, int]]:
    files = [file for file in Path(stream.path).rglob("*") if file.is_file()]
    return {file: (file.stat().st_size, file.stat().st_mtime_ns) for file in files}


def _copy_with_holes(source: str, target: str) -> None:
    with Path(source).open("rb") as file, Path(target).open("wb") as copy:
        while block := file.read(_BLOCK):
            if any(block):
                copy.write(block)
            else:
                copy.seek(len(block), os.SEEK_CUR)
        copy.truncate()
