"""What settings refuse, because it would harm the file system, the memory of the machine, or a secret."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from typer.testing import CliRunner

from scopestream import AcquisitionSettings, PlanError, Plate, open_stream
from scopestream.cli import app
from scopestream.testing import acquire

FRAME: list[dict[str, Any]] = [{"name": "y", "count": 8}, {"name": "x", "count": 8}]


def settings(path: object = "unused.ome.zarr", *before: dict[str, Any], **changes: Any) -> AcquisitionSettings:
    return AcquisitionSettings.model_validate(
        {"path": path, "dtype": "uint8", "dimensions": [*before, *FRAME], **changes}
    )


# -- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ["OME", "ome", "Scopestream"])
def test_no_row_of_a_plate_takes_a_folder_that_every_dataset_has(row: str) -> None:
    with pytest.raises(ValidationError, match="would clash with a folder"):
        Plate(rows=("A", row), columns=("1",))


@pytest.mark.parametrize("name", ["con", "NUL", "Com1", "lpt9", "zarr.json", "..", "a/b", "", "x" * 51, "\u00c5"])
@pytest.mark.parametrize("field", ["rows", "columns"])
def test_no_row_or_column_is_a_name_that_some_file_system_refuses(name: str, field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        Plate.model_validate({"rows": ["A"], "columns": ["1"], field: ["B", name]})


def test_positions_may_not_differ_in_unicode_form_only() -> None:
    names = [unicodedata.normalize(form, "\u00e9") for form in ("NFC", "NFD")]
    with pytest.raises(ValidationError, match="in Unicode form"):
        settings("unused", {"name": "p", "coords": names})


@pytest.mark.parametrize("name", ["com\u00b9", "CONOUT$", "a\u0007", "b\ud800", "c\uffff", "d" * 256])
def test_no_position_is_named_what_a_path_or_a_document_cannot_hold(name: str) -> None:
    with pytest.raises(ValidationError, match=r"dimensions\.0"):
        settings("unused", {"name": "p", "coords": [name]})


@pytest.mark.parametrize("name", ["a\0", "b\x1b[31m", "c\n", "d\ud800", "e\ufffe", "f" * 256])
@pytest.mark.parametrize("dimension", ["angle", "c"])
def test_no_label_or_channel_is_named_what_json_or_xml_cannot_hold(name: str, dimension: str) -> None:
    with pytest.raises(ValidationError):
        settings("unused", {"name": dimension, "coords": [name]})


def test_labels_may_be_any_other_text_since_they_never_become_a_path(tmp_path: Path) -> None:
    labels = ["../../up", "CON", "a/b", "\u00e9", "e\u0301", "<&>"]
    series = [{"name": "angle", "coords": labels}, {"name": "c", "count": 1}]
    plan = acquire(settings(tmp_path / "a.ome.zarr", *series))
    assert [image.path for image in plan.images] == [str(number) for number in range(len(labels))]
    assert [path.name for path in tmp_path.iterdir()] == ["a.ome.zarr"]


# -- sizes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ([{"name": "p", "count": 10**9}], "1000000000 items are too many"),
        ([{"name": "angle", "count": 10**9}, {"name": "c", "count": 1}], "make 1000000000 images"),
        ([{"name": "p", "count": 2000}, {"name": "angle", "count": 501}, {"name": "c", "count": 1}], "1002000 images"),
        ([{"name": "c", "count": 10**9}], "channels are too many"),
        ([{"name": "t", "count": 10**30}], "less than or equal to"),
    ],
)
def test_an_absurd_size_is_refused_before_it_costs_time_or_memory(before: list[dict[str, Any]], message: str) -> None:
    started = monotonic()
    with pytest.raises(ValidationError, match=message):
        settings("unused", *before)
    assert monotonic() - started < 10, "a thousand million names were made first"


@pytest.mark.parametrize(
    ("before", "changes", "message"),
    [
        ([{"name": "p", "count": 100_000}], {"levels": 16}, "1600000 arrays"),
        ([{"name": "t", "count": 10**12}], {"shards": {"t": 10**12}}, "chunks in a frame and 1000000000000 in a shard"),
    ],
)
def test_an_absurd_layout_is_refused_before_anything_is_written(
    tmp_path: Path, before: list[dict[str, Any]], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        open_stream(settings(tmp_path / "a.ome.zarr", *before, **changes))
    assert list(tmp_path.iterdir()) == []


def test_many_names_are_compared_in_no_time() -> None:
    assert settings("unused", {"name": "p", "count": 200_000}).dimensions[0].count == 200_000


LAUGHS = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10))
MERGES = "\n".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 10))


@pytest.mark.parametrize(
    "text",
    [
        f"a0: &a0 [lol]\n{LAUGHS}\npath: *a9",
        f"a0: &a0 {{k: lol}}\n{MERGES}\npath: *a9",
        "[" * 100_000,
        '{"path":' * 100_000,
        "- " * 10_000,
        '{"path": ' + "9" * 5000 + "}",
        "a: &a [*a]",
    ],
    ids=["aliases", "merges", "brackets", "braces", "dashes", "digits", "loop"],
)
def test_stored_settings_that_are_a_bomb_are_refused(text: str) -> None:
    with pytest.raises((ValueError, yaml.YAMLError)) as caught:
        AcquisitionSettings.from_yaml(text)
    assert len(str(caught.value)) < 10_000


# -- secrets --------------------------------------------------------------------------------------------------------

SECRET = "hunter2"
LEAKS = [
    f"s3://AKIA:{SECRET}@bucket/a.ome.zarr",
    f"s3://AKIA:{SECRET}/with/slash@bucket/a.ome.zarr",
    f"s3://{SECRET}@bucket/a.ome.zarr",
    f"s3://AKIA%3A{SECRET}%40bucket/a.ome.zarr",
    f"simplecache::s3://AKIA:{SECRET}@bucket/a.ome.zarr",
    f"https://host:443/a.ome.zarr?X-Amz-Signature={SECRET}",
    f"https://host/a.ome.zarr?x=1&sig={SECRET}",
    f"https://host/a.ome.zarr?access_token={SECRET}",
    f"file://user:{SECRET}@host/a.ome.zarr",
    f"https://[{SECRET}",
]


@pytest.mark.parametrize("path", LEAKS[:-1])
def test_a_path_with_credentials_is_refused_and_not_repeated(path: str) -> None:
    with pytest.raises(ValidationError, match="Leave it out, and give credentials") as caught:
        settings(path)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value)


@pytest.mark.parametrize("path", LEAKS)
def test_settings_that_were_not_validated_give_no_secret_away_either(path: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # which words it uses is not the point
        open_stream(settings().model_copy(update={"path": path}))
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value)


@pytest.mark.parametrize(
    "path",
    [
        "s3://bucket/cells@2x.ome.zarr",
        "https://host:9000/a.ome.zarr",
        "https://[::1]:9000/a",
        "s3://b/a?version=3",
        "a@b:c",
    ],
)
def test_a_path_without_credentials_is_taken(path: str) -> None:
    assert settings(path).path == path


@pytest.mark.parametrize(
    "fields", [{"password": SECRET}, {"codec": {"name": SECRET}}, {"dimensions": SECRET}, {"levels": SECRET}]
)
def test_what_is_wrong_with_settings_is_said_without_the_value(tmp_path: Path, fields: dict[str, Any]) -> None:
    given = {"path": "a.ome.zarr", "dtype": "uint8", "dimensions": FRAME, **fields}
    with pytest.raises(ValidationError) as caught:
        AcquisitionSettings.model_validate(given)
    assert SECRET not in str(caught.value)
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(given))
    result = CliRunner().invoke(app, ["plan", str(tmp_path / "settings.yaml")])
    assert result.exit_code == 2
    assert next(iter(fields)) in result.output
    assert SECRET not in result.output


def test_a_settings_file_that_cannot_be_parsed_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text(f"path: s3://AKIA:{SECRET}@bucket: [")
    result = CliRunner().invoke(app, ["plan", str(tmp_path / "settings.yaml")])
    assert result.exit_code == 2
    assert "neither YAML nor JSON" in result.output
    assert SECRET not in result.output
