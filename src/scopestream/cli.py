"""The command `scopestream`: demo, plan, info, verify, recover, backends, bench."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from scopestream.bench import BenchOptions, run_bench
from scopestream.bench.camera import parse_camera
from scopestream.checks import run_recover, run_verify
from scopestream.contract import Backend
from scopestream.demo import CameraKind, DemoOptions, Layout, rows_table, run_demo
from scopestream.describe import plan_rows, size_text
from scopestream.dimensions import Codec, Dimension
from scopestream.errors import BackendNotFoundError, ScopestreamError
from scopestream.info import AxisInfo, DatasetInfo, ImageInfo, clean, inspect, printable
from scopestream.planning import make_plan
from scopestream.registry import backend_names, load_backend, missing_library
from scopestream.settings import AcquisitionSettings
from scopestream.yamltext import NotTreeError

app = typer.Typer(
    help="Streams microscope acquisitions into OME-Zarr 0.5 datasets that are valid at every instant.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
_WIDTH_OF_FILES = 120  # where output is no terminal
_BACKENDS_NOTE = """
ready      its libraries are installed
unit       what is stored at once (or with a codec and chunks deeper than one frame)
grows      the first axis may be unbounded
read live  other programs read what was flushed while more is written
extra      install it with  pip install 'scopestream[EXTRA]'"""


@app.command()
def demo(
    camera: Annotated[
        CameraKind, typer.Option(help="Micro-Manager's DemoCamera through pymmcore-plus, or one that needs nothing.")
    ] = CameraKind.DEMO,
    layout: Annotated[
        Layout, typer.Option(help="One image, two stage positions, or wells of a plate.")
    ] = Layout.POSITIONS,
    backend: Annotated[str, typer.Option(help="Which backend writes; see `scopestream backends`.")] = "auto",
    codec: Annotated[str, typer.Option(help="none, zstd, blosc-zstd or blosc-lz4.")] = "none",
    frames: Annotated[int, typer.Option(min=1, help="About how many; time points are whole.")] = 240,
    output: Annotated[Path, typer.Option(help="The new dataset; a number is added when it exists.")] = Path(
        "demo.ome.zarr"
    ),
) -> None:
    """Record an acquisition, read it back with another library, and draw a contact sheet."""
    options = DemoOptions(camera=camera, layout=layout, backend=backend, codec=codec, frames=frames, output=output)
    with _short_errors():
        if not run_demo(options, _console()):
            raise typer.Exit(1)


@app.command()
def plan(settings: Annotated[Path, typer.Argument(help="Settings as YAML or JSON.")]) -> None:
    """Print the layout that a settings file gives; nothing is written."""
    with _short_errors():
        _console().print(rows_table(f"The plan of {settings}", plan_rows(_read_settings(settings).plan())))


@app.command()
def info(
    path: Annotated[Path, typer.Argument(help="An OME-Zarr 0.5 dataset.")],
    images: Annotated[int, typer.Option(min=1, help="How many images to show; the others are counted.")] = 8,
) -> None:
    """Say what is in a dataset, from its documents; no pixel is read."""
    with _short_errors():
        dataset = inspect(path, images)
    console = _console()
    console.print(rows_table(clean(str(path)), _dataset_rows(dataset)))
    console.print()
    if dataset.images:
        console.print(_images_table(dataset))
        for table in _details(dataset.images[0]):
            console.print(table)
    for note in dataset.notes[:10]:
        console.print(Text(f"note: {note}", style="yellow"))
    if dataset.problems:
        _fail(f"{len(dataset.problems)} problem{'s' * (len(dataset.problems) > 1)}:", dataset.problems[:20])


@app.command(name="verify")
def verify_dataset(path: Annotated[Path, typer.Argument(help="A dataset that scopestream wrote.")]) -> None:
    """Read everything back: check every index, decode every chunk, compare every frame with its checksum."""
    with _short_errors():
        if not run_verify(path, _console()):
            raise typer.Exit(1)


@app.command(name="recover")
def recover_dataset(
    path: Annotated[Path, typer.Argument(help="A dataset that a crash left.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
) -> None:
    """Make a dataset whole after a crash, and say what was kept and lost."""
    with _short_errors():
        run_recover(path, _console(), dry_run=dry_run)


@app.command()
def backends() -> None:
    """List the backends: what each can do, and how to install those that are missing."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for header in ("backend", "ready", "unit", "any\norder", "grows", "read\nlive", "codecs", "to", "extra"):
        table.add_column(header, overflow="fold", no_wrap=header != "extra", vertical="top")
    for name in backend_names():
        try:
            table.add_row(*_backend_cells(load_backend(name)))
        except BackendNotFoundError as error:
            reason = clean(repr(error.__cause__) if error.__cause__ else str(error))
            table.add_row(Text(name), Text("broken", style="red"), *[Text("")] * 6, Text(reason, style="red"))
    console = _console()
    console.print(table)
    console.print(Text(_BACKENDS_NOTE, style="dim"))


