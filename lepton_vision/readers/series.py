"""The slices of one DICOM series to one volume: sorted by position, checked, repaired only where that is asked for."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np

from lepton_vision.errors import ConfigError, ReadError
from lepton_vision.readers.content import is_folder, open_content
from lepton_vision.readers.dicom import dicom_planes, read_dicom
from lepton_vision.readers.dicom_header import stored_path
from lepton_vision.readers.geometry import GapChoice, Plane, Stack, TiltChoice, stack_planes
from lepton_vision.readers.identity import pseudonym
from lepton_vision.readers.limits import DEFAULT_LIMITS, Limits, check_size, guard
from lepton_vision.readers.repair import Canvas, fill_margins, fill_missing, place_slice, plan_canvas
from lepton_vision.types import Geometry, Image, Pixels

# What may lie beside the slices of a series without being one: text, DICOMDIR, reports, previews.
NO_SLICE = frozenset({"not_an_image", "no_pixels"})
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Slice:
    """One plane and its file."""

    path: Path
    plane: Plane


def read_series(
    source: str | Path | Sequence[str | Path],
    *,
    series: str | None = None,
    gaps: GapChoice = "refuse",
    tilt: TiltChoice = "refuse",
    name: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Image:
    """Read the slices of a DICOM series into one volume.

    Slices are files or frames of enhanced files. They are sorted by Image Position (Patient) along the normal of Image
    Orientation (Patient), row direction x column direction: feet to head for the usual axial series. The spacing of D
    is the true distance of the slices, whatever Slice Thickness says. Header facts and the window are those of the
    middle slice.

    Args:
        source: a folder (with all below it; hidden files, and files that are no DICOM image, do not count), a file, or
            the files of the series.
        series: pseudonymous id (``FileFacts.series_id``) of the series to read where there are several.
        gaps: "fill" interpolates missing slices linearly between their neighbours; never more than there are slices.
        tilt: "shear" shifts the slices of a tilted gantry back, by linear interpolation, on a canvas that holds all of
            them; what no slice covers gets the smallest value of the series.
        name: stands for the path in the image id of a series without identifiers of its own.
        limits: caps on pixels and decoder time; the whole volume counts.

    Returns:
        Image with pixels (C, D, H, W) float32 in modality units and ``geometry``. The facts ``slices_filled`` and
        ``tilt_degrees`` say what was repaired.

    Raises:
        ReadError: the slices are damaged or form no regular volume, with a reason code.
        ConfigError: ``gaps`` or ``tilt`` is none of the choices.

    Example:
        >>> image = read_series("study/series", gaps="fill")  # doctest: +SKIP
    """
    _check_choice("gaps", gaps, get_args(GapChoice))
    _check_choice("tilt", tilt, get_args(TiltChoice))
    folder = Path(source) if isinstance(source, str | Path) else None
    try:
        slices = find_series(source, series=series, limits=limits)
        with guard("The slices form no volume", reason="geometry"):
            stack = stack_planes([one.plane for one in slices], gaps=gaps, tilt=tilt)
        first = slices[stack.order[0]]
        canvas = plan_canvas(stack.shifts, rows=first.plane.rows, columns=first.plane.columns)
        pixels, middle = _decode([slices[k] for k in stack.order], stack, canvas=canvas, limits=limits)
    except ReadError as error:
        raise ReadError(str(error), reason=error.reason, path=error.path or folder) from None
    geometry = canvas.move(stack.geometry)
    return replace(
        middle,
        pixels=pixels,
        spacing_mm=geometry.spacing_mm,
        geometry=geometry,
        image_id=pseudonym("image", middle.series_id or name or stored_path(first.path)),
        facts={**middle.facts, **_facts(geometry, stack)},
    )


def _check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"Expected {key} to be one of {', '.join(choices)}. Received: {value!r}.", key=key)


def _facts(geometry: Geometry, stack: Stack) -> dict[str, str | int | float | None]:
    return {
        "frames": stack.depth,
        "orientation": geometry.orientation,
        "slices": len(stack.order),
        "slices_filled": stack.depth - len(stack.order),
        "tilt_degrees": round(stack.tilt_degrees, 3),
    }


def find_series(
    source: str | Path | Sequence[str | Path], *, series: str | None = None, limits: Limits = DEFAULT_LIMITS
) -> list[Slice]:
    """Find the planes of one series by their headers, in no particular order; arguments as ``read_series``.

    Raises:
        ReadError: a damaged header, no slice (reason ``no_slices``), or several series (reason ``several_series``).
    """
    return _choose(list(_find_slices(source, limits=limits)), series=series)


def _find_slices(source: str | Path | Sequence[str | Path], *, limits: Limits) -> Iterator[Slice]:
    """Every plane of every DICOM image; of a folder, files of other kinds are passed over, damaged ones are not."""
    if isinstance(source, str | Path):
        root = Path(source)
        is_strict, paths = not is_folder(root), _files(root) if is_folder(root) else iter([root])
    else:
        is_strict, paths = True, iter([Path(path) for path in source])
    for path in paths:
        try:
            with open_content(path, what="Cannot read the header") as content:
                if content.kind != "dicom":
                    raise ReadError("Expected a DICOM slice. Received: another format.", reason="not_an_image")
                planes = dicom_planes(content.stream, head=content.head, limits=limits)
        except ReadError as error:
            if is_strict or error.reason not in NO_SLICE:
                raise
            continue
        yield from (Slice(path, plane) for plane in planes)


def _files(folder: Path) -> Iterator[Path]:
    """Visible files below a folder, sorted; a folder that cannot be listed is an error, not a gap."""

    def refuse(error: OSError) -> None:
        raise ReadError(f"Cannot list a folder: {error.strerror}.", reason="missing", path=folder) from None

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(found for found in folders if not found.startswith("."))
        yield from (Path(place, found) for found in sorted(names) if not found.startswith("."))


def _choose(slices: list[Slice], *, series: str | None) -> list[Slice]:
    """The slices of one series."""
    if not slices:
        raise ReadError("Expected the slices of a DICOM series. Received: no DICOM image.", reason="no_slices")
    counts = Counter(one.plane.series_id for one in slices)
    if series is None and len(counts) == 1:
        return slices
    shown = ", ".join(f"{key or 'without an id'} ({count})" for key, count in counts.most_common(_SHOWN))
    listed = f"{len(counts)} series: {shown}{', …' if len(counts) > _SHOWN else ''}"
    if series is None:
        raise ReadError(
            f"Expected one series. Received: {listed}. Name one by series=… (its id; the number of slices is in "
            "brackets).",
            reason="several_series",
        )
    chosen = [one for one in slices if one.plane.series_id == series]
    if not chosen:
        raise ReadError(
            f"Expected the id of a series that is there. Received: another. Found {listed}.", reason="no_slices"
        )
    return chosen


def _decode(ordered: Sequence[Slice], stack: Stack, *, canvas: Canvas, limits: Limits) -> tuple[Pixels, Image]:
    """Pixels (C, D, H, W), and the image of the middle slice, without pixels, with value range and decoders of all."""
    by_file: dict[Path, list[int]] = {}
    for number, one in enumerate(ordered):
        by_file.setdefault(one.path, []).append(number)
    volume: Pixels | None = None
    images: dict[int, Image] = {}  # without pixels
    for path, numbers in by_file.items():
        image = _read(path, limits=limits)
        if volume is None:
            check_size(image.channels, stack.depth, canvas.rows, canvas.columns, limits=limits)
            volume = np.full((image.channels, stack.depth, canvas.rows, canvas.columns), np.nan, dtype=np.float32)
        for number in numbers:
            pixels = image.pixels[:, ordered[number].plane.frame] if image.is_volume else image.pixels
            place_slice(pixels, volume[:, stack.places[number]], canvas=canvas, shift=stack.shifts[number])
        images |= dict.fromkeys(numbers, replace(image, pixels=image.pixels[..., :0, :0]))
    if volume is None:
        raise ReadError("Expected the slices of a series. Received: none.", reason="no_slices")
    _check_units(list(images.values()))
    if stack.shifts.any():
        fill_margins(volume, places=stack.places)
    fill_missing(volume, places=stack.places)
    return volume, _middle(images)


def _read(path: Path, *, limits: Limits) -> Image:
    with open_content(path, what="Cannot read the file") as content:
        return read_dicom(content.stream, head=content.head, path=path, name=None, frame=None, limits=limits)


def _check_units(images: Sequence[Image]) -> None:
    """Values of all slices must mean the same, whatever their rescale."""
    units = sorted({image.units for image in images})
    if len(units) > 1:
        raise ReadError(f"Expected slices in one unit. Received: {len(units)} different ones.", reason="mixed_slices")
    # A MONOCHROME1 slice was turned within its own range: with several ranges, equal values would not be equal.
    is_turned = images[0].facts.get("photometric") == "MONOCHROME1" and units != ["HU"]
    if is_turned and len({image.value_range for image in images}) > 1:
        raise ReadError(
            "Expected MONOCHROME1 slices of one value range. Received: several rescales. Convert them first.",
            reason="mixed_slices",
        )


def _middle(images: Mapping[int, Image]) -> Image:
    ranges = [image.value_range for image in images.values()]
    return replace(
        images[len(images) // 2],
        value_range=(min(low for low, _ in ranges), max(high for _, high in ranges)),
        decoder=", ".join(sorted({image.decoder for image in images.values()})),
    )
