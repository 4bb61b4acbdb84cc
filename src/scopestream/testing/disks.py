"""Disks that are slow, full or broken, at the place where a backend would notice."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from time import sleep
from typing import ClassVar, cast

import numpy as np

from scopestream.contract import Backend, BatchSink, Block, Capabilities, Sink, WriteUnit
from scopestream.plan import ArrayPlan, LayoutPlan


class FaultyBackend:
    """Another backend, whose writes take `delay_s` longer, wait while `held`, and raise `error` when it is set.

    `broken` names the origins of blocks that cannot be stored. `open` raises `error_at_open`, after the other backend
    has opened.
    """

    name: ClassVar[str] = "faulty"
    requires: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        self._go = threading.Event()
        self._go.set()
        self.delay_s = 0.0
        self.error: OSError | None = None
        self.broken: Set[tuple[int, ...]] = frozenset()
        self.error_at_open: OSError | None = None

    @property
    def capabilities(self) -> Capabilities:
        return self._inner.capabilities

    def unit(self, array: ArrayPlan) -> WriteUnit:
        return self._inner.unit(array)

    def held_bytes(self, array: ArrayPlan, n_arrays: int, room: int) -> int:
        return self._inner.held_bytes(array, n_arrays, room)

    def check(self, plan: LayoutPlan) -> Sequence[str]:
        return self._inner.check(plan)

    def open(self, plan: LayoutPlan) -> Sink:
        sink = self._inner.open(plan)
        if self.error_at_open is not None:
            raise self.error_at_open
        return _FaultySink(self, sink)

    @contextmanager
    def held(self) -> Iterator[None]:
        """No write comes through until `release`, or the end of the block."""
        self._go.clear()
        try:
            yield
        finally:
            self._go.set()

    def release(self) -> None:
        self._go.set()

    def pass_or_fail(self, origins: Iterable[tuple[int, ...]]) -> None:
        """What every write meets first."""
        self._go.wait()
        sleep(self.delay_s)
        if self.error is not None:
            raise self.error
        if bad := self.broken & set(origins):
            raise OSError(errno.EIO, f"the disk is broken at {min(bad)}")


class _FaultySink:
    def __init__(self, backend: FaultyBackend, inner: Sink) -> None:
        self._backend = backend
        self._inner = inner
        self.extend, self.flush, self.close = inner.extend, inner.flush, inner.close
        self.sync = getattr(inner, "sync", None)  # where the other backend is durable

    def write(self, array: int, origin: tuple[int, ...], block: np.ndarray, *, final: bool = True) -> None:
        self._backend.pass_or_fail([origin])
        self._inner.write(array, origin, block, final=final)

    def write_many(self, blocks: Sequence[Block]) -> None:
        self._backend.pass_or_fail([block.origin for block in blocks])
        cast(BatchSink, self._inner).write_many(blocks)
