"""How an acquisition ends: by `close`, at the end of the program, or because nobody refers to the stream any more.

The last steps are done by a writer thread, which no Ctrl-C reaches and which goes on where `close(timeout)` gave up.
Nothing here refers to the stream itself, so that it can be collected while its threads run.
"""

from __future__ import annotations

import _thread
import os
import threading
import warnings
from collections.abc import Callable
from math import isnan
from numbers import Real
from time import monotonic, perf_counter_ns

from scopestream import exits
from scopestream.checkpoint import Checkpoints
from scopestream.delivery import Delivery
from scopestream.errors import CloseTimeoutError
from scopestream.events import EventThread
from scopestream.failures import Failures, describe
from scopestream.framelog import FrameLog, read_frames
from scopestream.gate import Gate
from scopestream.history import History
from scopestream.intake import Intake
from scopestream.live import LiveFrames
from scopestream.locate import frames_text, runs
from scopestream.lock import DatasetLock
from scopestream.metadata import MetadataWriter
from scopestream.plan import LayoutPlan
from scopestream.reporter import Reporter
from scopestream.stats import Counters
from scopestream.writer import Task, Writer

_PATIENCE_AT_EXIT_S = 1.0  # for a callback that does not return: nobody looks at what it shows any more


def check_timeout(timeout: float | None) -> None:
    """Raises TypeError or ValueError when that is no number of seconds to wait."""
    if timeout is None:
        return
    if not isinstance(timeout, Real) or isinstance(timeout, bool):
        raise TypeError(f"timeout is {timeout!r}, which is no number of seconds. The stream is as it was.")
    if isnan(timeout) or timeout < 0:
        raise ValueError(f"timeout is {timeout}; it must be 0 or more seconds. The stream is as it was.")


