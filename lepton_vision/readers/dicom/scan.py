"""Fast scan of a plain header for the elements that pixels, ids and facts need: part of the doorway to pydicom.

A loader reads each file again in every epoch, and pydicom takes longer over a usual header than numpy over its pixels.
Slices of a series differ in ids and places but have other elements in common, so they are converted once, by pydicom.
Whatever is not plain (another syntax than explicit little endian, frames or tables in sequences, a palette, an order or
a length that surprises) is left to ``open_dicom``.
"""

from __future__ import annotations

import re
import struct
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import Any, BinaryIO, Literal, NamedTuple

from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement, empty_value_for_VR
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

from lepton_vision.readers.dicom.header import EXPLICIT, PIXEL_WORDS, DicomFile, lay_out

_MOST_BYTES = 2**16  # of a header that is scanned; CT and MR have 2 to 10 kB
_VRS = frozenset(str(vr).encode() for vr in VR if len(vr) == 2)
_LONG_VRS = frozenset(str(vr).encode() for vr in EXPLICIT_VR_LENGTH_32 if len(vr) == 2)
_OF_CHARACTER_SET = frozenset({b"SH", b"LO", b"ST", b"LT", b"UC", b"UT", b"PN"})  # PS3.5 6.2: read by (0008,0005)
_TEXT_VRS = frozenset({b"AS", b"CS", b"DA", b"LO", b"SH", b"UI"})
_IS_PLAIN_TEXT = re.compile(rb"[ -\[\]-~]*\0*").fullmatch  # printable, and no backslash, which parts values
_SHORT, _LONG = struct.Struct("<HH2sH"), struct.Struct("<I")
_TRANSFER_SYNTAX, _CHARACTER_SET = 0x00020010, 0x00080005
_NOTHING: frozenset[int] = frozenset()


def _tags(*keywords: str) -> frozenset[int]:
    return frozenset(int(tag_for_keyword(keyword) or 0) for keyword in keywords)


# Everything that is looked at between the header and the image; each has a test that fails without it.
_WANTED = _tags(
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PlanarConfiguration", "PhotometricInterpretation",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "RescaleType",
    "WindowCenter", "WindowWidth", "VOILUTFunction", "Modality", "Units",
)  # fmt: skip
_INSTANCE = _tags("SOPInstanceUID")
_IDS = _INSTANCE | _tags("StudyInstanceUID", "SeriesInstanceUID", "PatientID")
_FACTS = _tags(
    "PatientSex", "PatientAge", "PatientBirthDate", "StudyDate", "AcquisitionDate", "Manufacturer",
    "ManufacturerModelName", "InstitutionName", "KVP", "SliceThickness", "BodyPartExamined", "ViewPosition",
    "ImageLaterality", "Laterality", "BurnedInAnnotation", "PixelSpacing", "ImagerPixelSpacing",
    "NominalScannedPixelSpacing", "ViewCodeSequence", "AnatomicRegionSequence",
)  # fmt: skip
_KIND = _tags("SOPClassUID", "ImageType")  # of the object, with Modality; those of frames are not plain
_NOT_PLAIN = _tags(
    "ModalityLUTSequence", "VOILUTSequence", "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence",
    "RedPaletteColorLookupTableDescriptor",
)  # fmt: skip

Element = tuple[int, bytes, bytes]
"""Tag, VR and value."""


def scan_dicom(stream: BinaryIO, *, what: Literal["pixels", "ids", "facts"] = "pixels") -> DicomFile | None:
    """Open a plain DICOM file with the elements of its header that are asked for.

    Args:
        stream: an open file at its start; left anywhere.
        what: those that the pixels depend on; with "ids" also what names object, image, series, study and patient; with
            "facts" also what ``facts.read_facts`` looks at.

    Returns:
        The file as ``open_dicom`` gives it but for the elements left out, or None where the header is not plain.
    """
    data = stream.read(_MOST_BYTES)
    shared, own = _WANTED, _NOTHING
    if what == "ids":
        shared, own = _WANTED | _KIND, _IDS
    elif what == "facts":  # slices of a series share all but the name of the instance
        shared, own = _WANTED | _KIND | (_IDS - _INSTANCE) | _FACTS, _INSTANCE
    found = _scan(data, shared, own=own) if data[128:132] == b"DICM" else None
    if found is None:
        return None
    elements, more, place = found
    stream.seek(place)
    header: Any = ScannedHeader({**_converted(elements), **{element[0]: _plain(element) for element in more}})
    file = lay_out(header, stream, syntax=EXPLICIT, is_implicit=False, is_little=True)
    return replace(file, shared=elements) if what == "facts" else file


