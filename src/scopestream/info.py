"""What is in an OME-Zarr 0.5 dataset, ours or anybody's, from its documents alone; no pixel is read.

Nothing in a dataset is trusted: whatever is broken becomes a sentence in `DatasetInfo.problems`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, islice, takewhile
from math import isfinite
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from scopestream.document import read_document
from scopestream.errors import DatasetError
from scopestream.framelog import FRAME_LOG, parse_mark, parse_record
from scopestream.untrusted import lines, open_regular

# More than any sound dataset has; what goes beyond costs neither time nor memory.
MAX_IMAGES = 1_000_000
MAX_LEVELS = 64
_MAX_AXES = 32
_MAX_STEPS = 16  # transformations of one level
_MAX_CHANNELS = 1000
_MAX_PROBLEMS = 1000
_MAX_NOTES = 100
_MAX_CHECKED = 100_000  # entries of a document that are checked against the specification
_MAX_READ_BYTES = 256_000_000  # of all documents together, each of which counts as _LEAST_BYTES at least
_LEAST_BYTES = 5000
_MAX_TEXT = 200
_MAX_PROBLEM_TEXT = 1000
_KINDS = {
    "plate": "plate",
    "bioformats2raw.layout": "bioformats2raw",
    "multiscales": "image",
    "well": "well",
    "labels": "labels",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisInfo:
    """One axis of the finest level. `size`, `scale` and `origin` are None where the documents do not say."""

    name: str
    type: str
    unit: str
    size: int | None
    scale: float | None
    origin: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayInfo:
    """One level. Shapes are in elements; `shards` is None when every chunk is a file."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    codec: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelInfo:
    """One channel; `color` is "#rrggbb" or empty, `window` (start, end) or None."""

    name: str
    color: str
    window: tuple[float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """One image group; `path` is "" for the root."""

    path: str
    name: str
    axes: tuple[AxisInfo, ...]
    levels: tuple[ArrayInfo, ...]
    channels: tuple[ChannelInfo, ...]


@dataclass(slots=True, kw_only=True)
class DatasetInfo:
    """A dataset. `n_images` counts all of them, `images` has the first ones.

    status        what scopestream's root attribute says, with its frame counts; empty in other datasets
    statistics    numbers of how the acquisition went, by name; empty where the root document has none
    log           lines of the frame log by status, None without a log
    n_read_bytes  of documents
    n_bytes       length of all files, `n_disk_bytes` what they take on the disk (sparse files take less)
    """

    path: Path
    kind: str = "group"
    version: str = ""
    name: str = ""
    status: dict[str, str] = field(default_factory=dict)
    statistics: dict[str, float] = field(default_factory=dict)
    n_images: int = 0
    images: list[ImageInfo] = field(default_factory=list)
    n_wells: int = 0
    log: dict[str, int] | None = None
    n_files: int = 0
    n_bytes: int = 0
    n_disk_bytes: int = 0
    n_checked: int = 0
    n_read_bytes: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add_problem(self, text: str) -> None:
        if len(self.problems) < _MAX_PROBLEMS:
            cut = text if len(text) <= _MAX_PROBLEM_TEXT else text[:_MAX_PROBLEM_TEXT] + "..."
            self.problems.append(printable(cut).replace("\n", " "))


def inspect(path: Path, max_images: int = 8) -> DatasetInfo:
    """Look at the dataset at `path`. Raises DatasetError when there is none."""
    info = DatasetInfo(path=path)
    attributes = _attributes(_root_document(path), path)
    ome = _checked_ome(info, attributes, "")
    info.kind = next((kind for key, kind in _KINDS.items() if key in ome), "group")
    info.version = _text(ome.get("version"))
    info.name = _text(_dict(ome.get("plate")).get("name"))
    own = _dict(attributes.get("scopestream"))
    info.status = {_text(key): _text(value) for key, value in own.items() if key in ("status", "version")}
    info.status |= {f"frames {_text(key)}": _text(value) for key, value in _first(own.get("frames"))}
    for key, value in _first(own.get("statistics")):
        if (number := _number([value], 0)) is not None:
            info.statistics[_text(key)] = number
    for image in _image_paths(info, ome):
        info.n_images += 1
        if len(info.images) < max_images:
            _try_image(info, image)
        if info.n_images >= MAX_IMAGES:
            info.notes.append(f"stopped counting at {MAX_IMAGES} images")
            break
    if not info.n_images:
        info.add_problem("there is no image in it")
    _count_files(info)
    info.log = _count_log(info)
    return info


def clean(text: str) -> str:
    """Text that is safe in a terminal: printable, and not endless."""
    return printable(text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 3] + "...").replace("\n", " ")


