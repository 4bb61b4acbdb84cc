"""The camera that a benchmark pretends to have."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scopestream.errors import ScopestreamError

Frames = Sequence[np.ndarray]

_CAMERA = re.compile(r"\s*(\d+)\s*[x\u00d7*]\s*(\d+)\s*@\s*(\d+(?:\.\d+)?)\s*(?:fps|hz)?\s*", re.IGNORECASE)
_DTYPES = ("uint8", "uint16", "uint32", "int16", "int32", "float32")
_MAX_SIDE, _MAX_FRAMES_PER_S = 65_536, 1e6


class BenchError(ScopestreamError, ValueError):
    """What was asked for cannot be measured."""


@dataclass(frozen=True, slots=True)
class Camera:
    """Frames of (height, width) pixels that come `frames_per_s` times a second."""

    height: int
    width: int
    frames_per_s: float
    dtype: str = "uint16"

    @property
    def frame_bytes(self) -> int:
        return self.height * self.width * np.dtype(self.dtype).itemsize

    @property
    def bytes_per_s(self) -> float:
        return self.frame_bytes * self.frames_per_s

    def __str__(self) -> str:
        return f"{self.width}x{self.height}@{self.frames_per_s:g} {self.dtype}, {self.bytes_per_s / 1e9:.3g} GB/s"


def parse_camera(text: str, dtype: str = "uint16") -> Camera:
    """The camera of "2048x1024@100": 2048 pixels wide, 1024 high, 100 frames a second. Raises BenchError."""
    match = _CAMERA.fullmatch(text)
    if match is None:
        raise BenchError(
            f"--camera {text!r} is not WIDTHxHEIGHT@FRAMES_PER_SECOND; a camera of 2048 x 2048 pixels "
            f"with 100 frames a second is 2048x2048@100"
        )
    width, height, frames_per_s = int(match[1]), int(match[2]), float(match[3])
    if not (1 <= width <= _MAX_SIDE and 1 <= height <= _MAX_SIDE):
        raise BenchError(f"--camera {text!r}: each side has 1 to {_MAX_SIDE} pixels")
    if not 0 < frames_per_s <= _MAX_FRAMES_PER_S:
        raise BenchError(f"--camera {text!r}: there must be more than 0 and at most {_MAX_FRAMES_PER_S:,.0f} frames/s")
    if dtype not in _DTYPES:
        raise BenchError(f"--dtype {dtype!r} is not one of {', '.join(_DTYPES)}")
    return Camera(height, width, frames_per_s, dtype)


def noisy_frames(shape: tuple[int, int], dtype: str = "uint16", n_frames: int = 16) -> Frames:
    """Noisy frames of a 12-bit camera, to be sent over and over.

    Photon noise (Poisson) on a background that differs from frame to frame: about 200 to 500 counts, so that codecs
    have to work as they would on microscope images. Types of eight bits get a fifth of that.
    """
    generator = np.random.default_rng(0)
    dark = 40 if np.dtype(dtype).itemsize == 1 else 200
    frames = []
    for number in range(n_frames):
        # Pixels are drawn from a pool of 65536 counts, which is ten times as fast as a count for every pixel.
        counts = generator.poisson(dark + dark // 10 * number, 2**16).astype(dtype)
        frames.append(counts[generator.integers(0, 2**16, shape, np.uint16)])
    return frames
