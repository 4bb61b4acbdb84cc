"""Disks that misbehave, for streams and for their statistics."""

from __future__ import annotations

import pytest

import scopestream.registry
from scopestream.testing.disks import FaultyBackend


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> FaultyBackend:
    """The inplace backend, registered as "faulty", whose writes can be held up or made to fail."""
    backend = FaultyBackend(scopestream.registry.load_backend("inplace"))
    original = scopestream.registry.load_backend
    monkeypatch.setattr(
        scopestream.registry, "load_backend", lambda name: backend if name == "faulty" else original(name)
    )
    return backend
