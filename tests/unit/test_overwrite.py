"""`on_exists="overwrite"` deletes a Zarr dataset, and nothing that somebody may miss."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scopestream import AcquisitionSettings, DatasetExistsError, Plate, open_stream, read_frames
from scopestream.testing import acquire, read_array, stamped_frame


def settings(path: Path, **changes: Any) -> AcquisitionSettings:
    dimensions: list[dict[str, Any]] = [{"name": "p", "count": 2}, {"name": "y", "count": 8}, {"name": "x", "count": 8}]
    return AcquisitionSettings.model_validate(
        {"path": path, "dtype": "uint8", "dimensions": dimensions, "backend": "inplace", **changes}
    )


def everything(folder: Path) -> dict[str, bytes | None]:
    """All that is in a folder, to compare."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in folder.rglob("*")
    }


def assert_kept(path: Path, message: str) -> None:
    before = everything(path.parent)
    with pytest.raises(DatasetExistsError, match=message) as caught:
        open_stream(settings(path, on_exists="overwrite"))
    assert "nothing was changed" in str(caught.value)
    assert everything(path.parent) == before


def change(folder: Path, **fields: Any) -> None:
    document = json.loads((folder / "zarr.json").read_text())
    (folder / "zarr.json").write_text(json.dumps({**document, **fields}))


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return acquire(settings(tmp_path / "a.ome.zarr")).root


def test_images_positions_and_plates_are_replaced(tmp_path: Path) -> None:
    wells = [{"name": "a", "row": "A", "column": "1"}, {"name": "b", "row": "B", "column": "1"}]
    frame = [{"name": "y", "count": 8}, {"name": "x", "count": 8}]
    plate: dict[str, Any] = {"dimensions": [{"name": "p", "coords": wells}, *frame], "plate": Plate.standard(6)}
    path = tmp_path / "a.ome.zarr"
    for changes in ({}, plate, {"dimensions": frame, "levels": 2}, {}):
        acquire(settings(path, on_exists="overwrite", **changes))
    assert [path.name for path in tmp_path.iterdir()] == ["a.ome.zarr"]


@pytest.mark.parametrize("litter", [".zarr.json.tmp", ".scopestream-probe", ".DS_Store", "Thumbs.db"])
def test_what_a_killed_program_or_a_file_browser_left_behind_does_not_matter(old: Path, litter: str) -> None:
    (old / litter).write_text("")
    acquire(settings(old, on_exists="overwrite"))
    assert not (old / litter).exists()


@pytest.mark.parametrize("name", ["thesis.txt", ".git", "analysis", "0.tif", "zarr.json.bak"])
@pytest.mark.parametrize("is_folder", [False, True])
def test_a_dataset_with_something_foreign_is_kept(old: Path, name: str, is_folder: bool) -> None:
    if is_folder:
        (old / name).mkdir()
        (old / name / "data").write_text("years of work")
    else:
        (old / name).write_text("years of work")
    assert_kept(old, f"holds what is not of a Zarr dataset \\({name}\\)")


def test_the_first_few_foreign_things_are_named(old: Path) -> None:
    for number in range(9):
        (old / f"note {number}").write_text("")
    assert_kept(old, "note 0, note 1, note 2 and 6 more")


def test_a_link_among_the_images_is_foreign_and_not_followed(old: Path, tmp_path: Path) -> None:
    shutil.copytree(old / "0", tmp_path / "elsewhere")
    (old / "2").symlink_to(tmp_path / "elsewhere")
    assert_kept(old, r"\(2\)")
    shutil.rmtree(old / "OME")
    (old / "2").unlink()
    (old / "OME").symlink_to(tmp_path / "elsewhere")
    assert_kept(old, r"\(OME\)")


