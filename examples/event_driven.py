"""Each image decides what comes next: events from a queue, an acquisition without a length."""

from queue import Queue

from pymmcore_plus import CMMCorePlus
from useq import MDAEvent

from pymmcore import CMMCore
from scopestream import Channel, Dimension
from scopestream.pymmcore import run_mda

core = CMMCorePlus()
core.loadSystemConfiguration()
events: Queue[MDAEvent | None] = Queue()
events.put(MDAEvent(index={"t": 0, "c": 0}, channel="DAPI", exposure=5))


def look(image, event, meta):
    """After a bright DAPI image comes a FITC one at the same time point, else the next time point."""
    t = event.index["t"]
    if event.index["c"] == 0 and image.mean() > 100:
        events.put(MDAEvent(index={"t": t, "c": 1}, channel="FITC", exposure=5))
    elif t < 4:
        events.put(MDAEvent(index={"t": t + 1, "c": 0}, channel="DAPI", exposure=5 + 5 * t))
    else:
        events.put(None)


core.mda.events.frameReady.connect(look)
sink = run_mda(
    core,
    iter(events.get, None),
    "event-driven.ome.zarr",
    # What may come: time without an end, and two channels.
    dimensions=[Dimension(name="t", count=None), Dimension(name="c", coords=[Channel(name="DAPI"), "FITC"])],
)
print(sink.path, sink.stats.frames_written, "frames written")

core.unloadAllDevices()
CMMCore.registerCallback(core, None)
