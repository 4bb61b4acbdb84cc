"""pymmcore-plus: acquisitions of a `CMMCorePlus` written as they come.

`run_mda` does all of it in one call, and `start_mda` in a thread of its own. `recording` is for programs that call
`core.run_mda` themselves, `Handler` for those that can give nothing but an `output=`, and `Sink` for those that have a
runner of their own.
"""

from __future__ import annotations

try:
    import pymmcore_plus  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"scopestream.pymmcore needs pymmcore-plus ({error}): pip install 'scopestream[pymmcore]'"
    ) from error

from scopestream.pymmcore.background import Acquisition, start_mda
from scopestream.pymmcore.handler import Handler
from scopestream.pymmcore.remains import remaining
from scopestream.pymmcore.run import recording, run_mda
from scopestream.pymmcore.sink import Sink

__all__ = ["Acquisition", "Handler", "Sink", "recording", "remaining", "run_mda", "start_mda"]
