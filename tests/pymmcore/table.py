"""What becomes of each kind of sequence: here, and with the output that pymmcore-plus makes of a path.

`python -m tests.pymmcore.table` acquires them with the demo camera, twice each, and prints the table of
docs/guide/pymmcore.md.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from pymmcore_plus import CMMCorePlus
from pymmcore_plus.mda import MDAEngine
from useq import MDAEvent, MDASequence

from scopestream.pymmcore import run_mda
from scopestream.testing.readers import read_array
from scopestream.useq import takes_image
from tests.pymmcore import kinds
from tests.pymmcore.acquisition import SHAPE, Seen, check, shut_down, watching
from tests.pymmcore.test_run import LosesFrames, Unlucky

_BURST = MDASequence(time_plan={"interval": 0, "loops": 60}, channels=["DAPI"])


class _Warnings(logging.Handler):
    """What pymmcore-plus logs instead of raising."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def ours(core: CMMCorePlus, events: Callable[[], Iterable[MDAEvent]], path: Path) -> str:
    with watching(core) as seen:
        sink = run_mda(core, events(), path)
    names = {dimension.name for dimension in sink.settings.dimensions[:-2]}
    is_one_stack = names == {"t"} and any(set(event.index) - {"t"} for event in seen.events)
    n_events = sum(map(takes_image, events()))  # useq remembers the points of a grid: the engine must ask first
    check(sink.path, seen, n_events, is_one_stack=is_one_stack)
    if is_one_stack:
        return f"one stack of {len(seen)} frames, with the index of each in the log"
    return f"right, {len(seen)} frames"


def theirs(core: CMMCorePlus, events: Callable[[], Iterable[MDAEvent]], path: Path) -> str:
    log, logger = _Warnings(), logging.getLogger("pymmcore-plus")
    logger.addHandler(log)
    try:
        with watching(core) as seen:
            core.mda.run(events(), output=path)
    except Exception as error:
        return f"stops after {len(seen)} frames: {type(error).__name__}: {_short(str(error))}"
    finally:
        logger.removeHandler(log)
    images = _images(path)
    n_right = _at_their_place(images, seen)
    if n_right == len(seen):
        return f"right, {n_right} frames"
    if _is_one_stack(images, seen):
        how = "falls back, with a warning, to" if any("Falling back" in text for text in log.texts) else "makes"
        return f"{how} one stack of {len(seen)} frames, without channels, positions or planes"
    return f"{n_right} of {len(seen)} frames are at their place"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) < 100 else f"{line[:97]}..."


def _images(path: Path) -> list[tuple[list[str], np.ndarray]]:
    """Axes before the frame, and pixels, of each image."""
    images = []
    for document in sorted(path.rglob("zarr.json")):
        content = json.loads(document.read_text())
        multiscales = content.get("attributes", {}).get("ome", {}).get("multiscales")
        if multiscales:
            axes = [axis["name"] for axis in multiscales[0]["axes"]][:-2]
            images.append((axes, read_array(document.parent / multiscales[0]["datasets"][0]["path"], "zarr")))
    return images


def _is_one_stack(images: list[tuple[list[str], np.ndarray]], seen: Seen) -> bool:
    return (
        len(images) == 1
        and len(images[0][0]) == 1
        and len(images[0][1]) == len(seen)
        and all(np.array_equal(pixels, frame) for pixels, (_, frame) in zip(images[0][1], seen.frames, strict=True))
    )


def _at_their_place(images: list[tuple[list[str], np.ndarray]], seen: Seen) -> int:
    """How many frames are where their index says: of each field in the image in which most of them are."""
    fields: dict[tuple[int | None, int | None], list[tuple[dict[str, int], np.ndarray]]] = {}
    for key, frame in seen.frames:
        index = dict(key)
        fields.setdefault((index.get("p"), index.get("g")), []).append((index, frame))
    return sum(
        max((sum(_is_at(pixels, axes, *one) for one in frames) for axes, pixels in images), default=0)
        for frames in fields.values()
    )


def _is_at(pixels: np.ndarray, axes: list[str], index: dict[str, int], frame: np.ndarray) -> bool:
    at = tuple(index.get(axis, 0) for axis in axes)
    if any(number >= size for number, size in zip(at, pixels.shape, strict=False)):
        return False
    return bool(np.array_equal(pixels[at], frame))


def cases() -> dict[str, tuple[Callable[[], Iterable[MDAEvent]], type[MDAEngine], bool]]:
    """(events, engine, whether sequences are triggered) by what they are."""
    made: dict[str, Any] = {}
    for name, plan in {**kinds.REGULAR, **kinds.WITH_HOLES, **kinds.RAGGED}.items():
        made[name] = (lambda plan=plan: plan, MDAEngine, True)
    tcz = kinds.REGULAR["t, c and z"]
    made["a triggered sequence"] = (lambda: _BURST, MDAEngine, True)
    made["a triggered sequence that loses frames"] = (lambda: _BURST, LosesFrames, True)
    made["a generator that counts `t`"] = (lambda: (MDAEvent(index={"t": t}) for t in range(5)), MDAEngine, False)
    made["a list or generator of the events of a sequence"] = (lambda: list(tcz), MDAEngine, False)
    made["a generator of events with any index"] = (
        lambda: (MDAEvent(index={"t": n // 2, "p": n % 2}) for n in range(6)),
        MDAEngine,
        False,
    )
    longer = kinds.sequence(time_plan={"interval": 0, "loops": 4}, z_plan=kinds.PLANES)
    made["snaps that fail and events that are skipped"] = (lambda: longer, Unlucky, False)
    return made


def main() -> None:
    warnings.simplefilter("ignore")
    core = CMMCorePlus()
    core.loadSystemConfiguration()
    for name, value in {"PixelType": "16bit", "OnCameraCCDXSize": SHAPE[1], "OnCameraCCDYSize": SHAPE[0],
                        "Mode": "Noise"}.items():  # fmt: skip
        core.setProperty("Camera", name, value)
    core.setProperty("XY", "Velocity", "200")
    core.setExposure(1.0)
    print("| sequence | scopestream | the output of pymmcore-plus |\n| --- | --- | --- |")
    with TemporaryDirectory() as folder:
        for number, (name, (events, engine, triggered)) in enumerate(cases().items()):
            row = []
            for how in (ours, theirs):
                core.mda.set_engine(engine(core, use_hardware_sequencing=triggered))
                try:
                    row.append(how(core, events, Path(folder) / f"{number}-{how.__name__}.ome.zarr"))
                except Exception as error:
                    row.append(f"refused: {type(error).__name__}: {_short(str(error))}")
            print(f"| {name} | {' | '.join(row)} |", flush=True)
    shut_down(core)


if __name__ == "__main__":
    sys.exit(main())