def printable(text: str) -> str:
    """Text without anything that would control a terminal, except for line ends."""
    return "".join(character if character.isprintable() or character == "\n" else "\ufffd" for character in text)


# -- documents ------------------------------------------------------------------------------------------------------


def _root_document(path: Path) -> dict[str, Any]:
    # These functions of os.path, unlike those of Path, say no where the system refuses to say anything.
    if not os.path.lexists(path):
        raise DatasetError(f"There is nothing at {path}.")
    if not os.path.isdir(path):  # noqa: PTH112
        raise DatasetError(f"{path} is a file; an OME-Zarr dataset is a folder.")
    if not os.path.lexists(path / "zarr.json"):
        if any(os.path.lexists(path / name) for name in (".zgroup", ".zattrs", ".zarray")):
            raise DatasetError(f"{path} is Zarr v2 (OME-Zarr 0.4 or older); this command reads OME-Zarr 0.5.")
        raise DatasetError(f"{path} has no zarr.json: it is not a Zarr v3 dataset.")
    document = read_document(path)
    if document.get("node_type") == "array":
        raise DatasetError(f"{path} is a single Zarr array; ask for the image group above it.")
    return document


def _attributes(document: dict[str, Any], path: Path) -> dict[str, Any]:
    attributes = _dict(document.get("attributes"))
    if not isinstance(attributes.get("ome"), dict):
        raise DatasetError(f"{path} is a Zarr v3 group, but not OME-Zarr 0.5: zarr.json has no attributes.ome.")
    return attributes


def _checked_ome(info: DatasetInfo, attributes: dict[str, Any], path: str) -> dict[str, Any]:
    """`attributes.ome`, after yaozarrs has said what it thinks of it."""
    from pydantic import ValidationError
    from yaozarrs import v05, validate_ome_object

    ome = _dict(attributes.get("ome"))
    where = f"{path or 'the root'}: "
    if _count(ome, _MAX_CHECKED) > _MAX_CHECKED:
        info.notes.append(f"{where}too large to be checked")
        return ome
    info.n_checked += 1
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            validate_ome_object({"ome": ome}, v05.OMEAttributes)
        info.notes += [where + clean(str(one.message)) for one in caught[: _MAX_NOTES - len(info.notes)]]
    except ValidationError as error:
        for one in error.errors(include_url=False, include_context=False, include_input=False)[:5]:
            place = ".".join(str(part) for part in one["loc"])
            info.add_problem(clean(f"{where}{place}: {one['msg']}"))
    except (ValueError, TypeError, RecursionError) as error:
        info.add_problem(clean(f"{where}{error}"))
    return ome


def _group_ome(info: DatasetInfo, path: str) -> dict[str, Any]:
    """The checked `attributes.ome` of a group below the root. Raises DatasetError."""
    folder = info.path / path
    return _checked_ome(info, _attributes(_read(info, folder), folder), path)


def _read(info: DatasetInfo, folder: Path) -> dict[str, Any]:
    """A document below the root, as long as all of them together are not endless. Raises DatasetError."""
    if info.n_read_bytes >= _MAX_READ_BYTES:
        raise DatasetError(f"its documents are larger than {_MAX_READ_BYTES} bytes, so the others were not read")
    info.n_read_bytes += _LEAST_BYTES
    document = read_document(folder)
    with suppress(OSError):
        info.n_read_bytes += (folder / "zarr.json").stat().st_size
    return document


def _count(value: object, most: int) -> int:
    """Entries of a document, at all depths; not much more than `most` are counted."""
    n, waiting = 0, [value]
    while waiting and n <= most:
        one = waiting.pop()
        n += 1
        if isinstance(one, (dict, list)):
            waiting += islice(one.values() if isinstance(one, dict) else one, most + 1)
            if len(waiting) > most:
                return most + 1
    return n


# -- images ---------------------------------------------------------------------------------------------------------


def _image_paths(info: DatasetInfo, ome: dict[str, Any]) -> Iterator[str]:
    if info.kind == "image":
        yield ""
    elif info.kind == "well":
        yield from _fields(info, ome, "")
    elif info.kind == "plate":
        for well in _entries(info, _dict(ome.get("plate")).get("wells")):
            path = _inside(info, _dict(well).get("path"))
            if path is None:
                continue
            info.n_wells += 1
            try:
                yield from _fields(info, _group_ome(info, path), path)
            except DatasetError as error:
                info.add_problem(str(error))
    elif info.kind == "bioformats2raw":
        yield from _series(info)
    elif info.kind == "labels":
        yield from (path for one in _entries(info, ome.get("labels")) if (path := _inside(info, one)) is not None)


