"""A plan in words and columns, for people."""

from __future__ import annotations

from scopestream.plan import LayoutPlan


def size_text(n_bytes: int | None) -> str:
    """Bytes as people say them: 1.5 MB is 1 500 000 bytes."""
    if n_bytes is None:
        return "unbounded"
    value = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    raise AssertionError("the last unit takes any value")


def shape_text(axes: tuple[str, ...], shape: tuple[int, ...] | None, growable: bool = False) -> str:
    """Sizes with the names of their axes: t=* c=2 y=512 x=512."""
    if shape is None:
        return "none"
    return " ".join(
        f"{name}={'*' if growable and axis == 0 else size}"
        for axis, (name, size) in enumerate(zip(axes, shape, strict=True))
    )


def plan_rows(plan: LayoutPlan) -> list[tuple[str, str]]:
    """What a plan comes to, as (label, value)."""
    settings = plan.settings
    most, least = (choose(len(image.arrays) for image in plan.images) for choose in (max, min))
    z = "" if settings.halved_z is None else " x 2"
    rows = [
        ("path", settings.path),
        ("kind", plan.kind),
        (
            "images",
            f"{len(plan.images)}" + (f" ({plan.images[0].name} ... {plan.images[-1].name})" if plan.images[1:] else ""),
        ),
        (
            "arrays",
            f"{len(plan.arrays)} ("
            + (
                f"{least if least == most else f'{least} to {most}'} levels each, {settings.downscale} of 2 x 2{z})"
                if most > 1
                else "1 level each)"
            ),
        ),
        *(row for view in range(len(plan.finest)) for row in _shape_rows(plan, view)),
        ("codec", settings.codec.name + (f" level {settings.codec.level}" if settings.codec.name != "none" else "")),
        ("frames", "unbounded" if plan.n_frames is None else str(plan.n_frames)),
        ("data files", "unbounded" if plan.n_files is None else str(plan.n_files)),
        ("payload", size_text(plan.payload_bytes)),
        ("backend", f"{plan.backend} ({plan.reason})" if plan.reason else plan.backend),
    ]
    rows += [
        (
            f"peak memory, {fit.name}",
            "cannot: " + "; ".join(fit.problems) if fit.problems else size_text(fit.peak_bytes),
        )
        for fit in sorted(plan.fits, key=lambda fit: (bool(fit.problems), fit.peak_bytes))
    ]
    return rows


def _shape_rows(plan: LayoutPlan, view: int) -> list[tuple[str, str]]:
    """Shapes of the finest arrays of one camera."""
    array = plan.finest[view]
    of = f", {plan.settings.cameras[view].name}" if len(plan.finest) > 1 else ""
    shape = shape_text(array.axes, array.shape, array.growable)
    if not plan.is_regular:
        found = [plan.arrays[image.arrays[0]].shape for image in plan.images if image.view == view]
        smallest = tuple(map(min, *found)) if found[1:] else found[0]
        largest = tuple(map(max, *found)) if found[1:] else found[0]
        shape = " ".join(
            text if few == many else f"{text.partition('=')[0]}={few}..{many}"
            for text, few, many in zip(
                shape_text(array.axes, largest, array.growable).split(), smallest, largest, strict=True
            )
        )
    return [
        (f"shape{of}", f"{shape}  {array.dtype}"),
        (
            f"chunk{of}",
            f"{shape_text(array.axes, array.chunks)}  {size_text(_nbytes(array.chunks, array.dtype.itemsize))}",
        ),
        (
            f"shard{of}",
            "none: every chunk is a file"
            if array.shards is None
            else f"{shape_text(array.axes, array.shards)}  {size_text(_nbytes(array.shards, array.dtype.itemsize))}",
        ),
    ]


def plan_text(plan: LayoutPlan) -> str:
    """The rows as aligned text."""
    rows = plan_rows(plan)
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:<{width}}  {value}" for label, value in rows)


def _nbytes(shape: tuple[int, ...], itemsize: int) -> int:
    for size in shape:
        itemsize *= size
    return itemsize
