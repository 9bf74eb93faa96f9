"""Assembly of one DICOM series into a volume: sorted by position, checked, repaired only on request."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import get_args

import numpy as np

from lepton_vision.config.sections import GapChoice, TiltChoice
from lepton_vision.errors import ConfigError, ReadError
from lepton_vision.readers.content import is_folder, open_content
from lepton_vision.readers.copies import is_copy
from lepton_vision.readers.dicom.file import dicom_planes, read_dicom
from lepton_vision.readers.dicom.padding import mark_padding
from lepton_vision.readers.folders import walk_folder
from lepton_vision.readers.identity import pseudonym
from lepton_vision.readers.limits import DEFAULT_LIMITS, Limits, check_size, raise_read_errors
from lepton_vision.readers.repair import Canvas, fill_missing, fill_unknown, place_slice, plan_canvas
from lepton_vision.readers.series_parts import Division, divide_series, reason_not_slice
from lepton_vision.readers.stack import Plane, Stack, stack_planes
from lepton_vision.types import Geometry, Image, Pixels

# What may lie beside the slices of a series without being one: text, DICOMDIR, reports, previews.
NO_SLICE = frozenset({"not_an_image", "no_pixels"})
_SHOWN = 8
_LOGGER = logging.getLogger(__name__)


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
        series: pseudonymous id (``FileFacts.series_id``) of the series to read where there are several, and of the
            volume in it where it holds several: "…-echo1" (``inspect --series`` lists them, and so does the refusal).
        gaps: "fill" interpolates missing slices linearly between their neighbours, never more than there are slices,
            and slices at even distances where single ones, as the last one, have another.
        tilt: "shear" shifts the slices of a tilted gantry back, by linear interpolation, on a canvas that holds all of
            them; what no slice covers gets the padding value of the series, or its smallest value.
        limits: caps on pixels and decoder time; the whole volume counts.

    Returns:
        Image with pixels (C, D, H, W) float32 in modality units and ``geometry``. The facts ``slices_filled``,
        ``slices_off_grid`` and ``tilt_degrees`` say what was repaired. Next to padding (see ``mark_padding``)
        nothing is interpolated: a voxel has the value of the nearer pixel.

    Raises:
        ReadError: the slices are damaged or form no regular volume, with a reason code.
        ConfigError: ``gaps`` or ``tilt`` is none of the choices.

    Example:
        >>> image = read_series("study/series", gaps="fill")  # doctest: +SKIP
    """
    check_repairs(gaps=gaps, tilt=tilt)
    folder = Path(source) if isinstance(source, str | Path) else None
    try:
        slices, suffix = _find_volume(source, series=series, limits=limits)
        return read_slices(slices, suffix=suffix, gaps=gaps, tilt=tilt, limits=limits)
    except ReadError as error:
        raise ReadError(str(error), reason=error.reason, path=error.path or folder) from None


def check_repairs(*, gaps: str, tilt: str) -> None:
    """Refuse a choice that does not exist.

    Raises:
        ConfigError: ``gaps`` or ``tilt`` is none of the choices.
    """
    _check_choice("gaps", gaps, get_args(GapChoice))
    _check_choice("tilt", tilt, get_args(TiltChoice))


def read_slices(
    slices: Sequence[Slice],
    *,
    suffix: str = "",
    gaps: GapChoice = "refuse",
    tilt: TiltChoice = "refuse",
    limits: Limits = DEFAULT_LIMITS,
) -> Image:
    """Read slices that are known to be one volume; ``suffix`` is what its id has behind that of its series."""
    with raise_read_errors("The slices form no volume", reason="geometry"):
        stack = stack_planes([one.plane for one in slices], gaps=gaps, tilt=tilt)
    first = slices[stack.order[0]]
    canvas = plan_canvas(stack.shifts, rows=first.plane.rows, columns=first.plane.columns)
    pixels, middle = _decode([slices[k] for k in stack.order], stack, canvas=canvas, limits=limits)
    geometry = canvas.move(stack.geometry)
    return replace(
        middle,
        pixels=pixels,
        spacing_mm=geometry.spacing_mm,
        geometry=geometry,
        image_id=pseudonym("image", middle.series_id or middle.image_id) + suffix,
        facts={**middle.facts, **_facts(geometry, stack, count=len(slices))},
    )


