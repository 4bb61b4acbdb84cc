"""What `view[...]` names, along each axis: NumPy's indices, and names of channels, positions and labels."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from types import EllipsisType
from typing import NamedTuple

import numpy as np

from scopestream.errors import FrameIndexError

Pick = int | np.ndarray  # one item, and the axis goes; or (n,) int64, and it stays
_NAMES_IN_TEXT = 20  # more of them nobody reads


class ViewAxis(NamedTuple):
    """One axis of a view, as an index sees it.

    items  its named items
    whose  words for whose they are, in messages
    """

    name: str
    length: int
    items: Mapping[str, int]
    whose: str = "it has"


def keys_in_order(key: object, axes: Sequence[ViewAxis]) -> list[object]:
    """The parts of `key`, one for each axis; those that it does not name are picked whole. Raises FrameIndexError."""
    keys = list(key) if isinstance(key, tuple) else [key]
    n_ellipses = sum(one is Ellipsis for one in keys)
    if n_ellipses > 1:
        raise FrameIndexError("An index can only have a single ellipsis ('...').")
    if len(keys) - n_ellipses > len(axes):
        raise FrameIndexError(
            f"Too many indices: {len(keys) - n_ellipses} for the {len(axes)} axes {', '.join(a.name for a in axes)}."
        )
    if not n_ellipses:
        keys.append(Ellipsis)
    at = next(i for i, one in enumerate(keys) if one is Ellipsis)
    keys[at : at + 1] = [slice(None)] * (len(axes) - len(keys) + 1)
    return keys


def keys_by_name(named: Mapping[str, object], axes: Sequence[ViewAxis]) -> list[object]:
    """The same of an index for each axis by name; those that are left out are picked whole."""
    known = [axis.name for axis in axes]
    if unknown := [name for name in named if name not in known]:
        raise FrameIndexError(f"There is no axis {', '.join(map(repr, unknown))}; there are {', '.join(known)}.")
    return [named.get(axis.name, slice(None)) for axis in axes]


def pick(axis: ViewAxis, key: object) -> Pick:
    """What `key` picks along one axis. Raises FrameIndexError.

    Each axis goes by itself: two lists pick a rectangle, as in xarray, and not a diagonal, as in NumPy.
    """
    if isinstance(key, slice):
        try:
            return np.arange(*key.indices(axis.length), dtype=np.int64)
        except TypeError:
            raise FrameIndexError(f"A slice of axis {axis.name!r} takes whole numbers, not {key}.") from None
    if isinstance(key, (str, np.str_)) or not isinstance(key, (Sequence, np.ndarray)) or np.ndim(key) == 0:
        return _item(axis, key)
    if isinstance(key, np.ndarray) and key.ndim > 1:
        raise FrameIndexError(f"Axis {axis.name!r} takes a list of one dimension, not an array of {key.ndim}.")
    if len(key) and all(isinstance(one, (bool, np.bool_)) for one in key):
        if len(key) != axis.length:
            raise FrameIndexError(f"A mask of {len(key)} does not fit axis {axis.name!r}, which has {axis.length}.")
        return np.flatnonzero(key)
    return np.array([_item(axis, one) for one in key], np.int64)


def _item(axis: ViewAxis, key: object) -> int:
    if isinstance(key, str):
        if key not in axis.items:
            names = [*axis.items][:_NAMES_IN_TEXT]
            has = ", ".join([*names, "..."] if len(axis.items) > len(names) else names) or "no names"
            raise FrameIndexError(f"Axis {axis.name!r} has no item {key!r} ({axis.whose} {has}).")
        return axis.items[key]
    if isinstance(key, (bool, np.bool_, EllipsisType)) or not hasattr(key, "__index__"):
        raise FrameIndexError(f"Axis {axis.name!r} takes whole numbers, names, slices and lists, not {key!r}.")
    number = operator.index(key)
    if not -axis.length <= number < axis.length:
        raise FrameIndexError(f"Axis {axis.name!r} has no item {number} (it has {axis.length}).")
    return number % axis.length
