"""`AcquisitionSettings`: what the user means, with everything that is wrong with it reported at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from reprlib import repr as short_repr
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

import yaml
from numpy.typing import DTypeLike
from pydantic import BeforeValidator, ByteSize, Field, ValidationInfo, field_validator

from scopestream import credentials
from scopestream.axes import Axis, CameraAxis, axes_of, loop_of, ome_order
from scopestream.cameras import Camera, DtypeName, size_in_elements
from scopestream.consistency import (
    counts_of,
    problems_of,
    problems_of_chunks,
    problems_of_order,
    problems_of_shards,
    problems_of_wells,
)
from scopestream.dimensions import Codec, CodecName, Dimension, Model, Plate
from scopestream.yamltext import parse

if TYPE_CHECKING:
    from scopestream.plan import LayoutPlan

Downscale = Literal["mean", "nearest", "mode"]
DEFAULT_CHECKPOINT_S = 1.0
MAX_CAMERAS = 1000  # each has memory of its own
Tiling = Annotated[
    Literal["auto"] | Annotated[ByteSize, Field(gt=0)] | dict[str, int], BeforeValidator(size_in_elements)
]


class View(NamedTuple):
    """What the images of one camera have of their own, or of all cameras together.

    camera  None where there are no cameras; the first of them where they are channels of the same images
    dtype   of its frames
    shape   (y, x) of its frames
    """

    camera: Camera | None
    dtype: str
    shape: tuple[int, int]


class AcquisitionSettings(Model):
    """Everything about one acquisition that is known before the first frame.

    Dimensions are in acquisition order, slowest first; the last two are the frame. Raises `pydantic.ValidationError`
    (a ValueError) that lists every problem. Sizes in bytes take "512MB", "1GiB" or a number.

    With `cameras` every position has an image of each camera, or with `camera_axis="channels"` they are channels of
    one. `merge` names dimensions that become one channel axis of all their combinations, slowest first.
    """

    path: str
    dtype: DtypeName
    # Before the dimensions, which are checked with them.
    cameras: tuple[Camera, ...] = Field(default=(), max_length=MAX_CAMERAS)
    camera_axis: CameraAxis = "images"
    merge: tuple[str, ...] = Field(default=(), max_length=64)
    dimensions: tuple[Dimension, ...] = Field(max_length=64)
    plate: Plate | None = Field(default=None, validate_default=True)  # wells may be named without it
    storage_order: Literal["ome", "acquisition"] | tuple[str, ...] = "ome"
    chunks: Tiling = Field(default="auto", validate_default=True)  # cameras may have their own
    shards: Tiling | None = Field(default="auto", validate_default=True)
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
            cameras: Sequence[Camera | Mapping[str, Any] | str] = (),
            camera_axis: CameraAxis = "images",
            merge: Sequence[str] = (),
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

    @field_validator("cameras", mode="before")
    @classmethod
    def _named_cameras(cls, value: object) -> object:
        if isinstance(value, (list, tuple)):
            return [{"name": item} if isinstance(item, str) else item for item in value]
        return value

    @field_validator("dimensions")
    @classmethod
    def _dimensions_fit_together(cls, dimensions: tuple[Dimension, ...], info: ValidationInfo) -> tuple[Dimension, ...]:
        if (said := _said_of_axes(info)) is not None:
            _raise_all(problems_of(dimensions, *said) + _problems_of_frames(dimensions, *said[:2], info))
        return dimensions

    @field_validator("plate")
    @classmethod
    def _wells_are_on_the_plate(cls, plate: Plate | None, info: ValidationInfo) -> Plate | None:
        if (dimensions := info.data.get("dimensions")) is not None:
            _raise_all(problems_of_wells(plate, dimensions))
        return plate

    @field_validator("storage_order")
    @classmethod
    def _readable_order(cls, order: str | tuple[str, ...], info: ValidationInfo) -> str | tuple[str, ...]:
        if (axes := _axes_so_far(info)) is not None:
            _raise_all(problems_of_order(_ordered(order, axes), axes))
        return order

    @field_validator("chunks", "shards")
    @classmethod
    def _known_names(cls, sizes: object, info: ValidationInfo) -> object:
        axes, cameras = _axes_so_far(info), info.data.get("cameras", ())
        if axes is None:
            return sizes
        counts = counts_of(axes, [None, *(camera.shape for camera in cameras)])
        is_chunks = info.field_name == "chunks"
        chunks = sizes if is_chunks else info.data.get("chunks")
        problems = problems_of_chunks(counts, sizes) if is_chunks else problems_of_shards(counts, chunks, sizes)
        for camera in cameras:
            own = counts_of(axes, [camera.shape])
            found = []
            if is_chunks and camera.chunks:
                found = problems_of_chunks(own, camera.chunks)
            elif camera.shards and sizes is None:
                found = ["it has shards, but the settings say that there are none"]
            elif not is_chunks and (camera.chunks or camera.shards):
                found = problems_of_shards(own, own_sizes(camera.chunks, chunks), own_sizes(camera.shards, sizes))
            problems += [f"camera {camera.name!r}: {text}" for text in found if text not in problems]
        _raise_all(problems)
        return sizes

    @field_validator("downscale")
    @classmethod
    def _labels_are_no_floats(cls, downscale: Downscale, info: ValidationInfo) -> Downscale:
        dtypes = [camera.dtype for camera in info.data.get("cameras", ())]
        floats = [dtype for dtype in (info.data.get("dtype"), *dtypes) if dtype and dtype.startswith("float")]
        if downscale == "mode" and floats:
            raise ValueError(
                f"downscale 'mode' is for labels, which are integers or bool; {floats[0]} pixels are hardly ever "
                f"equal. Use 'mean' or 'nearest'"
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
        """(Y, X) of every frame, but for those of cameras that have a shape of their own."""
        y, x = (dimension.count for dimension in self.dimensions[-2:])
        assert y is not None and x is not None, "the frame has a size, or validation would have refused it"
        return y, x

    @property
    def loop(self) -> tuple[Dimension, ...]:
        """The dimensions before the frame, in acquisition order; the cameras are the last of them."""
        return loop_of(self.dimensions, self.cameras)

    @property
    def parted_axes(self) -> tuple[Axis, ...]:
        """The axes of the arrays with the dimensions that each is made of, in storage order."""
        axes = axes_of(self.dimensions, self.cameras, self.camera_axis, self.merge)
        by_name = {axis.dimension.name: axis for axis in axes}
        return tuple(by_name[name] for name in _ordered(self.storage_order, axes))

    @property
    def axes(self) -> tuple[Dimension, ...]:
        """The dimensions that become axes of the arrays, in storage order."""
        return tuple(axis.dimension for axis in self.parted_axes)

    @property
    def views(self) -> tuple[View, ...]:
        """What differs from camera to camera; a single one where they share their images, or where there are none."""
        views = [View(camera, camera.dtype or self.dtype, camera.shape or self.frame_shape) for camera in self.cameras]
        if not views:
            return (View(None, self.dtype, self.frame_shape),)
        return tuple(views if self.camera_axis == "images" else views[:1])

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


def _ordered(order: str | tuple[str, ...], axes: Sequence[Axis]) -> tuple[str, ...]:
    """Names in storage order of axes in acquisition order."""
    if order == "ome":
        return ome_order(axes)
    if order == "acquisition":
        return tuple(axis.dimension.name for axis in axes)
    return tuple(order)


def _said_of_axes(info: ValidationInfo) -> tuple[tuple[Camera, ...], CameraAxis, tuple[str, ...]] | None:
    """What decides about axes besides the dimensions, None where it is not valid itself."""
    data = info.data
    if not {"cameras", "camera_axis", "merge"} <= data.keys():
        return None
    return data["cameras"], data["camera_axis"], data["merge"]


def _axes_so_far(info: ValidationInfo) -> tuple[Axis, ...] | None:
    """The axes in acquisition order, None where what they follow from is not valid."""
    said, dimensions = _said_of_axes(info), info.data.get("dimensions")
    return None if said is None or dimensions is None else axes_of(dimensions, *said)


def own_sizes(own: Mapping[str, int] | None, of_all: object) -> Any:
    """The chunks or shards of a camera: its own sizes, and what the settings say of the other axes."""
    if not own or of_all is None:
        return of_all
    return {**of_all, **own} if isinstance(of_all, dict) else dict(own)


def _problems_of_frames(
    dimensions: tuple[Dimension, ...], cameras: tuple[Camera, ...], camera_axis: CameraAxis, info: ValidationInfo
) -> list[str]:
    """Cameras that are to be channels of one image, and differ."""
    if camera_axis == "images" or len(dimensions) < 2:
        return []
    y, x = (dimension.count or 0 for dimension in dimensions[-2:])
    problems = []
    for what, kinds in (
        ("shape", {camera.shape or (y, x) for camera in cameras}),
        ("dtype", {camera.dtype or info.data.get("dtype") for camera in cameras}),
        ("scale", {camera.scale for camera in cameras}),
        ("chunks", {str(camera.chunks) for camera in cameras}),
        ("shards", {str(camera.shards) for camera in cameras}),
    ):
        if len(kinds) > 1:
            problems.append(
                f"cameras differ in {what} ({', '.join(sorted(map(str, kinds)))}), so they cannot be channels of one "
                f'image; use camera_axis="images"'
            )
    return problems
