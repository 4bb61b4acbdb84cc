"""Frames that tell which frame they are, and what a dataset of them must look like."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

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
    """Write stamped frames, each of which is overwritten as soon as `append` returns; those of cameras in turn.

    n_frames  how many come or are skipped, all of the plan when it is None
    skipped   numbers of the frames that do not come
    stream    to write to and to leave open; else one is opened and closed
    """
    if stream is None:
        with open_stream(settings) as opened:
            return acquire(settings, n_frames, skipped=skipped, stream=opened)
    plan, route = stream.plan, Route(stream.plan)
    for number in frame_numbers(plan, n_frames):
        array = plan.arrays[plan.images[route.image(number)].arrays[0]]
        names = [camera.name for camera in settings.cameras]
        camera = names[number % len(names)] if names else None
        if number in skipped:
            stream.skip(camera=camera, reason="left out by the test")
            continue
        buffer = stamped_frame(number, array.frame_shape, array.dtype)
        stream.append(buffer, camera=camera, metadata={"number": number})
        buffer[:] = 0
    return plan


def frame_numbers(plan: LayoutPlan, n_frames: int | None = None) -> list[int]:
    """The first numbers of a plan in acquisition order, those of cameras in turn; all of them without `n_frames`."""
    assert n_frames is not None or plan.n_frames is not None, "an unbounded acquisition needs n_frames"
    places, wanted = plan.places, plan.n_frames if n_frames is None else n_frames
    lanes = [places.ahead(camera, wanted or 0) for camera in range(places.n_cameras)]
    return sorted(number for lane in lanes for number in lane)[:wanted]


def stamped_frames(plan: LayoutPlan, numbers: Iterable[int]) -> dict[int, np.ndarray]:
    """The stamped frames of these numbers, each of the size and dtype that it has in the plan."""
    route, frames = Route(plan), {}
    for number in numbers:
        array = plan.arrays[plan.images[route.image(number)].arrays[0]]
        frames[number] = stamped_frame(number, array.frame_shape, array.dtype)
    return frames


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
