"""A loop of one's own: useq-schema says what to do, scopestream where the frames go."""

import useq
from pymmcore_plus import CMMCorePlus

from pymmcore import CMMCore
from scopestream import open_stream
from scopestream.useq import plan_sequence

core = CMMCorePlus()
core.loadSystemConfiguration()
core.setProperty("Camera", "PixelType", "16bit")
sequence = useq.MDASequence(
    stage_positions=[(0, 0, 0), useq.Position(x=50, y=20, z=1, name="daughter")],
    channels=["DAPI", {"config": "FITC", "do_stack": False}],
    z_plan={"range": 2, "step": 1},
)
plan = plan_sequence(
    sequence,
    width=core.getImageWidth(),
    height=core.getImageHeight(),
    dtype="uint16",
    pixel_size=core.getPixelSizeUm(),
    path="own-loop.ome.zarr",
)
with open_stream(plan.settings) as stream:
    for event in sequence:
        place = plan.place(event)
        for hole, reason in plan.place.passed(place):  # planes that FITC does not take
            stream.skip(index=hole, reason=reason)
        core.setXYPosition(event.x_pos, event.y_pos)
        core.setZPosition(event.z_pos)
        core.setConfig(event.channel.group, event.channel.config)
        core.waitForSystem()
        stream.write(core.snap(), index=place, metadata={"position_z": core.getZPosition()})
    for hole, reason in plan.place.left():
        stream.skip(index=hole, reason=reason)
print(stream.path, stream.stats.frames_written, "frames written,", stream.stats.frames_skipped, "skipped")

core.unloadAllDevices()
CMMCore.registerCallback(core, None)
