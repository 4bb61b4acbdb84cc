"""Group documents of a dataset: OME-Zarr 0.5 through yaozarrs' models, OME-XML beside it, each replaced at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from yaozarrs import v05

from scopestream.document import MAX_DOCUMENT_BYTES, group_document, replace_file, write_document
from scopestream.durable import sync_everything, sync_folder
from scopestream.errors import MetadataError
from scopestream.jsontext import text_to_json, to_json
from scopestream.omexml import ome_document
from scopestream.plan import ArrayPlan, ImagePlan, LayoutPlan
from scopestream.pyramid import method_metadata

Windows = Sequence[tuple[float, float] | None]
RESERVED = ("ome", "scopestream")
# Colours for channels that have none; a single channel is white.
_COLORS = ("#00ff00", "#ff00ff", "#00ffff", "#ff0000", "#0000ff", "#ffff00")


class MetadataWriter:
    """Writes every document that is not an array's, at the start, on change, and at the end."""

    def __init__(self, plan: LayoutPlan) -> None:
        self._plan = plan
        self._careful = False
        self._extra: dict[str, Any] = {}
        self._state: dict[str, Any] = {
            "version": version("scopestream"),
            "backend": plan.backend,
            "status": "recording",
        }

    def create(self) -> None:
        """All groups, the settings, and OME-XML without planes. The root folder and its `scopestream` exist."""
        plan = self._plan
        replace_file(plan.root / "scopestream" / "settings.json", plan.settings.model_dump_json(indent=2).encode())
        self.write_collections()
        self._write_images([None] * plan.n_windows)
        if plan.kind != "image":
            self._write_xml({}, [])
        self._write_root([None] * plan.n_windows)

    def adopt(self, attributes: Mapping[str, Any]) -> None:
        """Keep what the root document of a dataset has besides what is written here."""
        self._extra = {key: value for key, value in attributes.items() if key not in RESERVED}

    def go_on(self, attributes: Mapping[str, Any]) -> None:
        """Let the root, with these attributes, say that frames come again."""
        self.adopt(attributes)
        self._write_root([None] * self._plan.n_windows)

    def sync(self) -> None:
        """Let all documents survive a power loss, and from now on whatever is written after them.

        The first time that takes a sync of everything, since there may be thousands.
        """
        if not self._careful:
            sync_everything(self._plan.root)
            self._careful = True

    def set_metadata(self, namespace: str, mapping: Mapping[str, Any]) -> None:
        """Keep `mapping` under `attributes[namespace]` of the root document."""
        key = json.loads(text_to_json(namespace, "The namespace", "nothing was changed"))
        if not key or key in RESERVED:
            raise MetadataError(f"The namespace {key!r} is not free; choose another than {', '.join(RESERVED)}.")
        extra = {**self._extra, key: json.loads(to_json(mapping))}
        if len(json.dumps(extra, indent=2)) > MAX_DOCUMENT_BYTES // 2:
            raise MetadataError("That is more metadata than a document can hold; nothing was changed.")
        self._extra = extra
        self._write_root([None] * self._plan.n_windows)

    def finish(
        self,
        *,
        status: Literal["complete", "incomplete"],
        counts: Mapping[str, int],
        statistics: Mapping[str, float],
        lengths: Mapping[int, int],
        windows: Windows,
        records: Iterable[Mapping[str, Any]],
    ) -> None:
        """The documents of a closed dataset.

        counts      frames by what became of them
        statistics  how the acquisition went, by name
        lengths     of the first axis by image, where it is growable
        windows     (start, end) of each window of the plan, None where no frame was seen
        records     the frame log
        """
        self._state.update(status=status, frames=dict(counts), statistics=dict(statistics))
        self._write_images(windows)
        if self._plan.kind != "image":
            self._write_xml(lengths, records)
        self._write_root(windows)

    def _write_root(self, windows: Windows) -> None:
        plan = self._plan
        attributes: dict[str, Any] = {"ome": self._root_attributes(windows), "scopestream": self._state, **self._extra}
        self._write_group(plan.root, attributes)

    def _root_attributes(self, windows: Windows) -> dict[str, Any]:
        if self._plan.kind == "image":
            return image_attributes(self._plan, self._plan.images[0], windows)
        if self._plan.kind == "plate":
            attributes = _dump(_plate(self._plan))
            attributes["plate"]["version"] = attributes["version"]  # ome-zarr-models looks for it here
            return attributes
        return _dump(v05.Bf2Raw.model_validate({"bioformats2raw.layout": 3}))

    def _collection_groups(self) -> list[tuple[Any, dict[str, Any] | None]]:
        """Folders and `ome` attributes of the groups between the root and the images."""
        plan = self._plan
        if plan.kind == "image":
            return []
        series = v05.Series(series=[image.path for image in plan.images])
        groups: list[tuple[Any, dict[str, Any] | None]] = [(plan.root / "OME", _dump(series))]
        wells: dict[str, list[ImagePlan]] = {}
        if plan.kind == "plate":
            for image in plan.images:
                wells.setdefault(image.path.rpartition("/")[0], []).append(image)
        groups += [(plan.root / row, None) for row in dict.fromkeys(well.partition("/")[0] for well in wells)]
        return groups + [(plan.root / well, _dump(_well(plan, images))) for well, images in wells.items()]

    def write_collections(self) -> None:
        """The groups between the root and the images."""
        for folder, attributes in self._collection_groups():
            folder.mkdir(parents=True, exist_ok=True)
            self._write_group(folder, {"ome": attributes} if attributes else {})

    def _write_images(self, windows: Windows) -> None:
        if self._plan.kind == "image":
            return  # the root is the image
        for image in self._plan.images:
            folder = self._plan.root / image.path
            folder.mkdir(exist_ok=True)
            self._write_group(folder, {"ome": image_attributes(self._plan, image, windows)})

    def _write_xml(self, lengths: Mapping[int, int], records: Iterable[Mapping[str, Any]]) -> None:
        text = ome_document(self._plan, lengths, records)
        path = self._plan.root / "OME" / "METADATA.ome.xml"
        replace_file(path, text.encode(), synced=self._careful)
        if self._careful:
            sync_folder(path.parent)

    def _write_group(self, folder: Path, attributes: Mapping[str, Any]) -> None:
        write_document(folder, group_document(attributes), synced=self._careful)
        if self._careful:
            sync_folder(folder)