def _fields(info: DatasetInfo, ome: dict[str, Any], well: str) -> Iterator[str]:
    for entry in _entries(info, _dict(ome.get("well")).get("images")):
        path = _inside(info, _dict(entry).get("path"))
        if path is not None:
            yield f"{well}/{path}" if well else path


def _series(info: DatasetInfo) -> Iterator[str]:
    """The series that the OME group lists; without one they are "0", "1", ... (bioformats2raw layout 3)."""
    listed: list[Any] = []
    if os.path.lexists(info.path / "OME" / "zarr.json"):
        try:
            listed = _list(_group_ome(info, "OME").get("series"))
        except DatasetError as error:
            info.add_problem(str(error))
    if listed:
        yield from (path for path in (_inside(info, one) for one in listed) if path is not None)
        return
    number = 0
    while os.path.lexists(info.path / str(number) / "zarr.json"):
        yield str(number)
        number += 1


def _entries(info: DatasetInfo, value: object) -> Iterator[Any]:
    """The entries of a list, as long as there are few problems."""
    return takewhile(lambda _: len(info.problems) < _MAX_PROBLEMS, _list(value))


def _inside(info: DatasetInfo, path: object) -> str | None:
    """A path below the root, or None and a problem."""
    if isinstance(path, str) and path and "\0" not in path and "\\" not in path:
        parts = PurePosixPath(path)
        if not (parts.is_absolute() or ".." in parts.parts or PureWindowsPath(path).drive):
            return path.rstrip("/")
    info.add_problem(f"the path {clean(repr(path))} does not lie inside the dataset")
    return None


def _try_image(info: DatasetInfo, path: str) -> None:
    try:
        info.images.append(_image(info, path))
    except DatasetError as error:
        info.add_problem(str(error))


def _image(info: DatasetInfo, path: str) -> ImageInfo:
    folder = info.path / path
    ome = _dict(_read(info, folder).get("attributes")).get("ome") if not path else _group_ome(info, path)
    multiscale = _dict(next(iter(_list(_dict(ome).get("multiscales"))), None))
    datasets = [_dict(one) for one in _list(multiscale.get("datasets"))[:MAX_LEVELS]]
    levels = []
    for dataset in datasets:
        level = _inside(info, dataset.get("path"))
        if level is not None:
            levels.append(_array(info, folder / level, level))
    if not levels:
        raise DatasetError(f"{folder} lists no arrays in multiscales[0].datasets")
    axes = _axes(multiscale, datasets[0], levels[0].shape)
    n_axes = len(_list(multiscale.get("axes")))
    channels = _list(_dict(_dict(ome).get("omero")).get("channels"))[:_MAX_CHANNELS]
    if n_axes != len(levels[0].shape):
        info.add_problem(f"{path or 'the root'}: {n_axes} axes, but the array has {len(levels[0].shape)}")
    return ImageInfo(
        path=path, name=_text(multiscale.get("name")), axes=axes, levels=tuple(levels),
        channels=tuple(_channel(_dict(one)) for one in channels),
    )  # fmt: skip


def _array(info: DatasetInfo, folder: Path, path: str) -> ArrayInfo:
    document = _read(info, folder)
    if document.get("node_type") != "array":
        raise DatasetError(f"{folder} is not an array")
    grid = _dict(_dict(document.get("chunk_grid")).get("configuration")).get("chunk_shape")
    chunks, shards, codecs = _ints(grid), None, _codecs(document)
    sharding = next((one for one in codecs if one.get("name") == "sharding_indexed"), None)
    if sharding is not None:
        inner = _dict(sharding.get("configuration"))
        shards, chunks = chunks, _ints(inner.get("chunk_shape"))
        codecs = _codecs(inner)
    names = [_codec_name(one) for one in codecs if one.get("name") not in ("bytes", "crc32c")]
    return ArrayInfo(
        path=path, shape=_ints(document.get("shape")), dtype=_text(document.get("data_type")),
        chunks=chunks, shards=shards, codec=", ".join(names) or "none",
    )  # fmt: skip


def _codecs(parent: dict[str, Any]) -> list[dict[str, Any]]:
    return [_dict(one) for one in _list(parent.get("codecs"))[:_MAX_STEPS]]


def _codec_name(codec: dict[str, Any]) -> str:
    name, options = _text(codec.get("name")), _dict(codec.get("configuration"))
    if name == "blosc":
        return f"blosc-{_text(options.get('cname'))} level {_text(options.get('clevel'))}"
    return f"{name} level {_text(options['level'])}" if "level" in options else name


