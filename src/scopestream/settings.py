"""`AcquisitionSettings`: what the user means, with everything that is wrong with it reported at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path, PurePath
from reprlib import repr as short_repr
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
import yaml
from numpy.typing import DTypeLike
from pydantic import BeforeValidator, ByteSize, Field, ValidationInfo, field_validator

from scopestream import credentials
from scopestream.dimensions import MAX_IMAGES, Codec, CodecName, Dimension, Model, Plate, folded, repeated
from scopestream.yamltext import parse

if TYPE_CHECKING:
    from scopestream.plan import LayoutPlan

Downscale = Literal["mean", "nearest", "mode"]
MAX_AXES = 5  # OME-Zarr 0.5, "multiscales" metadata: length of axes between 2 and 5
DEFAULT_CHECKPOINT_S = 1.0
_DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")
_TYPE_RANK = {"time": 0, "channel": 1, "other": 1, "space": 2}


def _dtype_name(value: object) -> str:
    try:
        name = np.dtype(value).name  # type: ignore[call-overload]
    except (TypeError, ValueError, SyntaxError):  # what NumPy says of texts that are almost a dtype
        name = value if isinstance(value, str) else type(value).__name__
    if name not in _DTYPES:
        raise ValueError(
            f"dtype {short_repr(name)} is not one that readers of OME-Zarr know; use one of {', '.join(_DTYPES)}"
        )
    return str(name)


def _size_in_elements(value: object) -> object:
    if isinstance(value, dict):
        wrong = {name: size for name, size in value.items() if not (type(size) is int and size >= 1)}
        if wrong:
            raise ValueError(f"sizes are whole numbers of elements, at least 1, not {short_repr(wrong)}")
    return value


Tiling = Annotated[
    Literal["auto"] | Annotated[ByteSize, Field(gt=0)] | dict[str, int], BeforeValidator(_size_in_elements)
]


def stored_dimensions(dimensions: tuple[Dimension, ...]) -> tuple[Dimension, ...]:
    """The dimensions that become axes of the arrays, in acquisition order; the others tell images apart.

    OME-Zarr 0.5 allows one time axis, one channel (or custom) axis and two or three space axes, five in all. Of a
    kind that is given too often the fastest stay axes, and channels go before custom dimensions.
    """
    room = {0: 1, 1: 1, 2: 3}
    kept: set[str] = set()
    # Fastest first, but every channel before any custom dimension, which would take its place.
    for _, dimension in sorted(enumerate(dimensions), key=lambda item: (item[1].type == "other", -item[0])):
        rank = _TYPE_RANK.get(dimension.type)
        if rank is not None and room[rank] > 0:
            room[rank] -= 1
            kept.add(dimension.name)
    return tuple(dimension for dimension in dimensions if dimension.name in kept)


def _problems_of_dimensions(dimensions: tuple[Dimension, ...]) -> list[str]:
    names = [dimension.name for dimension in dimensions]
    problems = [f"there are two dimensions {name!r}" for name in repeated(names)]
    if len(set(map(folded, names))) < len(set(names)):
        problems.append(f"dimension names differ only in case: {names}")
    if len(dimensions) < 2 or any(dimension.type != "space" for dimension in dimensions[-2:]):
        problems.append("the last two dimensions must be the spatial ones of a frame, such as y and x")
    for dimension in dimensions[1:]:
        if dimension.count is None:
            problems.append(f"dimension {dimension.name!r} is unbounded; only the first one may be")
    positions = [dimension.name for dimension in dimensions if dimension.type == "position"]
    if len(positions) > 1:
        problems.append(f"dimensions {' and '.join(map(repr, positions))} are both positions; list them in one")
    if problems:
        return problems
    stored_names = {dimension.name for dimension in stored_dimensions(dimensions)}
    n_images = prod(dimension.count or 1 for dimension in dimensions if dimension.name not in stored_names)
    if n_images > MAX_IMAGES:
        apart = ", ".join(dimension.name for dimension in dimensions if dimension.name not in stored_names)
        return [f"{apart} make {n_images} images, at most {MAX_IMAGES} are possible"]
    first, stored = dimensions[0], stored_dimensions(dimensions)
    if first.count is None and len(dimensions) > 2:
        if first not in stored:
            problems.append(f"unbounded dimension {first.name!r} would have to tell images apart, which needs a count")
        elif _ome_order(stored)[0] != first:
            problems.append(
                f"unbounded dimension {first.name!r} would not be the first axis on disk, where OME-Zarr wants "
                f"{', '.join(dimension.name for dimension in _ome_order(stored))}; give it a count"
            )
    elif first.count is None:
        problems.append(f"dimension {first.name!r} of the frame is unbounded; the camera has a size")
    return problems


def _ome_order(stored: tuple[Dimension, ...]) -> tuple[Dimension, ...]:
    return tuple(sorted(stored, key=lambda dimension: _TYPE_RANK[dimension.type]))


class AcquisitionSettings(Model):
    """Everything about one acquisition that is known before the first frame.

    Dimensions are in acquisition order, slowest first; the last two are the frame. Raises `pydantic.ValidationError`
    (a ValueError) that lists every problem. Sizes in bytes take "512MB", "1GiB" or a number.
    """

    path: str
    dtype: Annotated[str, BeforeValidator(_dtype_name)]
    dimensions: tuple[Dimension, ...] = Field(max_length=64)
    plate: Plate | None = Field(default=None, validate_default=True)  # wells may be named without it
    storage_order: Literal["ome", "acquisition"] | tuple[str, ...] = "ome"
    chunks: Tiling = "auto"
    shards: Tiling | None = "auto"
    codec: Codec = Field(default_factory=lambda: Codec.model_validate("none"))
    levels: Literal["auto"] | Annotated[int, Field(ge=1, le=16)] = 1
    downscale: Downscale = "mean"
    downscale_z: bool = False
    backend: str = Field(default="auto", min_length=1)
    on_exists: Literal["error", "overwrite", "increment", "resume"] = "error"
    memory_limit: Annotated[ByteSize, Field(gt=0)] = ByteSize(1_000_000_000)
    on_full: Literal["block", "raise", "drop"] = "block"
    direct_io: bool = False
    checksums: bool = True
    min_free: Annotated[ByteSize, Field(gt=0)] | None = None
    durability: Literal["process", "disk"] = "process"
    checkpoint_s: Annotated[float, Field(ge=0.01, allow_inf_nan=False)] | None = None

    if TYPE_CHECKING:  # what validation takes, which is more than what it leaves

        def __init__(
            self,
            *,
            path: str | Path,
            dtype: DTypeLike,
            dimensions: Sequence[Dimension | Mapping[str, Any]],
            plate: Plate | None = None,
            storage_order: Literal["ome", "acquisition"] | Sequence[str] = "ome",
            chunks: int | str | Mapping[str, int] = "auto",
            shards: int | str | Mapping[str, int] | None = "auto",
            codec: Codec | CodecName | Mapping[str, Any] = "none",
            levels: int | Literal["auto"] = 1,
            downscale: Downscale = "mean",
            downscale_z: bool = False,
            backend: str = "auto",
            on_exists: Literal["error", "overwrite", "increment", "resume"] = "error",
            memory_limit: int | str = "1GB",
            on_full: Literal["block", "raise", "drop"] = "block",
            direct_io: bool = False,
            checksums: bool = True,
            min_free: int | str | None = None,
            durability: Literal["process", "disk"] = "process",
            checkpoint_s: float | None = None,
        ) -> None: ...

    @field_validator("path", mode="before")
    @classmethod
    def _path_as_text(cls, value: object) -> object:
        text = str(value) if isinstance(value, Path) else value
        if isinstance(text, str) and (problem := credentials.problem_of(text)) is not None:
            raise ValueError(problem)
        if isinstance(text, str) and text.startswith("file://"):
            return url2pathname(urlsplit(text).path)
        return text

    @field_validator("path")
    @classmethod
    def _names_a_folder(cls, path: str) -> str:
        if "\0" in path or PurePath(path).name == ".." or not re.sub(r"[/\\.]+", "", path):
            raise ValueError(f"path {short_repr(path)} does not name a new folder for the dataset")
        try:
            path.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"path {short_repr(path)} is no text in UTF-8, so the settings could not be stored; rename the folder"
            ) from None
        return path

    @field_validator("dimensions")
    @classmethod
    def _dimensions_fit_together(cls, dimensions: tuple[Dimension, ...]) -> tuple[Dimension, ...]:
        _raise_all(_problems_of_dimensions(dimensions))
        return dimensions

    @field_validator("plate")
    @classmethod
    def _wells_are_on_the_plate(cls, plate: Plate | None, info: ValidationInfo) -> Plate | None:
        if (dimensions := info.data.get("dimensions")) is not None:
            _raise_all(_problems_of_wells(plate, dimensions))
        return plate

    @field_validator("storage_order")
    @classmethod
    def _readable_order(cls, order: str | tuple[str, ...], info: ValidationInfo) -> str | tuple[str, ...]:
        if (dimensions := info.data.get("dimensions")) is not None:
            stored = stored_dimensions(dimensions)
            _raise_all(_problems_of_order(_ordered(order, stored), stored))
        return order

    @field_validator("chunks", "shards")
    @classmethod
    def _known_names(cls, sizes: object, info: ValidationInfo) -> object:
        dimensions = info.data.get("dimensions")
        if not isinstance(sizes, dict) or dimensions is None:
            return sizes
        counts = {dimension.name: dimension.count for dimension in stored_dimensions(dimensions)}
        problems = [
            f"there is no stored dimension {name!r} (there are {', '.join(counts)})" for name in sizes.keys() - counts
        ]
        if info.field_name == "chunks":
            for name, size in sizes.items():
                count = counts.get(name)
                if count is not None and size > count:
                    problems.append(f"a chunk of {size} along {name!r} is larger than the dimension ({count})")
        elif isinstance(chunks := info.data.get("chunks"), dict):
            for name, size in sizes.items():
                if name in chunks and size % chunks[name]:
                    problems.append(f"chunks of {chunks[name]} do not divide shards of {size} along {name!r}")
        _raise_all(problems)
        return sizes

    @field_validator("downscale")
    @classmethod
    def _labels_are_no_floats(cls, downscale: Downscale, info: ValidationInfo) -> Downscale:
        dtype = str(info.data.get("dtype", ""))
        if downscale == "mode" and dtype.startswith("float"):
            raise ValueError(
                f"downscale 'mode' is for labels, which are integers or bool; {dtype} pixels are hardly ever equal. "
                f"Use 'mean' or 'nearest'"
            )
        return downscale

    @field_validator("downscale_z")
    @classmethod
    def _planes_are_counted(cls, downscale_z: bool, info: ValidationInfo) -> bool:
        first = next(iter(info.data.get("dimensions", ())), None)
        if downscale_z and first is not None and first.type == "space" and first.count is None:
            raise ValueError(
                f"downscale_z needs to know the count of {first.name!r}: nobody knows which plane is the last, and has "
                f"no other to go with. Give it a count, or leave downscale_z out"
            )
        return downscale_z

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(Y, X) of every frame."""
        y, x = (dimension.count for dimension in self.dimensions[-2:])
        assert y is not None and x is not None, "the frame has a size, or validation would have refused it"
        return y, x

    @property
    def axes(self) -> tuple[Dimension, ...]:
        """The dimensions that become axes of the arrays, in storage order."""
        stored = stored_dimensions(self.dimensions)
        by_name = {dimension.name: dimension for dimension in stored}
        return tuple(by_name[name] for name in _ordered(self.storage_order, stored))

    @property
    def stage_axes(self) -> dict[str, Literal["x", "y", "z"]]:
        """Which axes the x, y and z of the stage move along: the last, the one before, and the one before these."""
        names = [axis.name for axis in self.axes if axis.type == "space"]
        roles: tuple[Literal["x", "y", "z"], ...] = ("x", "y", "z")
        return dict(zip(reversed(names), roles, strict=False))

    @property
    def halved_z(self) -> int | None:
        """Which axis, in storage order, is halved from level to level besides those of the frame."""
        axes = [axis for axis, dimension in enumerate(self.axes[:-2]) if dimension.type == "space"]
        return axes[0] if self.downscale_z and axes and self.axes[axes[0]].count != 1 else None

    @property
    def checkpoint_interval_s(self) -> float | None:
        """How often what arrived is published, and synced with `durability="disk"`, unasked; None: never."""
        if self.checkpoint_s is None and self.durability == "disk":
            return DEFAULT_CHECKPOINT_S
        return self.checkpoint_s

    @property
    def scheme(self) -> str:
        """What stands before "://" in the path, "file" without it."""
        head, separator, _ = self.path.partition("://")
        return head if separator else "file"

    def plan(self) -> LayoutPlan:
        """The layout that these settings give with the backend that would write it; nothing is written.

        Raises PlanError, MemoryLimitError or BackendNotFoundError.
        """
        from scopestream.registry import resolve

        return resolve(self).plan

    def to_yaml(self) -> str:
        """All settings as YAML."""
        text: str = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
        return text

    @classmethod
    def from_yaml(cls, text: str) -> AcquisitionSettings:
        """Settings from YAML (and so from JSON) text.

        Raises yaml.YAMLError for what is neither, and ValidationError or ValueError for what are no settings.
        """
        return cls.model_validate(parse(text))


