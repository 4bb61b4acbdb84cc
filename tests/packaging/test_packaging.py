"""What people install is complete, small, and works on its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Callable
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

import numpy as np
import pytest
import tensorstore
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
BACKENDS = {"inplace", "tensorstore", "acquire-zarr", "zarr-python", "zarrs"}
LIBRARIES = ("tensorstore", "acquire_zarr", "zarr", "zarrs")

# Downloads, on a machine that may have a slow network.
pytestmark = pytest.mark.timeout(400)

WRITE = """
import numpy as np
from scopestream import AcquisitionSettings, Dimension, open_stream

settings = AcquisitionSettings(
    path="small.ome.zarr",
    dtype="uint16",
    dimensions=[Dimension(name="t", count=3), Dimension(name="y", count=32), Dimension(name="x", count=48)],
    backend="inplace",
)
with open_stream(settings) as stream:
    for number in range(3):
        stream.append(np.full((32, 48), number + 1, "uint16"))
"""
ASK_FOR_ALL = """
from scopestream import AcquisitionSettings, BackendNotFoundError, Dimension, open_stream

for name in ("tensorstore", "acquire-zarr", "zarr-python", "zarrs"):
    settings = AcquisitionSettings(
        path="never.ome.zarr",
        dtype="uint16",
        dimensions=[Dimension(name="t", count=3), Dimension(name="y", count=32), Dimension(name="x", count=48)],
        backend=name,
    )
    try:
        open_stream(settings)
    except BackendNotFoundError as error:
        print(name, "->", error)
"""
LOADED = f"""
import sys
import scopestream
import scopestream.cli
print(*(name for name in {LIBRARIES} if name in sys.modules))
"""
INSTALLED = f"""
from importlib.util import find_spec
print(*(name for name in {LIBRARIES} if find_spec(name)))
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command that succeeds; its whole output is in the failure otherwise."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that `make` fills in one of the processes of pytest-xdist, for all of them."""
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, made = shared / name, shared / f"{name}.made"
    with FileLock(shared / f"{name}.lock"):
        if not made.exists():
            rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


@dataclass(frozen=True)
class Environment:
    """A virtual environment with scopestream and the core dependencies."""

    path: Path

    def command(self, name: str) -> Path:
        return self.path / ("Scripts" if sys.platform == "win32" else "bin") / name

    def python(self, code: str, cwd: Path) -> str:
        return run(self.command("python"), "-I", "-W", "error", "-c", code, cwd=cwd)


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist, and the wheel that was built from this sdist."""

    def build(folder: Path) -> None:
        run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)

    return once(tmp_path_factory, "dist", build)


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    (wheel,) = dist.glob("*.whl")
    return wheel


@pytest.fixture(scope="session", params=["wheel", "editable"])
def core_only(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """scopestream as `pip install` leaves it, from the wheel and from the working tree, without any extra."""

    def install(folder: Path) -> None:
        venv.create(folder, with_pip=True)
        what = ["--editable", ROOT] if request.param == "editable" else [request.getfixturevalue("wheel")]
        run(Environment(folder).command("python"), "-m", "pip", "install", "--quiet", *what, cwd=folder)

    return Environment(once(tmp_path_factory, f"venv-{request.param}", install))


def test_wheel_holds_both_packages_with_their_types(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    modules = {
        path.relative_to(ROOT / parent).as_posix()
        for parent in ("src", "backends")
        for path in (ROOT / parent).rglob("*.py")
    }
    assert modules, "the working tree has modules"
    assert modules | {"scopestream/py.typed", "scopestream_backends/py.typed"} <= names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {
        "scopestream",
        "scopestream_backends",
    }


def test_wheel_registers_every_backend_and_the_command(wheel: Path) -> None:
    entry_points = ConfigParser(delimiters="=")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        entry_points.read_string(archive.read(name).decode())
    assert set(entry_points["scopestream.backends"]) == BACKENDS
    assert dict(entry_points["console_scripts"]) == {"scopestream": "scopestream.cli:app"}


def test_sdist_holds_what_it_takes_to_build_test_and_document(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "LICENSE",
        "Makefile",
        "README.md",
        "CHANGELOG.md",
        "pyproject.toml",
        "src/scopestream/py.typed",
        "backends/scopestream_backends/py.typed",
        "backends/scopestream_backends/inplace.py",
        "tests/packaging/test_packaging.py",
    } <= names
    assert {"docs", "benchmarks"} <= {name.split("/")[0] for name in names}


def test_core_alone_brings_no_backend_library(core_only: Environment, tmp_path: Path) -> None:
    assert core_only.python(INSTALLED, tmp_path).split() == []


def test_core_alone_writes_what_another_library_reads(core_only: Environment, tmp_path: Path) -> None:
    core_only.python(WRITE, tmp_path)
    store = {"driver": "file", "path": str(tmp_path / "small.ome.zarr" / "0")}
    pixels = tensorstore.open({"driver": "zarr3", "kvstore": store}, read=True).result().read().result()
    np.testing.assert_array_equal(pixels, np.broadcast_to([[[1]], [[2]], [[3]]], (3, 32, 48)))


def test_backend_without_its_library_names_the_extra(core_only: Environment, tmp_path: Path) -> None:
    extras = {name: name.removesuffix("-python") for name in BACKENDS - {"inplace"}}
    answers = dict(line.split(" -> ", 1) for line in core_only.python(ASK_FOR_ALL, tmp_path).splitlines())
    assert answers.keys() == extras.keys()
    for name, answer in answers.items():
        assert f"scopestream[{extras[name]}]" in answer
    assert not list(tmp_path.iterdir())


def test_command_line_runs_with_the_core_alone(core_only: Environment, tmp_path: Path) -> None:
    listing = run(core_only.command("scopestream"), "backends", cwd=tmp_path)
    assert all(name in listing for name in BACKENDS)


def test_import_loads_no_backend_library(tmp_path: Path) -> None:
    # In this environment, since there they are all installed.
    assert run(sys.executable, "-c", INSTALLED, cwd=tmp_path).split() == list(LIBRARIES)
    assert run(sys.executable, "-W", "error", "-c", LOADED, cwd=tmp_path).split() == []


def test_readme_example_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "example.py").write_text(example, encoding="utf-8")
    run(sys.executable, "-W", "error", "example.py", cwd=tmp_path)
    assert (tmp_path / "cells.ome.zarr" / "zarr.json").is_file()