class Closing:
    """Ends one stream, once, whoever asks first.

    lock       of the stream
    intake     has the frames whose blocks are open
    process    whose stream it is; another one, forked from it, leaves everything alone
    is_closed  whether the stream takes nothing any more
    is_shared  whether any other thread than the main thread has used it
    is_early   whether more frames would have come, had the acquisition not ended: only of one without an end it is not
               known otherwise

    lock_of_dataset  is given back at the end
    live, events     are told of the end
    is_resumed       whether there were frames before this stream
    """

    def __init__(
        self,
        plan: LayoutPlan,
        lock: threading.RLock,
        *,
        intake: Intake,
        gate: Gate,
        writer: Writer,
        delivery: Delivery,
        log: FrameLog,
        metadata: MetadataWriter,
        counters: Counters,
        failures: Failures,
        reporter: Reporter | None,
        checkpoints: Checkpoints | None,
        lock_of_dataset: DatasetLock,
        live: LiveFrames,
        events: EventThread,
        is_resumed: bool,
    ) -> None:
        self._plan, self._lock = plan, lock
        self._intake, self._gate = intake, gate
        self._writer, self._delivery = writer, delivery
        self._log, self._metadata = log, metadata
        self._counters, self._failures = counters, failures
        self._reporter, self._checkpoints = reporter, checkpoints
        self._lock_of_dataset, self._is_resumed = lock_of_dataset, is_resumed
        self._live, self._events = live, events
        self._last = Task(self._finish)
        self._step: tuple[str, int] | None = None  # what is done now, and since when, in ns
        self._beginning: threading.Thread | None = None
        self._has_begun = False
        self.process = os.getpid()
        self.is_closed = False
        self.is_early = False
        self.is_shared = threading.current_thread() is not threading.main_thread()
        exits.watch(self)

    def close(self, timeout_s: float | None = None, *, patience_s: float | None = None) -> None:
        """Finalise what arrived; waits until that is done. May be called again, also after an interrupt.

        patience_s  for a callback that does not return, where there is no timeout
        Raises CloseTimeoutError when it takes longer, and WriteError when anything could not be stored.
        """
        if timeout_s is None:
            to_the_end(lambda: self._close(patience_s))
        else:
            give_up = monotonic() + timeout_s
            self._begin_elsewhere()
            if not self._writer.wait_for(self._last, timeout_s):
                raise self._timeout_error(timeout_s) from self._failures.first
            self._ended(max(0.0, give_up - monotonic()))
        self._failures.check()

    def abandoned(self) -> None:
        """The stream is collected as garbage, by whatever thread and at whatever moment."""
        if self._has_begun or self.process != os.getpid():
            return
        # This thread may be one of ours, or hold a lock of ours: it does nothing itself.
        done = threading.Lock()
        done.acquire()
        errors: list[BaseException] = []

        def close() -> None:
            try:
                self.close()
            except BaseException as error:
                errors.append(error)
            done.release()

        try:
            _thread.start_new_thread(close, ())  # takes no lock of the module `threading`, which may be held as well
        except RuntimeError:  # the interpreter ends
            close()
        if not self._is_own_thread():
            done.acquire()
        try:
            self._warn("nothing refers to it any more")
        finally:  # where warnings are errors
            if errors:
                raise errors[0]

    def main_thread_ends(self) -> None:
        """Threads that have used the stream may go on; otherwise this is the better moment to close it."""
        if self._has_begun or not self.is_shared:
            self.program_ends()

    def program_ends(self) -> None:
        """Nobody uses the stream any more who could close it."""
        if self.process != os.getpid():
            return
        was_forgotten = not self._has_begun
        if not (was_forgotten or self._last.is_done):
            text = f"The program waits until {self._plan.settings.path} is closed. {self._stuck()}"
            warnings.warn(text, RuntimeWarning, stacklevel=1)
        try:
            self.close(patience_s=_PATIENCE_AT_EXIT_S)
        except KeyboardInterrupt:
            exits.forget(self)  # nobody wants to be asked twice
            raise
        if was_forgotten:
            self._warn("the program ends")

    # -- inside -----------------------------------------------------------------------------------------------------

    def _is_own_thread(self) -> bool:
        others = [one for one in (self._reporter, self._checkpoints, self._events) if one is not None]
        return (
            self._writer.is_own_thread
            or any(one.is_own_thread for one in others)
            or threading.current_thread() is self._beginning
        )

    def _warn(self, why: str) -> None:
        warnings.warn(
            f"The stream to {self._plan.settings.path} was not closed, and {why}. What arrived is stored and finalised "
            f"now. Open streams by `with open_stream(...) as stream:`, or call `stream.close()`.",
            ResourceWarning,
            stacklevel=1,
        )

    def _close(self, patience_s: float | None) -> None:
        self._begin()
        self._writer.wait_for(self._last)
        self._ended(patience_s)

    def _begin(self) -> None:
        self.is_closed = True
        with self._lock:
            if self._checkpoints is not None:
                self._checkpoints.is_over = True
            try:
                self._intake.finish()
            except Exception as error:
                self._failures.add(error)
            self._writer.end(self._last)
            self._has_begun = True

    def _begin_elsewhere(self) -> None:
        """Another thread may be in `append` or `flush`, and hold the lock for longer than anybody wants to wait."""
        self.is_closed = True
        if not self._has_begun and (self._beginning is None or not self._beginning.is_alive()):
            self._beginning = threading.Thread(target=self._begin, name="scopestream-close", daemon=True)
            try:
                self._beginning.start()
            except RuntimeError:  # the interpreter ends
                self._begin()

    def _ended(self, timeout_s: float | None) -> None:
        self._writer.join()
        exits.forget(self)
        if self._checkpoints is not None:
            self._checkpoints.join(timeout_s)
        if self._reporter is not None:
            self._reporter.close(timeout_s)
        self._events.join(timeout_s)

    def _timeout_error(self, timeout_s: float) -> CloseTimeoutError:
        n_in, n_safe, _ = self._counters.frames()
        numbers, _ = self._counters.waiting()
        error = CloseTimeoutError(
            f"{self._plan.settings.path} was not closed within {timeout_s:g} s. {self._stuck()} {n_safe} of {n_in} "
            f"accepted frames are safe. The work goes on in the background, and nothing is lost as long as this "
            f"process lives: call close again to wait for it.",
            n_safe=n_safe,
            waiting=tuple(runs(numbers)),
        )
        if self._failures.first is not None:
            error.add_note(f"Something has failed already: {describe(self._failures.first)}")
        return error

    def _stuck(self) -> str:
        """What is being done, and since when."""
        step, n_blocks = self._step, self._writer.queue_depth
        numbers, waits_s = self._counters.waiting()
        frames = f" ({frames_text(runs(numbers))}, the oldest for {waits_s:.1f} s)" if numbers else ""
        if step is not None:
            name, since_ns = step
            return f"Not done for {(perf_counter_ns() - since_ns) / 1e9:.1f} s: {name}."
        if not self._has_begun:
            return f"A call of append, write, skip or flush, or a checkpoint, has not returned{frames}."
        return f"{n_blocks} blocks wait for backend {self._plan.backend!r}{frames}."

    # -- on a writer thread -----------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Every step is tried, whatever happened to the one before: what arrived must be as whole as it can be."""
        if self._checkpoints is not None:
            self._checkpoints.stop()
        self._do("storing the levels of the last planes", self._delivery.finish)
        self._do(f"closing backend {self._plan.backend!r}", self._close_arrays)
        self._do("closing the frame log", self._log.close)
        self._do("writing the documents", self._write_documents)
        self._do("giving the lock back", self._lock_of_dataset.release)
        self._step = None
        self._live.end()
        self._counters.stop()
        self._events.end()

    def _do(self, name: str, step: Callable[[], None]) -> None:
        self._step = (name, perf_counter_ns())
        try:
            step()
        except BaseException as error:
            self._failures.add(error)

    def _close_arrays(self) -> None:
        lengths = {}
        if self._plan.finest[0].growable:
            lengths = {number: self._gate.lengths[array.image] for number, array in enumerate(self._plan.arrays)}
        self._delivery.close(lengths)

    def _write_documents(self) -> None:
        stats = self._counters.snapshot(self._writer.queue_depth, self._writer.queue_peak)
        if self._is_resumed:  # with what was there before
            counts = History(self._plan).count()
        else:
            counts = {
                "written": stats.frames_written,
                "skipped": stats.frames_skipped,
                "dropped": stats.frames_dropped,
                "failed": stats.frames_failed,
            }
        total = self._plan.n_frames
        # Of an unbounded acquisition only what was accepted can be counted as missing.
        missing = stats.frames_waiting if total is None else total - sum(counts.values())
        is_early = self.is_early and total is None
        whole = self._failures.first is None and not (counts["dropped"] or counts["failed"] or missing or is_early)
        self._metadata.finish(
            status="complete" if whole else "incomplete",
            counts={**counts, "missing": missing},
            statistics=stats.summary(),
            lengths=dict(enumerate(self._gate.lengths)),
            windows=self._delivery.contrast.windows,
            records=read_frames(self._plan.root),
        )


def to_the_end(step: Callable[[], object]) -> None:
    """Do the step though the user interrupts, then raise the interrupt; a second one is raised at once."""
    try:
        step()
    except KeyboardInterrupt:
        step()
        raise
