"""The parts of an acquisition: channels, positions, dimensions, plates and codecs.

All are frozen pydantic models that refuse unknown fields. What one part can know about itself is checked here; what
needs the other parts is checked in `settings`.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from math import isfinite
from reprlib import repr as short_repr
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_extra_types.color import Color

from scopestream.units import full_unit_name, unit_kind

DimensionType = Literal["time", "channel", "space", "position", "other"]
CodecName = Literal["none", "zstd", "blosc-zstd", "blosc-lz4"]
Shuffle = Literal["none", "byte", "bit"]

_TYPE_BY_NAME: Mapping[str, DimensionType] = {
    **dict.fromkeys(("t", "time", "timepoint"), "time"),
    **dict.fromkeys(("c", "ch", "channel", "channels"), "channel"),
    **dict.fromkeys(("x", "y", "z"), "space"),
    **dict.fromkeys(("p", "pos", "position", "positions", "fov"), "position"),
}
MAX_IMAGES = 1_000_000  # each is a folder, and costs memory before the first frame
MAX_CHANNELS = 65_536  # each has an entry in the document of every image
_MAX_COUNT = 2**53  # beyond this, sizes are no longer whole numbers for readers in JavaScript
_RESERVED_ON_WINDOWS = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[\d\u00b9\u00b2\u00b3])(\..*)?", re.IGNORECASE
)
_UNSAFE_IN_PATHS = re.compile(r'[<>:"/\\|?*\x00-\x1f]')
# What XML 1.0 has no place for, lone surrogates, which have no place in UTF-8, and in names all other controls.
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_NOT_NAME = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Model(BaseModel):
    """What every model of the settings has in common."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True
    )


def _without(wrong: re.Pattern[str], text: str) -> str:
    if wrong.search(text):
        raise ValueError(
            f"{short_repr(text)} has control characters, or others that JSON or XML cannot hold; leave them out"
        )
    return text


Text = Annotated[str, AfterValidator(partial(_without, _NOT_TEXT))]
Name = Annotated[str, Field(max_length=255), AfterValidator(partial(_without, _NOT_NAME))]


