"""Is everything there and as it came? Every shard index is checked, every chunk decoded, every frame compared."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np

from scopestream.checksum import crc32c
from scopestream.dataset import Dataset, differing_documents, open_dataset
from scopestream.stored import Index, StoredArray

_MAX_PROBLEMS = 100
_N_THREADS = 4  # decoding needs no lock of the interpreter, but reading waits for the disk
Progress = Callable[[int, int], object]
_Layer = tuple[np.ndarray, bool]


@dataclass(slots=True, kw_only=True)
class ImageVerification:
    """The frames of one image, each counted once.

    written    logged as written, and read back; `unchecked` of them have no checksum
    corrupt    logged as written, but their pixels differ from the checksum or cannot be decoded
    lost       logged as written, but nothing of them is on the disk
    skipped    by `skip`, `dropped` by `on_full="drop"`, and `failed` because they could not be stored
    missing    that the log does not name: they never came, or a kill came first; 0 where the length is not known
    """

    path: str
    name: str
    written: int = 0
    unchecked: int = 0
    corrupt: int = 0
    lost: int = 0
    skipped: int = 0
    dropped: int = 0
    failed: int = 0
    missing: int = 0


@dataclass(slots=True, kw_only=True)
class Verification:
    """What `verify` found.

    status    what the root says of the acquisition: "complete", "incomplete" or "recording"
    problems  sentences about files and documents, the first hundred of `n_problems`
    """

    path: Path
    status: str
    images: list[ImageVerification]
    n_files: int = 0
    problems: list[str] = field(default_factory=list)
    n_problems: int = 0

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged: frames that are missing, skipped or dropped are no damage."""
        return not self.n_problems and not any(image.corrupt or image.lost for image in self.images)

    def total(self, what: str) -> int:
        """Frames of all images, by the name of a count."""
        return sum(getattr(image, what) for image in self.images)


def verify(path: str | Path, on_progress: Progress | None = None) -> Verification:
    """Read everything that is in the dataset at `path`, and change nothing.

    on_progress  called with the number of data files that were read, and of all that there are
    Raises DatasetError when scopestream did not write it, or its settings cannot be read.
    """
    dataset = open_dataset(Path(path))
    return _Verifier(dataset, on_progress).run()


class _Verifier:
    def __init__(self, dataset: Dataset, on_progress: Progress | None) -> None:
        self._dataset = dataset
        self._on_progress = on_progress
        self._history = dataset.history
        self._written = self._history.are("written")
        # By entry of the history: what was found of the frames that were written.
        self._seen = np.zeros(len(self._written), bool)
        self._corrupt = np.zeros(len(self._written), bool)
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(_N_THREADS)
        images = [ImageVerification(path=image.path, name=image.name) for image in dataset.plan.images]
        status = dataset.state.get("status")
        self._result = Verification(
            path=dataset.plan.root, status=status if isinstance(status, str) else "unknown", images=images
        )

    def run(self) -> Verification:
        for number in differing_documents(self._dataset.plan):
            self._problem(f"{self._dataset.plan.arrays[number].path}/zarr.json is not what the settings say")
        if self._history.n_damaged:
            self._problem(f"the frame log has {self._history.n_damaged} lines that are no records")
        stored = [self._dataset.stored(number, self._problem) for number in range(len(self._dataset.plan.arrays))]
        total = sum(1 for array in stored for _ in array.files())
        with self._pool:
            for array in stored:
                self._verify_array(array, total)
        self._count()
        return self._result

    def _verify_array(self, stored: StoredArray, total: int) -> None:
        for group, paths in stored.groups():
            if stored.is_sharded:
                for path in paths:
                    stored.check_index(path)
            for origin, (pixels, sound) in self._layers(stored, group):
                if stored.array.level == 0:
                    self._compare(stored, origin, pixels, sound)
            self._result.n_files += len(paths)
            if self._on_progress is not None:
                self._on_progress(self._result.n_files, total)

    def _layers(self, stored: StoredArray, group: Index) -> Iterator[tuple[Index, _Layer]]:
        """The origin of every layer of a group with what is read there, in order; a few are read ahead."""
        waiting: deque[tuple[Index, Future[_Layer]]] = deque()
        for origin in stored.origins(group):
            waiting.append((origin, self._pool.submit(stored.layer, origin)))
            if len(waiting) > _N_THREADS:
                first, layer = waiting.popleft()
                yield first, layer.result()
        for first, layer in waiting:
            yield first, layer.result()

    def _compare(self, stored: StoredArray, origin: Index, pixels: np.ndarray, sound: bool) -> None:
        """Frames of a layer with what the log says of them."""
        array, history = stored.array, self._history
        for local in np.ndindex(pixels.shape[:-2]):
            index = tuple([o + i for o, i in zip(origin, local, strict=True)])
            if any(
                i >= size and not (array.growable and axis == 0)
                for axis, (i, size) in enumerate(zip(index, array.shape, strict=False))
            ):
                continue  # padding of the last chunks
            entry = history.find(self._dataset.route.number(array.image, index))
            if entry is None or not self._written[entry]:
                continue
            self._seen[entry] = True
            checksum = history.checksums[entry]
            self._corrupt[entry] = not sound or (checksum >= 0 and checksum != crc32c(pixels[local]))

    def _count(self) -> None:
        """What was found of each frame, image by image."""
        history, plan = self._history, self._dataset.plan
        absent = self._written & ~self._seen
        # Libraries leave out files in which every pixel is zero.
        black = crc32c(np.zeros(plan.arrays[0].frame_shape, plan.arrays[0].dtype))
        lost = absent & (history.checksums != black)
        intact = self._written & ~self._corrupt & ~lost
        found = {
            "written": intact,
            "unchecked": intact & (history.checksums < 0),
            "corrupt": self._corrupt,
            "lost": lost,
            "skipped": history.are("skipped"),
            "dropped": history.are("dropped"),
            "failed": history.are("failed"),
        }
        images = self._dataset.route.images(history.numbers)
        for name, entries in found.items():
            counts = np.bincount(images[entries], minlength=len(plan.images))
            for image, count in zip(self._result.images, counts.tolist(), strict=True):
                setattr(image, name, count)
        known = np.bincount(images, minlength=len(plan.images)).tolist()
        total = self._dataset.plan.n_frames
        for image, n_known in zip(self._result.images, known, strict=True):
            image.missing = 0 if total is None else total // len(plan.images) - n_known

    def _problem(self, text: str) -> None:
        with self._lock:
            self._result.n_problems += 1
            if len(self._result.problems) < _MAX_PROBLEMS:
                self._result.problems.append(text)
