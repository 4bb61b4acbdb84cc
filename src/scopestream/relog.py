"""A frame log that a power failure or a full disk has left with pieces of lines, made whole again."""

from __future__ import annotations

import os
from pathlib import Path

from scopestream.aside import keep_aside
from scopestream.durable import sync_data
from scopestream.framelog import FRAME_LOG
from scopestream.history import is_damaged
from scopestream.plan import LayoutPlan
from scopestream.untrusted import lines, open_regular

_AT_ONCE = 2**20


def blank_damaged_lines(plan: LayoutPlan, *, dry_run: bool) -> int:
    """Put spaces in the place of lines that are no records, with the whole log kept beside; returns how many they are.

    Whatever reads lines of JSON passes over spaces, and the places in the log that it notes itself stay what they are.

    dry_run  only count
    Raises OSError when the disk does not take it.
    """
    path, n_damaged, start = plan.root / FRAME_LOG, 0, 0
    try:
        log = open_regular(path)
    except FileNotFoundError:
        return 0
    with log:
        for line in lines(log):
            end = log.tell()
            if is_damaged(line, plan):
                if not dry_run and not n_damaged:
                    keep_aside(path, copied=True)
                if not dry_run:
                    _blank(path, start, end)
                n_damaged += 1
            start = end
    return n_damaged


def _blank(path: Path, start: int, end: int) -> None:
    """All bytes from `start` to `end` but the end of the line."""
    file = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        end -= os.pread(file, 1, end - 1) == b"\n"
        while start < end:
            start += os.pwrite(file, b" " * min(end - start, _AT_ONCE), start)
        sync_data(file)
    finally:
        os.close(file)
