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
    MemoryLimitError,
    MetadataError,
    NotDurableError,
    PlanError,
    ResumeError,
    ScopestreamError,
    StreamClosedError,
    StreamFullError,
    UnsupportedVersionError,
    WriteError,
)
from scopestream.framelog import read_frames
from scopestream.plan import LayoutPlan
from scopestream.recovery import Recovery, recover
from scopestream.settings import AcquisitionSettings
from scopestream.stats import Stats
from scopestream.stream import Stream, open_stream
from scopestream.verification import ImageVerification, Verification, verify

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
    "MemoryLimitError",
    "MetadataError",
    "NotDurableError",
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
    "WriteError",
    "open_stream",
    "read_frames",
    "recover",
    "verify",
]
