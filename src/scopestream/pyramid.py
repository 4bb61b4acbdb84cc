"""A frame at the next level of the pyramid: a few rows at a time, without the GIL and without new memory."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Protocol

import numpy as np

from scopestream.settings import AcquisitionSettings, Downscale

# Rows that are worked on at once. With their sums they stay in the caches of a core; and each step is long enough that
# handing over the GIL, before and after it, costs little.
STRIP_BYTES = 2**20

_PIXELS = {
    "mean": "The mean of {cell} pixels, integers rounded half up",
    "nearest": "The first of {cell} pixels",
    "mode": "The most frequent of {cell} pixels, of several the first",
}


def method_metadata(settings: AcquisitionSettings) -> dict[str, str]:
    """What `multiscales` says of how the levels were made (OME-Zarr 0.5, "multiscales" metadata)."""
    cell, odd = ("2 x 2", "row or column") if settings.halved_z is None else ("2 x 2 x 2", "plane, row or column")
    return {
        "description": f"{_PIXELS[settings.downscale].format(cell=cell)}; an odd last {odd} counts twice.",
        "method": "scopestream.pyramid.Halver",
    }


class Scratch:
    """Memory by name that is made once, and again only when more is needed."""

    def __init__(self) -> None:
        self._buffers: dict[str, np.ndarray] = {}

    def __call__(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array with whatever was in it before; valid until the next call with that name."""
        n_bytes = dtype.itemsize
        for size in shape:
            n_bytes *= size
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < n_bytes:
            buffer = self._buffers[name] = np.empty(n_bytes, np.uint8)
        return np.ndarray(shape, dtype, buffer)


class Kernel(Protocol):
    """How 2 x 2 pixels become one.

    dtype  in which it sees pixels: unsigned where the pixels are signed or bool
    """

    dtype: np.dtype

    def __call__(self, strips: Sequence[np.ndarray], out: np.ndarray) -> None:
        """One or two (n, 2, X) with an even X -> (n, X / 2), all C-contiguous."""


