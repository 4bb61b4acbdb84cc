"""`run_mda`, and `recording` around other calls that run an acquisition.

pymmcore-plus 0.18 makes its sink itself, from a path or settings of ome-writers. `recording` lets one runner use
another: it replaces `_coerce_outputs`, which turns `output=` into handlers and a sink, on that runner alone and for as
long as it lasts. What it relies on is checked first, and again when the acquisition begins, so that a version in which
it works otherwise is refused before the first frame.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from time import sleep
from typing import Any

from psygnal import SignalInstance
from pymmcore_plus import CMMCorePlus
from pymmcore_plus.mda import FinishReason, MDARunner, RunState
from useq import MDAEvent

from scopestream.dimensions import Dimension
from scopestream.errors import UnsupportedVersionError
from scopestream.pymmcore.opening import Output
from scopestream.pymmcore.sink import Sink

_REPLACED = "_coerce_outputs"
_ATTACHING = threading.Lock()  # of two that begin at the same time one is refused
_START_S = 2.0  # for a thread that was started just before the end of the block


def run_mda(
    core: CMMCorePlus,
    events: Iterable[MDAEvent],
    output: Output,
    *,
    handlers: Sequence[Any] = (),
    dimensions: Sequence[Dimension] | None = None,
    **settings: Any,
) -> Sink:
    """Acquire `events`, a sequence or any iterable of events, into a dataset; returns when it is closed.

    output      a path, or settings whose dimensions are named as the index of the events: t, p, c, z
    handlers    objects with `frameReady`, as `core.mda.run(output=...)` takes them
    dimensions  what comes of a generator of events, slowest first, without y and x; of sequences it is known
    settings    further fields of `AcquisitionSettings`, with a path
    Raises ValueError while another acquisition runs or a block of `recording` is open, and leaves those alone; then
    what ended the acquisition, and what went wrong when the dataset was closed; what arrived is kept either way.
    Ctrl-C cancels the acquisition, and is raised when the dataset is closed.
    """
    errors: list[BaseException] = []

    def acquire() -> None:
        try:
            core.mda.run(events, output=list(handlers) or None)
        except BaseException as error:  # raised below, in the thread of the caller
            errors.append(error)

    with recording(core, output, dimensions=dimensions, **settings) as sink:
        thread = threading.Thread(target=acquire, name="scopestream-mda")
        thread.start()
        try:
            while thread.is_alive():  # a wait without an end is not interrupted everywhere
                thread.join(0.1)
        except BaseException:
            core.mda.cancel()
            thread.join()
            raise
        if errors:
            if sink.error is not None and sink.error is not errors[0]:
                errors[0].add_note(f"The dataset failed as well: {sink.error}")
            raise errors[0]
    return sink


@contextmanager
def recording(
    core: CMMCorePlus, output: Output, *, dimensions: Sequence[Dimension] | None = None, **settings: Any
) -> Iterator[Sink]:
    """What runs inside, by `core.run_mda` or `core.mda.run`, is written by the sink that the block is given.

    One acquisition for each block. The end of the block waits until the dataset is closed; leaving it with an error
    cancels the acquisition. Arguments and errors are those of `run_mda`. Raises ValueError while another acquisition
    runs or another block is open, RuntimeError when none ran inside or one failed in a thread, and
    UnsupportedVersionError for versions of pymmcore-plus that it does not know.
    """
    mda = core.mda
    sink = Sink(output, dimensions=dimensions, **settings)
    sink.is_complete = lambda: mda.status.finish_reason is FinishReason.COMPLETED
    with ExitStack() as attached:
        with _ATTACHING:
            _check_free(mda)
            _check_version(mda)
            run = _attach(mda, sink, attached)
        try:
            yield sink
            if sink.error is None and not run.begun.wait(_START_S):
                raise RuntimeError(
                    "No acquisition ran inside the block; nothing was written. Call core.run_mda(...) or "
                    "core.mda.run(...) in it."
                )
        except BaseException:
            mda.cancel()
            run.wait(mda, sink)
            raise
        run.wait(mda, sink)
    if sink.error is not None:
        raise sink.error
    if run.thread is not threading.current_thread() and mda.status.finish_reason is FinishReason.ERRORED:
        raise RuntimeError("The acquisition ended with an error, which its thread has shown. What came before is kept.")


class _Run:
    """The acquisition inside a block, once it has begun, and its thread."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.thread: threading.Thread | None = None

    def begin(self) -> None:
        if self.begun.is_set():
            raise RuntimeError("This block has had its acquisition; the next one needs its own. Nothing was written.")
        self.thread = threading.current_thread()
        self.begun.set()

    def wait(self, mda: MDARunner, sink: Sink) -> None:
        """Return when the acquisition is over, whoever runs it, and the dataset is closed."""
        thread = self.thread
        if thread is not None and thread is not threading.current_thread():
            while thread.is_alive() and not sink.wait_closed(0.05):
                pass
            while thread.is_alive() and mda.status.phase is not RunState.IDLE:
                sleep(0.001)
        # The runner has done so, unless an interrupt went through it. What went wrong is in `error`.
        with suppress(Exception):
            sink.close()


