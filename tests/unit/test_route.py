"""Frame number <-> (image, storage index), both ways."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopestream import AcquisitionSettings, LayoutPlan
from scopestream.planning import make_plan
from scopestream.registry import load_backend
from scopestream.route import Route


def plan(order: dict[str, int | None]) -> LayoutPlan:
    dimensions = [{"name": name, "count": count} for name, count in {**order, "y": 8, "x": 8}.items()]
    settings = AcquisitionSettings(path="a.ome.zarr", dtype="uint8", dimensions=dimensions)
    return make_plan(settings, load_backend("inplace"))


def test_acquisition_order_becomes_storage_order() -> None:
    route = Route(plan({"z": 2, "p": 2, "t": 3, "c": 2}))
    # The loop runs z, p, t, c with c fastest; arrays are stored t, c, z.
    expected = [(p, (t, c, z)) for z, p, t, c in product(range(2), range(2), range(3), range(2))]
    assert [route.locate(number) for number in range(24)] == expected


def test_an_unbounded_axis_goes_on_for_ever() -> None:
    route = Route(plan({"t": None, "p": 3, "c": 2}))
    number = 6 * 10**12 + 5
    assert route.locate(number) == (2, (10**12, 1))
    assert route.number(2, (10**12, 1)) == number


def test_extra_axes_and_positions_tell_images_apart() -> None:
    layout = plan({"t": 2, "angle": 2, "p": 3, "c": 2, "z": 2})
    route = Route(layout)
    for number in range(48):
        image, _ = route.locate(number)
        coords = dict(zip(route.names, route.coords(number), strict=True))
        assert layout.images[image].name == f"{coords['p']} angle={coords['angle']}"


@given(
    names=st.permutations(["t", "p", "c", "z", "angle"]).flatmap(
        lambda order: st.integers(0, 5).map(lambda n: order[:n])
    ),
    counts=st.lists(st.integers(1, 4), min_size=5, max_size=5),
    data=st.data(),
)
def test_every_route_leads_back(names: list[str], counts: list[int], data: st.DataObject) -> None:
    layout = plan(dict(zip(names, counts, strict=False)))
    route = Route(layout)
    assert layout.n_frames is not None
    number = data.draw(st.integers(0, layout.n_frames - 1))
    image, index = route.locate(number)
    assert route.number(image, index) == number
    assert route.number_at(route.coords(number)) == number
    assert all(0 <= i < size for i, size in zip(index, layout.arrays[0].shape[:-2], strict=True))


@pytest.mark.parametrize("order", [{"t": 4, "p": 2, "c": 3}, {"p": 2, "z": 5}, {}])
def test_no_two_frames_share_a_place(order: dict[str, int | None]) -> None:
    layout = plan(order)
    route = Route(layout)
    places = {route.locate(number) for number in range(layout.n_frames or 0)}
    assert len(places) == layout.n_frames
