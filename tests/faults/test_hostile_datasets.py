"""Whatever is in a dataset: what reads it gives an answer or a DatasetError, soon, and within bounded memory.

A function that reads datasets of anybody is added to TRIED.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from scopestream import AcquisitionSettings, DatasetError, Plate, read_frames, recover, verify
from scopestream.cli import app
from scopestream.info import inspect
from scopestream.testing import acquire

MOST_MEMORY_BYTES = 3_000_000_000  # of address space, in which the libraries are as well


def command(name: str, path: Path) -> None:
    result = CliRunner().invoke(app, [name, str(path)])
    if not isinstance(result.exception, SystemExit | None):
        raise result.exception
    assert result.exit_code in (0, 1, 2)
    assert len(result.output) < 200_000, "nobody reads that"


TRIED: dict[str, Callable[[Path], object]] = {
    "info": inspect,
    "info command": lambda path: command("info", path),
    "read_frames": lambda path: list(read_frames(path)),
    "verify": verify,
    "verify command": lambda path: command("verify", path),
    "recover": recover,
    "recover --dry-run": lambda path: recover(path, dry_run=True),
}
trying_each = pytest.mark.parametrize("name", TRIED)
FRAME = [{"name": "y", "count": 8}, {"name": "x", "count": 8}]
WELLS = [{"name": "a", "row": "A", "column": "1"}, {"name": "b", "row": "B", "column": "2"}]
LAYOUTS: dict[str, dict[str, Any]] = {
    "image": {
        "dimensions": [{"name": "t", "count": 3}, {"name": "c", "coords": ["DAPI"]}, *FRAME],
        "levels": 2,
        "codec": "zstd",
    },
    "positions": {
        "dimensions": [{"name": "p", "count": 2}, {"name": "z", "count": 2, "unit": "um"}, *FRAME],
        "levels": 2,
        "downscale_z": True,
        "codec": "blosc-lz4",
    },
    "unbounded": {"dimensions": [{"name": "t", "count": None}, *FRAME], "chunks": {"t": 2}, "shards": {"t": 4}},
    "plate": {"dimensions": [{"name": "p", "coords": WELLS}, *FRAME], "plate": Plate.standard(6)},
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small dataset of each layout."""
    folder = tmp_path_factory.mktemp("sound")
    for name, layout in LAYOUTS.items():
        base: dict[str, Any] = {"path": folder / name, "dtype": "uint8", "backend": "inplace"}
        acquire(AcquisitionSettings.model_validate({**base, **layout}), 3 if name == "unbounded" else None)
    return {name: folder / name for name in LAYOUTS}


def bears(name: str, path: Path) -> None:
    """It comes back, with nothing worse than a DatasetError that one can print, or what the system says of a file."""
    try:
        TRIED[name](path)
    except DatasetError as error:
        str(error).encode("utf-8", "backslashreplace")
    except OSError:
        assert name == "recover", "who only reads tells what cannot be read"


# -- mutations ------------------------------------------------------------------------------------------------------


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


ODD: list[Any] = [
    None, True, -1, 0, 7, 2**31, 2**63, -(2**63), 10**400, 1e308, -0.0, float("nan"), float("inf"), "", "0", ".", "/",
    "..", "../..", "a/../../b", "\0", "C:/x", "\\", "\ud800", "\x1b[31m", "x" * 300, "x" * 70_000, "0/" * 3000, [], {},
    [[]], [{}], [None] * 100, ["0"] * 300, {"": {}}, {"a": "b"}, nested(150), [1e308] * 5, [[0, 1]], "written", "NaN",
]  # fmt: skip
JUNK = [
    b"",
    b"\0" * 5000,
    b"\xff\xfe",
    b"{" * 3000,
    b"[" * 3000,
    b"9" * 5000,
    b"NaN",
    b"1e999",
    b'"\\ud800"',
    b"\n",
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every entry of a document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def changed(document: Any, place: tuple[Any, ...], how: str, odd: Any) -> Any:
    """With another value, or none, or one more, at that place."""
    if not place:
        return odd
    parent = document
    for key in place[:-1]:
        parent = parent[key]
    if how == "remove":
        del parent[place[-1]]
    elif how == "repeat" and isinstance(parent[place[-1]], list):
        parent[place[-1]] = (parent[place[-1]] * 200)[:1000]
    elif how == "add" and isinstance(parent[place[-1]], list):
        parent[place[-1]].append(odd)
    elif how == "rename" and isinstance(parent, dict):
        parent[odd if isinstance(odd, str) else "odd"] = parent.pop(place[-1])
    else:
        parent[place[-1]] = odd
    return document


def mutate_json(data: st.DataObject, text: str) -> bytes:
    document = json.loads(text)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(list(places(document))))
        how = data.draw(st.sampled_from(["replace", "replace", "remove", "repeat", "add", "rename"]))
        document = changed(document, place, how, json.loads(json.dumps(data.draw(st.sampled_from(ODD)))))
    return json.dumps(document).encode()


