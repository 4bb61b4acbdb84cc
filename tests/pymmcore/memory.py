"""Memory while the disk is slower than the camera: through the sink of `run_mda`, and through `Handler`.

`python -m tests.pymmcore.memory` runs the demo camera both ways, against a disk that takes its time, and prints the
table of docs/guide/pymmcore.md. Each way has a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import psutil
import useq
from pymmcore_plus import CMMCorePlus
from pymmcore_plus.mda import MDAEngine

import scopestream.registry
from scopestream.pymmcore import Handler, run_mda
from scopestream.testing.disks import FaultyBackend
from tests.pymmcore.acquisition import shut_down

SIDE = 1024
N_FRAMES = 500
WRITE_S = 0.3  # longer for each write, of which there are two at once
LIMIT = 64_000_000
EVERY_S = 4.0


class _Watch(threading.Thread):
    """Resident memory of this process, in MB, every few seconds."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.levels: list[float] = []
        self.peak = 0.0
        self._over = threading.Event()

    def run(self) -> None:
        process, started = psutil.Process(), perf_counter()
        while not self._over.wait(0.05):
            level = process.memory_info().rss / 1e6
            self.peak = max(self.peak, level)
            if perf_counter() - started >= EVERY_S * len(self.levels):
                self.levels.append(level)

    def stop(self) -> None:
        self._over.set()
        self.join()


def slow_disk() -> None:
    """Register a backend "slow": inplace, whose writes take longer."""
    backend = FaultyBackend(scopestream.registry.load_backend("inplace"))
    backend.delay_s = WRITE_S
    original = scopestream.registry.load_backend
    scopestream.registry.load_backend = lambda name: backend if name == "slow" else original(name)


def measure(way: str, folder: Path) -> None:
    warnings.simplefilter("ignore")
    slow_disk()
    core = CMMCorePlus()
    core.loadSystemConfiguration()
    for name, value in {"PixelType": "16bit", "OnCameraCCDXSize": SIDE, "OnCameraCCDYSize": SIDE}.items():
        core.setProperty("Camera", name, value)
    core.setExposure(1.0)
    core.mda.set_engine(MDAEngine(core, use_hardware_sequencing=False))
    core.snap()
    plan = useq.MDASequence(time_plan={"interval": 0, "loops": N_FRAMES}, channels=["DAPI"])
    options = {"backend": "slow", "memory_limit": LIMIT}
    camera_s: list[float] = []
    core.mda.events.frameReady.connect(lambda *_: camera_s.append(perf_counter()))
    before = psutil.Process().memory_info().rss / 1e6
    watch = _Watch()
    watch.start()
    started = perf_counter()
    if way == "run_mda":
        run_mda(core, plan, folder / "a.ome.zarr", **options)
    else:
        handler = Handler(folder / "a.ome.zarr", **options)
        core.mda.run(plan, output=handler)
        handler.check()
    total_s = perf_counter() - started
    watch.stop()
    levels = ", ".join(f"{level - before:.0f}" for level in watch.levels)
    rate = len(camera_s) / (camera_s[-1] - started)
    disk = N_FRAMES * SIDE**2 * 2 / total_s / 1e6
    print(f"| `{way}` | {rate:.0f} | {disk:.0f} | {levels} | {watch.peak - before:.0f} |", flush=True)
    shut_down(core)


def main() -> None:
    print(f"{N_FRAMES} frames of {SIDE} x {SIDE} uint16, memory_limit {LIMIT / 1e6:.0f} MB")
    print(f"| | camera, frames/s | disk, MB/s | MB more, every {EVERY_S:.0f} s | most |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    for way in ("run_mda", "Handler"):
        with TemporaryDirectory() as folder:
            subprocess.run([sys.executable, "-m", "tests.pymmcore.memory", way, folder], check=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