def _axes(multiscale: dict[str, Any], dataset: dict[str, Any], shape: tuple[int, ...]) -> tuple[AxisInfo, ...]:
    """Axes of the finest level, with the transformations of the level and of the whole multiscale applied."""
    entries = [_dict(one) for one in _list(multiscale.get("axes"))[:_MAX_AXES]]
    scale: list[float | None] = [None] * len(entries)
    origin: list[float | None] = [None] * len(entries)
    steps = [_list(parent.get("coordinateTransformations"))[:_MAX_STEPS] for parent in (dataset, multiscale)]
    for step in chain.from_iterable(steps):
        for axis in range(len(entries)):
            factor, shift = _number(_dict(step).get("scale"), axis), _number(_dict(step).get("translation"), axis)
            if factor is not None:
                scale[axis] = (scale[axis] or 1.0) * factor
                origin[axis] = None if origin[axis] is None else (origin[axis] or 0.0) * factor
            if shift is not None:
                origin[axis] = (origin[axis] or 0.0) + shift
    return tuple(
        AxisInfo(
            name=_text(entry.get("name")), type=_text(entry.get("type")), unit=_text(entry.get("unit")),
            size=shape[axis] if axis < len(shape) else None, scale=scale[axis], origin=origin[axis],
        )
        for axis, entry in enumerate(entries)
    )  # fmt: skip


def _channel(entry: dict[str, Any]) -> ChannelInfo:
    window = _dict(entry.get("window"))
    ends = _number([window.get("start"), window.get("end")], 0), _number([window.get("start"), window.get("end")], 1)
    digits = _text(entry.get("color")).removeprefix("#").lower()
    return ChannelInfo(
        name=_text(entry.get("label")),
        color=f"#{digits}" if len(digits) == 6 and all(digit in "0123456789abcdef" for digit in digits) else "",
        window=None if ends[0] is None or ends[1] is None else (ends[0], ends[1]),
    )


# -- files ----------------------------------------------------------------------------------------------------------


def _count_files(info: DatasetInfo) -> None:
    """Links are not followed, and folders may be nested deeper than Python calls."""
    waiting = [str(info.path)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        _count_file(info, entry)
        except OSError as error:
            info.add_problem(f"{error.filename} cannot be listed: {error.strerror}")


def _count_file(info: DatasetInfo, entry: os.DirEntry[str]) -> None:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return  # a file that went away while we counted
    info.n_files += 1
    info.n_bytes += status.st_size
    info.n_disk_bytes += getattr(status, "st_blocks", -(-status.st_size // 512)) * 512


def _count_log(info: DatasetInfo) -> dict[str, int] | None:
    """Lines of the frame log by status, read as a stream."""
    counts: dict[str, int] = {}
    try:
        with open_regular(info.path / FRAME_LOG) as log:
            for line in lines(log):
                status = _status_of(line)
                if status is not None:
                    counts[status] = counts.get(status, 0) + 1
    except FileNotFoundError:
        return None
    except OSError as error:
        info.add_problem(f"{FRAME_LOG} cannot be read: {error.strerror}")
        return None
    if unreadable := counts.get("unreadable"):
        info.add_problem(f"{FRAME_LOG} has {unreadable} lines that are not records")
    return counts


def _status_of(line: bytes | None) -> str | None:
    """What became of a frame; None where the line tells what was synced."""
    record = None if line is None else parse_record(line)
    if record is not None:
        return str(record["status"])
    if line is not None and parse_mark(line) is not None:
        return None
    # A kill may cut the last line off; that is not damage.
    return "unreadable" if line is None or line.endswith(b"\n") else "cut off"


# -- anything to something ------------------------------------------------------------------------------------------


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _first(value: object) -> Iterable[tuple[str, Any]]:
    """The first items of a mapping, more than scopestream writes."""
    return islice(_dict(value).items(), 20)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    if isinstance(value, str):
        return clean(value)
    return clean(repr(value)) if isinstance(value, (int, float)) else ""


def _ints(value: object) -> tuple[int, ...]:
    return tuple(one for one in _list(value)[:_MAX_AXES] if isinstance(one, int) and abs(one) < 1 << 63)


def _number(value: object, at: int) -> float | None:
    """An item of a list when it is a finite number."""
    items = _list(value)
    if at >= len(items) or isinstance(items[at], bool) or not isinstance(items[at], (int, float)):
        return None
    try:
        number = float(items[at])
    except OverflowError:
        return None
    return number if isfinite(number) else None