def folded(name: str) -> str:
    """What a name has in common with those that a file system may take for the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def repeated(names: Iterable[str]) -> list[str]:
    """Those that are there more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _as_name(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _safe_as_folder(name: str) -> str:
    if _RESERVED_ON_WINDOWS.fullmatch(name):
        raise ValueError(f"{name!r} is the name of a device on Windows, where no folder can have it")
    return name


# Rows and columns of a plate are folders.
WellName = Annotated[
    str,
    BeforeValidator(_as_name),
    Field(pattern=r"^[A-Za-z0-9]+$", max_length=50),
    AfterValidator(_safe_as_folder),
]
# Folders of the root that rows may not take.
_NAMES_IN_ROOT = ("OME", "scopestream")


class Channel(Model):
    """One channel. `color` takes any CSS form ("lime", "#0f0", "rgb(0 255 0)") and is kept as "#rrggbb"."""

    name: Name = Field(min_length=1)
    color: str | None = None
    excitation_nm: float | None = Field(default=None, gt=0)
    emission_nm: float | None = Field(default=None, gt=0)

    @field_validator("color", mode="before")
    @classmethod
    def _hex_color(cls, value: object) -> str | None:
        if value is None:
            return None
        # Color checks the type itself.
        return "#{:02x}{:02x}{:02x}".format(*Color(value).as_rgb_tuple(alpha=False))  # type: ignore[arg-type]


class Position(Model):
    """One stage position, which becomes one image.

    `x`, `y` and `z` are stage coordinates of the first pixel, in the units of the axes of the same name; where such an
    axis has no unit, or is not there, in the one that the other axes of space have in common. `row` and `column` name
    the well of a plate; positions of the same well are its fields, in order.

    What differs from the dimensions here, by the name of the dimension: `counts` has how many of its items this
    position has (the first ones), `scales` the step from one to the next. `channels` are its channels, in place of
    those of the channel dimension; how many it has follows from them.
    """

    name: Name
    x: float | None = None
    y: float | None = None
    z: float | None = None
    row: WellName | None = None
    column: WellName | None = None
    acquisition: int | None = Field(default=None, ge=0)
    counts: dict[str, int] | None = None
    scales: dict[str, float] | None = None
    channels: tuple[Channel, ...] | None = None

    if TYPE_CHECKING:  # what validation takes, which is more than what it leaves

        def __init__(
            self,
            *,
            name: str,
            x: float | None = None,
            y: float | None = None,
            z: float | None = None,
            row: str | int | None = None,
            column: str | int | None = None,
            acquisition: int | None = None,
            counts: Mapping[str, int] | None = None,
            scales: Mapping[str, float] | None = None,
            channels: Sequence[Channel | Mapping[str, Any] | str] | None = None,
        ) -> None: ...

    @field_validator("channels", mode="before")
    @classmethod
    def _named_channels(cls, value: object) -> object:
        return [_channel_from(item) for item in value] if isinstance(value, (list, tuple)) else value

    @field_validator("name")
    @classmethod
    def _safe_as_path(cls, name: str) -> str:
        if (
            not name
            or name != name.strip()
            or name.endswith(".")
            or _UNSAFE_IN_PATHS.search(name)
            or _RESERVED_ON_WINDOWS.fullmatch(name)
        ):
            raise ValueError(
                f'the position name {short_repr(name)} is unsafe as a part of a path: avoid < > : " / \\ | ? *, '
                f"control characters, spaces around the name, a dot at its end and the device names of Windows"
            )
        return name

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Position:
        problems = []
        if (self.row is None) != (self.column is None):
            problems.append("names only one of row and column; a well needs both")
        for name, count in (self.counts or {}).items():
            if not 1 <= count <= _MAX_COUNT:
                problems.append(f"has {count} of {short_repr(name)}; each position has at least one item of each")
        for name, scale in (self.scales or {}).items():
            if not (isfinite(scale) and scale > 0):
                problems.append(f"has scale {scale} along {short_repr(name)}; it must be finite and greater than 0")
        names = [channel.name for channel in self.channels or ()]
        if self.channels is not None and not names:
            problems.append("has no channels: channels is empty")
        if duplicates := repeated(names):
            problems.append(f"repeats channels {', '.join(map(repr, duplicates[:10]))}")
        if problems:
            raise ValueError(f"position {self.name!r} " + "; it ".join(problems))
        return self

    @property
    def is_like_others(self) -> bool:
        """Whether it has what the dimensions say, and nothing of its own."""
        return not (self.counts or self.scales or self.channels)


def _channel_from(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


def _position_from(value: object, number: int) -> object:
    if isinstance(value, str):
        return Position(name=value)
    if isinstance(value, Mapping) and "name" not in value:
        return {**value, "name": str(number)}
    return value


class Dimension(Model):
    """One dimension of an acquisition.

    `count=None` means unbounded. `coords` names the items of a dimension: channels, positions, or labels of any other
    kind; `count` follows from it. `type` is inferred from coords, name and unit when it is not given. `scale` is the
    step from one item to the next in `unit`, `origin` the coordinate of the first item.
    """

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=100)
    count: int | None = Field(default=None, ge=1, le=_MAX_COUNT)
    type: DimensionType
    scale: float = 1.0
    unit: str | None = None
    origin: float = 0.0
    coords: tuple[Channel, ...] | tuple[Position, ...] | tuple[Name, ...] | None = None

    if TYPE_CHECKING:  # what validation takes, which is more than what it leaves

        def __init__(
            self,
            *,
            name: str,
            count: int | None = None,
            type: DimensionType = "other",
            scale: float = 1.0,
            unit: str | None = None,
            origin: float = 0.0,
            coords: Sequence[Channel | Position | Mapping[str, Any] | str | float] | None = None,
        ) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: object) -> object:
        """Infer the type, then let bare names in `coords` become channels or positions, then count them."""
        if not isinstance(data, Mapping):
            return data
        values: dict[str, Any] = dict(data)
        if isinstance(values.get("unit"), str):
            values["unit"] = full_unit_name(values["unit"])
        coords = values.get("coords")
        if "type" not in values:
            values["type"] = _infer_type(values.get("name"), values.get("unit"), coords)
        if coords is None and values["type"] == "position" and isinstance(values.get("count"), int):
            _refuse_more_than(MAX_IMAGES, values["count"], values)
            coords = [str(number) for number in range(values["count"])]
        if isinstance(coords, (list, tuple)):
            if not coords:
                raise ValueError(f"dimension {short_repr(values.get('name'))}: coords is empty")
            _refuse_more_than(MAX_IMAGES, len(coords), values)
            if values["type"] == "position":
                coords = [_position_from(item, number) for number, item in enumerate(coords)]
            elif values["type"] == "channel":
                coords = [_channel_from(item) for item in coords]
            else:
                coords = [str(item) if isinstance(item, (int, float)) else item for item in coords]
            values["coords"] = tuple(coords)
            if values.get("count") is None:
                values["count"] = len(coords)
        elif "count" not in values:
            raise ValueError(
                f"dimension {short_repr(values.get('name'))} needs count or coords (count=None: unbounded)"
            )
        return values

    @field_validator("scale")
    @classmethod
    def _positive(cls, scale: float) -> float:
        # Viewers divide by it: neuroglancer refuses the whole image otherwise.
        if not (isfinite(scale) and scale > 0):
            raise ValueError(f"scale must be finite and greater than 0, not {scale}")
        return scale

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Dimension:
        problems = []
        if self.coords is not None:
            if self.count != len(self.coords):
                problems.append(f"count is {self.count}, but coords has {len(self.coords)} items")
            if (self.type == "position") != isinstance(self.coords[0], Position):
                problems.append(f"coords of a {self.type} dimension are {type(self.coords[0]).__name__} items")
            names = self.item_names
            if duplicates := repeated(names):
                problems.append(f"coords repeat {', '.join(map(repr, duplicates[:10]))}")
            elif self.type == "position" and (clashes := set(repeated(map(folded, names)))):
                same = sorted(name for name in names if folded(name) in clashes)
                problems.append(f"positions {', '.join(map(repr, same[:10]))} differ only in case or in Unicode form")
        if self.type in ("position", "channel") and self.count is None:
            problems.append(f"{self.type}s cannot be unbounded")
        elif self.type == "position" and self.coords is None:
            problems.append("positions need coords, or a count that is a whole number")
        if self.type == "channel" and (self.count or 0) > MAX_CHANNELS:
            problems.append(f"{self.count} channels are too many, at most {MAX_CHANNELS} are possible")
        if self.unit is not None:
            kind = unit_kind(self.unit)
            if self.type in ("space", "time") and kind != self.type:
                problems.append(f"{self.unit!r} is not a unit of {self.type} that OME-Zarr knows")
            elif self.type in ("channel", "position"):
                problems.append(f"a {self.type} dimension has no unit, but {self.unit!r} was given")
        if problems:
            raise ValueError(f"dimension {self.name!r}: " + "; ".join(problems))
        return self

    @property
    def item_names(self) -> tuple[str, ...]:
        """Names of the items, empty when `coords` was not given."""
        return tuple(item if isinstance(item, str) else item.name for item in self.coords or ())

    @property
    def positions(self) -> tuple[Position, ...]:
        return tuple(item for item in self.coords or () if isinstance(item, Position))

    @property
    def channels(self) -> tuple[Channel, ...]:
        return tuple(item for item in self.coords or () if isinstance(item, Channel))


