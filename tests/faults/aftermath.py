"""What becomes of the dataset of a killed process: it is recovered, and a stream goes on with it to the end.

Processes that do so are killed as well, at random moments.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from scopestream import AcquisitionSettings, open_stream, read_frames, recover, verify
from scopestream.testing import acquire as acquire_whole
from scopestream.testing import reader_other_than, stamped_frame
from tests.faults.dataset import Dataset, Planes, Reader, differing, differing_known, python_reader, unreadable, written
from tests.faults.kills import Kill
from tests.faults.results import Numbers, Results
from tests.faults.victim import Moment, Seen, acquire, kill, mend


class Aftermath:
    """Of one killed acquisition.

    dataset   it left
    promised  frames that must be there
    seen      what it said last
    readers   that all must find the same
    """

    def __init__(
        self,
        victim: Kill,
        dataset: Dataset,
        promised: set[int],
        seen: Seen,
        readers: Mapping[str, Reader],
        results: Results,
    ) -> None:
        self._victim, self._dataset, self._readers, self._results = victim, dataset, readers, results
        self._promised = promised & set(written(dataset.logged()))
        self._lost: set[int] = set()  # of those that were promised
        self._opened = True
        self._settings: dict[str, Any] = {**victim.settings(dataset.root), "on_exists": "resume"}
        if not dataset.is_live:
            self._settings["backend"] = "inplace"  # acquire-zarr cannot go on with what is there
        self._keep(seen.flushed)

    def check(self) -> None:
        """Do all steps."""
        again = iter(self._victim.again)
        for step in self._victim.sequel:
            if step == "recover":
                self._recover()
            elif step == "resume":
                self._resume()
            elif step == "kill recover":
                moment = next(again)
                kill(mend, (str(self._dataset.root),), Moment(phase="starting", sent=0, sleep_s=moment.sleep_s))
            else:
                self._kill_resumed(next(again))

    def _keep(self, flushed: int) -> None:
        """A process was killed that had flushed so many frames. What it logged as written must not get lost, either."""
        if self._dataset.is_live:
            self._promised |= set(range(flushed))
        if self._victim.backend == "inplace":
            self._promised |= set(written(self._dataset.logged()))

    def _recover(self) -> None:
        dataset = self._dataset
        before = set(written(dataset.logged()))
        outcome = recover(dataset.root)
        kept = set(written(dataset.logged()))
        self._lost |= self._promised - kept
        # Nothing is forgotten but what is said to be lost.
        assert kept == before - set(outcome.lost), self._victim
        assert outcome.frames["written"] == len(kept)
        assert not recover(dataset.root).changed, self._victim
        assert dataset.status() == outcome.status
        # A frame is stored before it is logged, so that there may be more of them than the log knows.
        known = dataset.expected(kept, kept)
        everything = dataset.expected(range(self._victim.total), range(self._victim.total))
        self._check(lambda arrays: differing_known(known, everything, arrays))
        self._promised |= kept

    def _check(self, problems: Callable[[dict[int, Planes | str]], list[str]]) -> None:
        """Every array, whoever reads it, and everything else."""
        dataset = self._dataset
        for name, reader in self._readers.items():
            arrays = dataset.read(reader)
            self._opened &= not unreadable(arrays)
            wrong = problems(arrays)
            assert not wrong, (name, wrong, self._victim)
        assert dataset.broken_documents() == []
        verification = verify(dataset.root)
        assert verification.sound, (verification, self._victim)

    def _kill_resumed(self, moment: Moment) -> None:
        victim = self._victim
        seen = kill(acquire, (self._settings, victim.total, victim.flush_every, victim.pace_s), moment)
        assert self._dataset.broken_documents() == []
        self._dataset = Dataset(self._settings)
        self._keep(seen.flushed)

    def _resume(self) -> None:
        """Go on to the end, and compare all with an acquisition that nothing interrupted."""
        dataset, total = self._dataset, self._victim.total
        with open_stream(AcquisitionSettings(**self._settings)) as stream:
            while (number := stream.next_frame) is not None and number < total:
                self._lost |= self._promised & {number}
                stream.append(stamped_frame(number, dataset.settings.frame_shape, dataset.settings.dtype))
        self._count(total)
        expected = dataset.expected(range(total), range(total))
        self._check(lambda arrays: differing(expected, arrays))
        self._check_log(total)
        assert dataset.status() == "complete", self._victim
        self._check_against_uninterrupted(total)

    def _count(self, total: int) -> None:
        dataset = self._dataset
        exact = set(range(total))
        for reader in self._readers.values():
            arrays = dataset.read(reader)
            self._opened &= not unreadable(arrays)
            exact &= dataset.exact(arrays, exact)
        what = f"{self._victim.layout}, {self._victim.codec}, {', '.join(self._victim.sequel)}"
        numbers = Numbers.of(self._promised, exact - self._lost, total)
        self._results.add("kill, recover, resume", self._victim.backend, what, opened=self._opened, numbers=numbers)
        assert not self._lost, self._victim

    def _check_log(self, total: int) -> None:
        """Every frame is written in the end. Twice only after it was lost."""
        records = list(read_frames(self._dataset.root))
        assert self._dataset.logged() == dict.fromkeys(range(total), "written"), self._victim
        times = Counter(record["frame"] for record in records if record["status"] == "written")
        failed = Counter(record["frame"] for record in records if record["status"] == "failed")
        assert all(times[number] == 1 + failed[number] for number in range(total)), self._victim

    def _check_against_uninterrupted(self, total: int) -> None:
        path = self._dataset.root.with_name("uninterrupted.ome.zarr")
        other = Dataset(self._victim.settings(path))
        acquire_whole(other.settings, total)
        reader = python_reader(reader_other_than(self._victim.backend))
        assert other.read(reader) == self._dataset.read(reader), self._victim
        shutil.rmtree(path)
