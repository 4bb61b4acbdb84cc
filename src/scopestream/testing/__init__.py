"""What authors of backends test with: stamped frames, a model of a dataset, and the conformance suite.

The suite needs pytest and a library that reads Zarr v3 (tensorstore or zarr). See docs/write-a-backend.md.
"""

from typing import TYPE_CHECKING, Any

from scopestream.testing.frames import acquire, expected_images, frame_numbers, stamped_frame, stamped_frames
from scopestream.testing.images import mismatch
from scopestream.testing.readers import read_array, reader_other_than

if TYPE_CHECKING:
    from scopestream.testing.conformance import BackendConformance

__all__ = [
    "BackendConformance",
    "acquire",
    "expected_images",
    "frame_numbers",
    "mismatch",
    "read_array",
    "reader_other_than",
    "stamped_frame",
    "stamped_frames",
]


def __getattr__(name: str) -> Any:
    """Only the suite needs pytest; benchmarks and scripts use the others without it."""
    if name == "BackendConformance":
        from scopestream.testing.conformance import BackendConformance

        return BackendConformance
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
