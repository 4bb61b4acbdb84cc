"""Metadata becomes JSON by rules, or is refused before its frame is consumed; a line of the frame log is one line."""

from __future__ import annotations

import datetime
import enum
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import BaseModel

from scopestream import AcquisitionSettings, MetadataError, Stream, open_stream, read_frames

FRAME = np.ones((4, 4), "uint8")
Call = Callable[[Stream, Any], object]


class Mode(enum.StrEnum):
    FAST = "fast"


class Gain(enum.IntEnum):
    HIGH = 3


@dataclass
class Stage:
    x: float
    raw: Any = None


class Laser(BaseModel):
    power: float


def settings(folder: Path) -> AcquisitionSettings:
    return AcquisitionSettings.model_validate(
        {
            "path": folder / "a.ome.zarr", "dtype": "uint8", "backend": "inplace",
            "dimensions": [{"name": name, "count": count} for name, count in {"t": 3, "p": 1, "y": 4, "x": 4}.items()],
        }
    )  # fmt: skip


def append(stream: Stream, metadata: Any) -> None:
    stream.append(FRAME, metadata)


def extend(stream: Stream, metadata: Any) -> None:
    stream.extend(FRAME[None], [metadata])


def write(stream: Stream, metadata: Any) -> None:
    stream.write(FRAME, index={"t": 0, "p": 0}, metadata=metadata)


def set_metadata(stream: Stream, metadata: Any) -> None:
    stream.set_metadata("mine", metadata)


CALLS = pytest.mark.parametrize("call", [append, extend, write, set_metadata])


def stored(folder: Path) -> Any:
    """What `append`, `extend`, `write` or `set_metadata` kept, read as any program would."""
    root = json.loads((folder / "a.ome.zarr" / "zarr.json").read_bytes(), parse_constant=pytest.fail)
    if "mine" in root["attributes"]:
        return root["attributes"]["mine"]
    lines = (folder / "a.ome.zarr" / "scopestream" / "frames.jsonl").read_text("utf-8", "strict").split("\n")
    assert lines.pop() == "", "the last line has no end"
    return json.loads(lines[0], parse_constant=pytest.fail)["metadata"]


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


def holds_itself() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["a"] = [value]
    return value


@CALLS
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"a": float("nan"), "b": [float("-inf")]}, {"a": "NaN", "b": ["-Infinity"]}),
        ({"a": float("inf")}, {"a": "Infinity"}),
        ({"a": np.float32(0.5), "b": np.int8(-1), "c": np.bool_(True)}, {"a": 0.5, "b": -1, "c": True}),
        ({"a": np.arange(4).reshape(2, 2), "b": np.longdouble(0.5)}, {"a": [[0, 1], [2, 3]], "b": 0.5}),
        ({"a": np.array([0.5, np.nan])}, {"a": [0.5, "NaN"]}),
        ({"a": np.array(["x", None, 1], object)}, {"a": ["x", None, 1]}),
        ({"a": np.datetime64("2026-01-02T03:04:05.123456789")}, {"a": "2026-01-02T03:04:05.123456789"}),
        ({"a": 2**64 - 1, "b": -(2**63)}, {"a": 2**64 - 1, "b": -(2**63)}),
        ({"a": 2**64, "b": [10**400]}, {"a": str(2**64), "b": [str(10**400)]}),
        ({"a": Mode.FAST, "b": Gain.HIGH, Mode.FAST: 1}, {"a": "fast", "b": 3, "fast": 1}),
        ({"a": PurePosixPath("/b"), "c": datetime.date(2026, 1, 2)}, {"a": "/b", "c": "2026-01-02"}),
        ({"a": Stage(np.float64(1)), "b": Laser(power=np.nan)}, {"a": {"x": 1.0, "raw": None}, "b": {"power": "NaN"}}),
        ({1: "a", 2.5: "b", None: "d"}, {"1": "a", "2.5": "b", "null": "d"}),
        ({True: 1, np.int64(7): 2, np.float32(0.5): 3, float("nan"): 4}, {"true": 1, "7": 2, "0.5": 3, "NaN": 4}),
        ({"a": "line\nline\r\u2028\0\x1b", "\t": 1}, {"a": "line\nline\r\u2028\0\x1b", "\t": 1}),
        ({"a": "\U0001f52c", "b": "\udc80", "\ud800": 1}, {"a": "\U0001f52c", "b": "\\udc80", "\\ud800": 1}),
        ({"a": (1, 2), "b": {3}, "c": frozenset({4})}, {"a": [1, 2], "b": [3], "c": [4]}),
        (MappingProxyType({"a": MappingProxyType({})}), {"a": {}}),
        (nested(64), nested(64)),
        ({}, {}),
    ],
)  # fmt: skip
def test_what_json_has_not_is_converted_by_rules(
    tmp_path: Path, call: Call, given: Mapping[Any, Any], kept: Any
) -> None:
    with open_stream(settings(tmp_path)) as stream:
        call(stream, given)
    assert stored(tmp_path) == kept


