"""`scopestream demo`: a whole acquisition, from the camera to a dataset that was read back and compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from scopestream.demo.check import Reader, checksum, compare, open_reader
from scopestream.demo.micromanager import DemoError, TakeFrame, interval_s, micromanager_camera
from scopestream.demo.progress import StatsBar
from scopestream.demo.sheet import write_contact_sheet
from scopestream.demo.synthetic import SyntheticCamera
from scopestream.describe import plan_rows, size_text
from scopestream.dimensions import Channel, Dimension, Plate, Position
from scopestream.plan import LayoutPlan
from scopestream.registry import load_backend
from scopestream.route import Route
from scopestream.settings import AcquisitionSettings
from scopestream.stats import Stats
from scopestream.stream import Stream, open_stream

N_PLANES = 5
CHANNELS = (Channel(name="DAPI", color="#4d7dff"), Channel(name="FITC", color="#2ee06b"))
_FIRST_Z_UM = -2.5  # so that no two planes are equally far out of focus
_WELLS = (("B", "2"), ("B", "3"), ("C", "3"))
_WELL_PITCH_UM = 9000.0  # of a 96-well plate
_GLANCE_S = 0.1  # from one look at the statistics to the next
_FRAME_SHAPE, _PIXEL_UM = (512, 512), 0.325  # of the synthetic camera


class CameraKind(StrEnum):
    """Where the frames come from."""

    DEMO = "demo"
    SYNTHETIC = "synthetic"


class Layout(StrEnum):
    """What is imaged: one place, two stage positions, or some wells of a plate."""

    IMAGE = "image"
    POSITIONS = "positions"
    PLATE = "plate"


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What the command line says. `frames` is about how many: time points are whole."""

    camera: CameraKind = CameraKind.DEMO
    layout: Layout = Layout.POSITIONS
    backend: str = "auto"
    codec: str = "none"
    frames: int = 240
    output: Path = Path("demo.ome.zarr")


class Camera(Protocol):
    """Either camera."""

    @property
    def name(self) -> str: ...
    @property
    def frame_shape(self) -> tuple[int, int]: ...
    @property
    def pixel_um(self) -> float: ...
    def record(self, settings: AcquisitionSettings, take: TakeFrame) -> None: ...


class SyntheticSource:
    """The synthetic camera, on a stage and a clock that are as synthetic."""

    name = "synthetic camera (drifting blobs, photon noise)"
    frame_shape = _FRAME_SHAPE
    pixel_um = _PIXEL_UM

    def record(self, settings: AcquisitionSettings, take: TakeFrame) -> None:
        dimensions = {dimension.name: dimension for dimension in settings.dimensions}
        counts = {name: dimension.count or 1 for name, dimension in dimensions.items()}
        positions = (
            dimensions["p"].positions if "p" in dimensions else (Position(name="0", x=0.0, y=0.0, z=_FIRST_Z_UM),)
        )
        for one in SyntheticCamera(self.frame_shape, counts).frames(settings):
            at = positions[one.index.get("p", 0)]
            metadata = {
                "delta_t": one.index["t"] * dimensions["t"].scale,
                "exposure_time": 0.01,
                "position_x": at.x,
                "position_y": at.y,
                "position_z": (at.z or 0.0) + one.index["z"] * dimensions["z"].scale,
            }
            take(one.pixels, one.index, metadata)


@contextmanager
def open_camera(kind: CameraKind) -> Iterator[Camera]:
    """The camera, ready to record. Raises DemoError when it is not installed."""
    if kind is CameraKind.SYNTHETIC:
        yield SyntheticSource()
    else:
        with micromanager_camera() as camera:
            yield camera


