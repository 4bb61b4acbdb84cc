"""What settings mean, and everything that they refuse."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from scopestream import AcquisitionSettings, Channel, Codec, Dimension, Plate, Position
from scopestream.units import full_unit_name

FRAME: list[dict[str, Any]] = [{"name": "y", "count": 64}, {"name": "x", "count": 64}]


def settings(**fields: Any) -> AcquisitionSettings:
    base: dict[str, Any] = {"path": "a.ome.zarr", "dtype": "uint16", "dimensions": [{"name": "t", "count": 3}, *FRAME]}
    return AcquisitionSettings(**{**base, **fields})


def dims(*before: dict[str, Any]) -> dict[str, Any]:
    return {"dimensions": [*before, *FRAME]}


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"name": "t", "count": 2}, "time"),
        ({"name": "Time", "count": 2}, "time"),
        ({"name": "z", "count": 2}, "space"),
        ({"name": "c", "coords": ["DAPI"]}, "channel"),
        ({"name": "p", "count": 2}, "position"),
        ({"name": "stage", "coords": [Position(name="a")]}, "position"),
        ({"name": "colour", "coords": [Channel(name="red")]}, "channel"),
        ({"name": "delay", "count": 2, "unit": "ms"}, "time"),
        ({"name": "depth", "count": 2, "unit": "um"}, "space"),
        ({"name": "angle", "coords": [0, 45, 90]}, "other"),
        ({"name": "z", "count": 2, "type": "other"}, "other"),
    ],
)
def test_the_type_of_a_dimension_follows_from_what_is_known(fields: dict[str, Any], kind: str) -> None:
    assert Dimension(**fields).type == kind


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("um", "micrometer"), ("\u00b5m", "micrometer"), ("\u03bcm", "micrometer"), ("micron", "micrometer"),
        ("nm", "nanometer"), ("mm", "millimeter"), ("Mm", "megameter"), ("m", "meter"), ("ms", "millisecond"),
        ("s", "second"), ("Seconds", "second"), ("min", "minute"), ("h", "hour"), ("micrometre", "micrometer"),
        ("micrometers", "micrometer"), ("furlong", "furlong"),
    ],
)  # fmt: skip
def test_units_are_written_as_ome_zarr_names_them(short: str, full: str) -> None:
    assert full_unit_name(short) == full


@pytest.mark.parametrize("color", ["lime", "#0f0", "#00FF00", "rgb(0, 255, 0)", "hsl(120, 100%, 50%)", (0, 255, 0)])
def test_a_channel_takes_any_css_color(color: Any) -> None:
    assert Channel(name="GFP", color=color).color == "#00ff00"


def test_a_count_follows_from_the_coords() -> None:
    dimension = Dimension(name="c", coords=["DAPI", {"name": "GFP", "color": "lime"}])
    assert dimension.count == 2
    assert dimension.item_names == ("DAPI", "GFP")


def test_positions_without_names_are_numbered() -> None:
    assert Dimension(name="p", count=2).item_names == ("0", "1")
    assert Dimension(name="p", coords=[{"x": 1.0}, {"name": "b"}]).item_names == ("0", "b")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dims({"name": "p", "count": 2}, {"name": "q", "coords": [Position(name="a")]}), "are both positions"),
        (dims({"name": "t", "count": 2}, {"name": "z", "count": None}), "'z' is unbounded; only the first"),
        (dims({"name": "z", "count": None}, {"name": "c", "count": 2}), "would not be the first axis on disk"),
        (dims({"name": "angle", "count": None}, {"name": "c", "count": 2}), "would have to tell images apart"),
        ({"dimensions": [{"name": "y", "count": None}, {"name": "x", "count": 8}]}, "the camera has a size"),
        ({"dimensions": [*FRAME, {"name": "t", "count": 2}]}, "last two dimensions must be the spatial ones"),
        (dims({"name": "t", "count": 2}, {"name": "t", "count": 2}), "two dimensions 't'"),
        (dims({"name": "t", "count": 2}, {"name": "T", "count": 2}), "differ only in case"),
        (dims({"name": "z", "count": 2, "scale": 0}), "greater than 0"),
        (dims({"name": "z", "count": 2, "scale": -1}), "greater than 0"),
        (dims({"name": "z", "count": 2, "scale": float("nan")}), "finite"),
        (dims({"name": "z", "count": 2, "scale": float("inf")}), "finite"),
        (dims({"name": "z", "count": 2, "unit": "furlong"}), "not a unit of space"),
        (dims({"name": "t", "count": 2, "unit": "um"}), "not a unit of time"),
        (dims({"name": "c", "count": 2, "unit": "um"}), "channel dimension has no unit"),
        (dims({"name": "t"}), "needs count or coords"),
        (dims({"name": "t", "count": 0}), "greater than or equal to 1"),
        (dims({"name": "c", "count": 3, "coords": ["a", "b"]}), "count is 3, but coords has 2"),
        (dims({"name": "c", "coords": []}), "coords is empty"),
        (dims({"name": "c", "coords": ["a", "a"]}), "coords repeat 'a'"),
        (dims({"name": "p", "coords": ["a", "A"]}), "differ only in case"),
        (dims({"name": "p", "count": None}), "positions cannot be unbounded"),
        (dims({"name": "c", "count": None}), "channels cannot be unbounded"),
        (dims({"name": "p", "coords": ["../up"]}), "unsafe as a part of a path"),
        (dims({"name": "p", "coords": [".."]}), "unsafe as a part of a path"),
        (dims({"name": "p", "coords": ["CON"]}), "unsafe as a part of a path"),
        (dims({"name": "p", "coords": ["a "]}), "unsafe as a part of a path"),
        ({"dtype": "complex64"}, "dtype 'complex64' is not one that readers"),
        ({"dtype": "float16"}, "dtype 'float16'"),
        ({"dtype": "nonsense"}, "dtype 'nonsense'"),
        ({"chunks": {"q": 2}}, "no stored dimension 'q'"),
        ({"shards": {"p": 2}}, "no stored dimension 'p'"),
        ({"chunks": {"y": 0}}, "at least 1"),
        ({"chunks": {"y": 128}}, "larger than the dimension"),
        ({"chunks": {"t": 2}, "shards": {"t": 3}}, "do not divide shards"),
        ({"codec": "gzip"}, "codec"),
        ({"codec": {"name": "zstd", "level": 99}}, "levels 1 to 22"),
        ({"codec": {"name": "zstd", "shuffle": "byte"}}, "has no shuffle"),
        ({"on_full": "explode"}, "on_full"),
        ({"memory_limit": 0}, "memory_limit"),
        ({"levels": 0}, "levels"),
        ({"downscale": "median"}, "downscale"),
        ({**dims({"name": "z", "count": None}), "downscale_z": True}, "needs to know the count of 'z'"),
        ({"downscale": "mode", "dtype": "float32"}, "for labels, which are integers or bool"),
        ({"nonsense": 1}, "Extra inputs are not permitted"),
        ({"path": ""}, "does not name a new folder"),
        ({"path": "../.."}, "does not name a new folder"),
        ({"storage_order": ("t", "y")}, "must name each of"),
        ({"storage_order": ("y", "t", "x")}, "must end with y, x"),
        ({**dims({"name": "z", "count": 2}, {"name": "c", "count": 2}), "storage_order": "acquisition"}, "0.5"),
        (dims({"name": "p", "coords": [{"name": "a", "row": "A", "column": 1}]}), "plate is not given"),
        ({"plate": Plate.standard(96)}, "a plate needs a dimension of positions"),
        ({**dims({"name": "p", "coords": ["a"]}), "plate": Plate.standard(96)}, "has no row and column"),
        (
            {**dims({"name": "p", "coords": [{"name": "a", "row": "Z", "column": 1}]}), "plate": Plate.standard(96)},
            "well Z1 of position 'a' is outside the plate",
        ),
    ],
)  # fmt: skip
def test_nonsense_is_refused_with_the_reason(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(**fields)


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        settings(
            dtype="complex64",
            codec="gzip",
            memory_limit="lots",
            **dims({"name": "t", "count": 2}, {"name": "t", "count": 2}, {"name": "z", "count": None}),
        )
    text = str(caught.value)
    for problem in ("complex64", "codec.name", "memory_limit", "two dimensions 't'", "'z' is unbounded"):
        assert problem in text


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        settings().path = "elsewhere"


RICH: dict[str, Any] = {
    "dimensions": [
        {"name": "t", "count": None, "scale": 0.5, "unit": "second"},
        {
            "name": "p",
            "coords": [{"name": "a", "x": 1.5, "row": "A", "column": 1}, {"name": "b", "row": "B", "column": 2}],
        },
        {"name": "c", "coords": [Channel(name="DAPI", color="blue"), "GFP"]},
        *FRAME,
    ],
    "plate": Plate.standard(96),
    "chunks": {"y": 32},
    "shards": "512MB",
    "codec": Codec(name="blosc-zstd", level=3, shuffle="bit"),
    "memory_limit": "2GiB",
    "levels": "auto",
    "downscale": "mode",
    "downscale_z": True,
}  # fmt: skip


@pytest.mark.parametrize("fields", [{}, RICH])
def test_settings_survive_json_and_yaml(fields: dict[str, Any]) -> None:
    original = settings(**fields)
    assert AcquisitionSettings.model_validate_json(original.model_dump_json()) == original
    assert AcquisitionSettings.from_yaml(original.to_yaml()) == original
    assert AcquisitionSettings.from_yaml(original.model_dump_json()) == original


def test_sizes_are_read_as_people_write_them() -> None:
    assert settings(memory_limit="2GB").memory_limit == 2_000_000_000
    assert settings(memory_limit="2GiB").memory_limit == 2 * 2**30


@pytest.mark.parametrize(("n_wells", "last"), [(6, "B3"), (96, "H12"), (384, "P24"), (1536, "AF48")])
def test_standard_plates_have_their_usual_wells(n_wells: Any, last: str) -> None:
    plate = Plate.standard(n_wells)
    assert len(plate.rows) * len(plate.columns) == n_wells
    assert plate.rows[-1] + plate.columns[-1] == last


def test_there_is_no_standard_plate_of_seven_wells() -> None:
    with pytest.raises(ValueError, match="no standard plate has 7 wells"):
        Plate.standard(7)  # type: ignore[arg-type]