def image_attributes(plan: LayoutPlan, image: ImagePlan, windows: Windows) -> dict[str, Any]:
    """The `ome` attributes of an image group: multiscales and omero (OME-Zarr 0.5)."""
    axes = image.dimensions
    multiscale = v05.Multiscale(
        name=image.name,
        axes=[
            {"name": axis.name, "type": None if axis.type == "other" else axis.type, "unit": axis.unit}  # type: ignore[misc]
            for axis in axes
        ],
        datasets=[_dataset(plan, image, plan.arrays[number]) for number in image.arrays],
        type=plan.settings.downscale,
        metadata={**method_metadata(plan.settings), "version": version("scopestream")},
    )
    return _dump(v05.Image(multiscales=[multiscale], omero=_omero(plan, image, windows)))


def _dataset(plan: LayoutPlan, image: ImagePlan, array: ArrayPlan) -> v05.Dataset:
    """Scale and translation of one level: the first pixel of level n lies (pixel_n - pixel_0) / 2 further in."""
    axes = image.dimensions
    factors = [1.0] * (len(axes) - 2) + [float(2**array.level)] * 2
    if (z := plan.settings.halved_z) is not None:  # until one plane is left
        factors[z] = float(2 ** min(array.level, ((axes[z].count or 1) - 1).bit_length()))
    scale = [axis.scale * factor for axis, factor in zip(axes, factors, strict=True)]
    roles = plan.settings.stage_axes if image.position else {}
    stage = {name: getattr(image.position, role) for name, role in roles.items()}
    translation = []
    for axis, step in zip(axes, scale, strict=True):
        origin = stage.get(axis.name)
        translation.append((axis.origin if origin is None else origin) + (step - axis.scale) / 2)
    return v05.Dataset(
        path=str(array.level),
        coordinateTransformations=[
            v05.ScaleTransformation(scale=scale),
            v05.TranslationTransformation(translation=translation),
        ],
    )


