"""What a stream that goes on must know of the frames that are there: which, and the pixels of unfinished blocks.

Their pixels are compared with the log before anybody stores them again: what is damaged must not look sound.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path

import numpy as np

from scopestream.checksum import crc32c
from scopestream.contract import Sink
from scopestream.contrast import Contrast
from scopestream.dataset import Dataset
from scopestream.forms import forms_of
from scopestream.plan import LayoutPlan, z_steps_by_image
from scopestream.stored import Index
from scopestream.windows import Windows

_SAMPLES = 16  # frames of each channel that are looked at for the contrast
Key = tuple[int, Index]  # image, and place of a block without the frame


class Blocks:
    """Blocks of the finest level, in the unit of the plan, of which frames are settled: there, or known not to come.

    plan     of the stream that goes on, with the layout of the dataset
    damaged  frames that were read, and cannot be decoded or differ from their checksum, with the files that they are in
    """

    def __init__(self, dataset: Dataset, plan: LayoutPlan) -> None:
        self.damaged: dict[int, list[Path]] = {}
        self._dataset, self._plan = dataset, plan
        self._forms = forms_of(plan)
        self._z_steps = z_steps_by_image(plan)
        history = dataset.history
        settled, written = ~history.are("failed"), history.are("written")
        # By block: the frames that are settled, and whether their pixels are there. Where blocks have nothing to do
        # with one another each is a frame that is there, and there may be millions.
        self._frames: dict[Key, list[tuple[Index, bool]]] = {}
        self._lengths = dataset.lengths()
        self._alone = all(prod(array.block_extent(plan.unit)) == 1 for array in plan.finest) and not plan.halves_z
        if self._alone:
            return
        for number, is_there in zip(history.numbers[settled].tolist(), written[settled].tolist(), strict=True):
            image, index = dataset.route.locate(number)
            self._frames.setdefault((image, self._forms[image].origin(index)), []).append((index, is_there))

    def partial(self) -> Iterator[Key]:
        """Blocks of which frames are still to come."""
        return (key for key, frames in self._frames.items() if len(frames) < self._n_frames(key))

    def settled(self) -> Iterator[int]:
        """Numbers of frames whose places are taken."""
        history = self._dataset.history
        yield from history.numbers[~history.are("failed")].tolist()

    def unfinished(self) -> Iterator[tuple[int, int, Index, np.ndarray | None]]:
        """(number, image, index, pixels or None) of settled frames, in blocks of which others are to come."""
        number = self._dataset.route.number
        for image, origin in self.partial():
            frames = self._frames[image, origin]
            for index, frame in self.read(image, [index for index, is_there in frames if is_there]):
                yield number(image, index), image, index, frame
            for index in [index for index, is_there in frames if not is_there]:
                yield number(image, index), image, index, None

    def waiting(self) -> Iterator[tuple[int, Index, np.ndarray | None]]:
        """(image, origin, pixels) of complete blocks, whose coarser levels need others that are to come."""
        for column in self.columns() if self._plan.halves_z else ():
            for image, place in () if self.is_settled(column) else self.whole(column):
                yield image, (*place, 0, 0), self.pixels((image, place))

    def frames(self, key: Key) -> list[tuple[Index, bool]]:
        """The frames of a block that are settled, and whether their pixels are there."""
        return [(key[1], True)] if self._alone else self._frames[key]

    def whole(self, column: Sequence[Key]) -> Iterator[Key]:
        """Blocks of a column of which every frame is settled."""
        return (key for key in column if len(self.frames(key)) == self._n_frames(key))

    def pixels(self, key: Key) -> np.ndarray | None:
        """The block as the backend takes it, zeros where frames are not there or are damaged; None where none is."""
        there = [index for index, is_there in self.frames(key) if is_there]
        if not there:
            return None
        image, origin = key
        form = self._forms[image]
        shape = list(form.block_shape(origin))
        if shape and form.ends[0] is None:
            shape[0] = min(shape[0], self._lengths[image] - origin[0])
        block = np.zeros((*shape, *form.frame_shape), form.dtype)
        for index, frame in self.read(image, there):
            block[tuple([i - o for i, o in zip(index, origin, strict=True)])] = frame
        if not self._plan.tiled_on_arrival:
            return block
        tiles = np.zeros(form.tiler.shape, form.dtype)
        form.tiler.cut(block[(0,) * len(shape)], tiles)
        return tiles

    def read(self, image: int, indices: Sequence[Index]) -> Iterator[tuple[Index, np.ndarray]]:
        """Frames of an image, layer by layer, without those that are damaged."""
        number = self._plan.images[image].arrays[0]
        stored = self._dataset.stored(number, lambda _: None)
        wanted: dict[Index, list[Index]] = {}
        for index in indices:
            origin = tuple([i // depth * depth for i, depth in zip(index, stored.geometry.depth, strict=True)])
            wanted.setdefault(origin, []).append(index)
        for origin, places in wanted.items():
            layer, sound = stored.layer(origin)
            for index in places:
                frame = layer[tuple([i - o for i, o in zip(index, origin, strict=True)])]
                if sound and self._is_intact(image, index, frame):
                    yield index, frame
                else:
                    self.damaged[self._dataset.route.number(image, index)] = stored.paths(origin)

    def read_what_is_held(self) -> None:
        """Everything that a stream has to hold when it goes on, for `damaged`."""
        for _ in self.unfinished():
            pass
        for _ in self.waiting():
            pass

    def _is_intact(self, image: int, index: Index, frame: np.ndarray) -> bool:
        entry = self._dataset.history.find(self._dataset.route.number(image, index))
        checksum = -1 if entry is None else self._dataset.history.checksums[entry]
        return bool(checksum < 0 or checksum == crc32c(frame))

    def columns(self) -> Iterator[list[Key]]:
        """Blocks that go together from level to level: those that differ in z only, where z is halved; else one."""
        if self._alone:
            for number in self._dataset.history.numbers[self._dataset.history.are("written")].tolist():
                yield [self._dataset.route.locate(number)]
            return
        if (z := self._plan.settings.halved_z) is None or not self._plan.halves_z:
            yield from ([key] for key in self._frames)
            return
        columns: dict[tuple[int, Index], list[Key]] = {}
        for image, origin in self._frames:
            place = (*origin[:z], -1, *origin[z + 1 :])
            columns.setdefault((image, place), []).append((image, origin))
        yield from columns.values()

    def is_settled(self, column: Sequence[Key]) -> bool:
        """Whether no frame of a column is to come any more."""
        steps = self._z_steps[column[0][0]]
        return len(list(self.whole(column))) == (steps[0].n_blocks if steps else 1)

    def is_whole(self, column: Sequence[Key]) -> bool:
        """Whether every frame of a column is there, so that its coarser levels are, too."""
        return self.is_settled(column) and all(is_there for key in column for _, is_there in self.frames(key))

    def sample(self, contrast: Contrast) -> None:
        """Let `contrast` see frames of every channel, spread over the acquisition."""
        history, route = self._dataset.history, self._dataset.route
        numbers = history.numbers[history.are("written")]
        windows = Windows(self._plan, route).of_all(numbers)
        for window in range(self._plan.n_windows):
            of_window = numbers[windows == window]
            for at in np.unique(np.linspace(0, len(of_window) - 1, min(_SAMPLES, len(of_window))).astype(int)):
                image, index = route.locate(int(of_window[at]))
                y, x = self._forms[image].sample_steps
                for _, frame in self.read(image, [index]):
                    contrast.add(window, frame[::y, ::x])

    def _n_frames(self, key: Key) -> int:
        image, origin = key
        return prod(self._forms[image].block_shape(origin))


def keep_lengths(sink: Sink, plan: LayoutPlan, lengths: Sequence[int]) -> None:
    """Tell a sink how long the growable arrays are; `lengths` by image."""
    for number, array in enumerate(plan.arrays):
        if array.growable:
            sink.extend(number, lengths[array.image])
