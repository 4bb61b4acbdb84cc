"""Is everything there and as it came? Every shard index is checked, every chunk decoded, every frame compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np

from scopestream.dataset import Dataset, differing_documents, open_dataset
from scopestream.framecheck import FrameCheck, reading_threads

_MAX_PROBLEMS = 100
Progress = Callable[[int, int], object]


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
        self._lock = Lock()
        status = dataset.state.get("status")
        self._result = Verification(
            path=dataset.plan.root,
            status=status if isinstance(status, str) else "unknown",
            images=[ImageVerification(path=image.path, name=image.name) for image in dataset.plan.images],
        )

    def run(self) -> Verification:
        dataset, plan = self._dataset, self._dataset.plan
        for number in differing_documents(plan):
            self._problem(f"{plan.arrays[number].path}/zarr.json is not what the settings say")
        if dataset.history.n_damaged:
            self._problem(f"the frame log has {dataset.history.n_damaged} lines that are no records")
        check = FrameCheck(dataset)
        stored = [dataset.stored(number, self._problem) for number in range(len(plan.arrays))]
        total = sum(1 for array in stored for _ in array.files())
        with reading_threads() as pool:
            for array in stored:
                for group, files in array.groups():
                    if array.is_sharded:
                        for _, path in files:
                            array.check_index(path)
                    check.read(array, group, pool)
                    self._result.n_files += len(files)
                    if self._on_progress is not None:
                        self._on_progress(self._result.n_files, total)
        self._count(check)
        return self._result

    def _count(self, check: FrameCheck) -> None:
        """What was found of each frame, image by image."""
        history, plan, lost = self._dataset.history, self._dataset.plan, check.lost
        intact = history.are("written") & ~check.corrupt & ~lost
        found = {
            "written": intact,
            "unchecked": intact & (history.checksums < 0),
            "corrupt": check.corrupt,
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
        for number, (image, n_known) in enumerate(zip(self._result.images, known, strict=True)):
            image.missing = 0 if plan.n_frames is None else plan.n_frames_of(number) - n_known

    def _problem(self, text: str) -> None:
        with self._lock:
            self._result.n_problems += 1
            if len(self._result.problems) < _MAX_PROBLEMS:
                self._result.problems.append(text)
