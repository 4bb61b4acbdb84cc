"""Whatever happens to an acquisition: what was promised is there, and nothing shows what was not sent.

A state machine opens, writes, flushes, kills, recovers and goes on in any order. `Model` says what must be on the disk.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from scopestream import (
    AcquisitionSettings,
    DatasetBusyError,
    FrameIndexError,
    Stream,
    open_stream,
    recover,
    verify,
)
from tests.property.histories import Model, last_statuses
from tests.property.layouts import acquisitions
from tests.unit.crashes import crash

BACKENDS = ("inplace", "inplace", "tensorstore", "zarrs", "zarr-python")
N_HISTORIES = int(os.environ.get("SCOPESTREAM_HISTORIES", "1000"))  # of the campaign
STEPS = 25

is_open = precondition(lambda machine: machine.stream is not None)
is_left = precondition(lambda machine: machine.stream is None)
is_killed = precondition(lambda machine: machine.was_killed)
several = st.integers(1, 6)


class AnyHistory(RuleBasedStateMachine):
    """The dataset is open, closed, or was killed; `model` knows what must be there."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.patch = pytest.MonkeyPatch()
        self.stream: Stream | None = None
        self.was_killed = self.was_recovered = False
        self.n_kills = 0
        self.lent: list[np.ndarray] = []

    @initialize(
        able=acquisitions(BACKENDS, most_frames=24, most_chunks=1500),
        choice=st.integers(0, 99),
        checksums=st.sampled_from([True, True, False]),
        eager=st.booleans(),
    )
    def begin(self, able: Sequence[AcquisitionSettings], choice: int, checksums: bool, eager: bool) -> None:
        # How often indexes of compressed shards are published must not hang on the clock.
        self.patch.setattr("scopestream_backends.inplace._PUBLISH_EVERY_S", 0.0 if eager else math.inf)
        self.patch.setattr("scopestream.writer._IDLE_S", 3600.0)
        self.able = able
        self.root = self.folder / "a.ome.zarr"
        self._open(choice, checksums, first=True)

    # -- frames -----------------------------------------------------------------------------------------------------

    @is_open
    @rule(n=several, copy=st.booleans(), pick=st.integers(0, 99))
    def append(self, n: int, copy: bool, pick: int) -> None:
        lane, camera = self._camera(pick)
        for number in self.model.next_ones(n, lane):
            frame = self.model.frame(number)
            if number in self.model.taken:
                with pytest.raises(FrameIndexError):
                    self.stream.append(frame, camera=camera)
                return
            self.stream.append(frame, camera=camera, copy=copy)
            self._came([number], frame, copy)
            self.model.appended(number)

    @is_open
    @rule(n=several, copy=st.booleans(), pick=st.integers(0, 99))
    def extend(self, n: int, copy: bool, pick: int) -> None:
        lane, camera = self._camera(pick)
        numbers = self.model.next_ones(n, lane)
        if not numbers:
            return
        frames = np.stack([self.model.frame(number) for number in numbers])
        if self.model.taken & set(numbers):
            with pytest.raises(FrameIndexError):
                self.stream.extend(frames, camera=camera)
            return
        self.stream.extend(frames, camera=camera, copy=copy)
        self._came(numbers, frames, copy)
        self.model.appended(numbers[-1])

    @is_open
    @rule(picks=st.lists(st.integers(0, 999), min_size=1, max_size=6), copy=st.booleans())
    def write(self, picks: list[int], copy: bool) -> None:
        route = self.model.route
        for pick in picks:
            if not (free := self.model.free):
                return
            number = free[pick % len(free)]
            frame = self.model.frame(number)
            self.stream.write(frame, index=dict(zip(route.names, route.coords(number), strict=True)), copy=copy)
            self._came([number], frame, copy)

    @is_open
    @rule(n=st.integers(0, 4), pick=st.integers(0, 99))
    def skip(self, n: int, pick: int) -> None:
        lane, camera = self._camera(pick)
        n = min(n, self.model.n_left(lane))
        self.stream.skip(n, camera=camera, reason="left out")
        self.model.skip(n, lane)

    # -- what promises ----------------------------------------------------------------------------------------------

    @is_open
    @rule(durable=st.sampled_from([False, False, True]))
    def flush(self, durable: bool) -> None:
        self.stream.flush(durable=durable)
        self._settled()
        self.model.check_frames(self.root)

    @is_open
    @rule()
    def close(self) -> None:
        self.stream.close()
        self.stream = None
        self._settled()
        self.model.check_everything(self.root)
        self._verify()

    # -- kills and what follows -------------------------------------------------------------------------------------

    @is_open
    @rule()
    def kill(self) -> None:
        left = crash(self.stream, self.folder / f"{self.n_kills}.ome.zarr")
        self._abandon()
        self.root, self.was_killed, self.n_kills = left, True, self.n_kills + 1
        self.model.killed(last_statuses(left))
        self.model.check_frames(left)

    @precondition(lambda machine: machine.stream is None and not machine.was_recovered)
    @rule()
    def recover(self) -> None:
        planned = recover(self.root, dry_run=True)
        outcome = recover(self.root)
        assert (planned.lost, planned.frames, planned.n_levels) == (outcome.lost, outcome.frames, outcome.n_levels)
        assert self.was_killed or not outcome.lost
        self._mended(set(outcome.lost))
        self.was_recovered = True
        self.model.check_everything(self.root)
        assert not recover(self.root).changed
        self._verify()

    @is_left
    @rule(choice=st.integers(0, 99), checksums=st.sampled_from([True, True, False]))
    def resume(self, choice: int, checksums: bool) -> None:
        self._open(choice, checksums or self.model.has_black, first=False)

    @is_killed
    @rule()
    def verify_bears_what_a_kill_left(self) -> None:
        verify(self.root)

    @is_open
    @rule()
    def nobody_else_touches_what_is_open(self) -> None:
        for other in (lambda: recover(self.root), lambda: open_stream(self._settings(0, True, first=False))):
            with pytest.raises(DatasetBusyError):
                other()

    @invariant()
    def append_would_fill_the_next_place(self) -> None:
        if self.stream is not None:
            end = self.model.plan.places.end
            expected = [None if cursor == end else cursor for cursor in self.model.cursors]
            assert self.stream.next_frame == min((number for number in expected if number is not None), default=None)
            if self.stream.next_frames:
                assert list(self.stream.next_frames.values()) == expected

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None and hasattr(self, "root"):
                self._finish()
        finally:
            self._abandon()
            self.patch.undo()
            shutil.rmtree(self.folder)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """All that is missing comes, and then everything is as if nothing had ever happened."""
        if self.stream is not None:
            self.close()
        self._open(0, True, first=False)
        for lane, camera in enumerate(self.model.cameras):
            while numbers := self.model.next_ones(1, lane):
                self.stream.append(self.model.frame(numbers[0]), camera=camera)
                self._came(numbers, self.model.frame(numbers[0]), True)
                self.model.appended(numbers[0])
        self.close()
        assert not self.model.lost
        assert verify(self.root).status == "complete"

    def _camera(self, pick: int) -> tuple[int, str | None]:
        lane = pick % len(self.model.cameras)
        return lane, self.model.cameras[lane]

    def _verify(self) -> None:
        found = verify(self.root)
        assert found.sound, found
        model = self.model
        counts = {"written": len(model.accepted), "skipped": len(model.skipped), "failed": len(model.lost)}
        assert {what: found.total(what) for what in counts} == counts

    def _settings(self, choice: int, checksums: bool, *, first: bool) -> AcquisitionSettings:
        changes: dict[str, Any] = {
            "path": str(self.root), "checksums": checksums, "on_exists": "error" if first else "resume"
        }  # fmt: skip
        return self.able[choice % len(self.able)].model_copy(update=changes)

    def _open(self, choice: int, checksums: bool, *, first: bool) -> None:
        chosen = self._settings(choice, checksums, first=first)
        if first:
            note(chosen.to_yaml())
        self.stream = open_stream(chosen)
        self.was_recovered = False
        if first:
            self.model = Model(self.stream.plan, has_black=checksums)
        elif self.was_killed:
            log = last_statuses(self.root)
            self._mended({number for number in self.model.accepted if log[number] == "failed"})
        self.model.opened(chosen.backend)
        self.is_fragile = chosen.backend == "inplace" and chosen.codec.name != "none" and not checksums
        self.model.check_log(self.root)
        self.model.check_frames(self.root)

    def _came(self, numbers: Sequence[int], frames: np.ndarray, copy: bool) -> None:
        """Memory that was copied is used again at once, and memory that was lent after a promise."""
        for number in numbers:
            self.model.came(number, is_fragile=self.is_fragile)
        if copy:
            frames.fill(1)
        else:
            self.lent.append(frames)

    def _settled(self) -> None:
        self.model.settled()
        for frames in self.lent:
            frames.fill(1)
        self.lent.clear()
        self.model.check_log(self.root)

    def _mended(self, lost: set[int]) -> None:
        self.model.mended(lost)
        self.was_killed = False
        self.model.check_log(self.root)

    def _abandon(self) -> None:
        if self.stream is not None:
            self.stream.close()
        self.stream = None
        self.lent.clear()


def _profile(**changes: Any) -> settings:
    return settings(stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck), **changes)


@pytest.mark.timeout(600)
def test_what_was_promised_is_there_after_any_history() -> None:
    run_state_machine_as_test(AnyHistory, settings=_profile(max_examples=25, derandomize=True, database=None))


@pytest.mark.campaign
@pytest.mark.timeout(0)
def test_what_was_promised_is_there_after_many_histories() -> None:
    """SCOPESTREAM_HISTORIES says how many."""
    run_state_machine_as_test(AnyHistory, settings=_profile(max_examples=N_HISTORIES, print_blob=True))
