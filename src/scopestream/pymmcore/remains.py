"""`remaining`: the events of a sequence that a dataset has no frames of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pymmcore_plus import CMMCorePlus
from useq import MDAEvent, MDASequence

from scopestream.framelog import read_frames
from scopestream.useq import Places, layout_of, takes_image, with_field_of_view

_Key = tuple[tuple[str, int], ...]


def remaining(core: CMMCorePlus, sequence: MDASequence, path: str | Path) -> Iterator[MDAEvent]:
    """The events of `sequence` whose frames are not in the dataset at `path`, for `run_mda` with `on_exists="resume"`.

    Their times count from the first of them. Events without an image, such as autofocus, all come. Frames that an event
    has of several cameras count when all of them are there. Raises FileNotFoundError or DatasetError when there is no
    dataset, and ValueError when events repeat an index (a time plan of a position inside another time plan): let
    `run_mda` go through the whole sequence then.
    """
    pixel_um = core.getPixelSizeUm()
    view = (core.getImageWidth() * pixel_um, core.getImageHeight() * pixel_um) if pixel_um else (None, None)
    sequence = with_field_of_view(sequence, *view)
    layout = layout_of(sequence)
    if any(field.stack.n_rounds > 1 for field in layout.fields):
        raise ValueError(
            "Several events of this sequence have the same index, so nobody can tell which ones remain. Run the whole "
            'sequence with on_exists="resume": frames that are there are passed over.'
        )
    places = Places(layout)
    n_there: Counter[_Key] = Counter()
    names: set[str] = set()
    cameras: set[object] = set()
    for record in read_frames(path):
        index = dict(record["index"])
        cameras.add(index.pop("camera", None))
        names.update(index)
        if record["status"] != "failed":
            n_there[tuple(sorted(index.items()))] += 1

    def is_there(event: MDAEvent) -> bool:
        place = places(event)
        return n_there[tuple(sorted((name, place.get(name, 0)) for name in names))] >= max(1, len(cameras))

    return _from_now(event for event in sequence if not (takes_image(event) and is_there(event)))


def _from_now(events: Iterator[MDAEvent]) -> Iterator[MDAEvent]:
    """The same events, of which the first with a time starts at once."""
    begin_s: float | None = None
    for event in events:
        if event.min_start_time is None:
            yield event
            continue
        if begin_s is None or event.reset_event_timer:
            begin_s = event.min_start_time
        yield event.model_copy(update={"min_start_time": max(0.0, event.min_start_time - begin_s)})
