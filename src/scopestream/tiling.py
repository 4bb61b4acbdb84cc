"""Chunk and shard shapes: what "auto", a size in bytes, or named sizes come to. Pure arithmetic.

The rules, which `docs/guide/layout.md` explains to users:

* A chunk is one frame deep. A frame of at most 4 MB is one chunk; a larger one is cut into tiles with sides that are
  powers of two from 256 on: those that pad the frame least, then 1 to 4 MB and as square as may be.
* A shard holds whole frames and grows along the axes in order of arrival, fastest first, to about 512 MB, or
  8192 chunks where they are small. An axis that does not fit whole is cut into equal parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, prod

CHUNK_BYTES = 4 * 2**20
SHARD_BYTES = 512_000_000
MAX_CHUNKS_OF_SHARD = 8192  # of which readers must fetch the index before the first pixel: 128 KiB
_NO_PADDING, _PADDING_STEP = 1.02, 0.05  # padding that is as good as none, and that makes a difference
_GOOD_CHUNK_BYTES = 2**20
_SMALL_SIDE = 512  # a frame this narrow is not cut along that side
_SIDES = (4096, 2048, 1024, 512, 256)


def round_up(size: int, step: int) -> int:
    """The smallest multiple of `step` that is at least `size`."""
    return -(-size // step) * step


def tile_shape(
    frame: tuple[int, int], itemsize: int, max_bytes: int, within: tuple[int | None, int | None] = (None, None)
) -> tuple[int, int]:
    """(Y, X) of the tiles of a frame.

    frame     (Y, X) in pixels
    max_bytes of one tile, uncompressed
    within    sides that tiles must divide (an explicit shard), or None
    """
    if prod(frame) * itemsize <= max_bytes and within == (None, None):
        return frame
    best: tuple[tuple[float, ...], tuple[int, int]] | None = None
    for height in _sides(frame[0], within[0]):
        for width in _sides(frame[1], within[1]):
            padding = round_up(frame[0], height) * round_up(frame[1], width) / prod(frame)
            n_bytes = height * width * itemsize
            fits = n_bytes <= max_bytes
            aspect = max(height, width) / min(height, width)
            # In order: fits, pads little, is not small, is square, is large, is wide.
            size = min(n_bytes, _GOOD_CHUNK_BYTES) if fits else -n_bytes
            rank = (fits, -ceil((padding - _NO_PADDING) / _PADDING_STEP), size, -aspect, n_bytes, width)
            if best is None or rank > best[0]:
                best = (rank, (height, width))
    assert best is not None, "a side that must be divided divides itself"
    return best[1]


def _sides(size: int, divides: int | None) -> list[int]:
    sides = [side for side in _SIDES if side < size] + ([size] if size <= _SMALL_SIDE else [])
    return sides if divides is None else [side for side in {*sides, divides} if divides % side == 0]


def chunk_shape(
    axes: Sequence[str],
    counts: Sequence[int | None],
    itemsize: int,
    wanted: int | str | Mapping[str, int],
    shards: object,
) -> tuple[int, ...]:
    """Shape of the chunks in storage order; `wanted` is "auto", bytes, or sizes by name."""
    named = dict(wanted) if isinstance(wanted, Mapping) else {}
    frame = (counts[-2] or 1, counts[-1] or 1)
    within = tuple(shards.get(name) for name in axes[-2:]) if isinstance(shards, Mapping) else (None, None)
    free = (None if axes[-2] in named else within[0], None if axes[-1] in named else within[1])
    max_bytes = wanted if isinstance(wanted, int) else CHUNK_BYTES
    tile = tile_shape(frame, itemsize, max_bytes, free)
    # Sizes that are meant for several cameras may be larger than the frames of one.
    return tuple(named.get(name, 1) for name in axes[:-2]) + tuple(
        min(named.get(name, side), size) for name, side, size in zip(axes[-2:], tile, frame, strict=True)
    )


def shard_shape(
    axes: Sequence[str],
    counts: Sequence[int | None],
    chunks: Sequence[int],
    arrival: Sequence[int],
    itemsize: int,
    wanted: int | str | Mapping[str, int],
) -> tuple[int, ...]:
    """Shape of the shards in storage order.

    arrival  the axes before the frame by number, in the order in which they arrive, slowest first
    wanted   "auto", bytes, or sizes by name, which the chunks divide
    """
    n_before = len(axes) - 2
    shape = list(chunks[:n_before]) + [round_up(counts[axis] or 1, chunks[axis]) for axis in (-2, -1)]
    if isinstance(wanted, Mapping):
        for axis, name in enumerate(axes):
            size = wanted.get(name, shape[axis])
            count = counts[axis]
            # A shard that reaches past the end of an axis would only be a larger file with a larger index.
            shape[axis] = size if count is None else min(size, round_up(count, chunks[axis]))
        return tuple(shape)
    max_bytes = wanted if isinstance(wanted, int) else SHARD_BYTES
    for axis in reversed(arrival):
        others = prod(shape) // shape[axis] * chunks[axis]
        # In chunks along this axis.
        room = min(max_bytes // (others * itemsize), MAX_CHUNKS_OF_SHARD * prod(chunks) // others)
        count = counts[axis]
        if count is not None and room >= ceil(count / chunks[axis]):
            shape[axis] = round_up(count, chunks[axis])
            continue
        if room >= 1:
            parts = 1 if count is None else ceil(count / (room * chunks[axis]))
            even = room * chunks[axis] if count is None else ceil(count / parts)
            shape[axis] = round_up(even, chunks[axis])
        break
    return tuple(shape)
