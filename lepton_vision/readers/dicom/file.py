"""Image in modality units from one DICOM file: the doorway to pydicom, with the other modules of this package.

MONOCHROME1 files store small values for bright pixels. They are turned within the file's value range
(``low + high - pixel``), so that larger is brighter, and the header's window is turned with them. Pixels in HU are not:
the rescale gives a physical quantity, and the photometric interpretation says only how a monitor shows it
(PS3.3 C.7.6.3.1.2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from lepton_vision.errors import ReadError
from lepton_vision.readers.dicom.decode import check_pixels, read_stored
from lepton_vision.readers.dicom.facts import code, raw_identifiers, read_depth_spacing, read_facts, read_spacing
from lepton_vision.readers.dicom.header import DEFLATED, DicomFile, number, open_dicom, text
from lepton_vision.readers.dicom.kinds import object_kind
from lepton_vision.readers.dicom.layout import PixelLayout, read_layout
from lepton_vision.readers.dicom.lut import modality_values, read_window
from lepton_vision.readers.dicom.palette import expand_palette
from lepton_vision.readers.dicom.planes import describe_slices, read_orientation, read_planes
from lepton_vision.readers.dicom.scan import scan_dicom
from lepton_vision.readers.dicom.terms import known_term
from lepton_vision.readers.facts import Fact, FileFacts, RawIds
from lepton_vision.readers.identity import content_id, pseudonym, pseudonyms
from lepton_vision.readers.limits import Limits, check_size, raise_read_errors
from lepton_vision.readers.stack import Plane, stack_frames
from lepton_vision.readers.window import reflect
from lepton_vision.types import Geometry, Image, Pixels, VoiLut, Window

_HEADER = "Cannot parse the DICOM header"
_UNITS = "Cannot bring the pixels to modality units"
_DARK_MAGIC = ((b"MZ", "MZ"), (b"\x7fELF", "ELF"), (b"#!", "script"))


def read_dicom(stream: BinaryIO, *, head: bytes, frame: int | None, limits: Limits) -> Image:
    """Read an open DICOM file; see ``image.read_image``.

    Args:
        stream: the file, at its start.
        head: its first bytes.
        frame: number of one frame, or None for all.
        limits: caps.
    """
    with raise_read_errors(_HEADER, reason="corrupt"):
        file = open_dicom(stream, head=head, limits=limits)
    layout, wanted, image = _decode(file, frame=frame, limits=limits)
    with raise_read_errors(_UNITS, reason="corrupt"):
        return _describe(
            image,
            file,
            layout=layout,
            wanted=wanted,
            stream=stream,
            head=head,
            is_one_of_many=frame is not None and layout.frames > 1,
        )


def read_dicom_pixels(stream: BinaryIO, *, head: bytes, frame: int | None, limits: Limits) -> Image:
    """Pixels of an open DICOM file and what they mean, without ids, facts and geometry; see ``image.read_pixels``."""
    file = _open(stream, head=head, what="pixels", limits=limits)
    return _decode(file, frame=frame, limits=limits)[-1]


def frame_reader(stream: BinaryIO, *, head: bytes, limits: Limits) -> Callable[[int], Image]:
    """Reads single frames of an open DICOM file by their numbers, as ``read_dicom_pixels``."""
    file = _open(stream, head=head, what="pixels", limits=limits)
    return lambda number: _decode(file, frame=number, limits=limits)[-1]


def read_named_dicom(stream: BinaryIO, *, head: bytes, frame: int | None, limits: Limits) -> Image:
    """Pixels of an open DICOM file and its ids, without facts and geometry; see ``image.read_named``."""
    file = _open(stream, head=head, what="ids", limits=limits)
    layout, wanted, image = _decode(file, frame=frame, limits=limits)
    with raise_read_errors(_HEADER, reason="corrupt"):
        is_one_of_many = frame is not None and layout.frames > 1
        ids = _ids(file.dataset, stream=stream, wanted=wanted, one=is_one_of_many)
        return replace(image, facts={"object_kind": object_kind(file.dataset)}, **ids)


def _open(stream: BinaryIO, *, head: bytes, what: Literal["pixels", "ids", "facts"], limits: Limits) -> DicomFile:
    """Open a file with as much of its header as is asked for, or with all of it where it is not plain."""
    with raise_read_errors(_HEADER, reason="corrupt"):
        file = scan_dicom(stream, what=what)
        if file is None:
            stream.seek(0)
            file = open_dicom(stream, head=head, limits=limits)
        return file


def _ids(dataset: Dataset, *, stream: BinaryIO | None, wanted: range, one: bool) -> dict[str, Any]:
    """Pseudonymous ids, of the file itself where it has no SOP Instance UID; ``one``: a single frame of several."""
    raw = raw_identifiers(dataset)
    others = pseudonyms({"series": raw.series_uid, "study": raw.study_uid, "patient": raw.patient_id})
    image_id = "" if stream is None else _image_id(raw.sop_uid, stream)
    ids = {f"{kind}_id": found for kind, found in others.items()}
    return {"image_id": f"{image_id}-{wanted.start}" if one else image_id} | ids


def _image_id(sop_uid: str | None, stream: BinaryIO) -> str:
    if sop_uid:
        return pseudonym("image", sop_uid)
    stream.seek(0)
    return content_id(stream.read())


def probe_dicom(stream: BinaryIO, *, head: bytes, limits: Limits) -> FileFacts:
    """Header facts of an open DICOM file; see ``image.probe``."""
    file = _open(stream, head=head, what="facts", limits=limits)
    with raise_read_errors(_HEADER, reason="corrupt"):
        layout, found = _facts(file) if file.shared is None else _series_facts(_SharedHeader(file))
        check_pixels(file, layout, limits=limits)
        uid = text(file.dataset, "SOPInstanceUID")  # last, as ``read_dicom``: what it refuses first is the reason
        return replace(found, image_id=_image_id(uid, stream), facts=dict(found.facts))


def _facts(file: DicomFile) -> tuple[PixelLayout, FileFacts]:
    """Everything but the image's own id."""
    layout = read_layout(file)
    with raise_read_errors(_UNITS, reason="corrupt"):  # of a single pixel: a rescale or table that cannot be applied
        pixel = np.zeros((1, 1, 1, layout.samples)[: 3 if layout.samples == 1 else 4], dtype=layout.dtype)
        _to_units(pixel, file.dataset, layout=layout, wanted=range(1))
    ids = _ids(file.dataset, stream=None, wanted=range(1), one=False)
    return layout, FileFacts(
        source_format="dicom",
        frames=layout.frames,
        rows=layout.rows,
        columns=layout.columns,
        modality=code(file.dataset, "Modality"),
        facts=read_facts(file.dataset, layout=layout, transfer_syntax=file.transfer_syntax),
        **ids,
    )


