"""YAML and JSON that anybody may have written, to plain objects of a bounded size."""

from __future__ import annotations

import json
from typing import Any

import yaml

MAX_NODES = 20_000_000  # after every alias is replaced by what it stands for: a million positions with all their fields
_MAX_DEPTH = 50


class NotTreeError(ValueError):
    """The text is a bomb: a few lines that stand for more than any settings have."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe one, in which merges of merges cannot multiply."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > 10_000:
            raise NotTreeError("merged mappings have too many entries")


def parse(text: str) -> Any:
    """What the text says. JSON is taken as such, which is some hundred times faster.

    Raises yaml.YAMLError for what is neither, and NotTreeError, a ValueError, for what is too large or too deep.
    """
    try:
        try:
            return json.loads(text)
        except ValueError:
            data = yaml.load(text, _Loader)  # it is a safe one
        _count(data, 0, {})
    except RecursionError:
        raise NotTreeError("it is nested too deeply") from None
    return data


def _count(value: object, depth: int, seen: dict[int, int]) -> int:
    """Nodes of the tree, aliases counted wherever they stand."""
    if depth > _MAX_DEPTH:
        raise NotTreeError("it is nested too deeply")
    if not isinstance(value, (dict, list)):
        return 1
    if (known := seen.get(id(value))) is not None:
        return known
    items = value.values() if isinstance(value, dict) else value
    total = 1 + sum(_count(item, depth + 1, seen) for item in items)
    if total > MAX_NODES:
        raise NotTreeError("its aliases stand for too much")
    seen[id(value)] = total
    return total
