"""The frames of a dataset on disk, which another process may be writing: `open_view`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from time import monotonic, sleep

import numpy as np

from scopestream.checksum import crc32c
from scopestream.dataset import open_layout, state_of
from scopestream.errors import BackendNotFoundError, DatasetError
from scopestream.framelog import FRAME_LOG, parse_record
from scopestream.locate import FrameSet
from scopestream.ondisk import DiskFrames
from scopestream.plan import LayoutPlan
from scopestream.registry import load_backend
from scopestream.route import Route
from scopestream.untrusted import lines, open_regular
from scopestream.view import View

# No backend takes longer than this to show a frame that it has logged, and where no checksum tells, this is waited for.
_PATIENCE_S = 1.5
_PAUSE_S = 0.01
_SETTLED_S = 2.0  # coarser than the times of files on any file system
_MAX_FRESH = 2**16


def open_view(path: str | Path, camera: str | None = None) -> View:
    """The dataset at `path` as one array in acquisition order, while another process writes it or afterwards.

    camera  as for `Stream.view`
    Each look at it takes into account what was logged since. Raises DatasetError where there is no dataset of
    scopestream, also later, when another one took its place.
    """
    layout = open_layout(Path(path))
    return View(layout.plan, layout.route, LoggedFrames(layout.plan, layout.route), camera)


class LoggedFrames:
    """What a `View` of a dataset on disk reads: frames that the log calls written. Safe from any thread."""

    def __init__(self, plan: LayoutPlan, route: Route) -> None:
        self._root = plan.root
        self._disk = DiskFrames(plan, route)
        self._log = _FollowedLog(plan, route)
        self._shown_late = not _is_live(plan.backend)
        self._log.read()
        if self._is_over():
            self._log.fresh.clear()

    @property
    def length(self) -> int:
        self._log.read()
        return self._log.length

    def newest(self, camera: int | None) -> int | None:
        self._log.read()
        return self._log.newest if camera is None else self._log.newest_of.get(camera)

    def are_there(self, numbers: np.ndarray) -> np.ndarray:
        self._log.read()
        if self._shown_late:
            if not self._is_over():
                return np.zeros(len(numbers), bool)
            self._shown_late = False
        return self._log.written.has(numbers)

    def frames(self, numbers: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        for layer, places in self._disk.layers(enumerate(numbers)):
            pixels = self._disk.read(layer, settled_s=_SETTLED_S)
            while any(self._may_come(layer[0], number, pixels[local]) for _, number, local in places):
                sleep(_PAUSE_S)
                pixels = self._disk.read(layer)
            for which, _, local in places:
                yield which, pixels[local]

    def _may_come(self, image: int, number: int, frame: np.ndarray) -> bool:
        """Whether a frame that was logged just now may not be shown yet."""
        seen_s, checksum = self._log.fresh.get(number, (-_PATIENCE_S, None))
        if monotonic() > seen_s + _PATIENCE_S or not self._disk.is_blank(image, frame):
            return False
        return checksum is None or crc32c(frame) != checksum

    def _is_over(self) -> bool:
        return state_of(self._root).get("status") != "recording"


class _FollowedLog:
    """The frame log, read as it grows. The last line of a frame counts.

    written  frames that are stored
    length   items of the first dimension
    newest   the frame that was logged as written last, and `newest_of` each camera
    fresh    (when it was seen in s, CRC32C or None) of the frames that were logged last
    """

    def __init__(self, plan: LayoutPlan, route: Route) -> None:
        self._path = plan.root / FRAME_LOG
        self._places = plan.places
        self._stride, _ = route.step(plan.loop[0].name) if plan.loop else (1, 1)
        self._lock = Lock()
        self._file: tuple[int, int] | None = None  # device and inode
        self._end = self._size = 0
        self.written = FrameSet()
        self.length = 0
        self.newest: int | None = None
        self.newest_of: dict[int, int] = {}
        self.fresh: OrderedDict[int, tuple[float, int | None]] = OrderedDict()

    def read(self) -> None:
        """Take in the lines that came since. Raises DatasetError when the log cannot be read, or is another one."""
        with self._lock:
            try:
                found = self._path.stat()
                if self._file is None:
                    self._file = found.st_dev, found.st_ino
                elif self._file != (found.st_dev, found.st_ino) or found.st_size < self._end:
                    raise DatasetError(f"{self._path} is another one than before; open the view again.")
                if found.st_size != self._size:
                    self._read_on()
                self._size = found.st_size
            except OSError as error:
                raise DatasetError(f"{self._path} cannot be read: {error.strerror or error}") from error

    def _read_on(self) -> None:
        now_s = monotonic()
        with open_regular(self._path) as file:
            file.seek(self._end)
            for line in lines(file):
                if line is not None and line.endswith(b"\n"):  # what has no end is being written
                    self._add(line, now_s)
                    self._end = file.tell()

    def _add(self, line: bytes, now_s: float) -> None:
        record = parse_record(line)
        if record is None or not self._places.has(record["frame"]):
            return
        number, status, checksum = record["frame"], record["status"], record.get("crc32c")
        if status != "failed":
            self.length = max(self.length, number // self._stride + 1)
        if status != "written":
            self.written.discard(number)
            return
        self.written.add(number)
        self.newest = self.newest_of[number % self._places.n_cameras] = number
        self.fresh[number] = now_s, checksum if type(checksum) is int else None
        if len(self.fresh) > _MAX_FRESH:
            self.fresh.popitem(last=False)


def _is_live(backend: str) -> bool:
    """Whether others see what it stored before it is closed; of one that is not known here it is taken to be so."""
    try:
        return load_backend(backend).capabilities.live_read
    except BackendNotFoundError:
        return True
