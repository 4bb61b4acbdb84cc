"""What authors of backends test with: stamped frames, a model of a dataset, and the conformance suite.

The suite needs pytest and a library that reads Zarr v3 (tensorstore or zarr). See docs/write-a-backend.md.
"""

from scopestream.testing.conformance import BackendConformance
from scopestream.testing.frames import acquire, expected_images, stamped_frame
from scopestream.testing.readers import read_array, reader_other_than

__all__ = ["BackendConformance", "acquire", "expected_images", "read_array", "reader_other_than", "stamped_frame"]
