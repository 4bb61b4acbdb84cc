"""Every array of a dataset, read by a library, against what must be in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from scopestream.plan import LayoutPlan
from scopestream.testing.frames import expected_images
from scopestream.testing.levels import next_level
from scopestream.testing.readers import describe_mismatch, read_array


def mismatch(plan: LayoutPlan, frames: Mapping[int, np.ndarray], reader: str, skipped: Collection[int] = ()) -> str:
    """What is not as it must be when exactly these frames came, in any level of any image; "" when all is well.

    reader   that reads the arrays, as `readers.read_array` takes it
    skipped  frames that did not come, though an unbounded axis counts them
    """
    settings = plan.settings
    for image, model in zip(plan.images, expected_images(plan, frames, skipped), strict=True):
        pixels = model
        for level, number in enumerate(image.arrays):
            array = plan.arrays[number]
            found = read_array(plan.root / array.path, reader)
            pixels = next_level(pixels, settings.downscale, settings.halved_z) if level else pixels
            if array.growable and found.shape[1:] == pixels.shape[1:]:
                # While it grows, the visible shape may be ahead of the frames, in whole files.
                if found[len(pixels) :].any():
                    return f"{array.path}: there is something past the last frame"
                found = found[: len(pixels)]
            if wrong := describe_mismatch(pixels, found):
                return f"{array.path}: {wrong}"
    return ""
