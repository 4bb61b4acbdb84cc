"""`OME/METADATA.ome.xml`, through ome-types: one Image per series, in series order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from ome_types import OME, model
from ome_types.model import (
    Channel,
    Color,
    Image,
    MetadataOnly,
    Pixels,
    Pixels_DimensionOrder,
    PixelType,
    Plate,
    UnitsLength,
    UnitsTime,
    Well,
    WellSample,
)

from scopestream.dimensions import Dimension
from scopestream.omeplanes import Planes
from scopestream.plan import ImagePlan, LayoutPlan

_NO_PIXELS = "<MetadataOnly/>"  # behind it come the planes; text in the document cannot have an unescaped "<"
_UNITS = {unit.name.lower(): unit for unit in (*UnitsLength, *UnitsTime)}
_DTYPES = {"bool": "bit", "float32": "float", "float64": "double"}


def ome_document(plan: LayoutPlan, lengths: Mapping[int, int], records: Iterable[Mapping[str, Any]]) -> str:
    """The OME-XML of a whole dataset.

    lengths  of the first axis by image, where it is growable
    records  the frame log: each frame that was written becomes a plane, with the delta_t and exposure_time (seconds),
             position_x, position_y and position_z of its metadata. Without a delta_t it is the time since the first
             frame
    """
    planes = Planes(plan, records)
    images = [_image(plan, number, image, lengths) for number, image in enumerate(plan.images)]
    if planes.began_s is not None:
        for document in images:
            document.acquisition_date = datetime.fromtimestamp(planes.began_s, UTC)
    whole = OME(images=images, creator="scopestream")
    if plan.settings.plate is not None:
        whole.plates.append(_plate(plan))
    head, *rest = whole.to_xml().split(_NO_PIXELS)
    parts = [head]
    for number, tail in enumerate(rest):
        parts += [_NO_PIXELS, *[f"\n      {element}" for element in planes.of(number)], tail]
    return "".join(parts)


def _image(
    plan: LayoutPlan,
    number: int,
    image: ImagePlan,
    lengths: Mapping[int, int],
) -> Image:
    dimensions = image.dimensions
    axes = {axis.type if axis.type != "space" else axis.name: axis for axis in dimensions}
    array = plan.arrays[image.arrays[0]]
    sizes = dict(zip(array.axes, array.shape, strict=True))
    if array.growable:
        sizes[array.axes[0]] = lengths.get(number, 0)
    time, channel = axes.get("time"), axes.get("channel") or axes.get("other")
    y, x = dimensions[-2:]
    z = next((axis for axis in dimensions[:-2] if axis.type == "space"), None)

    def size(axis: Dimension | None) -> int:
        return max(sizes[axis.name], 1) if axis is not None else 1  # OME-XML has no empty images

    pixels = Pixels(
        id=f"Pixels:{number}", dimension_order=Pixels_DimensionOrder.XYZCT, metadata_only=MetadataOnly(),
        type=PixelType(_DTYPES.get(array.dtype.name, array.dtype.name if array.dtype.itemsize < 8 else "double")),
        size_x=size(x), size_y=size(y), size_z=size(z), size_c=size(channel), size_t=size(time),
        channels=_channels(number, channel, size(channel)),
        **_spacing("physical_size_x", x), **_spacing("physical_size_y", y),
        **_spacing("physical_size_z", z), **_spacing("time_increment", time),
    )  # fmt: skip
    return Image(id=f"Image:{number}", name=image.name, pixels=pixels)


def _spacing(field: str, axis: Dimension | None) -> dict[str, Any]:
    if axis is None or axis.unit is None:
        return {}
    unit = _UNITS.get(axis.unit)
    return {} if unit is None else {field: axis.scale, f"{field}_unit": unit}


def _channels(number: int, axis: Dimension | None, count: int) -> list[Channel]:
    channels = list(axis.channels) if axis is not None else []
    if not channels:
        names = axis.item_names if axis is not None else ()
        return [
            Channel(id=f"Channel:{number}:{c}", name=names[c] if names else None, samples_per_pixel=1)
            for c in range(count)
        ]
    documents = []
    for c, channel in enumerate(channels):
        document = Channel(
            id=f"Channel:{number}:{c}", name=channel.name, samples_per_pixel=1,
            excitation_wavelength=channel.excitation_nm, emission_wavelength=channel.emission_nm,
        )  # fmt: skip
        if channel.color:
            document.color = Color(channel.color)
        documents.append(document)
    return documents


def _plate(plan: LayoutPlan) -> Plate:
    plate = plan.settings.plate
    assert plate is not None
    wells: dict[tuple[str, str], Well] = {}
    for number, image in enumerate(plan.images):
        position = image.position
        assert position is not None and position.row is not None and position.column is not None
        at = (position.row, position.column)
        if at not in wells:
            row, column = plate.rows.index(at[0]), plate.columns.index(at[1])
            wells[at] = Well(id=f"Well:0:{len(wells)}", row=row, column=column)
        samples = wells[at].well_samples
        samples.append(
            WellSample(id=f"WellSample:0:{number}", index=number, image_ref=model.ImageRef(id=f"Image:{number}"))
        )
    return Plate(
        id="Plate:0", name=plate.name, rows=len(plate.rows), columns=len(plate.columns), wells=list(wells.values())
    )
