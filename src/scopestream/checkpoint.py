"""What has arrived becomes readable, and safe, every so often without being asked for."""

from __future__ import annotations

import threading

from scopestream.delivery import Delivery
from scopestream.failures import Failures
from scopestream.intake import Intake
from scopestream.plan import LayoutPlan, WriteUnit


class Checkpoints:
    """Publishes what was stored every `interval_s` seconds, from a thread of its own, and syncs it where that is asked.

    Where the backend stores single frames the camera goes on meanwhile. Where it stores blocks of them, calls of the
    stream wait until the unfinished ones are stored as they are, but not until they are synced.

    lock     of the stream
    is_over  to be set, with the lock held, before the intake is finished

    The thread does not refer to the stream, which it would keep alive. It ends with `stop`, or after the first error.
    """

    def __init__(
        self,
        plan: LayoutPlan,
        lock: threading.RLock,
        intake: Intake,
        delivery: Delivery,
        failures: Failures,
        interval_s: float,
    ) -> None:
        self._lock, self._intake = lock, intake
        self._failures = failures
        self._interval_s = interval_s
        self._collects_frames = plan.unit in (WriteUnit.CHUNK, WriteUnit.SHARD)
        self._publish = delivery.sync if plan.settings.durability == "disk" else delivery.publish
        self._ending = threading.Event()
        self.is_over = False
        self._thread = threading.Thread(target=self._run, name="scopestream-checkpoint", daemon=True)
        self._thread.start()

    @property
    def is_own_thread(self) -> bool:
        """Whether the thread of the checkpoints asks."""
        return threading.current_thread() is self._thread

    def stop(self) -> None:
        """Begin no other one. For a thread that no interrupt reaches."""
        self._ending.set()

    def join(self, timeout_s: float | None = None) -> None:
        """Return when the thread has ended, after `stop`, or when that takes longer."""
        if not self.is_own_thread:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while not self._ending.wait(self._interval_s):
                if self._collects_frames:
                    self._store_open()
                self._publish()
        except BaseException as error:
            self._failures.add(error)

    def _store_open(self) -> None:
        with self._lock:
            if not self.is_over:
                if self._intake.unfinished:  # a call that was interrupted
                    self._intake.recover()
                self._intake.store_open()
