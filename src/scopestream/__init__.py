"""scopestream: microscope frames, one at a time, into OME-Zarr that is valid at every instant."""

from importlib.metadata import version

from scopestream.dimensions import Channel, Codec, Dimension, Plate, PlateAcquisition, Position
from scopestream.errors import (
    BackendNotFoundError,
    CloseTimeoutError,
    DatasetError,
    DatasetExistsError,
    FrameIndexError,
    FrameMismatchError,
    MemoryLimitError,
    MetadataError,
    NotDurableError,
    PlanError,
    ScopestreamError,
    StreamClosedError,
    StreamFullError,
    WriteError,
)
from scopestream.framelog import read_frames
from scopestream.plan import LayoutPlan
from scopestream.settings import AcquisitionSettings
from scopestream.stats import Stats
from scopestream.stream import Stream, open_stream

__version__ = version("scopestream")

__all__ = [
    "AcquisitionSettings",
    "BackendNotFoundError",
    "CloseTimeoutError",
    "Channel",
    "Codec",
    "DatasetError",
    "DatasetExistsError",
    "Dimension",
    "FrameIndexError",
    "FrameMismatchError",
    "LayoutPlan",
    "MemoryLimitError",
    "MetadataError",
    "NotDurableError",
    "PlanError",
    "Plate",
    "PlateAcquisition",
    "Position",
    "ScopestreamError",
    "Stats",
    "Stream",
    "StreamClosedError",
    "StreamFullError",
    "WriteError",
    "open_stream",
    "read_frames",
]