class _SharedHeader:
    """A file as its series sees it: equal to another one where the shared elements are."""

    def __init__(self, file: DicomFile) -> None:
        self.file = file
        keyword = None if file.pixels is None else file.pixels.keyword
        self._key = (file.shared, keyword, pseudonym("site", "?"))  # the last changes with the user's key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _SharedHeader) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@lru_cache(maxsize=256)
def _series_facts(header: _SharedHeader) -> tuple[PixelLayout, FileFacts]:
    """Facts of the first slice of a series serve the others."""
    return _facts(header.file)


def raw_dicom_ids(stream: BinaryIO, *, head: bytes, limits: Limits) -> RawIds:
    """Identifiers of an open DICOM file as its header has them; see ``image.raw_ids``."""
    with raise_read_errors(_HEADER, reason="corrupt"):
        return raw_identifiers(open_dicom(stream, head=head, limits=limits).dataset)


def dicom_planes(stream: BinaryIO, *, head: bytes, limits: Limits) -> list[Plane]:
    """Plane of each frame of an open DICOM file; nothing is decoded.

    Raises:
        ReadError: as for ``read_dicom``; ``truncated`` of a slice that was cut off, which must not count as something
            beside the slices.
    """
    with raise_read_errors(_HEADER, reason="corrupt"):
        file = open_dicom(stream, head=head, limits=limits)
        layout = read_layout(file)
        # Each promised frame costs a plane, so a header that lies must not promise too many.
        check_size(layout.frames, layout.rows, layout.columns, limits=limits)
        limits.check_frames(layout.frames, size=file.size)
        return describe_slices(file.dataset, layout=layout)


def _decode(file: DicomFile, *, frame: int | None, limits: Limits) -> tuple[PixelLayout, range, Image]:
    """Layout of the file, the frames that were wanted, and the image without ids, facts and geometry."""
    with raise_read_errors(_HEADER, reason="corrupt"):
        layout = read_layout(file)
        wanted = _wanted(layout, frame=frame)
    stored, decoder = read_stored(file, layout, wanted=wanted, limits=limits)
    if not file.is_native:
        layout = layout.holding(stored)
    with raise_read_errors(_UNITS, reason="corrupt"):
        pixels, value_range, units, window = _to_units(stored, file.dataset, layout=layout, wanted=wanted)
        image = Image(
            pixels=pixels if len(wanted) > 1 else pixels[:, 0],
            units=units,
            value_range=value_range,
            modality=code(file.dataset, "Modality"),
            window=window,
            source_format="dicom",
            decoder=decoder,
        )
    return layout, wanted, image


