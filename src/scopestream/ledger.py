"""How many bytes wait for the next plane along z, as the stream knows before it accepts a frame."""

from __future__ import annotations

from scopestream.errors import MemoryLimitError
from scopestream.forms import forms_of
from scopestream.plan import LayoutPlan, z_steps_by_image
from scopestream.zsteps import Index

Key = tuple[int, int, Index]  # level of the finer blocks, image, origin of the block that they become


class Ledger:
    """What waits in a `Stack` once all that was accepted is stored."""

    def __init__(self, plan: LayoutPlan) -> None:
        self._limit = plan.pair_bytes + plan.spare_pair_bytes
        self._steps = z_steps_by_image(plan)
        self._growth = max(sum(step.waiting_bytes for step in steps) for steps in set(self._steps))
        self._forms = forms_of(plan)
        self._waiting: set[Key] = set()
        self._held = 0
        # What the last block changes: (image, origin), keys that wait from now on, keys that do not, bytes held then.
        self._last: tuple[tuple[int, Index] | None, list[Key], list[Key], int] = (None, [], [], 0)

    def check(self, image: int, index: Index) -> None:
        """Raise MemoryLimitError when the block of the frame at `index` could not wait for its counterpart."""
        if self._held + self._growth <= self._limit:
            return
        origin: Index = (*self._forms[image].origin(index), 0, 0)
        for level, step in enumerate(self._steps[image]):
            key = step.coarse_origin(origin)
            if step.n_parts(origin) == 2:
                if (level, image, key) in self._waiting:
                    return
                break
            origin = key
        raise MemoryLimitError(
            f"{len(self._waiting)} planes or blocks of {self._held} bytes wait for the next one along z, and "
            f"memory_limit allows no more. This frame was not accepted. Write frames in acquisition order, with z "
            f"fast, raise memory_limit, or set downscale_z=False."
        )

    def add(self, image: int, origin: Index) -> None:
        """The block of level 0 at `origin` is complete, or will not come. May be said again until the next one is."""
        if self._last[0] != (image, origin):
            self._last = self._changes(image, origin)
        _, comes, goes, held = self._last
        self._waiting.update(comes)
        self._waiting.difference_update(goes)
        self._held = held

    def _changes(self, image: int, origin: Index) -> tuple[tuple[int, Index], list[Key], list[Key], int]:
        first, goes, held = (image, origin), list[Key](), self._held
        for level, step in enumerate(self._steps[image]):
            key = (level, image, step.coarse_origin(origin))
            if step.n_parts(origin) == 2:
                if key not in self._waiting:
                    return first, [key], goes, held + step.waiting_bytes
                goes.append(key)
                held -= step.waiting_bytes
            origin = key[2]
        return first, [], goes, held
