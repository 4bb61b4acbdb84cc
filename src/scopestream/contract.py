"""What the core and a backend promise one another. No logic.

A backend is found through the entry point group `scopestream.backends` and proves itself with
`scopestream.testing.conformance`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import numpy as np

from scopestream.plan import ArrayPlan, LayoutPlan, WriteUnit

__all__ = ["Backend", "BatchSink", "Block", "Capabilities", "DurableSink", "ResumingBackend", "Sink", "WriteUnit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a backend can do.

    any_order   blocks may come in any order, and before they are final; otherwise the blocks of an array come once
                each, in the order of arrival (those without a frame are left out), and the unit is the frame
    concurrent  `Sink.write` may be called from several threads at once, for different blocks
    growable    the first axis may be unbounded
    live_read   what `Sink.flush` covered can be read by another program before `Sink.close`
    batches     its sink is a `BatchSink`: small frames come several at once
    direct_io   it can write past the page cache; blocks then lie in memory that starts at a page, unless it is of
                the caller (`copy=False`)
    resumes     it is a `ResumingBackend`: it goes on with a dataset that was closed, or killed
    durable     its sink is a `DurableSink`: what it stored can be made to survive a power loss
    codecs      names of the codecs
    schemes     where it can write: "file", "s3", ...
    """

    any_order: bool
    concurrent: bool
    growable: bool
    live_read: bool
    codecs: frozenset[str]
    schemes: frozenset[str]
    batches: bool = False
    direct_io: bool = False
    resumes: bool = False
    durable: bool = False


class Sink(Protocol):
    """Writes the arrays of one dataset, each below its own folder; all other documents belong to the core."""

    def write(self, array: int, origin: tuple[int, ...], block: np.ndarray, *, final: bool = True) -> None:
        """Store one block; on return the caller may reuse its memory.

        array   which entry of `plan.arrays`
        origin  first element, storage order, a multiple of the write unit
        block   (..., Y, X) of whole frames with as many axes as the array, clipped to the shape of the array; for the
                unit TILED_FRAME (rows, columns, y, x) of tiles, zeros past the edges. C-contiguous, dtype of the plan
        final   False when the block comes again with more frames, because `Stream.flush` could not wait for them
        Raises OSError when this block, or one accepted earlier, could not be stored.
        """

    def extend(self, array: int, length: int) -> None:
        """The first axis of a growable array is now at least `length` long; the final call is before `close`."""

    def flush(self) -> None:
        """Return when every block that was written can be read back (where `live_read`). Never called twice at once.

        May be called while other threads write, when the backend is `concurrent`.
        """

    def close(self) -> None:
        """Finalise what arrived. Idempotent; there is no abort."""


class Block(NamedTuple):
    """What `Sink.write` stores, with the meaning that it gives them."""

    array: int
    origin: tuple[int, ...]
    data: np.ndarray


class BatchSink(Sink, Protocol):
    """A sink that saves work when it stores several blocks at once."""

    def write_many(self, blocks: Sequence[Block]) -> None:
        """Store final blocks, as `write` would one after the other.

        Raises OSError when any of them could not be stored. Each is then written once more by itself.
        """


class DurableSink(Sink, Protocol):
    """A sink whose frames survive a power loss once `sync` returned.

    It is careful from the first call of `sync` on, and from the start when `plan.settings.durability` is "disk": then
    nothing that it does later, `close` included, can make a frame unreadable that was synced, wherever a power loss
    falls. `close` of a careful sink syncs what it leaves.
    """

    def sync(self) -> None:
        """As `flush`; and all that was written, documents and names included, is on stable storage: data before what
        names it.

        Never called twice at once, nor together with `flush` or `close`. Other threads may write meanwhile only if the
        sink was careful before. Raises OSError when the system does not promise it; then each later call does, too.
        """


class Backend(Protocol):
    """Opens sinks. Stateless; importing and making it costs nothing and changes nothing.

    requires  modules that it imports when it opens, and `extra` the extra of scopestream that installs them
    """

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities]
    requires: ClassVar[tuple[str, ...]]
    extra: ClassVar[str]

    def unit(self, array: ArrayPlan) -> WriteUnit:
        """The unit in which blocks of this array must come; it must be the same for all cameras of a plan."""

    def held_bytes(self, array: ArrayPlan, n_arrays: int, room: int) -> int:
        """Bytes that the sink and its library hold at the most, besides the blocks that the core hands over.

        array     of one camera, with all items of every dimension: no array of that camera is larger
        n_arrays  how many arrays that camera has, of all positions and levels
        room      bytes that `memory_limit` leaves for them: who can do with less keeps to it, or else the least is
                  what it needs. The sink finds the answer, of all cameras together, in `plan.backend_bytes`
        """

    def check(self, plan: LayoutPlan) -> Sequence[str]:
        """Every reason, beyond `capabilities`, why it cannot write this plan. Called before anything is written."""

    def open(self, plan: LayoutPlan) -> Sink:
        """Start a dataset; the folders of the images exist, those of the arrays do not."""


class ResumingBackend(Backend, Protocol):
    """A backend that goes on where another sink of the same plan, maybe of another backend, ended or was killed."""

    def reopen(self, plan: LayoutPlan) -> Sink:
        """Go on with a dataset whose arrays and files exist, and are sound as far as readers are concerned.

        What is there stays as it is, and readable, until a block that covers it is written: it may be one that came
        before. Of a block of several frames those that were there come again with it.
        """
