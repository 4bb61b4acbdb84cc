"""The examples run as they are, and leave datasets in which every frame is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scopestream import verify

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_runs_and_all_of_its_frames_are_there(example: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(example)], cwd=tmp_path, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    datasets = sorted(tmp_path.glob("*.ome.zarr"))
    assert datasets
    for path in datasets:
        result = verify(path)
        assert result.sound
        assert result.status == "complete"


def test_the_first_one_has_ten_lines() -> None:
    code = (EXAMPLES / "pymmcore_in_ten_lines.py").read_text().split('"""')[2].split("core.unloadAllDevices")[0]
    lines = [line for line in code.splitlines() if line and not line.startswith(("import", "from", "print", ")"))]
    assert len(lines) <= 10
