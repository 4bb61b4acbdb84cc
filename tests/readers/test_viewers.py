"""Viewers show a view as it is: ndv through its wrapper of any array, napari through its model of layers.

No window is opened. napari is large, so it is in an extra of its own: pip install 'scopestream[viewers]'.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from scopestream import AcquisitionSettings, Channel, Dimension, open_stream
from scopestream.testing import stamped_frame

Y, X = 24, 40

# In a process of its own, since importing napari warns of what is not ours.
NAPARI = """
import sys
from importlib import import_module

import numpy as np
from napari.components import ViewerModel
from scopestream.testing import stamped_frame

settings = import_module("scopestream").AcquisitionSettings.from_yaml(open(sys.argv[1]).read())
with import_module("scopestream").open_stream(settings) as stream:
    view = stream.view()
    read = []
    inner = view._frames.frames
    view._frames.frames = lambda numbers: read.extend(numbers) or inner(numbers)
    for number in range(6):
        stream.append(stamped_frame(number, (24, 40), "uint16"))
    viewer = ViewerModel()
    layer = viewer.add_image(view, multiscale=False, axis_labels=view.dims, contrast_limits=(0, 65535))
    assert viewer.dims.axis_labels == ("t", "c", "z", "y", "x"), viewer.dims.axis_labels
    assert not layer.multiscale and layer.data is view

    def shown(*step):
        viewer.dims.set_current_step((0, 1, 2), step)
        return np.asarray(layer._slice.image.raw)

    read.clear()
    np.testing.assert_array_equal(shown(0, 1, 2), stamped_frame(5, (24, 40), "uint16"))
    assert set(read) <= set(range(6)), read
    assert len(read) <= 4, read  # of each step along an axis the frame that is shown, and no other
    for number in range(6, 12):
        stream.append(stamped_frame(number, (24, 40), "uint16"))
    layer.data = view  # napari looks at the shape only then
    assert viewer.dims.range[0].stop == 1, viewer.dims.range
    np.testing.assert_array_equal(shown(1, 0, 1), stamped_frame(7, (24, 40), "uint16"))
np.testing.assert_array_equal(shown(1, 1, 1), stamped_frame(10, (24, 40), "uint16"))
print("as they came")
"""


@pytest.fixture
def growing(tmp_path: Path) -> AcquisitionSettings:
    return AcquisitionSettings(
        path=tmp_path / "a.ome.zarr",
        dtype="uint16",
        dimensions=[
            Dimension(name="t", count=None),
            Dimension(name="c", coords=[Channel(name="DAPI"), Channel(name="GFP")]),
            Dimension(name="z", count=3, scale=2.0, unit="um"),
            Dimension(name="y", count=Y),
            Dimension(name="x", count=X),
        ],
        backend="inplace",
        codec="blosc-lz4",
    )


def test_ndv_wraps_a_view_with_its_names_and_coordinates(growing: AcquisitionSettings) -> None:
    from ndv.models import DataWrapper

    with open_stream(growing) as stream:
        wrapped = DataWrapper.create(stream.view())
        assert wrapped.dims == ("t", "c", "z", "y", "x")
        assert wrapped.sizes() == {"t": 0, "c": 2, "z": 3, "y": Y, "x": X}
        for number in range(9):
            stream.append(stamped_frame(number, (Y, X), "uint16"))
        assert wrapped.sizes() == {"t": 2, "c": 2, "z": 3, "y": Y, "x": X}
        assert wrapped.dtype == np.uint16
        assert wrapped.guess_channel_axis() == 1
        assert wrapped.coords["c"] == ("DAPI", "GFP")
        assert list(wrapped.coords["z"]) == [0.0, 2.0, 4.0]
        np.testing.assert_array_equal(wrapped.isel({0: 1, 1: 0, 2: 2}), stamped_frame(8, (Y, X), "uint16"))
        np.testing.assert_array_equal(wrapped.isel({0: -1, 1: slice(1, 2), 2: slice(0, 1)}), np.zeros((1, 1, Y, X)))


@pytest.mark.skipif(find_spec("napari") is None, reason="needs napari: pip install 'scopestream[viewers]'")
def test_napari_shows_a_view_that_grows(growing: AcquisitionSettings, tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text(growing.to_yaml())
    done = subprocess.run(
        [sys.executable, "-c", NAPARI, str(tmp_path / "settings.yaml")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "as they came"
