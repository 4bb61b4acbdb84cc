"""What became of each frame: as a table, and as planes of OME-XML."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import ome_types
import pytest
from ome_types.model import Image

import scopestream.intake
from scopestream import (
    AcquisitionSettings,
    Channel,
    DatasetError,
    Dimension,
    LibraryNotFoundError,
    Position,
    frames_table,
    open_stream,
    read_frames,
)

Y, X = 8, 16
FRAME = np.ones((Y, X), np.uint16)
SIZE = [Dimension(name="y", count=Y, scale=0.5, unit="um"), Dimension(name="x", count=X, scale=0.5, unit="um")]
TIME = Dimension(name="t", count=2, scale=0.5, unit="s")
CHANNELS = Dimension(name="c", coords=[Channel(name="DAPI"), Channel(name="GFP")])
STAGE_FIELDS = ("position_x", "position_y", "position_z")
STAGE = Dimension(name="p", coords=[Position(name="left", x=10.0, y=20.0), Position(name="right", x=260.0, y=20.0)])


def settings(tmp_path: Path, *dimensions: Dimension, **fields: Any) -> AcquisitionSettings:
    base: dict[str, Any] = {
        "path": tmp_path / "a.ome.zarr",
        "dtype": "uint16",
        "dimensions": [*(dimensions or (TIME, CHANNELS)), *SIZE],
        "backend": "inplace",
    }
    return AcquisitionSettings(**{**base, **fields})


def images(path: str) -> list[Image]:
    return ome_types.from_xml(Path(path, "OME", "METADATA.ome.xml").read_text(encoding="utf-8")).images


class Clock:
    """Goes on by what it is told at each frame."""

    def __init__(self, *steps_s: float) -> None:
        self.now_s = 1_795_211_598.0
        self._steps_s = iter(steps_s)

    def __call__(self) -> float:
        self.now_s += next(self._steps_s)
        return self.now_s


class TestTable:
    def test_it_has_a_row_for_each_frame_and_flat_columns(self, tmp_path: Path) -> None:
        with open_stream(settings(tmp_path)) as stream:
            stream.append(FRAME, metadata={"exposure_time": 0.02, "camera": "left", "stage": {"x": 1, "pfs": True}})
            stream.skip(1, reason="autofocus failed")
            stream.append(FRAME, metadata={"exposure_time": float("nan"), "frame": 17})
        table = frames_table(stream.path)
        assert list(table.columns) == [
            "frame", "image", "t", "c", "status", "reason", "time", "crc32c",
            "exposure_time", "camera", "stage.x", "stage.pfs", "metadata.frame",
        ]  # fmt: skip
        assert table["frame"].tolist() == [0, 1, 2]
        assert (table["t"].tolist(), table["c"].tolist()) == ([0, 0, 1], [0, 1, 0])
        assert table["status"].tolist() == ["written", "skipped", "written"]
        assert table["reason"][1] == "autofocus failed"
        assert table["metadata.frame"][2] == 17
        assert table["camera"].isna().tolist() == [False, True, True]

    def test_columns_have_the_dtypes_of_what_is_in_them(self, tmp_path: Path) -> None:
        with open_stream(settings(tmp_path)) as stream:
            stream.append(FRAME, metadata={"gain": 2, "exposure_time": 0.02, "shutter": True, "camera": "left"})
            stream.append(FRAME, metadata={"exposure_time": float("nan")})
        kinds = frames_table(stream.path).dtypes.astype(str).to_dict()
        assert kinds == {
            "frame": "int64", "image": "string", "t": "Int64", "c": "Int64", "status": "category", "reason": "string",
            "time": "datetime64[us, UTC]", "crc32c": "UInt32",
            "gain": "Int64", "exposure_time": "Float64", "shutter": "boolean", "camera": "string",
        }  # fmt: skip

    def test_times_are_those_of_the_log(self, tmp_path: Path) -> None:
        with open_stream(settings(tmp_path)) as stream:
            stream.append(FRAME)
        (record,) = read_frames(stream.path)
        (time,) = frames_table(stream.path)["time"]
        assert time.to_pydatetime() == datetime.fromtimestamp(record["time"], UTC)

    def test_rows_go_by_number_and_the_last_line_of_a_frame_counts(self, tmp_path: Path) -> None:
        with open_stream(settings(tmp_path)) as stream:
            for number in (3, 1, 0):
                stream.write(FRAME, index={"t": number // 2, "c": number % 2})
        log = Path(stream.path) / "scopestream" / "frames.jsonl"
        lost = next(line for line in log.read_text().splitlines() if '"frame":1' in line).replace("written", "failed")
        log.write_text(log.read_text() + lost + "\n")
        table = frames_table(stream.path)
        assert table["frame"].tolist() == [0, 1, 3]
        assert table["status"].tolist() == ["written", "failed", "written"]

    def test_an_acquisition_without_frames_is_an_empty_table(self, tmp_path: Path) -> None:
        with open_stream(settings(tmp_path)) as stream:
            pass
        table = frames_table(stream.path)
        assert len(table) == 0
        assert list(table.columns) == ["frame", "image", "status", "reason", "time", "crc32c"]

    def test_without_pandas_it_says_what_to_do(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with open_stream(settings(tmp_path)) as stream:
            stream.append(FRAME)
        monkeypatch.setitem(sys.modules, "pandas", None)
        with pytest.raises(LibraryNotFoundError, match=r"pip install 'scopestream\[pandas\]'"):
            frames_table(stream.path)

    def test_where_there_is_no_log_it_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="no frame log"):
            frames_table(tmp_path)

    def test_a_log_with_endless_keys_does_not_take_all_memory(self, tmp_path: Path) -> None:
        with open_stream(settings(tmp_path)) as stream:
            stream.append(FRAME, metadata={str(number): number for number in range(5000)})
        with pytest.raises(DatasetError, match="has more than 4096 keys"):
            frames_table(stream.path)


class TestPlanes:
    def test_each_frame_has_the_time_at_which_it_came(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Intervals are as irregular as they were."""
        monkeypatch.setattr(scopestream.intake, "time", Clock(0, 0.5, 30, 2.25))
        with open_stream(settings(tmp_path)) as stream:
            for _ in range(4):
                stream.append(FRAME)
        (image,) = images(stream.path)
        assert [(p.the_t, p.the_c, p.delta_t) for p in image.pixels.planes] == [
            (0, 0, 0.0),
            (0, 1, 0.5),
            (1, 0, 30.5),
            (1, 1, 32.75),
        ]
        assert image.acquisition_date == datetime(2026, 11, 20, 21, 53, 18, tzinfo=UTC)

    def test_what_a_frame_brings_counts_more_than_when_it_came(self, tmp_path: Path) -> None:
        with open_stream(settings(tmp_path, TIME)) as stream:
            for number in range(2):
                metadata = {"delta_t": 0.25 * number, "exposure_time": 0.02, "position_x": 3.0, "position_z": 1.5}
                stream.append(FRAME, metadata=metadata)
        (image,) = images(stream.path)
        planes = [(p.delta_t, p.exposure_time, p.position_x, p.position_z) for p in image.pixels.planes]
        assert planes == [(0.0, 0.02, 3.0, 1.5), (0.25, 0.02, 3.0, 1.5)]

    @pytest.mark.parametrize("dimensions", [(), (TIME,), (TIME, STAGE)], ids=["frame", "image", "positions"])
    def test_every_layout_has_them(self, tmp_path: Path, dimensions: tuple[Dimension, ...]) -> None:
        one = settings(tmp_path).model_copy(update={"dimensions": (*dimensions, *SIZE)})
        with open_stream(one) as stream:
            for _ in range(stream.plan.n_frames or 0):
                stream.append(FRAME, metadata={"exposure_time": 0.02})
        found = images(stream.path)
        assert len(found) == len(stream.plan.images)
        planes = [plane for image in found for plane in image.pixels.planes]
        assert [plane.exposure_time for plane in planes] == [0.02] * (stream.plan.n_frames or 0)
        if STAGE in dimensions:  # one after the other, so times of one position lie between those of the other
            assert [plane.position_x for plane in planes] == [10.0, 10.0, 260.0, 260.0]
            left, right = [[plane.delta_t or 0 for plane in image.pixels.planes] for image in found]
            assert left[0] == 0 <= right[0] <= left[1] <= right[1]

    @pytest.mark.parametrize(
        ("units", "expected"),
        [
            ({"y": "um", "x": "um"}, ("µm", "µm", "µm")),  # z is no axis
            ({"z": "um", "y": None, "x": None}, ("µm", "µm", "µm")),  # the size of a pixel is not known
            ({"z": None, "y": "mm", "x": "mm"}, ("mm", "mm", "mm")),
            ({"z": "um", "y": "nm", "x": "nm"}, ("nm", "nm", "µm")),
            ({"y": "nm", "x": "um"}, ("µm", "nm", "reference frame")),  # nobody knows which of them z is in
            ({"y": None, "x": None}, ("reference frame",) * 3),
        ],
    )
    def test_places_are_in_the_unit_of_their_axis_or_else_of_all_others(
        self, tmp_path: Path, units: dict[str, str | None], expected: tuple[str, ...]
    ) -> None:
        axes = [Dimension(name=name, type="space", count=8, unit=unit) for name, unit in units.items()]
        with open_stream(settings(tmp_path, dimensions=axes)) as stream:
            stream.append(np.ones((8, 8), np.uint16), metadata=dict.fromkeys(STAGE_FIELDS, 5.0))
        (image,) = images(stream.path)
        plane = image.pixels.planes[0]
        found = (plane.position_x_unit, plane.position_y_unit, plane.position_z_unit)
        assert tuple(unit.value for unit in found) == expected

    def test_frames_that_did_not_come_have_none(self, tmp_path: Path) -> None:
        with open_stream(settings(tmp_path)) as stream:
            stream.append(FRAME)
            stream.skip(2)
            stream.append(FRAME)
        (image,) = images(stream.path)
        assert [(plane.the_t, plane.the_c) for plane in image.pixels.planes] == [(0, 0), (1, 1)]
