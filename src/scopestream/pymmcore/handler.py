"""`Handler`: for `core.mda.run(output=...)`, where nothing but handlers can be given."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np
from useq import MDAEvent, MDASequence

from scopestream.dimensions import Dimension
from scopestream.pymmcore.opening import Output
from scopestream.pymmcore.sink import Sink

_LATE_S = 5.0


class Handler:
    """Writes an acquisition from the relay thread of pymmcore-plus; prefer `run_mda`, which has none of these limits.

    Frames wait for it in a queue without an end: where the disk is slower than the camera, memory grows until the
    acquisition is over or the system ends the process. It warns (RuntimeWarning) when it is 5 seconds behind. It cannot
    end the acquisition when the disk fails: `error` says why it stopped to write, and `check` raises that. Skipped
    events are not told to it: their places are missing, without a reason.

    Arguments are those of `run_mda`. Use it once: `core.run_mda(sequence, output=handler).join(); handler.check()`.
    """

    def __init__(self, output: Output, *, dimensions: Sequence[Dimension] | None = None, **settings: Any) -> None:
        self.sink = Sink(output, dimensions=dimensions, **settings)
        self.error: Exception | None = None
        self._started = 0.0
        self._has_warned = False

    def sequenceStarted(self, sequence: MDASequence, meta: Mapping[str, Any]) -> None:  # noqa: N802
        """The runner begins."""
        self._started = perf_counter()
        try:
            self.sink.setup(sequence, meta or None)
        except Exception as error:
            self._stop(error)

    def frameReady(self, img: np.ndarray, event: MDAEvent, meta: Mapping[str, Any]) -> None:  # noqa: N802
        """A frame, some time after it was taken."""
        if self.error is not None:
            return
        try:
            self.sink.append(img, event, meta)
        except Exception as error:
            self._stop(error)
        behind_s = perf_counter() - self._started - meta.get("runner_time_ms", 0.0) / 1000
        if behind_s > _LATE_S and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"The disk is {behind_s:.0f} s behind the camera, and all frames since wait in memory, without a "
                f"limit. scopestream.pymmcore.run_mda waits for the disk instead.",
                RuntimeWarning,
                stacklevel=2,
            )

    def sequenceCanceled(self, sequence: MDASequence) -> None:  # noqa: N802
        """Somebody has ended it."""
        self.sink.is_complete = lambda: False

    def sequenceFinished(self, sequence: MDASequence) -> None:  # noqa: N802
        """The runner is done, and all frames are here."""
        try:
            self.sink.close()
        except Exception as error:
            self._stop(error)

    def check(self) -> None:
        """Raise what went wrong, if anything. Call it when the acquisition is over."""
        if self.error is not None:
            raise self.error

    def _stop(self, error: Exception) -> None:
        if self.error is None:
            self.error = error
            warnings.warn(f"scopestream stopped to write: {error}", RuntimeWarning, stacklevel=3)