@CALLS
@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"a": b"raw"}, "bytes has no JSON form"),
        ({"a": bytearray(b"raw")}, "bytearray has no JSON form"),
        ({"a": [memoryview(b"raw")]}, "memoryview has no JSON form"),
        ({"a": Stage(0.0, b"raw")}, "bytes has no JSON form"),
        ({"a": np.bytes_(b"raw")}, "bytes has no JSON form"),
        ({"a": 1j}, "complex has no JSON form"),
        ({"a": np.complex64(1j)}, "complex has no JSON form"),
        ({"a": np.timedelta64(5, "ns")}, "no JSON form"),
        ({"a": np.zeros(2, [("x", "u1"), ("y", "f4")])}, "no JSON form"),
        ({"a": object()}, "cannot be stored"),
        ({"a": lambda: None}, "cannot be stored"),
        ({(1, 2): "a"}, "key is a tuple"),
        ({b"a": 1}, "key is a bytes"),
        ({1: "a", "1": "b"}, "two keys become '1'"),
        ({"a": [{None: 1, "null": 2}]}, "two keys become 'null'"),
        ({"\udc80": 1, "\\udc80": 2}, "two keys become"),
        (nested(66), "levels deep"),
        (nested(100_000), "levels deep"),
        (holds_itself(), "holds itself"),
        ({"a": 10**5000}, "digits"),
        ({"a": "x" * 9_000_000}, "too large"),
        ("text", "not a str"),
        ([("a", 1)], "not a list"),
        (7, "not a int"),
    ],
)
def test_what_has_no_json_form_is_refused_before_anything_is_consumed(
    tmp_path: Path, call: Call, given: Any, why: str
) -> None:
    with open_stream(settings(tmp_path)) as stream:
        with pytest.raises(MetadataError, match=why):
            call(stream, given)
        assert stream.stats.frames_in == 0
        call(stream, {"after": True})
        assert stream.error is None
    assert stored(tmp_path) == {"after": True}


def test_one_wrong_entry_refuses_a_whole_stack(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path)) as stream:
        with pytest.raises(MetadataError, match="no frame was taken"):
            stream.extend(np.stack([FRAME] * 3), [{}, {}, {"a": b"raw"}])
        assert stream.stats.frames_in == 0


@pytest.mark.parametrize("namespace", ["", "ome", "scopestream", 7, None, b"mine"])
def test_a_namespace_is_text_that_is_free(tmp_path: Path, namespace: Any) -> None:
    with open_stream(settings(tmp_path)) as stream, pytest.raises(MetadataError, match=r"nothing was changed|not free"):
        stream.set_metadata(namespace, {})


def test_documents_do_not_grow_beyond_what_is_read_back(tmp_path: Path) -> None:
    with open_stream(settings(tmp_path)) as stream:
        for number in range(2):
            stream.set_metadata(f"part {number}", {"a": "x" * 7_000_000})
        with pytest.raises(MetadataError, match="more metadata than a document can hold"):
            stream.set_metadata("part 2", {"a": "x" * 7_000_000})
        stream.set_metadata("part 1", {"a": "x"})
    attributes = json.loads((tmp_path / "a.ome.zarr" / "zarr.json").read_bytes())["attributes"]
    assert [key for key in attributes if key.startswith("part")] == ["part 0", "part 1"]


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        ("focus\nlost\r\n\u2028", "focus\nlost\r\n\u2028"),
        ('"},{"frame":1', '"},{"frame":1'),
        ("%s %d %", "%s %d %"),
        ("\0\x1b", "\0\x1b"),
        ("lone \ud800", "lone \\ud800"),
    ],
)
def test_a_reason_is_one_line_whatever_it_says(tmp_path: Path, reason: str, kept: str) -> None:
    with open_stream(settings(tmp_path)) as stream:
        stream.skip(3, reason=reason)
    records = list(read_frames(stream.path))
    assert [(record["frame"], record["reason"]) for record in records] == [(0, kept), (1, kept), (2, kept)]
    assert (tmp_path / "a.ome.zarr" / "scopestream" / "frames.jsonl").read_bytes().count(b"\n") == 3


@pytest.mark.parametrize("reason", [7, b"focus", {"a": 1}, ["focus"], "x" * 2_000_000])
def test_a_reason_that_is_no_text_is_refused_before_anything_is_skipped(tmp_path: Path, reason: Any) -> None:
    with open_stream(settings(tmp_path)) as stream:
        with pytest.raises(MetadataError, match="nothing was skipped"):
            stream.skip(reason=reason)
        stream.append(FRAME)
    assert [(record["frame"], record["status"]) for record in read_frames(stream.path)] == [(0, "written")]


texts = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.binary(max_size=4) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(texts | st.integers() | st.booleans(), inner, max_size=3)
    ),
    max_leaves=10,
)


@hypothesis_settings(max_examples=150, deadline=None)
@given(metadata=st.dictionaries(texts, anything, max_size=3), reason=st.none() | texts)
def test_every_line_of_the_log_is_one_line_of_json_in_utf_8(metadata: dict[str, Any], reason: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with open_stream(settings(Path(folder))) as stream:
            n_frames = 2
            try:
                stream.append(FRAME, metadata)
            except MetadataError:
                n_frames = 1
            stream.skip(reason=reason)
        content = (Path(stream.path) / "scopestream" / "frames.jsonl").read_bytes()
        assert content.endswith(b"\n")
        lines = content.decode("utf-8", "strict").splitlines()
        assert len(lines) == n_frames
        for line in lines:
            assert isinstance(json.loads(line, parse_constant=pytest.fail), dict)
            line.encode("ascii")
        assert len(list(read_frames(stream.path))) == n_frames
