"""Which blocks of a level become one block of the next where z is halved too. Integers only."""

from __future__ import annotations

from dataclasses import dataclass

Index = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ZStep:
    """From a level to the next: blocks k and k + 1 of an even k become one, or the only one there is.

    Blocks of the next level are as deep as those of this one, or hold all its planes: they never need more than two.

    axis           of z, in storage order
    n_planes       of the finer level
    extent         planes of one of its blocks
    coarse_extent  planes of a block of the next level
    plane_bytes    of all frames of a block that lie in one plane
    coarse_bytes   of a block of the next level that is filled bit by bit, 0 where blocks are single frames
    """

    axis: int
    n_planes: int
    extent: int
    coarse_extent: int
    plane_bytes: int
    coarse_bytes: int

    @property
    def n_blocks(self) -> int:
        """Along z, at the finer level."""
        return -(-self.n_planes // self.extent)

    @property
    def waiting_bytes(self) -> int:
        """Held while one of two blocks came; its own planes only where one goes with a plane of the other block."""
        if self.n_blocks == 1:
            return 0
        return self.coarse_bytes + self.plane_bytes * (self.extent % 2)

    def coarse_origin(self, origin: Index) -> Index:
        """Of the block that a block becomes a part of."""
        z = origin[self.axis] // self.extent // 2 * self.coarse_extent
        return (*origin[: self.axis], z, *origin[self.axis + 1 :])

    def last_origin(self, origin: Index) -> Index:
        """Of the last block that belongs with the one at `origin`, which may be that one."""
        z = min(origin[self.axis] // self.extent | 1, self.n_blocks - 1) * self.extent
        return (*origin[: self.axis], z, *origin[self.axis + 1 :])

    def n_parts(self, origin: Index) -> int:
        """How many blocks, 1 or 2, become one together with the block at `origin`."""
        return min(2, self.n_blocks - origin[self.axis] // self.extent // 2 * 2)