def repairs_of(image: Image) -> str:
    """Repairs made to a volume, "tilt", "gaps" or "tilt,gaps"; empty where its slices are as they were taken."""
    has_gaps = image.facts.get("slices_filled") or image.facts.get("slices_off_grid")
    return ",".join(name for name, fact in (("tilt", image.facts.get("tilt_degrees")), ("gaps", has_gaps)) if fact)


def _check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"Expected {key} to be one of {', '.join(choices)}. Received: {value!r}.", key=key)


def _facts(geometry: Geometry, stack: Stack, *, count: int) -> dict[str, str | int | float | None]:
    return {
        "frames": stack.depth,
        "orientation": geometry.orientation,
        "slices": stack.seen,
        "slices_filled": stack.depth - stack.seen,
        "slices_off_grid": count - stack.seen,
        "tilt_degrees": round(stack.tilt_degrees, 3),
    }


def find_series(
    source: str | Path | Sequence[str | Path], *, series: str | None = None, limits: Limits = DEFAULT_LIMITS
) -> list[Slice]:
    """Find the planes of one volume by their headers, in no particular order; arguments as ``read_series``.

    Raises:
        ReadError: a damaged header, no slice (reason ``no_slices``), several series (reason ``several_series``), or a
            series of several volumes (reason ``several_volumes``).
    """
    return _find_volume(source, series=series, limits=limits)[0]


def _find_volume(
    source: str | Path | Sequence[str | Path], *, series: str | None, limits: Limits
) -> tuple[list[Slice], str]:
    """The slices of one volume, and what its id has behind that of its series."""
    wanted, dash, suffix = (series or "").partition("-")
    slices = _choose(list(list_slices(source, limits=limits)), series=wanted or None)
    division = divide_slices(slices, limits=limits)
    _tell("Left out of the series", division.left_out.values())
    chosen = [part for part in division.parts if part.suffix == dash + suffix]
    if not chosen:
        raise _several_volumes(slices, division, is_named=bool(dash))
    return [slices[k] for k in chosen[0].numbers], chosen[0].suffix


def _tell(what: str, reasons: Collection[str]) -> None:
    if reasons:
        shown = ", ".join(f"{reason}: {count}" for reason, count in Counter(reasons).most_common())
        _LOGGER.warning("%s: %s.", what, shown)


def divide_slices(slices: Sequence[Slice], *, limits: Limits = DEFAULT_LIMITS) -> Division:
    """Divide the slices of one series into volumes and what is no slice of them."""
    same = lru_cache(maxsize=None)(lambda one, other: is_copy(one, other, limits=limits))
    planes = [one.plane for one in slices]
    return divide_series(planes, is_copy=lambda one, other: same(slices[one].path, slices[other].path))


def _several_volumes(slices: Sequence[Slice], division: Division, *, is_named: bool) -> ReadError:
    own = slices[0].plane.series_id or ""
    parts = division.parts
    listed = ", ".join(f"{own}{one.suffix} ({len(one.numbers)})" for one in parts[:_SHOWN])
    more = ", …" if len(parts) > _SHOWN else ""
    if is_named:
        return ReadError(
            f"Expected the id of a volume that is there. Received: another. Found {listed}{more}.", reason="no_slices"
        )
    return ReadError(
        f"Expected one volume. Received: a series of {len(parts)} (time points, echoes or other repetitions): "
        f"{listed}{more}. Name one by series=… (its id; the number of slices is in brackets).",
        reason="several_volumes",
    )


def list_slices(source: str | Path | Sequence[str | Path], *, limits: Limits) -> Iterator[Slice]:
    """Every plane of every DICOM image; of a folder, files of other kinds are passed over, damaged ones are not."""
    if isinstance(source, str | Path):
        root = Path(source)
        is_strict, paths = not is_folder(root), _files(root) if is_folder(root) else iter([root])
    else:
        is_strict, paths = True, iter([Path(path) for path in source])
    for path in paths:
        try:
            with open_content(path, what="Cannot read the header", limits=limits) as content:
                if content.kind != "dicom":
                    raise ReadError("Expected a DICOM slice. Received: another format.", reason="not_an_image")
                planes = dicom_planes(content.stream, head=content.head, limits=content.limits)
        except ReadError as error:
            if is_strict or error.reason not in NO_SLICE:
                raise
            continue
        yield from (Slice(path, plane) for plane in planes)


