"""A contact sheet of a dataset: for every image its channels and their overlay in colour, at a few time points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scopestream.demo.check import ReadFrame
from scopestream.plan import ImagePlan, LayoutPlan

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

MAX_IMAGES = 6
_N_TIMES = 4
_GAP, _MARGIN, _LEFT, _HEAD, _TITLE, _COLUMN = 4, 28, 76, 30, 62, 26
_PAPER, _INK, _FAINT = (17, 19, 24), (236, 239, 244), (140, 148, 160)
_PERCENTILES = (0.5, 99.8)


@dataclass(frozen=True, slots=True)
class Axis:
    """Where an axis is in the index, -1 for none, and which of its items are shown."""

    at: int
    shown: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """What of a dataset is shown: time points, channels with their colours, and one plane."""

    times: Axis
    channels: Axis
    plane: Axis
    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]


def write_contact_sheet(plan: LayoutPlan, read: ReadFrame, title: str, path: Path) -> None:
    """Draw the sheet from what `read` gives, and save it as PNG. Needs Pillow."""
    choice = choose(plan)
    images = plan.images[:MAX_IMAGES]
    tiles = [_tiles(plan, choice, image, read) for image in images]
    limits = [_limits([tile[c] for image in tiles for tile in image]) for c in range(len(choice.names))]
    side = _tile_side(plan, choice, len(images))
    panels = [_panel(plan, choice, image, tiles[i], limits, side) for i, image in enumerate(images)]
    _sheet(plan, panels, title).save(path)


def choose(plan: LayoutPlan) -> Choice:
    """A few time points from first to last, all channels (at most four), the middle plane."""
    axes = plan.settings.axes[:-2]

    def axis(kinds: Sequence[str]) -> int:
        return next((i for i, one in enumerate(axes) if one.type in kinds), -1)

    t, c, z = axis(["time"]), axis(["channel", "other"]), axis(["space"])
    n_times = (axes[t].count or 1) if t >= 0 else 1
    times = tuple(sorted({round(at) for at in np.linspace(0, n_times - 1, min(_N_TIMES, n_times))}))
    n_channels = min((axes[c].count or 1) if c >= 0 else 1, 4)
    names = (axes[c].item_names if c >= 0 else ()) or tuple(f"channel {i}" for i in range(n_channels))
    given = [channel.color for channel in axes[c].channels] if c >= 0 else []
    fallback = ["#ffffff"] if n_channels == 1 else ["#22d35e", "#e04bd8", "#27c4e8", "#f0b429"]
    colors = [(given[i] if i < len(given) else None) or fallback[i] for i in range(n_channels)]
    return Choice(
        times=Axis(t, times), channels=Axis(c, tuple(range(n_channels))),
        plane=Axis(z, ((axes[z].count or 1) // 2,) if z >= 0 else (0,)),
        names=names[:n_channels], colors=tuple(_rgb(color) for color in colors),
    )  # fmt: skip


def _tiles(plan: LayoutPlan, choice: Choice, image: ImagePlan, read: ReadFrame) -> list[list[np.ndarray]]:
    """Frames by time point and channel, thinned where they are much larger than a tile."""
    step = max(1, min(plan.arrays[0].frame_shape) // 512)
    n_axes = len(plan.settings.axes) - 2
    tiles = []
    for t in choice.times.shown:
        row = []
        for c in choice.channels.shown:
            index = [0] * n_axes
            for axis, item in ((choice.times, t), (choice.channels, c), (choice.plane, choice.plane.shown[0])):
                if axis.at >= 0:
                    index[axis.at] = item
            row.append(read(image.arrays[0], tuple(index))[::step, ::step].astype(np.float32))
        tiles.append(row)
    return tiles


def _limits(frames: list[np.ndarray]) -> tuple[float, float]:
    low, high = (float(value) for value in np.percentile(np.stack(frames), _PERCENTILES))
    return low, high if high > low else low + 1


def _tile_side(plan: LayoutPlan, choice: Choice, n_images: int) -> int:
    """Small enough that the sheet is about as wide as a screen."""
    across = _n_across(n_images) * len(choice.times.shown)
    return max(96, min(240, 1640 // across))


def _n_across(n_images: int) -> int:
    return n_images if n_images <= 3 else ceil(n_images / 2)


def _panel(
    plan: LayoutPlan,
    choice: Choice,
    image: ImagePlan,
    tiles: list[list[np.ndarray]],
    limits: list[tuple[float, float]],
    side: int,
) -> Image:
    """One image of the dataset: a row for each channel and one for the overlay, a column for each time point."""
    from PIL import Image, ImageDraw

    overlay = len(choice.names) > 1
    n_rows = len(choice.names) + overlay
    width = _LEFT + len(tiles) * (side + _GAP)
    panel = Image.new("RGB", (width, _HEAD + _COLUMN + n_rows * (side + _GAP)), _PAPER)
    draw = ImageDraw.Draw(panel)
    _text(draw, (_LEFT, 4), image.name if plan.kind != "plate" else _field_name(image), 17, _INK)
    for column, (t, channels) in enumerate(zip(choice.times.shown, tiles, strict=True)):
        x = _LEFT + column * (side + _GAP)
        _text(draw, (x, _HEAD + 3), _time_text(plan, choice, t), 13, _FAINT)
        shades = [_stretch(frame, *limit) for frame, limit in zip(channels, limits, strict=True)]
        colored = [
            shade[..., None] * np.array(color, np.float32) for shade, color in zip(shades, choice.colors, strict=True)
        ]
        rows = [*colored, 255 - np.prod([1 - one / 255 for one in colored], axis=0) * 255] if overlay else colored
        for row, pixels in enumerate(rows):
            tile = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).resize((side, side), Image.Resampling.BOX)
            panel.paste(tile, (x, _HEAD + _COLUMN + row * (side + _GAP)))
    for row, (name, color) in enumerate(zip([*choice.names, "overlay"], [*choice.colors, _INK], strict=True)):
        if row < n_rows:
            _text(
                draw, (_LEFT - 12, _HEAD + _COLUMN + row * (side + _GAP) + side // 2), name[:9], 14, color, anchor="rm"
            )
    return panel


def _sheet(plan: LayoutPlan, panels: list[Image], title: str) -> Image:
    from PIL import Image, ImageDraw

    across = _n_across(len(panels))
    down = ceil(len(panels) / across)
    width, height = panels[0].size
    sheet = Image.new(
        "RGB", (2 * _MARGIN + across * width + (across - 1) * _GAP, _TITLE + down * (height + _GAP) + _MARGIN), _PAPER
    )
    draw = ImageDraw.Draw(sheet)
    _text(draw, (_MARGIN, 14), plan.root.name, 22, _INK)
    _text(draw, (_MARGIN, 41), title + _left_out(plan), 13, _FAINT)
    for number, panel in enumerate(panels):
        row, column = divmod(number, across)
        sheet.paste(panel, (_MARGIN + column * (width + _GAP), _TITLE + row * (height + _GAP)))
    return sheet


def _left_out(plan: LayoutPlan) -> str:
    more = len(plan.images) - MAX_IMAGES
    return f" · the first {MAX_IMAGES} of {len(plan.images)} images" if more > 0 else ""


def _field_name(image: ImagePlan) -> str:
    row, column, field = image.path.split("/")
    return f"well {row}{column}, field {field}"


def _time_text(plan: LayoutPlan, choice: Choice, t: int) -> str:
    if choice.times.at < 0:
        return ""
    axis = plan.settings.axes[choice.times.at]
    unit = {"second": "s", "minute": "min", "hour": "h", "millisecond": "ms"}.get(axis.unit or "", axis.unit or "")
    return f"{axis.name} = {t}" + (f"  ({t * axis.scale:g} {unit})" if unit else "")


def _stretch(frame: np.ndarray, low: float, high: float) -> np.ndarray:
    """From 0 to 1, with a little gamma so that faint things show."""
    shade: np.ndarray = np.clip((frame - low) / (high - low), 0, 1) ** 0.8
    return shade


def _rgb(color: str) -> tuple[int, int, int]:
    digits = color.removeprefix("#")
    return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:6], 16)


def _text(
    draw: ImageDraw, at: tuple[int, int], text: str, size: int, color: tuple[int, ...], anchor: str = "la"
) -> None:
    from PIL import ImageFont

    font: Any = ImageFont.load_default(size)
    draw.text(at, text, font=font, fill=color, anchor=anchor)
