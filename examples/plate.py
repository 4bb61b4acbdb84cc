"""A 96-well plate, three fields in each of the wells of row A."""

import useq
from pymmcore_plus import CMMCorePlus

from pymmcore import CMMCore
from scopestream.pymmcore import run_mda

core = CMMCorePlus()
core.loadSystemConfiguration()
core.setProperty("XY", "Velocity", "200")  # the demo stage crawls
wells = useq.WellPlatePlan(
    plate="96-well",
    a1_center_xy=(0, 0),
    selected_wells=(0, slice(0, 4)),
    well_points_plan=useq.GridRowsColumns(rows=1, columns=3, fov_width=512, fov_height=512),
)
sequence = useq.MDASequence(stage_positions=wells, channels=["DAPI", "FITC"])
sink = run_mda(core, sequence, "plate.ome.zarr", levels="auto", codec="blosc-lz4")
print(sink.plan)

core.unloadAllDevices()
CMMCore.registerCallback(core, None)