def mutate_bytes(data: st.DataObject, content: bytes) -> bytes:
    at, end = sorted(data.draw(st.tuples(st.integers(0, len(content)), st.integers(0, len(content)))))
    how = data.draw(st.sampled_from(["flip", "cut", "drop", "repeat", "junk"]))
    if how == "flip" and at < len(content):
        return content[:at] + bytes([content[at] ^ 1 << data.draw(st.integers(0, 7))]) + content[at + 1 :]
    if how == "cut":
        return content[:at]
    if how == "drop":
        return content[:at] + content[end:]
    if how == "repeat":
        return content[:end] + content[at:end] * 20 + content[end:]
    return content[:at] + data.draw(st.sampled_from(JUNK)) + content[end:]


def mutate_log(data: st.DataObject, content: bytes) -> bytes:
    log = content.splitlines(keepends=True) or [b""]
    number = data.draw(st.integers(0, len(log) - 1))
    log[number] = mutate_json(data, log[number].decode()) + b"\n"
    return b"".join(log)


def a_loop(path: Path) -> None:
    path.symlink_to(path.name)


def a_link_to_nowhere(path: Path) -> None:
    path.symlink_to("nowhere")


def a_link_to_the_root(path: Path) -> None:
    path.symlink_to("..", target_is_directory=True)


def a_link_to_endless_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_pipe(path: Path) -> None:
    if hasattr(os, "mkfifo"):
        os.mkfifo(path)


