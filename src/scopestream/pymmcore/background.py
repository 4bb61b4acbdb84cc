"""`start_mda`: an acquisition in a thread of its own, for programs that have something else to do, such as a window."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from time import sleep
from typing import Any

from pymmcore_plus import CMMCorePlus
from useq import MDAEvent

from scopestream.dimensions import Dimension
from scopestream.pymmcore.opening import Output
from scopestream.pymmcore.run import recording
from scopestream.pymmcore.sink import Sink


class Acquisition:
    """An acquisition that runs in a thread of its own.

    sink   writes it; there is a dataset when it has begun
    error  what ended it, or went wrong at its end; None while it runs, and when all is well
    """

    def __init__(self, core: CMMCorePlus, sink: Sink, thread: threading.Thread) -> None:
        self._core, self._thread = core, thread
        self.sink = sink
        self.error: BaseException | None = None

    @property
    def is_running(self) -> bool:
        """Until the dataset is closed."""
        return self._thread.is_alive()

    def cancel(self) -> None:
        """End it after the present event; `join` says when that is done."""
        while self.is_running and not self.sink.was_set_up:  # the runner forgets what it is told before
            sleep(0.001)
        if self.is_running:
            self._core.mda.cancel()

    def join(self, timeout: float | None = None) -> Sink:
        """Return when the dataset is closed. Raises what `run_mda` raises, and TimeoutError after `timeout` seconds.

        Ctrl-C ends the wait, not the acquisition. Never wait in the thread of a window, which would freeze.
        """
        self._thread.join(timeout)
        if self.is_running:
            raise TimeoutError(f"The acquisition still runs after {timeout} s, and goes on.")
        if self.error is not None:
            raise self.error
        return self.sink


def start_mda(
    core: CMMCorePlus,
    events: Iterable[MDAEvent],
    output: Output,
    *,
    handlers: Sequence[Any] = (),
    dimensions: Sequence[Dimension] | None = None,
    **settings: Any,
) -> Acquisition:
    """`run_mda` that returns at once; `join` of what it returns raises what went wrong.

    Arguments are those of `run_mda`. Raises ValueError while another acquisition runs, and UnsupportedVersionError.
    """
    ready = threading.Event()
    made: list[Acquisition] = []
    refused: list[BaseException] = []

    def acquire() -> None:
        try:
            with recording(core, output, dimensions=dimensions, **settings) as sink:
                made.append(Acquisition(core, sink, threading.current_thread()))
                ready.set()
                core.mda.run(events, output=list(handlers) or None)
        except BaseException as error:  # raised in the thread of the caller, or by `join`
            if not made:
                refused.append(error)
                return
            late = made[0].sink.error
            if late is not None and late is not error:
                error.add_note(f"The dataset failed as well: {late}")
            made[0].error = error
        finally:
            ready.set()

    threading.Thread(target=acquire, name="scopestream-mda").start()
    ready.wait()
    if refused:
        raise refused[0]
    return made[0]