def _omero(plan: LayoutPlan, image: ImagePlan, windows: Windows) -> v05.Omero:
    dtype = plan.finest[image.view].dtype
    axis = next((axis for axis in image.dimensions if axis.type == "channel"), None)
    count = len(image.windows)
    channels = list(axis.channels) if axis is not None else []
    low, high = _dtype_range(dtype)
    documents = []
    for number, window in enumerate(image.windows):
        channel = channels[number] if channels else None
        start, end = windows[window] or (low, high)
        fallback = "#ffffff" if count == 1 else _COLORS[number % len(_COLORS)]
        documents.append(
            v05.OmeroChannel(
                label=channel.name if channel else image.name if count == 1 else f"channel {number}",
                color=((channel and channel.color) or fallback).removeprefix("#"),
                active=True,
                coefficient=1.0,
                family="linear",
                inverted=False,
                window=v05.OmeroWindow(min=min(low, start), max=max(high, end), start=start, end=end),
            )
        )
    model: Literal["color", "greyscale"] = "color" if count > 1 else "greyscale"
    return v05.Omero(
        channels=documents, rdefs=v05.OmeroRenderingDefs(model=model, defaultT=0, defaultZ=_middle_z(image))
    )


def _middle_z(image: ImagePlan) -> int:
    z = next((axis for axis in image.dimensions[:-2] if axis.type == "space"), None)
    return 0 if z is None else (z.count or 1) // 2


def _dtype_range(dtype: np.dtype) -> tuple[float, float]:
    """What a display window may span before any pixel was seen; floats have no natural range."""
    if dtype.kind in "bf":
        return 0.0, 1.0
    info = np.iinfo(dtype)
    return float(info.min), float(info.max)


def _plate(plan: LayoutPlan) -> v05.Plate:
    plate = plan.settings.plate
    assert plate is not None
    wells: dict[str, int] = {}
    fields_of_run: dict[int | None, dict[str, int]] = {}
    for image in plan.images:
        well = image.path.rpartition("/")[0]
        wells[well] = wells.get(well, 0) + 1
        run = fields_of_run.setdefault(_acquisition(plan, image), {})
        run[well] = run.get(well, 0) + 1
    return v05.Plate(
        plate=v05.PlateDef(
            name=plate.name or plan.root.name.removesuffix(".zarr").removesuffix(".ome"),
            rows=[v05.Row(name=name) for name in plate.rows],
            columns=[v05.Column(name=name) for name in plate.columns],
            wells=[
                v05.PlateWell(path=well, rowIndex=plate.rows.index(row), columnIndex=plate.columns.index(column))
                for well in wells
                for row, column in [well.split("/")]
            ],
            field_count=max(wells.values()),
            acquisitions=[
                v05.Acquisition(
                    id=run.id, name=run.name, description=run.description,
                    maximumfieldcount=max(fields_of_run.get(run.id, {"": 1}).values()),
                )
                for run in plate.acquisitions
            ] or None,
        )
    )  # fmt: skip


def _acquisition(plan: LayoutPlan, image: ImagePlan) -> int | None:
    """The run that a field is of; when the plate has but one, all are of it."""
    if image.position is not None and image.position.acquisition is not None:
        return image.position.acquisition
    runs = plan.settings.plate.acquisitions if plan.settings.plate else ()
    return runs[0].id if len(runs) == 1 else None


def _well(plan: LayoutPlan, images: Sequence[ImagePlan]) -> v05.Well:
    return v05.Well(
        well=v05.WellDef(
            images=[v05.FieldOfView(path=str(image.field), acquisition=_acquisition(plan, image)) for image in images]
        )
    )


def _dump(document: v05.Image | v05.Plate | v05.Well | v05.Bf2Raw | v05.Series) -> dict[str, Any]:
    return document.model_dump(mode="json", exclude_none=True, by_alias=True)
