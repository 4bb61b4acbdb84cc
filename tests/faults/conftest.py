"""What the fault campaigns share: the shim, workers, the JavaScript reader, and the file of results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import shim
from tests.faults.results import Results
from tests.faults.worker import Worker


@pytest.fixture(scope="session")
def shim_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if reason := shim.why_not():
        pytest.skip(reason)
    return shim.build(tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="module")
def shimmed(shim_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A process whose system calls can be made to fail."""
    worker = Worker(tmp_path_factory.mktemp("worker"), shim_library)
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A process as it is."""
    worker = Worker(tmp_path_factory.mktemp("worker"))
    yield worker
    worker.close()


@pytest.fixture
def results() -> Results:
    return Results()
