"""A backend of a third party is found by its entry point, and passes the suite that scopestream ships."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scopestream.registry import backend_names
from scopestream.testing import BackendConformance


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What pip would do: its module and its entry point on the path."""
    monkeypatch.syspath_prepend(Path(__file__).with_name("third_party"))
    yield
    sys.modules.pop("wholeshards", None)


class TestWholeShards(BackendConformance):
    backend = "whole-shards"


def test_it_is_found_beside_the_built_in_ones() -> None:
    assert {"whole-shards", "inplace"} <= set(backend_names())