def _refuse_more_than(most: int, count: int, values: Mapping[str, Any]) -> None:
    """Before any item is looked at, or made."""
    if count > most:
        raise ValueError(f"dimension {short_repr(values.get('name'))}: {count} items are too many, at most {most} fit")


def _infer_type(name: object, unit: object, coords: object) -> DimensionType:
    first = next(iter(coords), None) if isinstance(coords, (list, tuple)) else None
    if isinstance(first, Position):
        return "position"
    if isinstance(first, Channel):
        return "channel"
    by_name = _TYPE_BY_NAME.get(name.lower()) if isinstance(name, str) else None
    return by_name or (unit_kind(unit) if isinstance(unit, str) else None) or "other"


class PlateAcquisition(Model):
    """One run over a plate, when fields of one plate come from several (OME-Zarr 0.5, "plate" metadata)."""

    id: int = Field(ge=0)
    name: Name | None = None
    description: Text | None = None


_STANDARD_PLATES = {6: (2, 3), 12: (3, 4), 24: (4, 6), 48: (6, 8), 96: (8, 12), 384: (16, 24), 1536: (32, 48)}


def _row_name(index: int) -> str:
    """A ... Z, AA, AB, ...: the way the makers of 1536-well plates go on after Z."""
    letters = ""
    index += 1
    while index:
        index, letter = divmod(index - 1, 26)
        letters = chr(ord("A") + letter) + letters
    return letters


