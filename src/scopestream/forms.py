"""What the finest blocks of each image look like: images may differ in their counts, and cameras in their frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scopestream.contrast import sample_steps
from scopestream.plan import ArrayPlan, LayoutPlan, WriteUnit
from scopestream.tiles import Tiler


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """Blocks of an image, in the unit of the plan.

    extent       frames along each axis before the frame
    ends         of these axes; None for one that grows
    frame_shape  (Y, X)
    lent_shape   of a frame that is not copied: one tile that needs no cutting, or rows that are cut later
    is_one_tile  whether that is so
    is_padded    whether tiles reach past the edges of a frame
    sample_steps of the pixels that tell the contrast, along y and x
    view         number of the camera
    """

    extent: tuple[int, ...]
    ends: tuple[int | None, ...]
    frame_shape: tuple[int, int]
    dtype: np.dtype
    tiler: Tiler
    lent_shape: tuple[int, ...]
    is_one_tile: bool
    is_padded: bool
    sample_steps: tuple[int, int]
    view: int

    def block_shape(self, origin: Sequence[int]) -> tuple[int, ...]:
        """Frames of the block at `origin` along each axis, within the array."""
        return tuple(
            [
                size if end is None else min(size, end - first)
                for size, end, first in zip(self.extent, self.ends, origin, strict=False)
            ]
        )

    def origin(self, index: Sequence[int]) -> tuple[int, ...]:
        """First frame of the block of the frame at `index`."""
        return tuple([i // size * size for i, size in zip(index, self.extent, strict=True)])


def forms_of(plan: LayoutPlan) -> list[Form]:
    """One for each image; images that are alike share theirs."""
    known: dict[tuple[int, tuple[int, ...]], Form] = {}
    forms = []
    for image in plan.images:
        array = plan.arrays[image.arrays[0]]
        form = known.get((image.view, array.shape))
        if form is None:
            form = known[image.view, array.shape] = _form(array, plan.unit, image.view)
        forms.append(form)
    return forms


def _form(array: ArrayPlan, unit: WriteUnit, view: int) -> Form:
    n_before = len(array.axes) - 2
    is_one_tile = unit is WriteUnit.TILED_FRAME and array.tile == array.frame_shape
    return Form(
        extent=array.block_extent(unit),
        ends=tuple(None if array.growable and axis == 0 else size for axis, size in enumerate(array.shape[:n_before])),
        frame_shape=array.frame_shape,
        dtype=array.dtype,
        tiler=Tiler(array.frame_shape, array.tile),
        lent_shape=(*(1,) * (2 if is_one_tile else n_before), *array.frame_shape),
        is_one_tile=is_one_tile,
        is_padded=any(size % tile for size, tile in zip(array.frame_shape, array.tile, strict=True)),
        sample_steps=sample_steps(array.frame_shape),
        view=view,
    )
