"""Backends by entry point, and which of them writes a plan, with the reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from importlib.util import find_spec

from scopestream.contract import Backend
from scopestream.errors import BackendNotFoundError, MemoryLimitError, PlanError
from scopestream.plan import BackendFit, LayoutPlan, WriteUnit
from scopestream.planning import make_plan
from scopestream.settings import AcquisitionSettings

GROUP = "scopestream.backends"


@dataclass(frozen=True, slots=True)
class Resolution:
    """The plan, and the backend that writes it."""

    plan: LayoutPlan
    backend: Backend


def backend_names() -> list[str]:
    """Names of all registered backends, installed libraries or not."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def load_backend(name: str) -> Backend:
    """The backend of that name. Raises BackendNotFoundError, with what is there, when no distribution has it."""
    for point in entry_points(group=GROUP, name=name):
        try:
            backend: Backend = point.load()()
        except Exception as error:
            raise BackendNotFoundError(f"Backend {name!r} ({point.value}) cannot be loaded: {error!r}") from error
        return backend
    raise BackendNotFoundError(f"There is no backend {name!r}; there are {', '.join(backend_names())}.")


def missing_library(backend: Backend) -> str | None:
    """A sentence when a library of the backend is not installed."""
    missing = [module for module in backend.requires if find_spec(module) is None]
    if not missing:
        return None
    return (
        f"Backend {backend.name!r} needs {', '.join(missing)}, which is not installed: "
        f"pip install 'scopestream[{backend.extra}]'"
    )


def resolve(settings: AcquisitionSettings) -> Resolution:
    """The plan and its backend: the one that was asked for, or the best of all.

    Raises BackendNotFoundError, PlanError or MemoryLimitError with every reason.
    """
    if settings.backend != "auto":
        backend = load_backend(settings.backend)
        if (missing := missing_library(backend)) is not None:
            raise BackendNotFoundError(missing)
        plan, fit = _fit(settings, backend)
        _raise_unless_fit(fit, settings)
        return Resolution(replace(plan, backend=backend.name, reason="as the settings say", fits=(fit,)), backend)
    tried, absent = [], []
    for name in backend_names():
        try:
            backend = load_backend(name)
        except BackendNotFoundError as error:  # somebody's broken backend must not stop the others
            absent.append(BackendFit(name=name, peak_bytes=0, problems=(str(error),)))
            continue
        if missing_library(backend) is None:
            tried.append((*_fit(settings, backend), backend))
    fits = (*(fit for _, fit, _ in tried), *absent)
    usable = [entry for entry in tried if not entry[1].problems]
    if not usable:
        reasons = "\n".join(f"  {fit.name}: {'; '.join(fit.problems)}" for fit in fits)
        memory_only = all(len(fit.problems) == 1 and fit.peak_bytes > settings.memory_limit for _, fit, _ in tried)
        kind = MemoryLimitError if memory_only else PlanError
        raise kind(f"No backend can write these settings; nothing was written.\n{reasons}")
    plan, fit, backend = min(usable, key=lambda entry: _preference(*entry))
    return Resolution(
        replace(
            plan, backend=backend.name, reason=_reason(plan, backend, [fit.name for _, fit, _ in usable]), fits=fits
        ),
        backend,
    )


def _preference(plan: LayoutPlan, fit: BackendFit, backend: Backend) -> tuple[object, ...]:
    """Smaller is better: readable while it grows, any order, small units, little memory; then by name."""
    can = backend.capabilities
    units = list(WriteUnit)
    return (not can.live_read, not can.any_order, units.index(plan.unit), fit.peak_bytes, fit.name)


def _reason(plan: LayoutPlan, backend: Backend, usable: Sequence[str]) -> str:
    """What spoke for the backend, in the order of `_preference`."""
    can = backend.capabilities
    facts = [
        *(["readable while it grows"] if can.live_read else []),
        *(["any order"] if can.any_order else []),
        f"stores each {plan.unit} as it comes",
    ]
    return ", ".join(facts) + (f"; {', '.join(sorted(usable))} could" if len(usable) > 1 else "; no other could")


def _fit(settings: AcquisitionSettings, backend: Backend) -> tuple[LayoutPlan, BackendFit]:
    plan = make_plan(settings, backend)
    problems = problems_of(plan, backend)
    if plan.peak_bytes > settings.memory_limit:
        problems.append(
            f"it must hold {plan.peak_bytes} bytes, memory_limit is {int(settings.memory_limit)}: "
            + (
                "make shards smaller or raise memory_limit"
                if plan.unit in (WriteUnit.CHUNK, WriteUnit.SHARD)
                else "raise memory_limit"
            )
        )
    return plan, BackendFit(name=backend.name, peak_bytes=plan.peak_bytes, problems=tuple(problems))


def problems_of(plan: LayoutPlan, backend: Backend) -> list[str]:
    """Every reason why a backend cannot write a plan that was made for it, but for memory."""
    return [*_beyond_capabilities(plan, backend), *backend.check(plan)]


def _beyond_capabilities(plan: LayoutPlan, backend: Backend) -> Sequence[str]:
    can, settings = backend.capabilities, plan.settings
    problems = []
    if settings.codec.name not in can.codecs:
        problems.append(f"it does not offer codec {settings.codec.name!r}, only {', '.join(sorted(can.codecs))}")
    if settings.scheme not in can.schemes:
        problems.append(f"it cannot write to {settings.scheme}://, only to {', '.join(sorted(can.schemes))}")
    if settings.direct_io and not can.direct_io:
        problems.append("it writes through the page cache only (direct_io)")
    if settings.on_exists == "resume" and not can.resumes:
        problems.append('it cannot go on with a dataset (on_exists="resume")')
    if settings.durability == "disk" and not can.durable:
        problems.append("it cannot make frames survive a power loss (durability)")
    if settings.checkpoint_s is not None and not can.live_read:
        problems.append("nothing that it stored can be read before the end (checkpoint_s)")
    if plan.finest[0].growable and not can.growable:
        problems.append("it needs to know the count of every dimension")
    if not (can.any_order or plan.finest[0].nested):
        merged = next(axis for axis in settings.parted_axes if axis.is_merged)
        problems.append(
            f"it stores frames in the order in which they come, and merged dimensions "
            f"({', '.join(part.name for part in merged.parts)}) come in another than the channels that they become"
        )
    return problems


def _raise_unless_fit(fit: BackendFit, settings: AcquisitionSettings) -> None:
    if not fit.problems:
        return
    kind = MemoryLimitError if fit.peak_bytes > settings.memory_limit else PlanError
    raise kind(f"Backend {fit.name!r} cannot write these settings: {'; '.join(fit.problems)}. Nothing was written.")
