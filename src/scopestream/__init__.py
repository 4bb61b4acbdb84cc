"""scopestream: microscope frames, one at a time, into OME-Zarr that is valid at every instant."""

from importlib.metadata import version

from scopestream.cameras import Camera
from scopestream.dimensions import Channel, Codec, Dimension, Plate, PlateAcquisition, Position
from scopestream.errors import (
    BackendNotFoundError,
    CloseTimeoutError,
    DatasetBusyError,
    DatasetError,
    DatasetExistsError,
    DiskSpaceError,
    FrameIndexError,
    FrameMismatchError,
    LibraryNotFoundError,
    MemoryLimitError,
    MetadataError,
    NotDurableError,
    NotReadableError,
    PlanError,
    ResumeError,
    ScopestreamError,
    StreamClosedError,
    StreamFullError,
    UnsupportedVersionError,
    WriteError,
)
from scopestream.follow import open_view
from scopestream.framelog import read_frames
from scopestream.plan import LayoutPlan
from scopestream.recovery import Recovery, recover
from scopestream.settings import AcquisitionSettings
from scopestream.stats import Stats
from scopestream.stream import Stream, open_stream
from scopestream.table import frames_table
from scopestream.verification import ImageVerification, Verification, verify
from scopestream.view import Latest, View

__version__ = version("scopestream")

__all__ = [
    "AcquisitionSettings",
    "BackendNotFoundError",
    "Camera",
    "CloseTimeoutError",
    "Channel",
    "Codec",
    "DatasetBusyError",
    "DatasetError",
    "DatasetExistsError",
    "Dimension",
    "DiskSpaceError",
    "FrameIndexError",
    "FrameMismatchError",
    "ImageVerification",
    "LayoutPlan",
    "Latest",
    "LibraryNotFoundError",
    "MemoryLimitError",
    "MetadataError",
    "NotDurableError",
    "NotReadableError",
    "PlanError",
    "Plate",
    "PlateAcquisition",
    "Position",
    "Recovery",
    "ResumeError",
    "ScopestreamError",
    "Stats",
    "Stream",
    "StreamClosedError",
    "StreamFullError",
    "UnsupportedVersionError",
    "Verification",
    "View",
    "WriteError",
    "frames_table",
    "open_stream",
    "open_view",
    "read_frames",
    "recover",
    "verify",
]
