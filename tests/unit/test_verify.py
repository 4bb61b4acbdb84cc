"""`verify` reads everything back and counts what it finds, image by image."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scopestream import AcquisitionSettings, DatasetError, open_stream, verify
from scopestream.testing import stamped_frame
from tests.unit.test_recovery import CASES, CODECS, X, Y

BACKENDS = ("inplace", "tensorstore", "zarr-python", "zarrs", "acquire-zarr")


def acquired(path: Path, n_frames: int, **changes: Any) -> Path:
    settings: dict[str, Any] = {"dtype": "uint16", **CASES["time"], **changes}
    with open_stream(AcquisitionSettings(path=path, **settings)) as stream:
        for number in range(n_frames):
            stream.append(stamped_frame(number, (Y, X), "uint16"))
    return path


def flip(file: Path, offset: int) -> None:
    content = bytearray(file.read_bytes())
    content[offset] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_a_dataset_without_damage_is_sound(tmp_path: Path, case: str, backend: str) -> None:
    changes = {**CASES[case], "codec": "blosc-lz4", "backend": backend}
    path = acquired(tmp_path / "a.ome.zarr", 5, **changes)
    found = verify(path)
    assert found.sound, found.problems
    assert found.total("written") == 5
    assert found.total("unchecked") == 0


@pytest.mark.parametrize("codec", CODECS)
def test_a_bit_that_flipped_is_found(tmp_path: Path, codec: str) -> None:
    path = acquired(tmp_path / "a.ome.zarr", 11, codec=codec)
    flip(path / "0" / "c" / "1" / "0" / "0", 5000)
    found = verify(path)
    assert not found.sound
    assert (found.total("corrupt"), found.total("written")) == (1, 10)


def test_a_file_that_is_gone_is_found(tmp_path: Path) -> None:
    path = acquired(tmp_path / "a.ome.zarr", 11)
    (path / "0" / "c" / "1" / "0" / "0").unlink()
    found = verify(path)
    assert not found.sound
    assert (found.total("lost"), found.total("written")) == (4, 7)


def test_a_damaged_index_is_found(tmp_path: Path) -> None:
    path = acquired(tmp_path / "a.ome.zarr", 11)
    shard = path / "0" / "c" / "1" / "0" / "0"
    flip(shard, shard.stat().st_size - 1)
    found = verify(path)
    assert found.total("corrupt") == 4
    assert found.problems == [f"{shard}: its index is damaged; no reader can open this shard"]


def test_chunks_of_coarser_levels_are_decoded_too(tmp_path: Path) -> None:
    path = acquired(tmp_path / "a.ome.zarr", 11, levels=2, codec="zstd")
    flip(path / "1" / "c" / "0" / "0" / "0", 3)
    found = verify(path)
    assert not found.sound
    assert found.total("written") == 11
    assert "cannot be read" in found.problems[0]


def test_a_changed_document_is_found(tmp_path: Path) -> None:
    path = acquired(tmp_path / "a.ome.zarr", 11)
    document = path / "0" / "zarr.json"
    document.write_text(document.read_text().replace('"uint16"', '"uint8"'))
    assert "0/zarr.json is not what the settings say" in verify(path).problems[0]


def test_frames_are_counted_by_image(tmp_path: Path) -> None:
    dimensions = [
        {"name": "t", "count": 3},
        {"name": "p", "coords": ["left", "right"]},
        {"name": "y", "count": Y},
        {"name": "x", "count": X},
    ]
    settings = AcquisitionSettings(path=tmp_path / "a.ome.zarr", dtype="uint16", dimensions=dimensions)
    with open_stream(settings) as stream:
        for number in range(3):
            stream.append(stamped_frame(number, (Y, X), "uint16"))
        stream.skip()
    left, right = verify(stream.path).images
    assert (left.name, left.written, left.skipped, left.missing) == ("left", 2, 0, 1)
    assert (right.name, right.written, right.skipped, right.missing) == ("right", 1, 1, 1)


def test_black_frames_are_no_lost_frames(tmp_path: Path) -> None:
    """Libraries leave out chunks, and whole files, in which every pixel is zero."""
    for backend in BACKENDS:
        settings = AcquisitionSettings(
            path=tmp_path / f"{backend}.ome.zarr", dtype="uint16", **CASES["time"], backend=backend
        )
        with open_stream(settings) as stream:
            for _ in range(11):
                stream.append(np.zeros((Y, X), "uint16"))
        found = verify(stream.path)
        assert found.sound
        assert found.total("written") == 11


def test_without_checksums_frames_count_as_unchecked(tmp_path: Path) -> None:
    found = verify(acquired(tmp_path / "a.ome.zarr", 11, checksums=False))
    assert found.sound
    assert (found.total("written"), found.total("unchecked")) == (11, 11)


def test_checksums_do_not_depend_on_how_frames_lie_in_memory(tmp_path: Path) -> None:
    settings = AcquisitionSettings(path=tmp_path / "a.ome.zarr", dtype="uint16", **CASES["time"])
    with open_stream(settings) as stream:
        frame = stamped_frame(0, (Y, X), "uint16")
        stream.append(frame)
        stream.append(np.asfortranarray(frame))
        stream.append(frame.astype(">u2"))
        stream.append(np.repeat(frame, 2, axis=1)[:, ::2])
        stream.append(frame.copy(), copy=False)
        stream.extend(frame[None], copy=False)
        stream.extend(np.stack([frame, frame])[::-1], copy=True)
    found = verify(stream.path)
    assert found.total("written") == 8
    assert found.sound


def test_progress_counts_files(tmp_path: Path) -> None:
    path = acquired(tmp_path / "a.ome.zarr", 11, levels=2)
    seen: list[tuple[int, int]] = []
    verify(path, lambda done, total: seen.append((done, total)))
    assert seen == [(number, 6) for number in range(1, 7)]


def test_a_dataset_may_have_been_moved(tmp_path: Path) -> None:
    path = acquired(tmp_path / "a.ome.zarr", 11)
    shutil.move(path, tmp_path / "b.ome.zarr")
    assert verify(tmp_path / "b.ome.zarr").total("written") == 11


def test_what_scopestream_did_not_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nothing at"):
        verify(tmp_path / "nowhere.ome.zarr")
    path = acquired(tmp_path / "a.ome.zarr", 11)
    (path / "scopestream" / "settings.json").unlink()
    with pytest.raises(DatasetError, match="scopestream did not write it"):
        verify(path)