class Plate(Model):
    """A multi-well plate: the names of all its rows and columns, whether imaged or not."""

    rows: tuple[WellName, ...] = Field(min_length=1)
    columns: tuple[WellName, ...] = Field(min_length=1)
    name: Name | None = None
    acquisitions: tuple[PlateAcquisition, ...] = ()

    @model_validator(mode="after")
    def _unique(self) -> Plate:
        for what, names in (("rows", self.rows), ("columns", self.columns)):
            if same := repeated(map(folded, names)):
                raise ValueError(f"plate {what} repeat a name (upper and lower case count as the same): {same[:10]}")
        reserved = {folded(name) for name in _NAMES_IN_ROOT}
        if taken := [row for row in self.rows if folded(row) in reserved]:
            raise ValueError(
                f"plate row {taken[0]!r} would clash with a folder of that name which every dataset has; rename it"
            )
        if len({run.id for run in self.acquisitions}) < len(self.acquisitions):
            raise ValueError("plate acquisitions repeat an id")
        return self

    @classmethod
    def standard(cls, n_wells: Literal[6, 12, 24, 48, 96, 384, 1536], name: str | None = None) -> Plate:
        """The usual plate of that many wells: rows A, B, ... and columns 1, 2, ..."""
        if n_wells not in _STANDARD_PLATES:
            raise ValueError(
                f"no standard plate has {n_wells} wells; there are {', '.join(map(str, _STANDARD_PLATES))}"
            )
        n_rows, n_columns = _STANDARD_PLATES[n_wells]
        rows = tuple(_row_name(index) for index in range(n_rows))
        return cls(rows=rows, columns=tuple(str(number) for number in range(1, n_columns + 1)), name=name)


_LEVELS: Mapping[CodecName, range] = {
    "none": range(0, 1),
    "zstd": range(1, 23),
    "blosc-zstd": range(0, 10),
    "blosc-lz4": range(0, 10),
}


class Codec(Model):
    """How chunks are compressed.

    The default level is 1, the fastest useful one (for blosc-lz4 5, which costs no more). `shuffle` belongs to the
    blosc codecs only, and is "byte" when it is not given.
    """

    name: CodecName
    level: int
    shuffle: Shuffle

    if TYPE_CHECKING:  # validation fills in what is left out

        def __init__(self, *, name: CodecName, level: int = 1, shuffle: Shuffle = "none") -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: object) -> object:
        if isinstance(data, str):
            data = {"name": data}
        if not isinstance(data, Mapping):
            return data
        name = str(data.get("name"))
        level = {"none": 0, "blosc-lz4": 5}.get(name, 1)
        return {"level": level, "shuffle": "byte" if name.startswith("blosc") else "none", **data}

    @model_validator(mode="after")
    def _possible(self) -> Codec:
        levels = _LEVELS[self.name]
        if self.level not in levels:
            raise ValueError(f"codec {self.name!r} has levels {levels[0]} to {levels[-1]}, not {self.level}")
        if self.shuffle != "none" and not self.name.startswith("blosc"):
            raise ValueError(f"codec {self.name!r} has no shuffle; use a blosc codec for it")
        return self
