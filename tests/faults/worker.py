"""A process that runs trials one after the other: starting Python and its libraries takes longer than a trial."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from tests.faults.acquisition import Outcome, Trial, run
from tests.faults.shim import Control, preloaded

_ROOT = Path(__file__).resolve().parents[2]


class DiedError(Exception):
    """The process under test crashed, or did not end its trial in time."""


class Worker:
    """Runs trials in another process, with the shim where `library` is given. One that dies is replaced."""

    def __init__(self, folder: Path, library: Path | None = None) -> None:
        self._folder, self._library = folder, library
        self._process: subprocess.Popen[str] | None = None

    def run(self, trial: Trial, timeout_s: float = 60) -> Outcome:
        """Raises DiedError; the next trial then gets a new process."""
        process = self._process or self._start()
        assert process.stdin is not None
        process.stdin.write(json.dumps(asdict(trial)) + "\n")
        process.stdin.flush()
        try:
            answer = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            answer = ""
        if not answer:
            hung = process.poll() is None
            self.close()
            how = f"did not come back within {timeout_s} s" if hung else f"ended with {process.returncode}"
            raise DiedError(f"the process under test {how}")
        return Outcome(**json.loads(answer))

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            process.kill()
            process.wait()
            with suppress(BrokenPipeError):
                process.stdin.close()

    def _start(self) -> subprocess.Popen[str]:
        environment, command = dict(os.environ), [sys.executable, "-m", "tests.faults.worker"]
        if self._library is not None:
            Control.create(self._folder / "control")
            environment = preloaded(self._library, self._folder / "control")
            command.append(str(self._folder / "control"))
        with (self._folder / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=_ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._process = process
        # A queue of its own for each process: what a dead one may still say is no answer to the next trial.
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=_listen, args=(process.stdout, self._answers), daemon=True).start()
        return process


def _listen(lines: IO[str], answers: queue.Queue[str]) -> None:
    with lines:
        for line in lines:
            answers.put(line)
    answers.put("")


def _serve(control: Control | None) -> None:
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # what libraries print is no answer
        for line in sys.stdin:
            trial: dict[str, Any] = json.loads(line)
            answers.write(json.dumps(run(Trial(**trial), control)) + "\n")
            answers.flush()


if __name__ == "__main__":
    _serve(Control(Path(sys.argv[1])) if len(sys.argv) > 1 else None)
