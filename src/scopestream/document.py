"""Zarr v3 documents: `zarr.json` of arrays and groups, how one is replaced at once, and how anybody's is read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any

from scopestream.dimensions import Codec
from scopestream.durable import sync_path
from scopestream.errors import DatasetError
from scopestream.plan import ArrayPlan
from scopestream.untrusted import read_bounded

MAX_DOCUMENT_BYTES = 32_000_000  # more than any sound document has; those of a million images stay below it
_REPLACE_ATTEMPTS = 50
_CRC32C: dict[str, Any] = {"name": "crc32c"}


def codec_documents(codec: Codec, itemsize: int) -> list[dict[str, Any]]:
    """The codecs of one chunk (Zarr v3 core, "codecs"): little endian, then the compressor."""
    codecs: list[dict[str, Any]] = [_bytes_codec(itemsize)]
    if codec.name == "zstd":
        codecs.append({"name": "zstd", "configuration": {"level": codec.level, "checksum": False}})
    elif codec.name.startswith("blosc"):
        shuffle = {"none": "noshuffle", "byte": "shuffle", "bit": "bitshuffle"}[codec.shuffle]
        configuration = {
            "typesize": itemsize, "cname": codec.name.removeprefix("blosc-"), "clevel": codec.level,
            "shuffle": shuffle, "blocksize": 0,
        }  # fmt: skip
        codecs.append({"name": "blosc", "configuration": configuration})
    return codecs


def array_document(array: ArrayPlan, shape: tuple[int, ...]) -> dict[str, Any]:
    """`zarr.json` of an array that has that shape by now.

    The index of shards is at the end and carries a CRC32C: the only form that every reader opens.
    """
    codecs = codec_documents(array.codec, array.dtype.itemsize)
    if array.shards is not None:
        sharding = {
            "chunk_shape": list(array.chunks),
            "codecs": codecs,
            "index_codecs": [_bytes_codec(8), _CRC32C],
            "index_location": "end",
        }
        codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": array.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(array.file_shape)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": False if array.dtype.kind == "b" else 0.0 if array.dtype.kind == "f" else 0,
        "codecs": codecs,
        "attributes": {},
        "dimension_names": list(array.axes),
        "storage_transformers": [],
    }


def group_document(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """`zarr.json` of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}


def _bytes_codec(itemsize: int) -> dict[str, Any]:
    # Byte order means nothing for one byte, and some readers refuse it there.
    return {"name": "bytes"} if itemsize == 1 else {"name": "bytes", "configuration": {"endian": "little"}}


@contextmanager
def replacing(path: Path, *, synced: bool = False) -> Iterator[Path]:
    """A path to write to that becomes `path` when the block ends well: readers see the old file or the new one.

    synced  whether that holds after a power loss as well: the new file is on stable storage before it gets the name.
            The name is when the folder was synced, which is left to the caller
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        if synced:
            sync_path(temporary)
        _move(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def replace_file(path: Path, content: bytes | memoryview, *, synced: bool = False) -> None:
    """Let `path` have that content: readers see the old one or the new one, never a part.

    `synced` as for `replacing`.
    """
    with replacing(path, synced=synced) as temporary:
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(file, rest) :]
        finally:
            os.close(file)


def _move(temporary: Path, path: Path) -> None:
    for attempt in range(_REPLACE_ATTEMPTS):
        try:
            os.replace(temporary, path)
            return
        except PermissionError:
            # Windows refuses while another program reads the old one, which takes it a moment.
            if os.name != "nt" or attempt == _REPLACE_ATTEMPTS - 1:
                raise
            sleep(0.02)


def write_document(folder: Path, document: Mapping[str, Any], *, synced: bool = False) -> None:
    """Write `zarr.json` into a folder that exists. `synced` as for `replacing`."""
    replace_file(folder / "zarr.json", json.dumps(document, indent=2, allow_nan=False).encode(), synced=synced)


def read_document(folder: Path) -> dict[str, Any]:
    """`zarr.json` of a folder that anybody may have written: a mapping with zarr_format 3, nothing else is checked.

    Raises DatasetError that says what is wrong with it. A file that is too large is not read, and neither is what is no
    ordinary file.
    """
    path = folder / "zarr.json"
    try:
        content = read_bounded(path, MAX_DOCUMENT_BYTES)
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing") from None
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error
    if content is None:
        raise DatasetError(f"{path} has more than {MAX_DOCUMENT_BYTES} bytes, which no sound document has")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise DatasetError(f"{path} is not a JSON object")
    if (found := document.get("zarr_format")) != 3:
        raise DatasetError(f"{path} has zarr_format {found if found in range(10) else '?'}, not 3")
    return document


def stored_length(folder: Path) -> int:
    """How long the first axis of the array in `folder` is, as its document says. Raises DatasetError."""
    shape = read_document(folder).get("shape")
    if isinstance(shape, list) and shape and type(shape[0]) is int and shape[0] >= 0:
        return shape[0]
    raise DatasetError(f"{folder / 'zarr.json'} has no shape")