def demo_settings(options: DemoOptions, frame_shape: tuple[int, int], pixel_um: float) -> AcquisitionSettings:
    """An acquisition of about `options.frames` frames: time, then positions, channels and planes."""
    positions = _positions(options.layout)
    per_time_point = max(1, len(positions)) * len(CHANNELS) * N_PLANES
    n_times = max(1, round(options.frames / per_time_point))
    first_z = 0.0 if positions else _FIRST_Z_UM  # positions bring their own
    dimensions = [
        Dimension(name="t", count=n_times, type="time", scale=interval_s(per_time_point), unit="second"),
        *([Dimension(name="p", type="position", coords=positions)] if positions else []),
        Dimension(name="c", type="channel", coords=CHANNELS),
        Dimension(name="z", type="space", count=N_PLANES, scale=2.0, unit="micrometer", origin=first_z),
        Dimension(name="y", type="space", count=frame_shape[0], scale=pixel_um, unit="micrometer"),
        Dimension(name="x", type="space", count=frame_shape[1], scale=pixel_um, unit="micrometer"),
    ]  # fmt: skip
    return AcquisitionSettings.model_validate(
        {
            "path": str(options.output), "dtype": "uint16", "dimensions": dimensions, "codec": options.codec,
            "plate": Plate.standard(96, name="demo plate") if options.layout is Layout.PLATE else None,
            "levels": "auto", "backend": options.backend, "on_exists": "increment",
        }
    )  # fmt: skip


def _positions(layout: Layout) -> tuple[Position, ...]:
    if layout is Layout.IMAGE:
        return ()
    if layout is Layout.POSITIONS:
        return tuple(Position(name=name, x=x, y=0.0, z=_FIRST_Z_UM) for name, x in (("left", 0.0), ("right", 250.0)))
    return tuple(
        Position(
            name=f"{row}{column} field {number}", row=row, column=column, z=_FIRST_Z_UM,
            x=(int(column) - 2) * _WELL_PITCH_UM + number * 400.0, y=(ord(row) - ord("B")) * _WELL_PITCH_UM,
        )
        for row, column in _WELLS for number in range(2)
    )  # fmt: skip


@dataclass
class Recorder:
    """Hands frames to the stream, and keeps a checksum of each."""

    stream: Stream
    checksums: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._route = Route(self.stream.plan)

    def take(self, frame: np.ndarray, index: Mapping[str, int], metadata: Mapping[str, Any]) -> None:
        """Append the next frame. Raises DemoError when the camera says that it belongs elsewhere."""
        number = len(self.checksums)
        planned = dict(zip(self._route.names, self._route.coords(number), strict=True))
        if dict(index) != planned:
            raise DemoError(
                f"The camera sent frame {number} for {dict(index)}, the plan says {planned}. It was not written; the "
                f"{number} frames before it are safe."
            )
        self.checksums[number] = checksum(frame)
        self.stream.append(frame, metadata)


def run_demo(options: DemoOptions, console: Console) -> bool:
    """Record, report, read back. True when every frame reads as it was recorded (or nothing can read it here).

    Raises ScopestreamError or pydantic.ValidationError when it cannot be recorded.
    """
    with open_camera(options.camera) as camera:
        console.print(f"[bold]Camera[/bold]   {camera.name}, {camera.frame_shape[1]} x {camera.frame_shape[0]} pixels")
        settings = demo_settings(options, camera.frame_shape, camera.pixel_um)
        stream, checksums = _record(camera, settings, console)
    plan = stream.plan
    for table in (rows_table("The plan", plan_rows(plan)), rows_table("What happened", stats_rows(stream.stats))):
        console.print()
        console.print(table)
    console.print()
    reader = open_reader(plan, load_backend(plan.backend).requires)
    same = _report_comparison(plan, checksums, reader, console)
    sheet = _contact_sheet(plan, reader, camera.name, console)
    _report_places(plan, sheet, console)
    return same


def rows_table(title: str, rows: list[tuple[str, str]]) -> Table:
    """Labels and values, without markup in either."""
    table = Table(
        title=Text(title), title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2, 0, 0)
    )
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(Text(label), Text(value))
    return table


