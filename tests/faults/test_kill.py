"""A killed process leaves a dataset that every reader opens, with every frame that `flush` returned for.

acquire-zarr cannot show frames before its shards are complete: of its datasets the complete shards must be exact.

And then `recover` makes it whole, or a stream goes on with it, or both, and these may be killed as well: what comes of
it in the end is the dataset of an acquisition that nothing interrupted.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

import google_crc32c
import pytest

from scopestream import DatasetError, recover
from scopestream.testing.readers import READERS
from tests.faults.aftermath import Aftermath
from tests.faults.dataset import Dataset, Reader, chunks_of_a_file, python_reader, unreadable, written
from tests.faults.kills import BACKENDS, Kill
from tests.faults.node import NoZarritaError, Zarrita, install
from tests.faults.results import Numbers, Results
from tests.faults.victim import CAN_FORK, Seen, acquire, kill

N_KILLS = int(os.environ.get("SCOPESTREAM_KILLS", "300"))  # of the campaign
# Every layout, codec and depth with "inplace", and something of each of the others.
SHORT = [*product(range(100, 112), ["inplace"]), *((200 + n, BACKENDS[1 + n % 4]) for n in range(12))]
CAMPAIGN = [(1000 + n, BACKENDS[n % 5]) for n in range(N_KILLS)]

pytestmark = pytest.mark.skipif(not CAN_FORK, reason="this system cannot fork, or has no SIGKILL")


@pytest.fixture(scope="session")
def zarrita_script(tmp_path_factory: pytest.TempPathFactory) -> Path | str:
    """The script, or why there is none."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    try:
        return install(folder / "zarrita")
    except NoZarritaError as error:
        return str(error)


@pytest.fixture(scope="module")
def readers(zarrita_script: Path | str) -> Iterator[Mapping[str, Reader]]:
    python = {name: python_reader(name) for name in READERS}
    if isinstance(zarrita_script, str):
        yield python
    else:
        with Zarrita(zarrita_script) as zarrita:
            yield {**python, "zarrita": zarrita}


def test_the_javascript_reader_takes_part(zarrita_script: Path | str) -> None:
    if isinstance(zarrita_script, str):
        pytest.skip(f"the datasets were read in Python only: {zarrita_script}")


@pytest.mark.parametrize(("seed", "backend"), SHORT)
def test_flushed_frames_survive_a_kill(
    seed: int, backend: str, tmp_path: Path, readers: Mapping[str, Reader], results: Results
) -> None:
    kill_and_check(Kill.draw(seed, backend), tmp_path / "a.ome.zarr", readers, results)


@pytest.mark.campaign
@pytest.mark.parametrize(("seed", "backend"), CAMPAIGN)
def test_flushed_frames_survive_any_kill(
    seed: int, backend: str, tmp_path: Path, readers: Mapping[str, Reader], results: Results
) -> None:
    kill_and_check(Kill.draw(seed, backend), tmp_path / "a.ome.zarr", readers, results)


def kill_and_check(victim: Kill, path: Path, readers: Mapping[str, Reader], results: Results) -> None:
    settings = victim.settings(path)
    seen = kill(acquire, (settings, victim.n_frames, victim.flush_every, victim.pace_s), victim.moment)
    dataset = Dataset(settings)
    assert dataset.broken_documents() == []
    if seen.phase == "starting":
        try:
            recover(path)
        except DatasetError:
            return  # nothing was promised, not even a dataset
        promised = set[int]()
    else:
        promised = check_killed(victim, seen, dataset, readers, results)
    Aftermath(victim, dataset, promised, seen, readers, results).check()


def check_killed(
    victim: Kill, seen: Seen, dataset: Dataset, readers: Mapping[str, Reader], results: Results
) -> set[int]:
    """The dataset as the kill left it. Returns the frames that were promised."""
    if dataset.is_live:
        promised = set(range(seen.flushed))
    else:  # what is put aside there is for recovery to judge here
        copy = shutil.copytree(dataset.root, dataset.root.with_name("copy.ome.zarr"))
        dataset = Dataset(victim.settings(copy))
        promised = without_open_shards(dataset, seen.sent)
    exact, unread = set(range(seen.sent)), list[str]()
    for name, reader in readers.items():
        arrays = dataset.read(reader)
        exact &= dataset.exact(arrays, exact)
        unread += [f"{name}: {why}" for why in unreadable(arrays)]
        assert dataset.wrong_pairs(arrays, seen.sent) == []
    numbers = Numbers.of(promised, exact, seen.sent)
    what = f"{victim.layout}, {victim.codec}, {seen.phase}"
    results.add("kill", victim.backend, what, opened=not unread, numbers=numbers)
    assert unread == [], (victim, seen)
    assert promised <= exact, (victim, seen)
    if dataset.is_live:
        assert promised <= set(written(dataset.logged()))
    return promised


def without_open_shards(dataset: Dataset, n_frames: int) -> set[int]:
    """Frames of complete files that the shape covers; other files are put aside, as `close` would have done."""
    frames = {
        number
        for number in range(n_frames)
        if all(is_complete(file, n_chunks) for file, n_chunks in dataset.files_of(number)) and dataset.covers(number)
    }
    for array in dataset.plan.arrays:
        for file in (dataset.root / array.path / "c").rglob("*"):
            if file.is_file() and not is_complete(file, chunks_of_a_file(array)):
                file.unlink()
    return frames


def is_complete(file: Path, n_chunks: int) -> bool:
    """Whether the file ends with the index of a shard and its checksum, which acquire-zarr writes last."""
    tail = file.read_bytes()[-16 * n_chunks - 4 :] if file.exists() else b""
    return len(tail) == 16 * n_chunks + 4 and google_crc32c.value(tail[:-4]) == int.from_bytes(tail[-4:], "little")
