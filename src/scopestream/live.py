"""The frames of a stream that runs: from memory as long as they are there, then from the disk.

Nothing here waits for the camera, or lets it wait for anything but the interpreter. Which frames there are, and where,
is looked up without any lock in what the stream keeps anyhow. Memory is copied first, and then it is asked whether the
frame still was there: who takes memory back says so before anybody writes to it.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from threading import Lock
from time import monotonic, sleep

import numpy as np

from scopestream.assemble import Job, Piece
from scopestream.errors import NotReadableError, StreamClosedError
from scopestream.failures import Failures
from scopestream.forms import forms_of
from scopestream.gate import Gate
from scopestream.ondisk import DiskFrames
from scopestream.plan import LayoutPlan
from scopestream.route import Route
from scopestream.stats import Counters
from scopestream.writer import Writer

# How long a view waits for what was stored to be published, and how much of the time of one writer thread it may take.
_PATIENCE_S = 2.0
_SHARE = 0.1
_MAX_BLACK = 4096  # frames that are known to have tiles of zeros


class LiveFrames:
    """What a `View` of a stream reads. Safe from any thread.

    live_read  whether the backend shows what it stored before it is closed
    """

    def __init__(
        self,
        plan: LayoutPlan,
        route: Route,
        gate: Gate,
        counters: Counters,
        failures: Failures,
        writer: Writer,
        *,
        live_read: bool,
    ) -> None:
        self._gate, self._counters, self._failures = gate, counters, failures
        self._writer: Writer | None = writer
        self._live_read = live_read
        self._locate = route.locate
        self._forms = forms_of(plan)
        self._disk = DiskFrames(plan, route)
        self._process = os.getpid()
        self._publishing = Lock()  # for what follows; views wait for one another, and nobody else does
        self._next_publish_s = 0.0
        self._black: OrderedDict[int, None] = OrderedDict()

    def end(self) -> None:
        """The dataset is closed: everything is on the disk, and the memory of the stream is not held any more."""
        self._writer = None

    def keep(self) -> None:
        """Somebody looks: let the last frames stay in memory for a while."""
        if (writer := self._writer) is not None:
            writer.keep()

    @property
    def length(self) -> int:
        """Items of the first dimension, as far as frames came or were left out; of no meaning where it is bounded."""
        return max(self._gate.lengths)

    def newest(self, camera: int | None) -> int | None:
        """The frame that came last, of that camera."""
        counters = self._counters
        newest = counters.newest if camera is None or len(counters.newest_of) == 1 else counters.newest_of[camera]
        return newest if newest >= 0 else None

    def are_there(self, numbers: np.ndarray) -> np.ndarray:
        """Which of these frames can be had: (n,) bool."""
        came = self._gate.taken.has(numbers)
        came &= ~self._gate.gone.has(numbers)
        came &= ~self._failures.frames.has(numbers)
        if not self._live_read and self._writer is not None:
            for which in np.flatnonzero(came):
                number = int(numbers[which])
                came[which] = self._counters.held(number) is not None or self._kept(number) is not None
        return came

    def frames(self, numbers: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """(which, frame) of those that can be had, in any order; a frame is to be left alone.

        Raises NotReadableError for frames that came and cannot be read.
        """
        if self._process != os.getpid():
            raise StreamClosedError(
                "The stream of this view belongs to the process that this one was forked from. Open the dataset with "
                "scopestream.open_view(path) here."
            )
        on_disk = []
        for which, number in enumerate(numbers):
            frame = self._from_memory(number)
            if frame is None:
                on_disk.append((which, number))
            else:
                yield which, frame
        if on_disk and (self._live_read or self._writer is None):
            for layer, places in self._disk.layers(on_disk):
                # What is closed does not change any more. Before that, memory is the stream's.
                pixels = self._disk.read(layer, settled_s=0.0 if self._writer is None else None)
                if self._writer is not None and self._may_lack(layer[0], pixels, places):
                    self._publish()
                    pixels = self._disk.read(layer)
                    self._remember_black(layer[0], pixels, places)
                for which, _, local in places:
                    yield which, pixels[local]

    # -- memory -----------------------------------------------------------------------------------------------------

    def _from_memory(self, number: int) -> np.ndarray | None:
        """A copy of a frame that is still in memory."""
        held = self._counters.held(number)
        if held is not None:
            frame = self._copy(number, held)
            if self._counters.held(number) is held:
                return frame
        job = self._kept(number)
        if job is not None:
            frame = self._copy(number, job)
            if self._kept(number) is job:
                return frame
        return None

    def _kept(self, number: int) -> Job | None:
        writer = self._writer
        return None if writer is None else writer.kept(number)

    def _copy(self, number: int, held: object) -> np.ndarray:
        if isinstance(held, Piece):
            frame: np.ndarray = held.data[held.local]
            return frame.copy()
        assert isinstance(held, Job) and held.data is not None, "a frame that came has pixels"
        if held.is_tiled:
            form = self._forms[held.image]
            joined = np.empty(form.frame_shape, form.dtype)
            form.tiler.join(held.data, joined)
            return joined
        _, index = self._locate(number)
        pixels: np.ndarray = held.data[tuple([i - o for i, o in zip(index, held.origin, strict=False)])]
        return pixels.copy()

    # -- what the backend has, and may not show yet -----------------------------------------------------------------

    def _may_lack(self, image: int, pixels: np.ndarray, places: Sequence[tuple[int, int, tuple[int, ...]]]) -> bool:
        """Whether any of these frames has a tile of zeros, and is not known to be like that."""
        return any(
            number not in self._black and self._disk.is_blank(image, pixels[local]) for _, number, local in places
        )

    def _remember_black(
        self, image: int, pixels: np.ndarray, places: Sequence[tuple[int, int, tuple[int, ...]]]
    ) -> None:
        with self._publishing:
            for _, number, local in places:
                if self._disk.is_blank(image, pixels[local]):
                    self._black[number] = None
            while len(self._black) > _MAX_BLACK:
                self._black.popitem(last=False)

    def _publish(self) -> None:
        """Return when other programs, too, can read what was stored until now."""
        with self._publishing:
            writer = self._writer
            if writer is None:
                return
            sleep(max(0.0, min(self._next_publish_s - monotonic(), _PATIENCE_S)))
            started_s = monotonic()
            is_done = writer.wait_for(writer.publish_soon(), _PATIENCE_S)
            ended_s = monotonic()
            self._next_publish_s = ended_s + (ended_s - started_s) / _SHARE
        if not is_done and self._writer is not None:
            raise NotReadableError(
                f"The backend has not shown what it stored within {_PATIENCE_S:g} s; the disk may hang. The frames "
                f"are safe as far as `stream.error` says nothing else; look again later."
            )