def stats_rows(stats: Stats) -> list[tuple[str, str]]:
    """The statistics with their units."""
    return [
        ("frames in", str(stats.frames_in)),
        ("frames written", str(stats.frames_written)),
        ("skipped, dropped, failed", f"{stats.frames_skipped}, {stats.frames_dropped}, {stats.frames_failed}"),
        ("bytes in", size_text(stats.bytes_in)),
        ("bytes written, all levels", size_text(stats.bytes_written)),
        ("time", f"{stats.seconds:.2f} s, from open to closed"),
        ("rate", f"{stats.frames_per_s:.1f} frames/s, {stats.mb_per_s:.1f} MB/s"),
        ("append, median", f"{stats.append_p50_ms:.3f} ms"),
        ("append, 99th percentile", f"{stats.append_p99_ms:.3f} ms"),
        ("append, longest", f"{stats.append_max_ms:.3f} ms"),
        ("queue, most at once", f"{stats.queue_peak} block{'s' * (stats.queue_peak != 1)}"),
    ]


def _record(camera: Camera, settings: AcquisitionSettings, console: Console) -> tuple[Stream, dict[int, int]]:
    with StatsBar(console) as bar, open_stream(settings, on_stats=bar.show, stats_interval_s=_GLANCE_S) as stream:
        console.print(f"[bold]Dataset[/bold]  {escape(stream.path)}", highlight=False)
        bar.begin(stream.plan.n_frames)
        stream.set_metadata("demo", {"camera": camera.name})
        recorder = Recorder(stream)
        try:
            camera.record(stream.plan.settings, recorder.take)
        except KeyboardInterrupt:
            console.print(f"Stopped; the {stream.stats.frames_in} frames so far are in {escape(stream.path)}.")
            raise
    return stream, recorder.checksums


def _report_comparison(plan: LayoutPlan, checksums: Mapping[int, int], reader: Reader | None, console: Console) -> bool:
    console.print("[bold]Read back[/bold]")
    if reader is None:
        console.print("[yellow]Not compared: no library to read it is installed.[/] pip install 'scopestream\\[zarr]'")
        return True
    if not reader.other:
        console.print("[yellow]By the library that wrote it: no other one is installed.[/]")
    result = compare(plan, checksums, reader.read)
    n_wrong = len(result.different) + (plan.n_frames or 0) - result.n_frames
    if n_wrong:
        which = ", ".join(map(str, result.different[:10]))
        console.print(
            f"[bold red]{n_wrong} of {plan.n_frames} frames are not as they were recorded[/], says {reader.library}"
            + (f": frames {which}{' ...' if result.different[10:] else ''}" if which else " (they never came)")
        )
        return False
    console.print(
        f"[bold green]All {result.n_frames} frames are bit for bit what the camera sent[/], says {reader.library}.",
        highlight=False,
    )
    return True


def _contact_sheet(plan: LayoutPlan, reader: Reader | None, camera: str, console: Console) -> Path | None:
    if reader is None or find_spec("PIL") is None:
        console.print("[yellow]No contact sheet: Pillow or a reader is missing.[/] pip install 'scopestream\\[demo]'")
        return None
    stem = plan.root.name.removesuffix(".zarr").removesuffix(".ome")
    path = plan.root.with_name(f"{stem}_contact_sheet.png")
    write_contact_sheet(plan, reader.read, f"{camera} · {plan.n_frames} frames · read with {reader.library}", path)
    return path


def _report_places(plan: LayoutPlan, sheet: Path | None, console: Console) -> None:
    root = plan.root.resolve()
    rows = [
        ("dataset", str(root)),
        ("one line per frame", str(root / "scopestream" / "frames.jsonl")),
        ("OME-XML", str(root / "OME" / "METADATA.ome.xml")),
    ]
    if sheet is not None:
        rows.append(("contact sheet", str(sheet.resolve())))
    rows.append(("look again", f"scopestream info {plan.root}"))
    console.print()
    console.print(rows_table("Where everything is", rows))
