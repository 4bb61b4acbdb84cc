"""Whatever names the settings accept: every path is inside the root, and unlike all others on any file system."""

from __future__ import annotations

import tempfile
import unicodedata
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from scopestream import AcquisitionSettings, Dimension, Plate, Position, open_stream

DEVICES = {"con", "prn", "aux", "nul", *(f"{name}{digit}" for name in ("com", "lpt") for digit in range(10))}
TRICKY = [
    "OME", "ome", "scopestream", "Scopestream", "zarr.json", "c", "0", "1", "00", "..", ".", "", "/", "a/b", "a\\b",
    "C:", "con", "NUL", "Aux", "com1", "A", "a", "\u00e9", "e\u0301", "\ufb01", "\u0130", "\u212a", "a ", "a.",
    "A\n", "\u0661", "\0", "\ud800", "~", "$HOME", "-rf", "%41", "x" * 300,
]  # fmt: skip


def accepted_by(make: Callable[[str], object]) -> Callable[[str], bool]:
    def is_accepted(name: str) -> bool:
        try:
            make(name)
        except ValidationError:
            return False
        return True

    return is_accepted


short_names = st.one_of(st.sampled_from(TRICKY), st.text("abABoOmMeE01", min_size=1, max_size=3))
any_name = short_names | st.text(max_size=6)
rows = short_names.filter(accepted_by(lambda name: Plate(rows=(name,), columns=("1",))))
columns = short_names.filter(accepted_by(lambda name: Plate(rows=("A",), columns=(name,))))
position_names = any_name.filter(accepted_by(lambda name: Position(name=name)))
labels = any_name.filter(accepted_by(lambda name: Dimension(name="angle", coords=[name])))


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, Any]:
    """Fields of settings, of which some will be refused: a plate or positions, and labels that make more images."""
    is_plate = draw(st.booleans())
    few = partial(st.lists, min_size=1, max_size=3)
    wells = {"rows": draw(few(rows)), "columns": draw(few(columns))}
    positions: list[dict[str, Any]] = [
        {"name": name} for name in draw(st.lists(position_names, min_size=1, max_size=4))
    ]
    for position in positions if is_plate else []:
        position["row"], position["column"] = draw(st.tuples(*map(st.sampled_from, wells.values())))
    series = [
        {"name": "p", "coords": positions},
        {"name": "angle", "coords": draw(st.lists(labels, min_size=1, max_size=2))},
    ]
    frame = [{"name": "y", "count": 4}, {"name": "x", "count": 4}]
    return {
        "plate": wells if is_plate else None,
        "levels": draw(st.integers(1, 2)),
        "dimensions": [*series, {"name": "c", "coords": ["DAPI"]}, *frame],
    }


def same_to_some_file_system(path: str) -> str:
    return unicodedata.normalize("NFKC", path).casefold()


@pytest.mark.timeout(600)  # for all examples, on a machine that is busy
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(layout=layouts())
def test_every_path_is_inside_the_root_and_unlike_all_others(layout: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "a.ome.zarr"
        try:
            accepted = AcquisitionSettings.model_validate(
                {"path": root, "dtype": "uint8", "backend": "inplace", **layout}
            )
        except ValidationError:
            assume(False)
        note(accepted.to_yaml())
        with open_stream(accepted) as stream:
            planned = [array.path for array in stream.plan.arrays]
        assert len({same_to_some_file_system(path) for path in planned}) == len(planned)
        assert [path.name for path in Path(folder).iterdir()] == ["a.ome.zarr"]
        for path in planned:
            assert (root / path).resolve().is_relative_to(root.resolve())
            assert (root / path / "zarr.json").is_file()
        made = [path.relative_to(root).as_posix() for path in root.rglob("*")]
        assert len({same_to_some_file_system(path) for path in made}) == len(made)
        for path in made:
            assert ".." not in PurePosixPath(path).parts
            assert not PureWindowsPath(path).drive
            assert not any(part.lower().partition(".")[0] in DEVICES for part in PurePosixPath(path).parts)
            assert all(
                len(part.encode()) <= 255 and not part.endswith((" ", ".")) for part in PurePosixPath(path).parts
            )
