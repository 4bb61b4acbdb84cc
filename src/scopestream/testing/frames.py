"""Frames that tell which frame they are, and what a dataset of them must look like."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from scopestream.plan import LayoutPlan
from scopestream.route import Route
from scopestream.settings import AcquisitionSettings
from scopestream.stream import Stream, open_stream


def stamped_frame(number: int, shape: tuple[int, int], dtype: np.dtype | str) -> np.ndarray:
    """A (Y, X) frame unlike that of any other number, noisy enough that no chunk of it is all zeros."""
    generator = np.random.default_rng(number)
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return generator.integers(0, 2, shape, np.uint8).astype(bool)
    if dtype.kind == "f":
        return generator.standard_normal(shape).astype(dtype)
    return generator.integers(1, np.iinfo(dtype).max, shape, dtype)


def acquire(
    settings: AcquisitionSettings,
    n_frames: int | None = None,
    *,
    skipped: Collection[int] = (),
    stream: Stream | None = None,
) -> LayoutPlan:
    """Write stamped frames from one reused buffer, which is overwritten as soon as `append` returns.

    n_frames  how many come or are skipped, all of the plan when it is None
    skipped   numbers of the frames that do not come
    stream    to write to and to leave open; else one is opened and closed
    """
    if stream is None:
        with open_stream(settings) as opened:
            return acquire(settings, n_frames, skipped=skipped, stream=opened)
    plan = stream.plan
    buffer = np.empty(settings.frame_shape, settings.dtype)
    total = plan.n_frames if n_frames is None else n_frames
    assert total is not None, "an unbounded acquisition needs n_frames"
    for number in range(total):
        if number in skipped:
            stream.skip(reason="left out by the test")
            continue
        buffer[:] = stamped_frame(number, settings.frame_shape, settings.dtype)
        stream.append(buffer, metadata={"number": number})
        buffer[:] = 0
    return plan


def expected_images(
    plan: LayoutPlan, frames: Mapping[int, np.ndarray], skipped: Collection[int] = ()
) -> list[np.ndarray]:
    """The full resolution of every image when exactly these frames came: zeros elsewhere.

    The first axis of a growable image ends with its last frame, which may have been skipped.
    """
    route = Route(plan)
    places = {number: route.locate(number) for number in (*frames, *skipped)}
    images = []
    for image_number, image in enumerate(plan.images):
        array = plan.arrays[image.arrays[0]]
        shape = list(array.shape)
        if array.growable:
            shape[0] = max((index[0] + 1 for at, index in places.values() if at == image_number), default=0)
        pixels = np.zeros(shape, array.dtype)
        for number, frame in frames.items():
            at, index = places[number]
            if at == image_number:
                pixels[index] = frame
        images.append(pixels)
    return images
