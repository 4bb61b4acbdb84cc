"""The end of the program, for streams that are still open then."""

from __future__ import annotations

import atexit
import sys
import threading
from contextlib import suppress
from typing import Protocol


class EndsLate(Protocol):
    """What is told that the program ends."""

    def main_thread_ends(self) -> None:
        """No other thread was ended yet; those that are no daemons go on as long as they like."""

    def program_ends(self) -> None:
        """Only daemon threads are left, and no thread can be started any more."""


_watched: set[EndsLate] = set()
_is_hooked = False


def watch(one: EndsLate) -> None:
    """Tell it when the program ends; the libraries that it needs are imported by now."""
    global _is_hooked
    if not _is_hooked:
        _is_hooked = True
        _hook()
    _watched.add(one)
    atexit.register(one.program_ends)


def forget(one: EndsLate) -> None:
    """It need not know any more."""
    atexit.unregister(one.program_ends)
    _watched.discard(one)


def _hook() -> None:
    """Before `atexit` Python ends the pools of `concurrent.futures`, with which zarr-python stores and compresses.

    They end by the same hook, which calls first who came last.
    """
    import concurrent.futures.thread  # noqa: F401

    with suppress(AttributeError, RuntimeError):  # not a documented one; without it there is still `atexit`
        threading._register_atexit(_main_thread_ends)  # type: ignore[attr-defined]


def _main_thread_ends() -> None:
    for one in list(_watched):
        try:
            one.main_thread_ends()
        except BaseException as error:  # would keep Python from waiting for other threads
            sys.excepthook(type(error), error, error.__traceback__)