def _raise_all(problems: list[str]) -> None:
    if problems:
        raise ValueError("; ".join(problems))


def _ordered(order: str | tuple[str, ...], stored: tuple[Dimension, ...]) -> tuple[str, ...]:
    if order == "ome":
        return tuple(dimension.name for dimension in _ome_order(stored))
    if order == "acquisition":
        return tuple(dimension.name for dimension in stored)
    return tuple(order)


def _problems_of_order(order: tuple[str, ...], stored: tuple[Dimension, ...]) -> list[str]:
    by_name = {dimension.name: dimension for dimension in stored}
    frame = [dimension.name for dimension in stored[-2:]]
    if sorted(order) != sorted(by_name):
        return [f"storage order {', '.join(order)} must name each of {', '.join(by_name)} once"]
    problems = []
    if list(order[-2:]) != frame:
        problems.append(f"storage order must end with {', '.join(frame)}, since frames are stored as they arrive")
    ranks = [_TYPE_RANK[by_name[name].type] for name in order]
    if ranks != sorted(ranks):
        problems.append(
            f"storage order {', '.join(order)} is not one that OME-Zarr readers open: time comes first, then channel, "
            f'then space (OME-Zarr 0.5, "multiscales"). Frames may arrive in any order with storage_order="ome"'
        )
    if stored[0].count is None and order[0] != stored[0].name:
        problems.append(f"unbounded dimension {stored[0].name!r} must be the first in storage order")
    return problems


def _problems_of_wells(plate: Plate | None, dimensions: tuple[Dimension, ...]) -> list[str]:
    positions = [position for dimension in dimensions for position in dimension.positions]
    if plate is None:
        in_wells = [position.name for position in positions if position.row is not None]
        return [f"positions {in_wells[:3]} name wells, but plate is not given"] if in_wells else []
    if not positions:
        return ["a plate needs a dimension of positions, each with its row and column"]
    problems = []
    ids = {run.id for run in plate.acquisitions}
    for position in positions:
        if position.row is None or position.column is None:
            problems.append(f"position {position.name!r} has no row and column")
        elif position.row not in plate.rows or position.column not in plate.columns:
            problems.append(f"well {position.row}{position.column} of position {position.name!r} is outside the plate")
        if position.acquisition is not None and position.acquisition not in ids:
            problems.append(
                f"position {position.name!r} is of acquisition {position.acquisition}, which the plate lacks"
            )
        elif position.acquisition is None and len(ids) > 1:
            problems.append(f"position {position.name!r} does not say which acquisition of the plate it is of")
    return problems
