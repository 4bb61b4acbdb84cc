"""What a runner is: something that opens a case and takes its frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.cases import Case
from scopestream.bench.camera import Frames

Kind = Literal["limit", "ours", "ome-writers", "library"]


class RefusedError(Exception):
    """The runner cannot do this case, and says why."""


@dataclass(frozen=True, slots=True)
class Session:
    """A case that was opened.

    arrays  folder of level 0 of each image, for the check; empty where nothing is written that could be read
    levels  of every image that were written; those after the first lie beside it
    note    what a reader of the results should know
    """

    append: Callable[[np.ndarray], None]
    close: Callable[[], None]
    arrays: tuple[Path, ...] = ()
    levels: int = 1
    note: str = ""


@dataclass(frozen=True, slots=True)
class Runner:
    """One of those that are compared. `open` raises RefusedError; its folder exists and is empty.

    library  the one that writes, so that another one is taken to read
    """

    name: str
    kind: Kind
    library: str
    open: Callable[[Case, Path, Frames], Session]