@app.command()
def bench(
    camera: Annotated[str, typer.Option(help="WIDTHxHEIGHT@FRAMES_PER_SECOND, for example 2048x2048@100.")],
    dtype: Annotated[str, typer.Option(help="Of the pixels.")] = "uint16",
    seconds: Annotated[
        float, typer.Option(min=0.01, help="How long one run sends frames at the most; flat out a second at the most.")
    ] = 5.0,
    folder: Annotated[Path, typer.Option(help="A folder on the disk that is meant.")] = Path(),
    backend: Annotated[list[str] | None, typer.Option(help="Only this one; may be given again.")] = None,
    codec: Annotated[list[str] | None, typer.Option(help="Only this one; may be given again.")] = None,
    shard_frames: Annotated[
        list[int] | None, typer.Option(min=1, help="Frames of a shard, instead of two usual sizes; may be given again.")
    ] = None,
) -> None:
    """Say which backend, codec and shard size keep up with a camera on this disk."""
    with _short_errors():
        options = BenchOptions(
            camera=parse_camera(camera, dtype), seconds=seconds, folder=folder,
            backends=backend or (), codecs=codec or (), shard_frames=shard_frames or (),
        )  # fmt: skip
        if not run_bench(options, _console()):
            raise typer.Exit(1)


# -- errors ---------------------------------------------------------------------------------------------------------


@contextmanager
def _short_errors() -> Iterator[None]:
    """What went wrong in a few red words, and an exit code that is not zero."""
    try:
        yield
    except ValidationError as error:
        _fail("The settings are not valid:", settings_problems(error), code=2)
    except (ScopestreamError, OSError) as error:
        _fail(str(error))


def _fail(message: str, items: list[str] | None = None, code: int = 1) -> NoReturn:
    console = _console(stderr=True)
    console.print(Text(printable(message), style="bold red"))
    for item in items or []:
        console.print(Text(f"  - {printable(item)}", style="red"))
    raise typer.Exit(code)


def settings_problems(error: ValidationError) -> list[str]:
    """One line for each problem: where, and what; never the value, which may be a secret in the wrong place."""
    problems = []
    for one in error.errors(include_url=False, include_input=False):
        # Parts with brackets or hyphens name branches of a union, which mean nothing to whoever wrote the file.
        parts = [str(part) for part in one["loc"] if isinstance(part, int) or part.isidentifier()]
        message = one["msg"].removeprefix("Value error, ")
        problems.append(f"{'.'.join(parts)}: {message}" if parts else message)
    return list(dict.fromkeys(problems))


def _read_settings(path: Path) -> AcquisitionSettings:
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        return AcquisitionSettings.from_yaml(text)
    except OSError as error:
        _fail(f"{path} cannot be read: {error.strerror}", code=2)
    except UnicodeDecodeError:
        _fail(f"{path} is not text in UTF-8.", code=2)
    except yaml.MarkedYAMLError as error:  # without its excerpt of the text
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        _fail(f"{path} is neither YAML nor JSON: {error.problem} (line {line})", code=2)
    except (yaml.YAMLError, NotTreeError) as error:
        _fail(f"{path} is neither YAML nor JSON: {error}", code=2)


# -- tables ---------------------------------------------------------------------------------------------------------


def _console(*, stderr: bool = False) -> Console:
    """Made when it is needed, for the streams of that moment."""
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _WIDTH_OF_FILES
    return console


def _dataset_rows(dataset: DatasetInfo) -> list[tuple[str, str]]:
    status = dict(dataset.status)
    rows = [("kind", dataset.kind), ("OME-Zarr", dataset.version or "not said")]
    if dataset.name:
        rows.append(("name", dataset.name))
    if status:
        counts = ", ".join(
            f"{value} {key.removeprefix('frames ')}" for key, value in status.items() if key.startswith("frames")
        )
        rows.append(("status", status.get("status", "unknown") + (f": {counts} frames" if counts else "")))
        rows += _speed_rows(dataset.statistics)
        rows.append(("written by", f"scopestream {status.get('version', '')}"))
    if dataset.kind == "plate":
        rows.append(("wells", str(dataset.n_wells)))
    rows.append(("images", str(dataset.n_images)))
    rows.append(
        ("files", f"{dataset.n_files}, {size_text(dataset.n_bytes)} ({size_text(dataset.n_disk_bytes)} on disk)")
    )
    if dataset.log is not None:
        rows.append(("frame log", ", ".join(f"{count} {status}" for status, count in dataset.log.items()) or "empty"))
    plural = "s" * (dataset.n_checked != 1)
    valid = "no" if dataset.problems else "yes"
    rows.append(("valid", f"{valid}, {dataset.n_checked} document{plural} checked with yaozarrs"))
    return rows


