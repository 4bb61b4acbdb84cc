"""One backend with one codec and one shard size, against one camera."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log2
from pathlib import Path
from typing import get_args

from scopestream.bench.camera import BenchError, Camera, Frames
from scopestream.bench.timing import Timing, flat_out, paced
from scopestream.dimensions import Codec, CodecName, Dimension
from scopestream.errors import ScopestreamError
from scopestream.registry import backend_names, load_backend, missing_library
from scopestream.settings import AcquisitionSettings
from scopestream.stream import Stream, open_stream

_CODECS = ("none", "blosc-lz4", "blosc-zstd")
_SMALL_SHARD_BYTES = 64e6
_FASTER = 4  # times the camera's frames are sent flat out: enough to tell a margin
_LEAST_BYTES = 128e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What may be chosen. `shard_frames` None means "auto"."""

    backend: str
    codec: str
    shard_frames: int | None

    def settings(self, camera: Camera, path: Path) -> AcquisitionSettings:
        """An acquisition without an end."""
        return AcquisitionSettings(
            path=path,
            dtype=camera.dtype,
            dimensions=[
                Dimension(name="t", count=None, type="time"),
                Dimension(name="y", count=camera.height, type="space"),
                Dimension(name="x", count=camera.width, type="space"),
            ],
            backend=self.backend,
            codec=Codec.model_validate(self.codec),
            shards="auto" if self.shard_frames is None else {"t": self.shard_frames},
        )

    def yaml(self) -> str:
        """Lines for a settings file."""
        shards = "auto" if self.shard_frames is None else f"{{t: {self.shard_frames}}}"
        return f"backend: {self.backend}\ncodec: {self.codec}\nshards: {shards}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How it went at the camera's rate.

    queue_peak  most blocks that waited for the backend
    n_late      frames that `append` could take only after the next one was due
    behind      the most frames that the camera's own buffer had to hold
    """

    append_p50_ms: float
    append_p99_ms: float
    append_max_ms: float
    queue_peak: int
    n_late: int
    behind: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What was measured of a candidate.

    problem       why it was not; then the rest is empty
    shard_frames  what "auto" came to
    margin        flat out, times the camera's rate
    stored        bytes on disk by bytes of frames
    pace          None where it does not keep up
    """

    candidate: Candidate
    problem: str = ""
    shard_frames: int = 0
    bytes_per_s: float = 0.0
    margin: float = 0.0
    stored: float = 0.0
    pace: Pace | None = None

    @property
    def keeps_up(self) -> bool:
        """Flat out and at the camera's pace."""
        return self.margin >= 1 and self.pace is not None and not self.pace.n_late


def candidates(
    camera: Camera, backends: Sequence[str], codecs: Sequence[str], shard_frames: Sequence[int]
) -> list[Candidate]:
    """Every combination; of what is empty, all that is installed or sensible.

    Raises BackendNotFoundError, and BenchError for a codec that is none or a library that is not installed.
    """
    known = get_args(CodecName)
    if unknown := [codec for codec in codecs if codec not in known]:
        raise BenchError(f"There is no codec {', '.join(map(repr, unknown))}; there are {', '.join(known)}.")
    for name in backends:
        if (missing := missing_library(load_backend(name))) is not None:
            raise BenchError(missing)
    names = list(backends) or _installed()
    sizes: list[int | None] = [*dict.fromkeys(shard_frames)] or [None, _small_shard(camera)]
    return [
        Candidate(backend=name, codec=codec, shard_frames=size)
        for name in names
        for codec in codecs or _CODECS
        for size in sizes
    ]


def _installed() -> list[str]:
    names = []
    for name in backend_names():
        try:
            if missing_library(load_backend(name)) is None:
                names.append(name)
        except ScopestreamError:  # somebody's broken backend must not stop the others
            continue
    return names


def _small_shard(camera: Camera) -> int:
    """Frames of a shard of about 64 MB, a power of two."""
    return int(2 ** max(0, round(log2(_SMALL_SHARD_BYTES / camera.frame_bytes))))


def try_flat_out(
    candidate: Candidate, camera: Camera, frames: Frames, folder: Path, max_s: float, max_bytes: int
) -> Trial:
    """How fast it is, or why it cannot be told.

    folder     that does not exist yet
    max_s      of sending, and `max_bytes`
    """
    try:
        stream = open_stream(candidate.settings(camera, folder))
        wanted = max(_FASTER * camera.bytes_per_s * max_s, _LEAST_BYTES)
        n_frames = max(1, ceil(min(wanted, max_bytes) / camera.frame_bytes))
        timing = flat_out(stream, frames, n_frames, max_s)
    except Exception as error:  # of whatever kind: the other trials still tell something
        return Trial(candidate=candidate, problem=str(error))
    n_bytes = timing.n_frames * camera.frame_bytes
    rate = n_bytes / timing.total_s
    return Trial(
        candidate=candidate,
        shard_frames=stream.plan.arrays[0].file_shape[0],
        bytes_per_s=rate,
        margin=rate / camera.bytes_per_s,
        stored=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / n_bytes,
    )


def try_pace(candidate: Candidate, camera: Camera, frames: Frames, folder: Path, max_s: float) -> Pace:
    """How it goes at the camera's rate. Raises ScopestreamError or OSError."""
    stream: Stream = open_stream(candidate.settings(camera, folder))
    timing: Timing = paced(stream, frames, camera.frames_per_s, max_s)
    period_s = 1 / camera.frames_per_s
    return Pace(
        append_p50_ms=timing.append_ms(0.5),
        append_p99_ms=timing.append_ms(0.99),
        append_max_ms=timing.append_ms(1),
        queue_peak=stream.stats.queue_peak,
        n_late=int((timing.late_s > period_s).sum()),
        behind=int(timing.late_s.max() / period_s),
    )
