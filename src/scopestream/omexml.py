"""`OME/METADATA.ome.xml`, through ome-types: one Image per series, in series order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    Plane,
    Plate,
    UnitsLength,
    UnitsTime,
    Well,
    WellSample,
)

from scopestream.dimensions import Dimension
from scopestream.plan import ImagePlan, LayoutPlan
from scopestream.route import Route

# A plane costs some 150 bytes of XML, and readers hold the whole document: past this, the frame log has the times.
MAX_PLANES = 100_000
_MAX_NUMBER = 1e30  # no time and no place is further away, and whole numbers of any size become floats
_UNITS = {unit.name.lower(): unit for unit in (*UnitsLength, *UnitsTime)}
_DTYPES = {"bool": "bit", "float32": "float", "float64": "double"}


def ome_document(plan: LayoutPlan, lengths: Mapping[int, int], records: Iterable[Mapping[str, Any]]) -> str:
    """The OME-XML of a whole dataset.

    lengths  of the first axis by image, where it is growable
    records  the frame log; delta_t and exposure_time (seconds), position_x, position_y and position_z become planes
    """
    planes = _planes(plan, records)
    images = [_image(plan, number, image, lengths, planes.get(number, {})) for number, image in enumerate(plan.images)]
    document = OME(images=images, creator="scopestream")
    if plan.settings.plate is not None:
        document.plates.append(_plate(plan))
    return document.to_xml()


def _image(
    plan: LayoutPlan,
    number: int,
    image: ImagePlan,
    lengths: Mapping[int, int],
    planes: dict[tuple[int, int, int], Plane],
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
        planes=[plane for _, plane in sorted((planes or _first_plane(image)).items())],  # the log has them as stored
        **_spacing("physical_size_x", x), **_spacing("physical_size_y", y),
        **_spacing("physical_size_z", z), **_spacing("time_increment", time),
    )  # fmt: skip
    _add_position(plan, image, pixels.planes)
    return Image(id=f"Image:{number}", name=image.name, pixels=pixels)


def _first_plane(image: ImagePlan) -> dict[tuple[int, int, int], Plane]:
    """A place for the stage position, where no frame brought a plane along."""
    return {(0, 0, 0): Plane(the_z=0, the_c=0, the_t=0)} if image.position else {}


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


def _planes(plan: LayoutPlan, records: Iterable[Mapping[str, Any]]) -> dict[int, dict[tuple[int, int, int], Plane]]:
    """Planes by image and (T, C, Z), of frames whose metadata OME-XML has a place for."""
    by_path = {image.path: number for number, image in enumerate(plan.images)}
    roles = [{"time": "t", "space": "z"}.get(axis.type, "c") for axis in plan.settings.axes[:-2]]
    route = Route(plan)
    units = _stage_units(plan)
    planes: dict[int, dict[tuple[int, int, int], Plane]] = {}
    n_planes = 0
    for record in records:
        metadata = record.get("metadata")
        number = by_path.get(record["image"])
        if record["status"] != "written" or not isinstance(metadata, dict) or n_planes >= MAX_PLANES or number is None:
            continue
        if not plan.places.has(record["frame"]):
            continue
        fields: dict[str, Any] = {
            name: float(metadata[name])
            for name in ("delta_t", "exposure_time", "position_x", "position_y", "position_z")
            if isinstance(metadata.get(name), (int, float)) and abs(metadata[name]) < _MAX_NUMBER
        }
        if not fields:
            continue
        for name in "xyz":
            if f"position_{name}" in fields and (unit := units.get(name)) is not None:
                fields[f"position_{name}_unit"] = unit
        at = dict.fromkeys("tcz", 0)
        _, index = route.locate(record["frame"])
        at.update(zip(roles, index, strict=True))
        key = (at["t"], at["c"], at["z"])
        image = planes.setdefault(number, {})
        image[key] = Plane(the_t=key[0], the_c=key[1], the_z=key[2], **fields)
        n_planes += 1
    return planes


def _add_position(plan: LayoutPlan, image: ImagePlan, planes: list[Plane]) -> None:
    """The planned stage position, where a frame did not bring the measured one."""
    if image.position is None:
        return
    units = _stage_units(plan)
    z = next((axis for axis in image.dimensions[:-2] if axis.type == "space"), None)
    for name in "xyz":
        planned = getattr(image.position, name)
        if planned is None:
            continue
        step = z.scale if name == "z" and z is not None else 0.0
        for plane in planes:
            if getattr(plane, f"position_{name}") is None:
                setattr(plane, f"position_{name}", planned + plane.the_z * step)
                if (unit := units.get(name)) is not None:
                    setattr(plane, f"position_{name}_unit", unit)


def _stage_units(plan: LayoutPlan) -> dict[str, Any]:
    """Units of the stage's x, y and z: those of the axes that they move along."""
    roles = plan.settings.stage_axes
    return {roles[axis.name]: _UNITS.get(axis.unit or "") for axis in plan.settings.axes if axis.name in roles}


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