def test_what_a_link_deeper_inside_points_to_is_not_deleted(old: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    (old / "0" / "link").symlink_to(tmp_path / "precious")
    acquire(settings(old, on_exists="overwrite"))
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "years of work"


def test_a_link_to_a_dataset_is_kept(old: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(old)
    assert_kept(tmp_path / "link", "is a symbolic link")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"),
        (b"{}", "zarr_format"),
        (b'{"zarr_format": 2}', "zarr_format 2"),
        (b'{"zarr_format": 3, "node_type": "array"}', "is not a Zarr v3 group"),
        (b'{"zarr_format": 3}', "is not a Zarr v3 group"),
        (b"[" * 100_000, "is not JSON"),
    ],
)
def test_a_folder_whose_document_is_not_that_of_a_group_is_kept(old: Path, content: bytes, message: str) -> None:
    (old / "zarr.json").write_bytes(content)
    assert_kept(old, message)


def test_a_file_and_a_folder_without_a_document_are_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("years of work")
    (tmp_path / "folder").mkdir()
    assert_kept(tmp_path / "file", "is not a folder")
    assert_kept(tmp_path / "folder", "is not a Zarr v3 dataset")


@pytest.mark.parametrize("where", ["itself", "inside"])
def test_the_current_folder_and_what_holds_it_are_kept(old: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.chdir(old if where == "itself" else old / "0")
    assert_kept(old, "is the current folder, or holds it")


@pytest.mark.parametrize("where", ["itself", "inside"])
def test_the_home_folder_and_what_holds_it_are_kept(old: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    home = str(old if where == "itself" else old / "0")
    monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("USERPROFILE", home)
    assert_kept(old, "is the home folder, or holds it")


def test_the_place_where_a_file_system_begins_is_kept(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == old.resolve())
    assert_kept(old, "is where a file system begins")


def test_a_folder_that_came_in_between_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path was free when it was looked at, and is a folder of somebody else when the dataset is made."""
    import scopestream.stream as module

    path, resolve = tmp_path / "a.ome.zarr", module.resolve

    def resolve_slowly(settings: AcquisitionSettings) -> Any:
        path.mkdir()
        (path / "thesis.txt").write_text("years of work")
        return resolve(settings)

    monkeypatch.setattr(module, "resolve", resolve_slowly)
    with pytest.raises(DatasetExistsError, match="nothing was changed"):
        open_stream(settings(path, on_exists="overwrite"))
    assert (path / "thesis.txt").exists()


def test_what_cannot_be_deleted_is_named_and_the_acquisition_goes_on(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = os.unlink

    def refuse_settings(path: Any, *, dir_fd: int | None = None) -> None:
        if Path(path).name == "settings.json":
            raise PermissionError(13, "Permission denied", path)
        unlink(path, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse_settings)
        with pytest.warns(RuntimeWarning, match=r"could not be deleted completely .*settings.json.*\.replaced-"):
            stream = open_stream(settings(old, on_exists="overwrite"))
    with stream:
        stream.append(stamped_frame(0, (8, 8), "uint8"))
    rest = next(old.parent.glob("a.ome.zarr.replaced-*"))
    assert [path.name for path in rest.rglob("*") if path.is_file()] == ["settings.json"]
    np.testing.assert_array_equal(read_array(old / "0" / "0", "zarr"), stamped_frame(0, (8, 8), "uint8"))


def test_a_dataset_set_aside_before_is_not_overwritten_by_the_next(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aside = old.with_name(f"{old.name}.replaced-{os.getpid()}")
    aside.mkdir()
    (aside / "thesis.txt").write_text("years of work")
    acquire(settings(old, on_exists="overwrite"))
    assert (aside / "thesis.txt").exists()


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is of POSIX")
def test_after_a_kill_while_the_old_one_is_set_aside_it_is_found_beside_the_new(old: Path) -> None:
    before = everything(old)
    script = (
        "import os, signal, sys, scopestream.folder as folder\n"
        "from scopestream import AcquisitionSettings, open_stream\n"
        "folder.NewRoot.keep = lambda self: os.kill(os.getpid(), signal.SIGKILL)\n"
        "open_stream(AcquisitionSettings.from_yaml(sys.stdin.read()))\n"
    )
    text = settings(old, on_exists="overwrite").to_yaml()
    done = subprocess.run([sys.executable, "-c", script], input=text, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    aside = next(old.parent.glob("a.ome.zarr.replaced-*"))
    assert everything(aside) == before
    assert len(list(read_frames(aside))) == 2
