"""What went wrong behind the camera's back, and which frames it cost."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from scopestream.errors import WriteError
from scopestream.framelog import FRAME_LOG, Record
from scopestream.locate import FrameSet, frames_text
from scopestream.plan import LayoutPlan
from scopestream.stats import Counters

_KINDS_OF_LATER = 8  # errors of other texts than these are only counted: a broken disk fails for every frame


class Failures:
    """Keeps the first error, which is the cause, and what came later. Safe from any thread.

    first   the first error of any thread, None while all is well
    frames  numbers of those that could not be stored
    """

    def __init__(self, plan: LayoutPlan, counters: Counters) -> None:
        self._path = plan.settings.path
        self._log = plan.root / FRAME_LOG
        self._counters = counters
        self._lock = threading.Lock()
        self.frames = FrameSet()
        self._later: dict[str, int] = {}  # by text, how often
        self._n_others = 0
        self.first: BaseException | None = None

    def add(self, error: BaseException) -> None:
        """Keep an error; the stream raises the first one at its next call."""
        text = describe(error)
        with self._lock:
            if self.first is None:
                self.first = error
            elif text == describe(self.first):
                pass  # the same for every frame that follows
            elif text in self._later or len(self._later) < _KINDS_OF_LATER:
                self._later[text] = self._later.get(text, 0) + 1
            else:
                self._n_others += 1

    def add_frames(self, records: Iterable[Record]) -> None:
        """These frames could not be stored."""
        with self._lock:
            for record in records:
                self.frames.add(record.number)

    def check(self) -> None:
        """Raise WriteError when anything failed."""
        if self.first is not None:
            raise self._write_error() from self.first

    def _write_error(self) -> WriteError:
        with self._lock:
            failed = self.frames.ranges()
            later, n_others = list(self._later.items()), self._n_others
        n_in, n_safe, n_waiting = self._counters.frames()
        n_failed = sum(last - first + 1 for first, last in failed)
        lost = f", {n_failed} could not be stored ({frames_text(failed)})" if failed else ""
        waiting = f", {n_waiting} still wait" if n_waiting else ""
        assert self.first is not None
        error = WriteError(
            f"Writing to {self._path} failed: {describe(self.first)}. {n_safe} of {n_in} accepted frames are "
            f"safe{lost}{waiting}; {self._log} has a line for each. Close the stream, make room or repair the disk, "
            f'and go on with on_exists="resume".',
            n_safe=n_safe,
            failed=tuple(failed),
        )
        for text, n_times in later:
            error.add_note(f"Later, {n_times} times: {text}" if n_times > 1 else f"Later: {text}")
        if n_others:
            error.add_note(f"And {n_others} more errors.")
        return error


def describe(error: BaseException) -> str:
    """What it says; of one that says nothing, what it is."""
    return str(error) or type(error).__name__
