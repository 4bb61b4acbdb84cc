"""All that are compared, in the order of the tables."""

from benchmarks.runners import acquire_direct, limits, omewriters, ours, tensorstore_direct, zarr_direct
from benchmarks.runners.session import RefusedError, Runner, Session

RUNNERS: dict[str, Runner] = {
    runner.name: runner
    for module in (limits, ours, tensorstore_direct, acquire_direct, zarr_direct, omewriters)
    for runner in module.RUNNERS
}

__all__ = ["RUNNERS", "RefusedError", "Runner", "Session"]
