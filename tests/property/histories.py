"""What a dataset must show after any history: the frames that must be there, those that may be, and zeros."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from pathlib import Path

import numpy as np

from scopestream import read_frames
from scopestream.plan import LayoutPlan
from scopestream.route import Route
from scopestream.testing import expected_images, read_array, reader_other_than, stamped_frame
from scopestream.testing.levels import next_level
from scopestream.testing.readers import describe_mismatch

_UNBOUNDED_FRAMES = 24  # about as many come of an acquisition without an end


@dataclass
class Model:
    """Sets of frame numbers.

    has_black whether every fourth frame is nothing but zeros, which without checksums cannot be told from a lost one
    before    settled when the stream was opened
    cursors   what the next `append` of each camera fills; of one where there are none
    accepted  frames that came and are not lost, and `promised` those that no kill takes any more
    skipped   that will not come, and `told` those that a log must have
    fragile   that a kill may take though the log has them: compressed, without checksums, and named by no index yet
    lost      that a kill took after the log had them, and that did not come again
    """

    plan: LayoutPlan
    has_black: bool = False
    before: set[int] = field(default_factory=set)
    cursors: list[int] = field(default_factory=list)
    accepted: set[int] = field(default_factory=set)
    promised: set[int] = field(default_factory=set)
    skipped: set[int] = field(default_factory=set)
    told: set[int] = field(default_factory=set)
    fragile: set[int] = field(default_factory=set)
    lost: set[int] = field(default_factory=set)
    writers: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.route = Route(self.plan)
        after_first = prod(dimension.count or 1 for dimension in self.plan.loop[1:])
        is_endless = self.plan.n_frames is None
        end = after_first * max(4, _UNBOUNDED_FRAMES // after_first) if is_endless else self.plan.places.end
        self.numbers = [number for number in range(end) if self.plan.places.has(number)]
        # Where nobody sends frames any more there is still a next one, unless there is an end.
        beyond = range(end, end + after_first) if is_endless else ()
        self._known = [*self.numbers, *(number for number in beyond if self.plan.places.has(number))]
        self.cameras: list[str | None] = [camera.name for camera in self.plan.settings.cameras] or [None]

    @property
    def taken(self) -> set[int]:
        return self.accepted | self.skipped

    @property
    def free(self) -> list[int]:
        return sorted(set(self.numbers) - self.taken)

    def of_camera(self, lane: int) -> list[int]:
        """Numbers of the frames of a camera."""
        return [number for number in self.numbers if number % len(self.cameras) == lane]

    def frame(self, number: int) -> np.ndarray:
        """A copy of its own for each caller."""
        array = self.plan.arrays[self.plan.images[self.route.image(number)].arrays[0]]
        frame = _frame(number, array.frame_shape, array.dtype.name).copy()
        if self.has_black and number % 4 == 3:
            frame.fill(0)
        else:
            frame[0, 0] = 1
        return frame

    def next_ones(self, n: int, lane: int) -> list[int]:
        """Numbers of the frames that so many calls of `append` fill, none past the end."""
        left = [number for number in self.of_camera(lane) if number >= self.cursors[lane]]
        return [number for number in left if number == self.cursors[lane] or number not in self.before][:n]

    def came(self, number: int, *, is_fragile: bool) -> None:
        self.accepted.add(number)
        self.lost.discard(number)
        if is_fragile:
            self.fragile.add(number)

    def appended(self, number: int) -> None:
        lane = number % len(self.cameras)
        self.cursors[lane] = self._free_after(number, lane)

    def skip(self, n: int, lane: int) -> None:
        """The next places of a camera, those that were there before or came by `write` as well."""
        passed = [number for number in self.of_camera(lane) if number >= self.cursors[lane]][:n]
        self.skipped |= set(passed) - self.taken
        self.lost -= set(passed) & self.skipped
        if passed:
            self.cursors[lane] = self._free_after(passed[-1], lane)

    def n_left(self, lane: int) -> int:
        return sum(number >= self.cursors[lane] for number in self.of_camera(lane))

    def settled(self) -> None:
        """All that came is promised, as `flush`, `close` and `recover` do."""
        self.promised, self.told, self.fragile = set(self.accepted), set(self.skipped), set()

    def opened(self, backend: str) -> None:
        self.before = self.taken
        self.cursors = [self._free_after(-1, lane) for lane in range(len(self.cameras))]
        self.writers.append(backend)

    def killed(self, log: dict[int, str]) -> None:
        """What the log has is all that is left."""
        logged = {number for number, status in log.items() if status == "written"}
        skipped = {number for number, status in log.items() if status == "skipped"}
        assert self.promised <= logged <= self.accepted, "promised <= logged as written <= accepted"
        assert self.told <= skipped <= self.skipped, "told <= logged as skipped <= skipped"
        self.accepted, self.skipped = logged, skipped

    def mended(self, lost: Set[int]) -> None:
        """After a kill: `lost` frames are not there after all, and may come again."""
        assert lost <= self.fragile - self.promised, f"lost {sorted(lost - (self.fragile - self.promised))}"
        self.accepted -= lost
        self.lost |= lost
        self.settled()

    def check_log(self, root: Path) -> None:
        expected = dict.fromkeys(self.accepted, "written") | dict.fromkeys(self.skipped, "skipped")
        assert last_statuses(root) == expected | dict.fromkeys(self.lost, "failed")

    def check_frames(self, root: Path) -> None:
        """Of a dataset that is open or was killed: promised frames are there, others are theirs or zeros."""
        for image_number, image in enumerate(self.plan.images):
            found = self._read(root, image.arrays[0])
            expected = np.zeros_like(found)
            for number in self.accepted | self.lost:
                at, index = self.route.locate(number)
                if at != image_number:
                    continue
                is_inside = not index or index[0] < len(found)
                if number in self.promised or (is_inside and found[index].any()):
                    assert is_inside, f"frame {number} was promised, and the array ends before it"
                    expected[index] = self.frame(number)
            assert not (wrong := describe_mismatch(expected, found)), wrong

    def check_everything(self, root: Path) -> None:
        """Of a dataset that nobody writes: shapes and pixels of all levels."""
        frames = {number: self.frame(number) for number in self.accepted}
        settings = self.plan.settings
        for number, pixels in enumerate(expected_images(self.plan, frames, self.skipped)):
            maybe = np.zeros(pixels.shape[:-2], bool)
            for at, index in map(self.route.locate, sorted(self.lost)):
                if at == number and (not index or index[0] < len(maybe)):
                    maybe[index] = True
            for level, array in enumerate(self.plan.images[number].arrays):
                if level:
                    pixels = next_level(pixels, settings.downscale, settings.halved_z)
                    maybe = _halved(maybe, settings.halved_z)
                found = self._read(root, array)
                expected = pixels.copy()
                # The pixels of a lost frame may be anywhere, or not; `check_frames` looks at the finest of them.
                if found.shape == expected.shape:
                    expected[maybe] = found[maybe]
                assert not (wrong := describe_mismatch(expected, found)), f"level {level}: {wrong}"

    def _read(self, root: Path, array: int) -> np.ndarray:
        try:
            reader = reader_other_than(*self.writers)
        except LookupError:  # all of them wrote
            reader = reader_other_than(self.writers[-1])
        return read_array(root / self.plan.arrays[array].path, reader)

    def _free_after(self, number: int, lane: int) -> int:
        n = len(self.cameras)
        free = (other for other in self._known if other > number and other % n == lane and other not in self.before)
        return next(free, self.plan.places.end)


def last_statuses(root: Path) -> dict[int, str]:
    """What the log says of each frame in the end."""
    return {record["frame"]: record["status"] for record in read_frames(root)}


def _halved(maybe: np.ndarray, z: int | None) -> np.ndarray:
    if z is None or maybe.shape[z] == 1:
        return maybe
    padded = np.pad(maybe, [(0, size % 2 if axis == z else 0) for axis, size in enumerate(maybe.shape)])
    even, odd = (slice(None),) * z + (slice(0, None, 2),), (slice(None),) * z + (slice(1, None, 2),)
    halved: np.ndarray = padded[even] | padded[odd]
    return halved


@lru_cache(maxsize=1000)
def _frame(number: int, shape: tuple[int, int], dtype: str) -> np.ndarray:
    return stamped_frame(number, shape, dtype)