def a_file_of_holes(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def an_unreadable_file(path: Path) -> None:
    path.touch(0)


def nothing(path: Path) -> None:
    assert not path.exists()


REPLACEMENTS: list[Callable[[Path], object]] = [
    Path.mkdir, Path.touch, nothing, a_loop, a_link_to_nowhere, a_link_to_the_root, a_link_to_endless_zeros, a_pipe,
    an_unreadable_file, a_file_of_holes,
]  # fmt: skip


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


# -- whatever was changed -------------------------------------------------------------------------------------------


@pytest.mark.timeout(600)  # for all examples, on a machine that is busy
@trying_each
@hypothesis_settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_documents_and_logs_with_anything_in_them(name: str, sound: dict[str, Path], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.ome.zarr"
        shutil.copytree(sound[data.draw(st.sampled_from(list(sound)))], path)
        if data.draw(st.booleans()):  # as a kill leaves it, there is more to do
            document = path / "zarr.json"
            document.write_text(document.read_text().replace('"complete"', '"recording"'))
        files = sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file())
        for _ in range(data.draw(st.integers(1, 3))):
            file = path / data.draw(st.sampled_from(files))
            content = file.read_bytes()
            try:
                if file.suffix == ".jsonl" and data.draw(st.booleans()):
                    content = mutate_log(data, content)
                elif file.suffix == ".json" and data.draw(st.booleans()):
                    content = mutate_json(data, content.decode())
                else:
                    content = mutate_bytes(data, content)
            except (ValueError, IndexError, KeyError, RecursionError):
                content = mutate_bytes(data, content)  # it was changed before, and is no JSON any more
            file.write_bytes(content)
            note(f"{file.relative_to(path)}: {content[:1000]!r}")
        bears(name, path)


@trying_each
@pytest.mark.parametrize("layout", ["positions", "plate"])
@pytest.mark.parametrize("replacement", REPLACEMENTS, ids=lambda make: make.__name__)
def test_anything_in_place_of_a_file_or_a_folder(
    name: str, layout: str, replacement: Callable[[Path], object], sound: dict[str, Path], tmp_path: Path
) -> None:
    things = sorted(thing.relative_to(sound[layout]) for thing in sound[layout].rglob("*") if "c" not in thing.parts)
    for number, thing in enumerate(things):
        path = tmp_path / str(number)
        shutil.copytree(sound[layout], path)
        remove(path / thing)
        replacement(path / thing)
        bears(name, path)
        shutil.rmtree(path)


@trying_each
@pytest.mark.parametrize("replacement", REPLACEMENTS, ids=lambda make: make.__name__)
def test_anything_in_place_of_the_dataset(name: str, replacement: Callable[[Path], object], tmp_path: Path) -> None:
    replacement(tmp_path / "a.ome.zarr")
    bears(name, tmp_path / "a.ome.zarr")


@trying_each
@pytest.mark.parametrize("path", ["", "\0", "a\ud800", "x" * 300, "0/" * 3000])
def test_any_name(name: str, path: str, tmp_path: Path) -> None:
    bears(name, tmp_path / path)


@trying_each
def test_folders_nested_deeper_than_python_calls(name: str, sound: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "a.ome.zarr"
    shutil.copytree(sound["positions"], path)
    deep = path
    while len(str(deep)) < 3900:
        deep = deep / "d"
        deep.mkdir()
    bears(name, path)
    subprocess.run(["rm", "-rf", str(path)], check=True)  # which Python 3.11 cannot do


# -- bombs ----------------------------------------------------------------------------------------------------------

MOST = 31_000_000  # bytes: nearly as large as a document may be


def of(unit: bytes, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    """As many of a unit as fit into a document."""
    return opening + b",".join([unit] * ((MOST - 1000) // (len(unit) + 1))) + closing


def root(ome: bytes) -> bytes:
    return b'{"zarr_format":3,"node_type":"group","attributes":{"ome":{"version":"0.5",' + ome + b"}}}"


BOMBS: dict[str, bytes] = {
    "lists": of(b"[]"),
    "wells that are not there": root(b'"plate":{"wells":' + of(b'{"path":"A/1"}') + b"}"),
    "wells outside": root(b'"plate":{"wells":' + of(b'{"path":"../1"}') + b"}"),
    "axes": root(b'"multiscales":[{"axes":' + of(b"{}") + b',"datasets":[{"path":"0"}]}]'),
    "steps": root(
        b'"multiscales":[{"axes":[{"name":"y"},{"name":"x"}],"coordinateTransformations":' + of(b'{"scale":[1,1]}')
        + b',"datasets":[{"path":"0"}]}]'
    ),
    "datasets": root(b'"multiscales":[{"datasets":' + of(b'{"path":"0"}') + b"}]"),
    "channels": root(b'"multiscales":[{"datasets":[{"path":"0"}]}],"omero":{"channels":' + of(b"{}") + b"}"),
    "labels": root(b'"labels":' + of(b'""')),
    "long names": root(b'"labels":["' + b"x" * (MOST - 1000) + b'"]'),
    "digits": b"[" + b"9" * MOST + b"]",
    "depth": b"[" * MOST,
    "too large": b" " * 100_000_000,
}  # fmt: skip


LOGS: dict[str, bytes] = {
    "no line end": b"[" * 3000_000,
    "lists": of(b"[]") + b"\n",
    "depth": b'{"a":' * 3_000_000 + b"\n",
    "empty lines": b"\n" * 300_000,
    "digits": b'{"frame":' + b"9" * 10_000_000 + b"}\n",
}


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of the address space is of Linux")
@pytest.mark.timeout(600)  # for all of them, on a machine that is busy
@trying_each
def test_a_bomb_costs_bounded_memory_and_time(name: str, sound: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "a.ome.zarr"
    shutil.copytree(sound["image"], path)
    done = subprocess.run([sys.executable, __file__, name, str(path)], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def bear_all_bombs(name: str, path: Path) -> None:
    for file, bombs in (("zarr.json", BOMBS), ("scopestream/frames.jsonl", LOGS)):
        before = (path / file).read_bytes()
        for bomb, content in bombs.items():
            print(bomb)  # noqa: T201  # the last one is what it fails with
            (path / file).write_bytes(content)
            bears(name, path)
        (path / file).write_bytes(before)


if __name__ == "__main__":
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    bear_all_bombs(sys.argv[1], Path(sys.argv[2]))
