"""Two cameras at once, through Micro-Manager's Multi Camera utility: each has images of its own."""

import useq
from pymmcore_plus import CMMCorePlus

from pymmcore import CMMCore
from scopestream.pymmcore import run_mda

core = CMMCorePlus()
core.loadSystemConfiguration()
core.loadDevice("Camera 2", "DemoCamera", "DCam")
core.loadDevice("Both", "Utilities", "Multi Camera")
core.initializeDevice("Camera 2")
core.initializeDevice("Both")
for name in ("Camera", "Camera 2"):  # they must be alike
    core.setProperty(name, "PixelType", "16bit")
core.setProperty("Both", "Physical Camera 1", "Camera")
core.setProperty("Both", "Physical Camera 2", "Camera 2")
core.setCameraDevice("Both")

sequence = useq.MDASequence(time_plan={"interval": 0, "loops": 10}, channels=["DAPI"])
sink = run_mda(core, sequence, "two-cameras.ome.zarr")
for image in sink.plan.images:
    print(image.path, image.name)
channels = run_mda(core, sequence, "two-channels.ome.zarr", camera_axis="channels")  # or as channels of one image
print([array.shape for array in channels.plan.arrays])

core.unloadAllDevices()
CMMCore.registerCallback(core, None)