def _check_free(mda: MDARunner) -> None:
    """Before all else, since `_check_version` asks the runner, and a block would take that for its acquisition."""
    if mda.is_running():
        raise ValueError("Another acquisition is running; nothing was started.")
    if _REPLACED in vars(mda):
        raise ValueError(
            "A block of `recording`, or `run_mda`, has this microscope already, and goes on as it was; nothing was "
            "started. Call `core.run_mda` or `core.mda.run` inside a block, and `run_mda` outside of it."
        )


def _check_version(mda: MDARunner) -> None:
    try:
        handlers, sink = mda._coerce_outputs(None)
        known = list(handlers) == [] and sink is None and hasattr(mda, "_sink")
    except (AttributeError, TypeError, ValueError):
        known = False
    if not known:
        raise _unsupported("it makes its sinks in another way")


def _unsupported(why: str) -> UnsupportedVersionError:
    return UnsupportedVersionError(
        f"scopestream cannot hand its sink to pymmcore-plus {version('pymmcore-plus')}: {why}. Nothing was written. "
        f"Use `core.mda.run(..., output=scopestream.pymmcore.Handler(path))`, or pymmcore-plus 0.18."
    )


def _attach(mda: MDARunner, sink: Sink, attached: ExitStack) -> _Run:
    """Let the next acquisition of this runner use `sink`; `attached` undoes it."""
    run, original = _Run(), mda._coerce_outputs

    def coerce(*args: Any, **more: Any) -> tuple[Any, Any]:
        handlers, other = original(*args, **more)
        if other is not None:
            raise ValueError(
                "`output` asks pymmcore-plus for a second dataset, and there can be one. Nothing was written. Give "
                "handlers only."
            )
        run.begin()
        return handlers, sink

    def sequence_started(sequence: object, meta: object) -> None:
        if not (run.begun.is_set() and sink.was_set_up and mda._sink is sink):
            sink.error = _unsupported("it did not take it")
            mda.cancel()  # an error of a callback is another one for each kind of signals, and ends some programs

    def event_started(event: MDAEvent) -> None:
        sink.event_started(event)

    mda._coerce_outputs = coerce  # type: ignore[method-assign]
    attached.callback(delattr, mda, _REPLACED)
    _connect(mda.events.sequenceStarted, sequence_started, attached)
    _connect(mda.events.eventStarted, event_started, attached)
    return run


def _connect(signal: Any, slot: Callable[..., None], attached: ExitStack) -> None:
    """Call `slot` in the thread that emits, also where signals are those of Qt, which else would queue it."""
    if isinstance(signal, SignalInstance):
        signal.connect(slot)
    else:
        from qtpy.QtCore import Qt

        signal.connect(slot, Qt.ConnectionType.DirectConnection)
    attached.callback(signal.disconnect, slot)
