"""An acquisition of pymmcore-plus, straight to OME-Zarr."""

import useq
from pymmcore_plus import CMMCorePlus

from pymmcore import CMMCore
from scopestream.pymmcore import run_mda

core = CMMCorePlus()
core.loadSystemConfiguration()  # the demo configuration; give the name of yours
sequence = useq.MDASequence(
    time_plan={"interval": 0.1, "loops": 5}, channels=["DAPI", "FITC"], z_plan={"range": 4, "step": 1}
)
sink = run_mda(core, sequence, "cells.ome.zarr")
print(sink.path, sink.stats.frames_written, "frames written")

core.unloadAllDevices()
CMMCore.registerCallback(core, None)  # lets the interpreter end in peace
