"""Tells a program how it goes, from a thread of its own: what `on_stats` of `open_stream` gets."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from math import isfinite
from numbers import Real
from traceback import format_exception

from scopestream.stats import Stats

OnStats = Callable[[Stats], object]
MIN_INTERVAL_S = 0.01  # below it the reports would take time from the camera
# How long `close` waits for a callback that does not return: everything is stored by then, and it must end.
_PATIENCE_S = 10.0


def check_report(on_stats: OnStats | None, interval_s: float) -> None:
    """Raises TypeError or ValueError that says what is wrong with the arguments of `open_stream`."""
    if on_stats is not None and not callable(on_stats):
        raise TypeError(f"on_stats is {on_stats!r}, which cannot be called. Nothing was written.")
    if not isinstance(interval_s, Real) or isinstance(interval_s, bool):
        raise TypeError(f"stats_interval_s is {interval_s!r}, which is no number of seconds. Nothing was written.")
    if not (isfinite(interval_s) and MIN_INTERVAL_S <= interval_s <= threading.TIMEOUT_MAX):
        raise ValueError(
            f"stats_interval_s is {interval_s}; it must be finite and at least {MIN_INTERVAL_S}. Nothing was written."
        )


class Reporter:
    """Calls `on_stats` with what `read` returns, every `interval_s` seconds, and a last time in `close`.

    All calls come from one daemon thread, which ends with `close`, or after the first call that raises.
    """

    def __init__(self, read: Callable[[], Stats], on_stats: OnStats, interval_s: float) -> None:
        self._read = read
        self._on_stats = on_stats
        self._interval_s = float(interval_s)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scopestream-stats", daemon=True)
        self._thread.start()

    @property
    def is_own_thread(self) -> bool:
        """Whether the callback asks."""
        return threading.current_thread() is self._thread

    def close(self, timeout_s: float | None = None) -> None:
        """Return when the last call has returned. Idempotent; does not wait when the callback itself calls it.

        A callback that does not return in time (ten seconds at the most) is left behind, with a RuntimeWarning.
        """
        if self._ending.is_set():
            return
        self._ending.set()
        if self.is_own_thread:
            return
        patience_s = _PATIENCE_S if timeout_s is None else min(timeout_s, _PATIENCE_S)
        self._thread.join(patience_s)
        if self._thread.is_alive():
            warnings.warn(
                f"on_stats has not returned for {patience_s:g} s, so nobody waits for it any more. The dataset is "
                f"closed and whole; the last figures come when it returns.",
                RuntimeWarning,
                stacklevel=2,
            )

    def _run(self) -> None:
        try:
            while not self._ending.wait(self._interval_s):
                self._on_stats(self._read())
            self._on_stats(self._read())
        except BaseException as error:
            warnings.warn(
                f"on_stats failed and is not called again; the acquisition goes on. {''.join(format_exception(error))}",
                RuntimeWarning,
                stacklevel=1,
            )
