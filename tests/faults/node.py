"""zarrita, the JavaScript reader, in a node process that reads one array after the other."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from filelock import FileLock

from tests.faults.dataset import Planes

_SCRIPT = Path(__file__).with_name("zarrita.mjs")
_PACKAGES = ("zarrita@0.7", "@zarrita/storage@0.2")
_INSTALL_S = 100


class NoZarritaError(Exception):
    """There is no node, no npm, or no way to the packages."""


def install(folder: Path) -> Path:
    """zarrita in that folder, from npm unless it is there. Returns the script. Raises NoZarritaError."""
    script = folder / _SCRIPT.name
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise NoZarritaError(f"there is no {program}")
    with FileLock(folder.with_suffix(".lock")):
        if not script.exists():
            folder.mkdir(exist_ok=True)
            command = ["npm", "install", "--prefix", folder, "--no-audit", "--no-fund", "--silent", *_PACKAGES]
            try:
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=_INSTALL_S)
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
                raise NoZarritaError(f"npm could not install zarrita: {(error.stderr or error)}") from error
            shutil.copy(_SCRIPT, script)  # node looks for packages beside the script; last, as a sign that all is there
    return script


class Zarrita:
    """A context manager."""

    def __init__(self, script: Path) -> None:
        self._script = script

    def __enter__(self) -> Zarrita:
        command = ["node", str(self._script)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        with self._process:  # closes its pipes
            pass

    def __call__(self, path: Path) -> Planes:
        """Raises OSError when zarrita cannot open or read the array."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"path": str(path)}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise OSError(answer["error"])
        return Planes(tuple(answer["shape"]), answer["digests"])
