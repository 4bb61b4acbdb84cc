"""The root folder of a dataset: what happens when something is there already."""

from __future__ import annotations

import os
import shutil
import warnings
from itertools import count
from pathlib import Path

from scopestream import credentials
from scopestream.dataset import Dataset
from scopestream.errors import DatasetExistsError, PlanError
from scopestream.lock import DatasetLock, check_not_busy
from scopestream.overwrite import check_replaceable
from scopestream.plan import LayoutPlan
from scopestream.resume import prepare, resumed_settings
from scopestream.settings import AcquisitionSettings


def settled(settings: AcquisitionSettings) -> AcquisitionSettings:
    """The settings with the path that will really be used, after `on_exists`; nothing is touched yet.

    Raises DatasetExistsError when the path is taken and may not be replaced, DatasetBusyError when it is being written,
    DatasetError or ResumeError when the settings cannot go on with what is there, and PlanError for a path with
    credentials, which only settings can have that were copied without being validated.
    """
    if (problem := credentials.problem_of(settings.path)) is not None:
        raise PlanError(f"{problem[0].upper()}{problem[1:]}. Nothing was written.")
    if settings.scheme != "file":
        return settings
    # Absolute, so that a program that changes its folder goes on writing to the same place.
    path = Path(settings.path).absolute()
    settings = settings.model_copy(update={"path": str(path)})
    if not (path.exists() or path.is_symlink()):
        return settings
    if settings.on_exists == "increment":
        return settings.model_copy(update={"path": str(_next_free(path))})
    if settings.on_exists == "overwrite":
        check_replaceable(path)
        check_not_busy(path)
        return settings
    if settings.on_exists == "resume":
        if path.is_symlink():
            raise DatasetExistsError(f"{path} is a symbolic link; go on with the dataset that it points to.")
        return resumed_settings(settings)
    raise DatasetExistsError(
        f"{path} exists already; nothing was changed. Choose another path, or set on_exists to "
        f'"increment" (a new name beside it), "overwrite" (deletes that dataset) or "resume" (goes on with it).'
    )


class NewRoot:
    """The root folder of settled settings, just made.

    A dataset that `on_exists="overwrite"` replaces is moved aside, to NAME.replaced-PID beside it, until `keep`
    deletes it or `undo` brings it back. After a kill in between it is still there, whole, under that name.

    lock  of the dataset, which whoever writes it gives back
    """

    def __init__(self, settings: AcquisitionSettings) -> None:
        self._root = Path(settings.path)
        self._replaced: Path | None = None
        if settings.on_exists == "overwrite" and (self._root.exists() or self._root.is_symlink()):
            check_replaceable(self._root)  # again, since it may be another by now
            check_not_busy(self._root)
            self._replaced = _free_name(self._root, f"{self._root.name}.replaced-{os.getpid()}", "")
            os.replace(self._root, self._replaced)
        try:
            self._root.mkdir(parents=True)
        except BaseException:
            self._bring_back()
            raise
        try:
            (self._root / "scopestream").mkdir()
            self.lock = DatasetLock(self._root)
            self.lock.claim()
        except BaseException:
            self._remove()
            raise

    def keep(self) -> None:
        """The new dataset is there to stay. Warns when the old one could not be deleted completely."""
        if self._replaced is None:
            return
        try:
            shutil.rmtree(self._replaced)
        except OSError as error:
            shutil.rmtree(self._replaced, ignore_errors=True)  # all else of it
            if self._replaced.exists():
                warnings.warn(
                    f"The dataset that {self._root} replaces could not be deleted completely "
                    f"({error.strerror}: {error.filename}). The rest is in {self._replaced}; delete it yourself. "
                    f"The new acquisition goes on.",
                    RuntimeWarning,
                    stacklevel=4,
                )

    def undo(self) -> None:
        """As if nothing had happened."""
        self.lock.abandon()
        self._remove()

    def _remove(self) -> None:
        try:
            shutil.rmtree(self._root)
        finally:
            self._bring_back()

    def _bring_back(self) -> None:
        if self._replaced is None:
            return
        try:
            os.replace(self._replaced, self._root)
        except OSError as error:
            error.add_note(f"The dataset that was to be replaced is whole, but now in {self._replaced}.")
            raise


class OldRoot:
    """The root folder of a dataset that a stream goes on with.

    lock  of the dataset, which whoever writes it gives back
    """

    def __init__(self, settings: AcquisitionSettings) -> None:
        self._root = Path(settings.path)
        self.lock = DatasetLock(self._root)

    def mend(self, plan: LayoutPlan) -> Dataset:
        """What the last stream left, after it was made whole. From now on what is written is ours.

        plan  of the stream that goes on
        """
        dataset = prepare(self._root, self.lock.previous, plan=plan, trim=False).dataset
        self.lock.claim()
        return dataset

    def keep(self) -> None:
        """It is there."""

    def undo(self) -> None:
        """What was mended stays so."""
        self.lock.abandon()


def _next_free(path: Path) -> Path:
    suffix = next((end for end in (".ome.zarr", ".zarr") if path.name.endswith(end)), path.suffix)
    return _free_name(path, path.name.removesuffix(suffix), suffix, first=1)


def _free_name(path: Path, stem: str, suffix: str, first: int = 0) -> Path:
    """Beside `path`, the first of STEM_1SUFFIX, STEM_2SUFFIX, ... that is free; with first=0 also STEMSUFFIX."""
    for number in count(first):
        candidate = path.with_name(f"{stem}_{number}{suffix}" if number else f"{stem}{suffix}")
        if not (candidate.exists() or candidate.is_symlink()):
            return candidate
    raise AssertionError("numbers never end")