class Halver:
    """Halves frames of one dtype. It owns its scratch memory, so each thread needs one of its own."""

    def __init__(self, dtype: np.dtype, downscale: Downscale) -> None:
        self._scratch = Scratch()
        self._kernel = _kernel(dtype, downscale, self._scratch)

    def halve(self, planes: Sequence[np.ndarray], out: np.ndarray) -> None:
        """(..., Y, X) -> (..., ceil(Y / 2), ceil(X / 2)); an odd last row or column counts twice.

        planes  one, or two of the same shape, which become one as their pixels do
        All are C-contiguous and of the dtype; pixels lie at multiples of their size.
        """
        y, x = planes[0].shape[-2:]
        planes, out = [plane.view(self._kernel.dtype) for plane in planes], out.view(self._kernel.dtype)
        if y % 2 == 0:  # pairs of rows never belong to two frames, so all frames are one
            self._halve([plane.reshape(-1, x) for plane in planes], out.reshape(-1, out.shape[-1]))
            return
        for index in np.ndindex(out.shape[:-2]):
            self._halve([plane[index] for plane in planes], out[index])

    def _halve(self, planes: Sequence[np.ndarray], out: np.ndarray) -> None:
        n = max(1, STRIP_BYTES // (2 * planes[0].shape[1] * out.itemsize))
        for first in range(0, len(out), n):
            rows = slice(2 * first, 2 * (first + n))
            strips = [self._even(f"even {number}", plane[rows]) for number, plane in enumerate(planes)]
            self._kernel(strips, out[first : first + n])

    def _even(self, name: str, rows: np.ndarray) -> np.ndarray:
        """(Y, X) -> (ceil(Y / 2), 2, X rounded up to even), copied only where something is odd."""
        y, x = rows.shape
        if y % 2 == 0 and x % 2 == 0:
            return rows.reshape(y // 2, 2, x)
        padded = self._scratch(name, (y + y % 2, x + x % 2), rows.dtype)
        padded[:y, :x] = rows
        padded[:y, x:] = rows[:, -1:]
        padded[y:] = padded[y - 1]
        return padded.reshape(-1, 2, padded.shape[1])


def _kernel(dtype: np.dtype, downscale: Downscale, scratch: Scratch) -> Kernel:
    if downscale == "nearest":
        return _Nearest(dtype)
    if downscale == "mode":
        return _Mode(dtype, scratch)
    if dtype.kind == "f":
        return _FloatMean(dtype, scratch)
    return _LongMean(dtype, scratch) if dtype.itemsize == 8 else _IntegerMean(dtype, scratch)


class _Nearest:
    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype

    def __call__(self, strips: Sequence[np.ndarray], out: np.ndarray) -> None:
        np.copyto(out, strips[0][:, 0, ::2])


class _Mode:
    """Each pixel but the last counts how many later ones equal it; the first with the largest count wins."""

    def __init__(self, dtype: np.dtype, scratch: Scratch) -> None:
        self._scratch = scratch
        self.dtype = np.dtype(f"u{dtype.itemsize}")

    def __call__(self, strips: Sequence[np.ndarray], out: np.ndarray) -> None:
        pixels = self._scratch("pixels", (4 * len(strips), *out.shape), self.dtype)
        for number, (strip, row, column) in enumerate(product(strips, (0, 1), (0, 1))):
            np.copyto(pixels[number], strip[:, row, column::2])
        same, is_more = (self._scratch(name, out.shape, np.dtype(bool)) for name in ("same", "is more"))
        count, most = (self._scratch(name, out.shape, np.dtype(np.uint8)) for name in ("count", "most"))
        most[...] = 0
        np.copyto(out, pixels[0])
        for number, pixel in enumerate(pixels[:-1]):
            count[...] = 0
            for other in pixels[number + 1 :]:
                np.add(count, np.equal(pixel, other, out=same).view(np.uint8), out=count)
            np.copyto(out, pixel, where=np.greater(count, most, out=is_more))
            np.maximum(most, count, out=most)


class _IntegerMean:
    """Two neighbours are read as one integer of twice their size, whose halves are added: contiguous, so it is SIMD.

    Signed pixels get their sign bit flipped, which adds the same to each, and back in the end. Where all pixels are so
    small that their sum fits into one, as those of cameras with up to 14 bits do, half of the work is saved.
    """

    def __init__(self, dtype: np.dtype, scratch: Scratch) -> None:
        self._scratch = scratch
        bits, self._wide = 8 * dtype.itemsize, np.dtype(f"u{2 * dtype.itemsize}")
        wide = self._wide.type
        self.dtype = np.dtype(f"u{dtype.itemsize}")
        self._bits, self._low = wide(bits), wide((1 << bits) - 1)
        sign = 1 << (bits - 1)
        self._sign, self._signs = wide(sign), wide(sign | sign << bits)
        self._signed = dtype.kind == "i"
        self._halves, self._shifts = {1: wide(2), 2: wide(4)}, {1: wide(2), 2: wide(3)}  # by the number of planes
        narrow = self.dtype.type
        self._narrow_half, self._narrow_shift = narrow(2), narrow(2)
        # The two highest bits of each pixel in eight bytes.
        self._high_bits = int.from_bytes(
            (3 << (bits - 2)).to_bytes(dtype.itemsize, "little") * (8 // dtype.itemsize), "little"
        )

    def __call__(self, strips: Sequence[np.ndarray], out: np.ndarray) -> None:
        if len(strips) == 1 and strips[0].nbytes % 8 == 0 and not self._signed:
            bits = np.bitwise_or.reduce(strips[0].reshape(-1).view(np.uint64))
            if not int(bits) & self._high_bits:
                self._add_narrow(strips[0], out)
                return
        self._add_wide(strips, out)

    def _add_narrow(self, strip: np.ndarray, out: np.ndarray) -> None:
        rows = self._scratch("rows", (strip.shape[0], strip.shape[2]), self.dtype)
        np.add(strip[:, 0], strip[:, 1], out=rows)
        pairs = rows.view(self._wide)
        total = self._scratch("total", out.shape, self._wide)
        np.right_shift(pairs, self._bits, out=total)
        np.add(total, pairs, out=total)  # the lower half is the sum of both pixels, the upper one does not matter
        np.copyto(out, total, casting="unsafe")
        np.add(out, self._narrow_half, out=out)
        np.right_shift(out, self._narrow_shift, out=out)

    def _add_wide(self, strips: Sequence[np.ndarray], out: np.ndarray) -> None:
        total = self._scratch("total", out.shape, self._wide)
        for number, strip in enumerate(strips):
            pairs = strip.view(self._wide)
            low = self._scratch("low", pairs.shape, self._wide)
            high = self._scratch("high", pairs.shape, self._wide)
            if self._signed:
                pairs = np.bitwise_xor(pairs, self._signs, out=high)
            np.bitwise_and(pairs, self._low, out=low)
            np.right_shift(pairs, self._bits, out=high)
            np.add(low, high, out=low)
            if number:
                np.add(total, low[:, 0], out=total)
                np.add(total, low[:, 1], out=total)
            else:
                np.add(low[:, 0], low[:, 1], out=total)
        np.add(total, self._halves[len(strips)], out=total)
        np.right_shift(total, self._shifts[len(strips)], out=total)
        if self._signed:
            np.bitwise_xor(total, self._sign, out=total)
        np.copyto(out, total, casting="unsafe")


class _LongMean:
    """No wider integer exists: parts and remainders are summed apart."""

    def __init__(self, dtype: np.dtype, scratch: Scratch) -> None:
        self._scratch = scratch
        self.dtype = dtype

    def __call__(self, strips: Sequence[np.ndarray], out: np.ndarray) -> None:
        n_pixels, shift = self.dtype.type(4 * len(strips)), self.dtype.type(1 + len(strips))
        part = self._scratch("part", strips[0].shape, self.dtype)
        rest = self._scratch("rest", out.shape, self.dtype)
        rest[...], out[...] = n_pixels // 2, 0
        for strip in strips:
            self._add(np.bitwise_and(strip, n_pixels - 1, out=part), rest)
            self._add(np.right_shift(strip, shift, out=part), out)
        np.add(out, np.right_shift(rest, shift, out=rest), out=out)

    @staticmethod
    def _add(part: np.ndarray, out: np.ndarray) -> None:
        rows = np.add(part[:, 0], part[:, 1], out=part[:, 0])
        np.add(out, rows[:, ::2], out=out)
        np.add(out, rows[:, 1::2], out=out)


class _FloatMean:
    """Quarters, or eighths, are added, so that no sum overflows where the mean does not."""

    def __init__(self, dtype: np.dtype, scratch: Scratch) -> None:
        self._scratch = scratch
        self.dtype = dtype

    def __call__(self, strips: Sequence[np.ndarray], out: np.ndarray) -> None:
        weight = self.dtype.type(0.25 / len(strips))
        part = self._scratch("part", strips[0].shape, self.dtype)
        with np.errstate(all="ignore"):  # what is not finite stays so
            for number, strip in enumerate(strips):
                np.multiply(strip, weight, out=part)
                rows = np.add(part[:, 0], part[:, 1], out=part[:, 0])
                total = out if number == 0 else part[:, 1, : out.shape[1]]
                np.add(rows[:, ::2], rows[:, 1::2], out=total)
                if number:
                    np.add(out, total, out=out)
