"""Every error that scopestream raises on purpose.

Each is a `ScopestreamError` and a built-in type as well, so that code which does not know scopestream can still
handle it by what it means.
"""

from __future__ import annotations


class ScopestreamError(Exception):
    """Base of all errors of this package."""


class PlanError(ScopestreamError, ValueError):
    """The settings are sound, but no backend (or not the one asked for) can write them."""


class MemoryLimitError(ScopestreamError, MemoryError):
    """The memory that is needed exceeds `memory_limit`; nothing was consumed."""


class BackendNotFoundError(ScopestreamError, LookupError):
    """No backend has that name, or its library is not installed."""


class LibraryNotFoundError(ScopestreamError, ImportError):
    """A library that only this needs is not installed."""


class DatasetExistsError(ScopestreamError, FileExistsError):
    """Something is already at the path of the new dataset."""


class DatasetError(ScopestreamError, ValueError):
    """A path that is not a readable OME-Zarr 0.5 group, or a document in it that is not what it should be."""


class DatasetBusyError(ScopestreamError, BlockingIOError):
    """Another stream, or a recovery, is changing the dataset; nothing was changed."""


class DiskSpaceError(ScopestreamError, OSError):
    """Less space is free than `min_free` asks for, or would be; its errno is ENOSPC."""


class FrameMismatchError(ScopestreamError, ValueError):
    """A frame has another shape or dtype than the plan; it was not consumed."""


class FrameIndexError(ScopestreamError, IndexError):
    """A frame was sent to a place that does not exist, is taken, or is out of order; it was not consumed."""


class MetadataError(ScopestreamError, TypeError):
    """Metadata that JSON cannot hold; the frame that it came with was not consumed."""


class StreamFullError(ScopestreamError, BlockingIOError):
    """`memory_limit` is reached and `on_full="raise"`; the frame was not consumed and may be sent again."""


class StreamClosedError(ScopestreamError, ValueError):
    """The stream was closed before this call, or belongs to the process that this one was forked from."""


class NotDurableError(ScopestreamError, NotImplementedError):
    """The backend cannot make frames survive a power loss; nothing was done."""


class NotReadableError(ScopestreamError, OSError):
    """A frame came, but neither memory nor the disk has it in a form that can be read now."""


class WriteError(ScopestreamError, OSError):
    """Frames that were accepted could not be stored. `__cause__` is what went wrong first; later errors are notes.

    n_safe  frames that are stored
    failed  (first, last) of each run of frames that could not be stored, numbers in acquisition order
    """

    def __init__(self, message: str = "", *, n_safe: int = 0, failed: tuple[tuple[int, int], ...] = ()) -> None:
        super().__init__(message)
        self.n_safe = n_safe
        self.failed = failed


class CloseTimeoutError(ScopestreamError, TimeoutError):
    """`close(timeout)` gave up waiting; the work goes on, and `close` may be called again to wait for it.

    n_safe   frames that are stored
    waiting  (first, last) of each run of frames that wait to be stored, numbers in acquisition order
    """

    def __init__(self, message: str = "", *, n_safe: int = 0, waiting: tuple[tuple[int, int], ...] = ()) -> None:
        super().__init__(message)
        self.n_safe = n_safe
        self.waiting = waiting


class ResumeError(ScopestreamError, ValueError):
    """The settings are not those of the dataset that was to be continued; nothing was changed."""


class UnsupportedVersionError(ScopestreamError, NotImplementedError):
    """A library works otherwise than it did when it was last looked at; nothing was done."""
