"""From a complete block to the backend: every level of the pyramid, then the log, then the counters."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from scopestream.assemble import Job
from scopestream.contract import Sink
from scopestream.contrast import Contrast
from scopestream.framelog import FrameLog
from scopestream.plan import LayoutPlan, WriteUnit
from scopestream.pyramid import halve
from scopestream.route import Route
from scopestream.stats import Counters
from scopestream.tiles import Tiler


class Delivery:
    """Stores jobs. `store` runs on writer threads, several at once where the backend allows it."""

    def __init__(self, plan: LayoutPlan, route: Route, sink: Sink, log: FrameLog, counters: Counters) -> None:
        self._sink = sink
        self._log = log
        self._counters = counters
        self._locate = route.locate
        self._levels: Sequence[tuple[int, ...]] = [image.arrays for image in plan.images]
        self._growable = plan.arrays[0].growable
        self._tilers = [Tiler(plan.arrays[n].frame_shape, plan.arrays[n].tile) for n in plan.images[0].arrays]
        self._comes_tiled = plan.tiled_on_arrival
        self._must_cut = plan.unit is WriteUnit.TILED_FRAME and not plan.tiled_on_arrival
        self._scratch = threading.local()
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
            with suppress(OSError):  # a full disk takes no lines either; the first error is the one to tell
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
                self._sink.extend(array, job.origin[0] + (1 if self._comes_tiled else len(data)))
            block = self._cut(level, data) if self._must_cut else data
            self._sink.write(array, job.origin, block, final=job.buffer is not None)
            n_bytes += block.nbytes
        return n_bytes

    def _cut(self, level: int, data: np.ndarray) -> np.ndarray:
        """A single frame in tiles, in memory of this thread that the next call uses again."""
        if not hasattr(self._scratch, "tiles"):
            self._scratch.tiles = [np.zeros(tiler.shape, data.dtype) for tiler in self._tilers]
        tiles: np.ndarray = self._scratch.tiles[level]
        self._tilers[level].cut(data[(0,) * (data.ndim - 2)], tiles)
        return tiles

    def _sample(self, job: Job) -> None:
        for record in job.records:
            _, index = self._locate(record.number)
            channel = 0 if self._channel_axis is None else index[self._channel_axis]
            if not self.contrast.wants(channel):
                continue
            if self._comes_tiled:
                pixels = self._tilers[0].every(job.data, self.contrast.steps)
            else:
                frame = job.data[tuple([i - o for i, o in zip(index, job.origin, strict=False)])]
                pixels = frame[:: self.contrast.steps[0], :: self.contrast.steps[1]]
            self.contrast.add(channel, pixels)
