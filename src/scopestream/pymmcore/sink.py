"""`Sink`: what pymmcore-plus calls in the thread of the acquisition, frame by frame."""

from __future__ import annotations

import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from pymmcore_plus.core import SequencedEvent
from useq import MDAEvent, MDASequence

from scopestream.dimensions import Dimension
from scopestream.errors import FrameIndexError, MetadataError, StreamClosedError
from scopestream.plan import LayoutPlan
from scopestream.pymmcore.metadata import NAMESPACE, frame_metadata, summary_metadata
from scopestream.pymmcore.opening import Opening, Output
from scopestream.pymmcore.placing import CAMERA, EventKey, Follower, Placing, event_key
from scopestream.settings import AcquisitionSettings
from scopestream.stats import Stats
from scopestream.stream import Stream
from scopestream.useq import Place, takes_image

_NO_IMAGE = "the camera gave no image"


class Sink:
    """Writes an acquisition of pymmcore-plus, in the thread that drives the microscope.

    Frames go where the index of their event says, so one that fails moves no other. `append` blocks when the disk is
    behind by `memory_limit`, and the first error of the disk ends the acquisition. `run_mda` and `recording` make a
    sink and hand it to the runner.

    output      a path, or settings whose dimensions are named as the index of the events: t, p, c, z
    dimensions  what comes of a generator of events, slowest first, without y and x; of sequences it is known
    settings    further fields of `AcquisitionSettings`, with a path

    n_passed_over  frames that were taken again, of places that had theirs before `on_exists="resume"` went on: they are
                   left out
    """

    def __init__(self, output: Output, *, dimensions: Sequence[Dimension] | None = None, **settings: Any) -> None:
        self._opening = Opening(output, dimensions, settings)
        self._stream: Stream | None = None
        self._placing: Placing | None = None
        self._summary: Mapping[str, Any] | None = None
        self._cameras: tuple[int, ...] = (0,)
        self._resumes = False
        self._awaited: dict[tuple[int, EventKey], deque[Place]] = {}
        self._reason = _NO_IMAGE
        self._late_error: Exception | None = None
        self._follower: Follower | None = None  # until it turns out that events are announced
        self._closed = threading.Event()
        self.was_set_up = False
        self.n_passed_over = 0
        self.error: Exception | None = None
        self.is_complete: Callable[[], bool] | None = None

    # -- what pymmcore-plus calls -----------------------------------------------------------------------------------

    def setup(self, sequence: MDASequence, meta: Mapping[str, Any] | None) -> None:
        """Open the dataset, or get ready to do so with the first event, where that tells the dimensions.

        Raises as `open_stream` does, before anything is acquired.
        """
        if self.was_set_up:
            raise RuntimeError("This sink has had its acquisition; the next one needs its own. Nothing was written.")
        self._summary = meta
        self.was_set_up = True
        self._follower = Follower(sequence)
        with self._remembering():
            self._opening.prepare(sequence, meta)
            if self._opening.is_known:
                self._open()

    def event_started(self, event: MDAEvent) -> None:
        """The runner begins with `event`: frames of earlier events that have not come will not come any more."""
        self._follower = None
        try:
            self._give_up()
            if not takes_image(event):
                return
            events = event.events if isinstance(event, SequencedEvent) else (event,)
            if self._stream is None:
                self._opening.look_at(events[0])
                if self._opening.is_known:
                    self._open()
            if self._placing is None:
                return
            for one in events:
                self._await(one)
        except Exception as error:  # the runner would wrap it; the next frame raises it as it is
            self._late_error = self._late_error or error

    def append(self, img: np.ndarray, event: MDAEvent, meta: Mapping[str, Any]) -> None:
        """Take a frame. Raises as `Stream.write` does, which ends the acquisition."""
        with self._remembering():
            self._raise_late_error()
            if self._stream is None:
                self._opening.look_at(event, img)
                self._open()
            self._append(img, event, meta)

    def skip(self, *, frames: int = 1) -> None:
        """So many frames will not come, and pymmcore-plus does not say which.

        Where `event_started` is called, those of the present event, as it turns out when the next one starts; else the
        next ones of the sequence, after the last frame that came.
        """
        skipped = sys.exception()  # the runner calls from where it handles SkipEvent
        with self._remembering():
            self._raise_late_error()
            reason = getattr(skipped, "reason", None)
            if reason is not None:
                self._reason = str(reason) or "the engine skipped the event"
            if self._follower is not None and self._stream is not None:
                for event in self._follower.next(frames // len(self._cameras)):
                    self._await(event)
                self._give_up()
            elif reason is not None:
                self._give_up()

    def close(self) -> None:
        """Finalise the dataset. Raises what went wrong; pymmcore-plus only logs that, `recording` raises it again."""
        if self._closed.is_set():
            return
        try:
            with self._remembering():
                self._close()
        finally:
            self._closed.set()

    def get_view(self) -> Any:
        """What viewers show while it is acquired; None before it begins."""
        return None if self._stream is None else self._stream.view()

    # -- what a user reads ------------------------------------------------------------------------------------------

    @property
    def stream(self) -> Stream:
        """The stream that is being written. Raises StreamClosedError before there is one."""
        return self._writing()[0]

    @property
    def path(self) -> str:
        """Where the dataset really is, which `on_exists="increment"` may have changed."""
        return self.stream.path

    @property
    def plan(self) -> LayoutPlan:
        """The layout of the dataset."""
        return self.stream.plan

    @property
    def settings(self) -> AcquisitionSettings:
        """The settings of the dataset."""
        return self.plan.settings

    @property
    def stats(self) -> Stats:
        """What arrived, what is stored, and how fast it goes."""
        return self.stream.stats

    @property
    def is_closed(self) -> bool:
        return self._closed.is_set()

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Return when the dataset is closed, or, with False, after that many seconds."""
        return self._closed.wait(timeout)

    # -- inside -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        """The first error stays in `error`, for those who are not told by the runner; later ones are its notes."""
        try:
            yield
        except Exception as error:
            if self.error is None:
                self.error = error
            elif error is not self.error:
                self.error.add_note(f"Later: {error}")
            raise

    def _await(self, event: MDAEvent) -> None:
        """Give the frames of an event their places, where they are awaited."""
        key = event_key(event)
        for camera in self._cameras:
            with suppress(FrameIndexError):  # its frame says so, when it comes
                place = self._writing()[1].start(event, camera)
                self._awaited.setdefault((camera, key), deque()).append(place)

    def _append(self, img: np.ndarray, event: MDAEvent, meta: Mapping[str, Any]) -> None:
        stream, placing = self._writing()
        camera = int(event.index.get(CAMERA, 0))
        key = (camera, event_key(event))
        if self._follower is not None:
            self._follower.came(key[1])
        queue = self._awaited.get(key)
        place = queue[0] if queue else placing.start(event, camera)
        self._pass(place)
        index = self._opening.index(place, camera)
        if self._resumes and stream.was_there(index):
            self.n_passed_over += 1
        else:
            self._write(stream, img, index, frame_metadata(meta, event))
        if queue:
            queue.popleft()
            if not queue:
                del self._awaited[key]

    def _write(self, stream: Stream, img: np.ndarray, index: Mapping[str, int | str], metadata: dict[str, Any]) -> None:
        try:
            stream.write(img, index=index, metadata=metadata)
        except MetadataError as error:
            warnings.warn(f"The metadata of a frame at {index} was left out: {error}", RuntimeWarning, stacklevel=5)
            metadata[NAMESPACE] = {"left_out": str(error)}
            stream.write(img, index=index, metadata=metadata)

    def _open(self) -> None:
        self._stream, self._placing = self._opening.open()
        self._cameras = self._opening.cameras
        self._resumes = self._stream.plan.settings.on_exists == "resume"
        if self._summary is not None:
            try:
                self._stream.set_metadata(NAMESPACE, summary_metadata(self._summary))
            except MetadataError as error:
                warnings.warn(f"The metadata of the acquisition was left out: {error}", RuntimeWarning, stacklevel=2)

    def _writing(self) -> tuple[Stream, Placing]:
        if self._stream is None or self._placing is None:
            raise StreamClosedError("No acquisition has begun; there is no dataset yet.")
        return self._stream, self._placing

    def _raise_late_error(self) -> None:
        if self._late_error is not None:
            error, self._late_error = self._late_error, None
            raise error

    def _give_up(self) -> None:
        """What is awaited does not come."""
        awaited, self._awaited = self._awaited, {}
        reason, self._reason = self._reason, _NO_IMAGE
        for (camera, _), places in awaited.items():
            for place in places:
                self._pass(place)
                self._skip(place, reason, camera)

    def _pass(self, place: Place) -> None:
        """Places before this one that no event comes to: no camera takes a frame there."""
        for passed, why in self._writing()[1].passed(place):
            for camera in self._cameras:
                self._skip(passed, why, camera)

    def _skip(self, place: Place, reason: str, camera: int) -> None:
        self._writing()[0].skip(index=self._opening.index(place, camera), reason=reason)

    def _close(self) -> None:
        if self._stream is None or self._placing is None:
            self._raise_late_error()
            return
        try:
            self._raise_late_error()
            is_complete = self.is_complete is not None and self.is_complete()
            if is_complete:
                self._give_up()
            for place, why in self._placing.left(is_complete=is_complete):
                for camera in self._cameras:
                    self._skip(place, why, camera)
        except Exception as error:
            try:
                self._stream.close(ended_early=True)
            except Exception as at_close:
                raise at_close from error
            raise
        is_early = self.error is not None or (self.is_complete is not None and not is_complete)
        self._stream.close(ended_early=is_early)
