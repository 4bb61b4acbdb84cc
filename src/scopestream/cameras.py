"""Cameras that record side by side: each with frames of its own size, dtype and pace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from reprlib import repr as short_repr
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import DTypeLike
from pydantic import BeforeValidator, Field, model_validator

from scopestream.dimensions import Model, Name

CAMERA = "camera"  # the dimension that cameras are the items of
_DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")
_MAX_SIDE = 2**31


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


def size_in_elements(value: object) -> object:
    """`value`, where its sizes are whole numbers of elements. Raises ValueError."""
    if isinstance(value, dict):
        wrong = {name: size for name, size in value.items() if not (type(size) is int and size >= 1)}
        if wrong:
            raise ValueError(f"sizes are whole numbers of elements, at least 1, not {short_repr(wrong)}")
    return value


DtypeName = Annotated[str, BeforeValidator(_dtype_name)]
Sizes = Annotated[dict[str, int], BeforeValidator(size_in_elements)]


class Camera(Model):
    """One of several cameras. What is None is as the settings say.

    shape   (y, x) of its frames, in pixels
    scale   (y, x) size of its pixels, in the units of the last two dimensions
    chunks  sizes by name, in elements, where they differ from those of the settings, and `shards`
    """

    name: Name = Field(min_length=1)
    dtype: DtypeName | None = None
    shape: tuple[int, int] | None = None
    scale: tuple[float, float] | None = None
    chunks: Sizes | None = None
    shards: Sizes | None = None

    if TYPE_CHECKING:  # what validation takes, which is more than what it leaves

        def __init__(
            self,
            *,
            name: str,
            dtype: DTypeLike | None = None,
            shape: Sequence[int] | None = None,
            scale: Sequence[float] | None = None,
            chunks: Mapping[str, int] | None = None,
            shards: Mapping[str, int] | None = None,
        ) -> None: ...

    @model_validator(mode="after")
    def _possible(self) -> Camera:
        problems = []
        if self.shape is not None and not all(1 <= side <= _MAX_SIDE for side in self.shape):
            problems.append(f"shape is {self.shape}; a frame has at least one pixel along y and x")
        if self.scale is not None and not all(isfinite(size) and size > 0 for size in self.scale):
            problems.append(f"scale is {self.scale}; pixel sizes must be finite and greater than 0")
        if problems:
            raise ValueError(f"camera {self.name!r}: " + "; ".join(problems))
        return self
