"""Tells a program what happens, from a thread of its own: the signals of `stream.events`."""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from time import monotonic
from traceback import format_exception

from psygnal import Signal, SignalInstance

from scopestream.framelog import Record
from scopestream.stats import Stats

_LOOK_EVERY_S = 0.02  # nobody sees more than fifty changes a second
_STATS_EVERY_S = 1.0
MAX_WAITING = 4096  # frames whose signal waits for slow callbacks
# How long `close` waits for callbacks that do not return: everything is stored by then, and it must end.
_PATIENCE_S = 10.0


class Events:
    """Signals (psygnal) of one stream. All callbacks run on one thread, never on one that the frames pass through.

    What comes faster than the callbacks take it is put together: of `frame_written` the newest 4096 wait and older
    ones are left out (the frame log has all), of `extent_grown` and `stats` only the newest counts. A callback that
    raises, be it SystemExit, costs a RuntimeWarning, once for each signal, and nothing else; it is called again, and
    those that were connected after it miss that emission. `thread="main"` of `connect` is for programs with an
    event loop.

    frame_written  (number, index): the backend has stored that frame, and others can read it, or will in a moment.
                   `index` is its place along every dimension before the frame
    extent_grown   (shape): the view is longer than before, because an unbounded first dimension has grown; it is that
                   of the first camera, where they differ
    stats          (Stats): every second, and the final figures
    error          (exception): the first error of a writer thread, which the next call of the stream raises
    closed         (): everything is on the disk, and no other signal follows; never again for those who come after it
    """

    frame_written = Signal(int, dict)
    extent_grown = Signal(tuple)
    stats = Signal(Stats)
    error = Signal(BaseException)
    closed = Signal()


class EventThread:
    """Emits the signals of `events`, every 20 ms what has happened since, from `start` to `end`. A daemon thread.

    index  the place of a frame by its number
    shape  of the view by now
    stats  a snapshot
    error  the first error
    """

    def __init__(
        self,
        *,
        index: Callable[[int], dict[str, int]],
        shape: Callable[[], tuple[int, ...]],
        stats: Callable[[], Stats],
        error: Callable[[], BaseException | None],
    ) -> None:
        self.events = Events()
        self._index, self._shape, self._stats, self._error = index, shape, stats, error
        self._stored: deque[int] = deque(maxlen=MAX_WAITING)  # the oldest make room for new ones
        self._last_shape = shape()
        self._next_stats_s = 0.0
        self._has_failed = False
        self._warned: set[str] = set()
        self._starting = threading.Lock()  # for the next two
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, unless it has begun, or has nothing to tell any more."""
        with self._starting:
            if self._thread is None and not self._ending.is_set():
                self._thread = threading.Thread(target=self._run, name="scopestream-events", daemon=True)
                self._thread.start()

    @property
    def is_own_thread(self) -> bool:
        """Whether a callback asks."""
        return threading.current_thread() is self._thread

    def stored(self, records: Iterable[Record]) -> None:
        """These frames were stored. On writer threads: takes no lock, and no time."""
        self._stored.extend([record.number for record in records])

    def end(self) -> None:
        """Nothing happens any more: emit what is left, then `closed`. Does not wait."""
        with self._starting:
            self._ending.set()

    def join(self, timeout_s: float | None = None) -> None:
        """Return when the last callback has returned, unless one of them asks.

        Callbacks that do not return in time (ten seconds at the most) are left behind, with a RuntimeWarning.
        """
        if self._thread is None or self.is_own_thread:
            return
        patience_s = _PATIENCE_S if timeout_s is None else min(timeout_s, _PATIENCE_S)
        self._thread.join(patience_s)
        if self._thread.is_alive():
            warnings.warn(
                f"Callbacks of stream.events have not returned for {patience_s:g} s, so nobody waits for them any "
                f"more. The dataset is closed and whole; the signals that are left come when they return.",
                RuntimeWarning,
                stacklevel=2,
            )

    # -- on the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._next_stats_s = monotonic() + _STATS_EVERY_S
        while not self._ending.wait(_LOOK_EVERY_S):
            self._look()
        self._next_stats_s = 0.0
        self._look()
        self._emit(self.events.closed, ())

    def _look(self) -> None:
        """Emit what has happened since the last look, in an order that makes sense: a frame is in the extent."""
        shape = self._shape()
        if shape != self._last_shape:
            self._last_shape = shape
            self._emit(self.events.extent_grown, (shape,))
        for _ in range(len(self._stored)):
            number = self._stored.popleft()
            if len(self.events.frame_written):
                self._emit(self.events.frame_written, (number, self._index(number)))
        if not self._has_failed and (error := self._error()) is not None:
            self._has_failed = True
            self._emit(self.events.error, (error,))
        if monotonic() >= self._next_stats_s:
            self._next_stats_s = monotonic() + _STATS_EVERY_S
            self._emit(self.events.stats, (self._stats(),))

    def _emit(self, signal: SignalInstance, arguments: Sequence[object]) -> None:
        try:
            signal.emit(*arguments)
        except BaseException as error:  # sys.exit() in a callback would end this thread, and no signal would follow
            if signal.name in self._warned:
                return
            self._warned.add(signal.name)
            cause = error.__cause__ or error
            with suppress(RuntimeWarning):  # where warnings are errors, which must not end the thread
                warnings.warn(
                    f"A callback of stream.events.{signal.name} failed; the acquisition goes on. "
                    f"{''.join(format_exception(cause))}",
                    RuntimeWarning,
                    stacklevel=1,
                )