def _files(folder: Path) -> Iterator[Path]:
    """Visible files below a folder, see ``walk_folder``; a folder that cannot be listed is an error, not a gap."""

    def refuse(error: OSError) -> None:
        raise ReadError(f"Cannot list a folder: {error.strerror}.", reason="missing", path=folder) from None

    yield from map(Path, walk_folder(folder, on_error=refuse))


def _choose(slices: list[Slice], *, series: str | None) -> list[Slice]:
    """The slices of one series."""
    if not slices:
        raise ReadError("Expected the slices of a DICOM series. Received: no DICOM image.", reason="no_slices")
    counts = Counter(one.plane.series_id for one in slices)
    if series is None:
        real = {one.plane.series_id for one in slices if reason_not_slice(one.plane) is None} or set(counts)
        if len(real) == 1:
            return _without_strange_series(slices, *real)
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


def _without_strange_series(slices: list[Slice], series: str | None, /) -> list[Slice]:
    """The slices of the one series that has any; what others beside it are is told."""
    others = [reason_not_slice(one.plane) for one in slices if one.plane.series_id != series]
    _tell("Left out beside the series", [reason for reason in others if reason is not None])
    return [one for one in slices if one.plane.series_id == series]


def _decode(ordered: Sequence[Slice], stack: Stack, *, canvas: Canvas, limits: Limits) -> tuple[Pixels, Image]:
    """Pixels (C, D, H, W), and the image of the middle slice, without pixels, with value range and decoders of all."""
    by_file: dict[Path, list[int]] = {}
    for number, one in enumerate(ordered):
        by_file.setdefault(one.path, []).append(number)
    is_repaired = bool(stack.shifts.any()) or stack.depth > len(ordered) or stack.seen < len(ordered)
    volume: Pixels | None = None
    between: dict[float, Pixels] = {}  # slices off the grid, by their places
    images: dict[int, Image] = {}  # without pixels
    padding: float | None = None
    for path, numbers in by_file.items():
        image, value = _read(path, limits=limits, marks_padding=is_repaired)
        padding = value if padding is None else padding
        if volume is None:
            check_size(image.channels, stack.depth, canvas.rows, canvas.columns, limits=limits)
            volume = np.full((image.channels, stack.depth, canvas.rows, canvas.columns), np.nan, dtype=np.float32)
        for number in numbers:
            pixels = image.pixels[:, ordered[number].plane.frame] if image.is_volume else image.pixels
            place = stack.places[number]
            target = volume[:, int(place)] if place == int(place) else np.full_like(volume[:, 0], np.nan)
            place_slice(pixels, target, canvas=canvas, shift=stack.shifts[number])
            between |= {} if place == int(place) else {place: target}
        images |= dict.fromkeys(numbers, replace(image, pixels=image.pixels[..., :0, :0]))
    if volume is None:
        raise ReadError("Expected the slices of a series. Received: none.", reason="no_slices")
    _check_units(list(images.values()))
    if is_repaired:
        fill_missing(volume, places=stack.places, between=between)
        fill_unknown(volume, value=padding)
    return volume, _middle(images)


def _read(path: Path, *, limits: Limits, marks_padding: bool) -> tuple[Image, float | None]:
    """One file; for a repair, with NaN for padding, and the value that stands for it."""
    with open_content(path, what="Cannot read the file", limits=limits) as content:
        image = read_dicom(content.stream, head=content.head, frame=None, limits=content.limits)
    if not marks_padding:
        return image, None
    with open_content(path, what="Cannot read the file", limits=limits) as content:
        pixels, value = mark_padding(image, content.stream, head=content.head, limits=content.limits)
    return replace(image, pixels=pixels), value


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