def _scan(
    data: bytes, shared: frozenset[int], *, own: frozenset[int]
) -> tuple[tuple[Element, ...], list[Element], int] | None:
    """The elements of both kinds and the place of the pixel data's element, or None."""
    place, last, syntax = 132, 0, b""
    found: list[Element] = []
    more: list[Element] = []
    while place + 12 <= len(data):
        group, element, vr, length = _SHORT.unpack_from(data, place)
        tag = group << 16 | element
        if tag in PIXEL_WORDS:
            return (tuple(found), more, place) if syntax == EXPLICIT.encode() else None
        start = place + 8
        if vr in _LONG_VRS:
            (length,), start = _LONG.unpack_from(data, start), place + 12
        # An undefined length (0xFFFFFFFF) reaches beyond the data too.
        if tag <= last or vr not in _VRS or start + length > len(data) or tag in _NOT_PLAIN:
            return None
        if tag in shared or tag in own:
            content = data[start : start + length]
            if vr in _OF_CHARACTER_SET and (not content.isascii() or b"\x1b" in content):
                return None
            (found if tag in shared else more).append((tag, vr, content))
        elif tag == _TRANSFER_SYNTAX:
            syntax = data[start : start + length].rstrip(b"\0")
        elif tag == _CHARACTER_SET and b"\0" in data[start : start + length].rstrip(b"\0 "):
            return None  # pydicom reads nothing of some such files: all of a header, or none of it
        place, last = start + length, tag
    return None


class ScannedHeader(dict[int, Any]):
    """The elements of a scanned header by tag, also looked up by keyword, as in pydicom's Dataset.

    That takes 5 µs over each of the 25 that an image is made from.
    """

    def __contains__(self, key: object) -> bool:
        return dict.__contains__(self, tag_for_keyword(key) if isinstance(key, str) else key)

    def __missing__(self, key: int | str) -> Any:
        tag = tag_for_keyword(key) if isinstance(key, str) else None
        if tag is None:
            raise KeyError(key)
        return self[tag]


class _Unread(NamedTuple):
    """An element that is converted, or fails, where it is asked for."""

    raw: RawDataElement

    @property
    def value(self) -> Any:
        """As pydicom gives it."""
        return _convert(self.raw).value

    @property
    def is_empty(self) -> bool:
        """As pydicom says."""
        return _convert(self.raw).is_empty


class _Text(NamedTuple):
    """An element of plain text; ``value`` as pydicom gives it."""

    value: str

    @property
    def is_empty(self) -> bool:
        """As pydicom says."""
        return not self.value


def _plain(element: Element) -> Any:
    """An element: text without anything to convert as it is, anything else by pydicom where asked for."""
    _, vr, content = element
    if vr in _TEXT_VRS and _IS_PLAIN_TEXT(content):
        return _Text(content.rstrip(b"\0 ").decode("ascii"))
    return _Unread(_raw(element))


@lru_cache(maxsize=256)
def _converted(elements: tuple[Element, ...]) -> dict[int, Any]:
    """The elements by tag, converted; a value that cannot be is left as it is, and tried again by who asks for it."""
    found: dict[int, Any] = {}
    for element in elements:
        plain = found[element[0]] = _plain(element)
        if isinstance(plain, _Unread):
            with suppress(Exception):
                found[element[0]] = _convert(plain.raw)
    return found


def _raw(element: Element) -> RawDataElement:
    number, code, content = element
    tag, vr = BaseTag(number), code.decode()
    value: Any = content or empty_value_for_VR(vr, raw=True)
    return RawDataElement(tag, vr, len(content), value, 0, False, True)


def _convert(raw: RawDataElement) -> DataElement:
    """An element as pydicom reads it in a data set of its own."""
    dataset = Dataset({raw.tag: raw})
    dataset.set_original_encoding(False, True, "iso8859")
    return dataset[raw.tag]