def _speed_rows(statistics: dict[str, float]) -> list[tuple[str, str]]:
    """What the dataset says about how it was recorded, in one row; none when it says nothing."""
    texts = {
        "seconds": "in {:.1f} s", "mb_per_s": "{:.1f} MB/s", "append_p99_ms": "append p99 {:.2f} ms",
        "append_max_ms": "longest {:.2f} ms", "queue_peak": "queue at most {:.0f}",
    }  # fmt: skip
    said = [text.format(statistics[name]) for name, text in texts.items() if name in statistics]
    return [("recorded", ", ".join(said))] if said else []


def _images_table(dataset: DatasetInfo) -> Table:
    shown, total = len(dataset.images), dataset.n_images
    axes = ", ".join(axis.name for axis in dataset.images[0].axes)
    table = Table(
        title=Text(f"Images ({axes})"), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for header in ("path", "name", "shape", "dtype", "chunk", "shard", "codec", "levels"):
        table.add_column(header, overflow="fold")
    for image in dataset.images:
        first = image.levels[0]
        cells = (
            image.path or ".", image.name, _times(first.shape), first.dtype, _times(first.chunks),
            "none" if first.shards is None else _times(first.shards), first.codec,
            f"{len(image.levels)}: " + ", ".join(_times(level.shape[-2:]) for level in image.levels),
        )  # fmt: skip
        table.add_row(*map(Text, map(clean, cells)))
    if total > shown:
        table.caption = f"and {total - shown} more"
        table.caption_justify = "left"
    return table


def _details(image: ImageInfo) -> Iterator[Table]:
    what = clean(f"image {image.path}" if image.path else "the image")
    axes = Table(
        title=Text(f"Axes of {what}"), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for header in ("axis", "type", "size", "step", "origin", "extent"):
        axes.add_column(header, justify="right" if header in ("size", "step", "origin", "extent") else "left")
    for axis in image.axes:
        axes.add_row(*map(Text, _axis_cells(axis)))
    yield axes
    if image.channels:
        channels = Table(
            title=Text(f"Channels of {what}"),
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
        )
        for header in ("channel", "colour", "contrast"):
            channels.add_column(header)
        for channel in image.channels:
            color = Text(f"\u25a0 {channel.color}", style=channel.color) if channel.color else Text("")
            window = "" if channel.window is None else f"{channel.window[0]:g} to {channel.window[1]:g}"
            channels.add_row(Text(channel.name), color, Text(window))
        yield channels


def _axis_cells(axis: AxisInfo) -> tuple[str, ...]:
    unit = {"micrometer": "\u00b5m", "nanometer": "nm", "millimeter": "mm", "second": "s", "millisecond": "ms"}.get(
        axis.unit, axis.unit
    )

    def with_unit(value: float | None) -> str:
        return "" if value is None else f"{value:g} {unit}".rstrip()

    extent = axis.size * axis.scale if axis.size is not None and axis.scale is not None and axis.unit else None
    size = "" if axis.size is None else str(axis.size)
    return axis.name, axis.type, size, with_unit(axis.scale), with_unit(axis.origin), with_unit(extent)


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _backend_cells(backend: Backend) -> list[Text]:
    can = backend.capabilities
    installed = Text("no", style="yellow") if missing_library(backend) else Text("yes", style="green")
    units = dict.fromkeys(str(make_plan(settings, backend).unit) for settings in _typical_settings())
    return [
        Text(backend.name, style="bold"),
        installed,
        Text("\nor ".join(units)),
        *(Text("yes") if yes else Text("no", style="yellow") for yes in (can.any_order, can.growable, can.live_read)),
        Text("\n".join(sorted(can.codecs))),
        Text("\n".join(sorted(can.schemes))),
        Text(backend.extra or "none needed"),
    ]


def _typical_settings() -> Iterator[AcquisitionSettings]:
    """Without a codec, and with one where chunks are deeper than a frame."""
    dimensions = (
        Dimension(name="t", count=100, type="time"),
        Dimension(name="y", count=2048, type="space"),
        Dimension(name="x", count=2048, type="space"),
    )
    plain = AcquisitionSettings(path="typical.ome.zarr", dtype="uint16", dimensions=dimensions)
    yield plain
    yield plain.model_copy(update={"codec": Codec.model_validate("zstd"), "chunks": {"t": 4, "y": 512, "x": 512}})