def _wanted(layout: PixelLayout, *, frame: int | None) -> range:
    if frame is None:
        return range(layout.frames)
    if not 0 <= frame < layout.frames:
        raise ReadError(
            f"Expected a frame from 0 to {layout.frames - 1}. Received: {frame}.",
            reason="no_frame",
        )
    return range(frame, frame + 1)


def _to_units(
    stored: npt.NDArray[Any], dataset: Dataset, *, layout: PixelLayout, wanted: range
) -> tuple[Pixels, tuple[float, float], str, Window | VoiLut | None]:
    """Pixels (C, F, H, W), value range, units and window."""
    if layout.photometric == "PALETTE COLOR":
        stored, value_range = expand_palette(stored, dataset)
    elif layout.samples > 1:
        low, high = np.array(layout.stored_range, dtype=np.float32).tolist()  # rounded as the pixels are
        value_range = (low, high)
    if stored.ndim == 4:
        colors = np.ascontiguousarray(np.moveaxis(stored, 3, 0), dtype=np.float32)
        return colors, value_range, "display", None
    gray, value_range, kind = modality_values(stored, dataset, layout=layout, wanted=wanted)
    window = read_window(dataset, frame=wanted.start, smallest=value_range[0])
    units = _units(dataset, kind=kind)
    if layout.photometric == "MONOCHROME1" and units != "HU":
        ends = np.array(value_range, dtype=np.float32)
        total = np.float32(value_range[0] + value_range[1])
        np.subtract(total, gray, out=gray)
        low, high = (total - ends[::-1]).tolist()
        value_range = (low, high)
        window = reflect(window, total=float(total)) if window is not None else None
    return gray[None], value_range, units, window


def _units(dataset: Dataset, *, kind: str | None) -> str:
    """Rescale Type; a CT image without it is in HU as soon as it has a rescale (PS3.3 C.8.2.1.1.5)."""
    if kind:
        return known_term("Units", kind) or "US"
    if code(dataset, "Modality") == "CT" and "RescaleIntercept" in dataset:
        return "HU"
    return code(dataset, "Units") or "US"


def _describe(
    image: Image,
    file: DicomFile,
    *,
    layout: PixelLayout,
    wanted: range,
    stream: BinaryIO,
    head: bytes,
    is_one_of_many: bool,
) -> Image:
    """The image with its ids, facts and place."""
    dataset = file.dataset
    facts = read_facts(dataset, layout=layout, transfer_syntax=file.transfer_syntax)
    spacing, spacing_source = read_spacing(dataset, frame=wanted.start)
    facts |= {"spacing_source": spacing_source, "frames": layout.frames, **_more_facts(file, head=head)}
    planes = read_planes(dataset, layout=layout, wanted=wanted)
    geometry = planes[0].geometry if len(planes) == 1 else stack_frames(planes)
    if geometry is None and (orientation := read_orientation(dataset, planes)):
        facts |= {"orientation": orientation}
    return replace(
        image,
        spacing_mm=_whole_spacing(dataset, spacing, geometry=geometry, wanted=wanted),
        geometry=geometry,
        facts=facts,
        **_ids(dataset, stream=stream, wanted=wanted, one=is_one_of_many),
    )


def _whole_spacing(
    dataset: Dataset, spacing: tuple[float, float] | None, *, geometry: Geometry | None, wanted: range
) -> tuple[float, ...] | None:
    """Spacing of the geometry; without one, of the rows and columns and of what the header says about depth."""
    if geometry is not None:
        return geometry.spacing_mm
    if len(wanted) == 1 or spacing is None:
        return spacing
    depth = read_depth_spacing(dataset, frames=len(wanted))
    return None if depth is None else (depth, *spacing)


def _more_facts(file: DicomFile, *, head: bytes) -> dict[str, Fact]:
    """Padding value (left in the pixels), deflate, and a preamble that is a program (an honest one may be a TIFF)."""
    preamble = head[:128] if head[128:132] == b"DICM" else b""
    return {
        "pixel_padding_value": number(file.dataset, "PixelPaddingValue"),
        "is_deflated": int(file.transfer_syntax == DEFLATED),
        "preamble": next((label for magic, label in _DARK_MAGIC if preamble.startswith(magic)), None),
    }
