"""From a complete block to the backend: every level of the pyramid, then the log, then the counters."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from scopestream.assemble import Job
from scopestream.contract import Sink
from scopestream.contrast import Contrast
from scopestream.framelog import FrameLog
from scopestream.plan import LayoutPlan
from scopestream.pyramid import halve
from scopestream.route import Route
from scopestream.stats import Counters


class Delivery:
    """Stores jobs. `store` runs on writer threads, several at once where the backend allows it."""

    def __init__(self, plan: LayoutPlan, route: Route, sink: Sink, log: FrameLog, counters: Counters) -> None:
        self._sink = sink
        self._log = log
        self._counters = counters
        self._locate = route.locate
        self._levels: Sequence[tuple[int, ...]] = [image.arrays for image in plan.images]
        self._growable = plan.arrays[0].growable
        self._channel_axis = next(
            (axis for axis, kind in enumerate(plan.arrays[0].types[:-2]) if kind == "channel"), None
        )
        n_channels = 1 if self._channel_axis is None else plan.arrays[0].shape[self._channel_axis]
        self._publishing = threading.Lock()
        self.contrast = Contrast(n_channels, plan.arrays[0].frame_shape)

    def store(self, job: Job) -> None:
        """Store a block at every level. A record is logged as written only after its pixels are with the backend."""
        try:
            n_bytes = self._write_levels(job)
        except BaseException:
            self._counters.failed(len(job.records))
            self._log.add(job.records, "failed")
            raise
        self._log.add(job.records, "written")
        self._counters.written(len(job.records), n_bytes)
        self._sample(job)

    def publish(self) -> None:
        """Let other programs see what was stored; called by the stream's flush and by idle writer threads."""
        with self._publishing:
            self._sink.flush()

    def _write_levels(self, job: Job) -> int:
        data, n_bytes = job.data, 0
        for level, array in enumerate(self._levels[job.image]):
            if level:
                data = halve(data)
            if self._growable:
                self._sink.extend(array, job.origin[0] + len(data))
            self._sink.write(array, job.origin, data, final=job.buffer is not None)
            n_bytes += data.nbytes
        return n_bytes

    def _sample(self, job: Job) -> None:
        for record in job.records:
            _, index = self._locate(record.number)
            frame: np.ndarray = job.data[tuple([i - o for i, o in zip(index, job.origin, strict=False)])]
            self.contrast.sample(0 if self._channel_axis is None else index[self._channel_axis], frame)
