"""DICOM objects with pixels that are not images to classify, by their headers: part of the doorway to pydicom.

What has no pixels (reports, presentation states, structure sets, plans, encapsulated documents, waveforms) is refused
by its reader with reason ``no_pixels``, see ``is_document``.
"""

from __future__ import annotations

from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import UID

from lepton_vision.readers.dicom.header import items, number, text, texts

_STANDARD: Final = "1.2.840.10008."
_SOP: Final = f"{_STANDARD}5.1.4.1.1."
_OF_CLASS: Final = {
    _SOP + "66.4": "segmentation",
    _SOP + "66.7": "segmentation",  # label map
    _SOP + "30": "parametric_map",
    _SOP + "481.2": "dose",
    **{_SOP + own: "secondary_capture" for own in ("7", "7.1", "7.2", "7.3", "7.4")},
}
_OF_MODALITY: Final = {"SEG": "segmentation", "RTDOSE": "dose"}
_SCOUTS: Final = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM"})
# Pictures of a screen or of text that some scanners store in the class of their images.
_SCREENS: Final = frozenset({"SCREEN SAVE", "SCREENSAVE", "SCREEN CAPTURE", "DOSE REPORT", "DOSE_INFO", "CT_SOM5 PROT"})
_FRAME_TYPES: Final = ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence", "PETFrameTypeSequence")


def object_kind(dataset: Dataset) -> str | None:
    """Kind of an object that is no image to classify, one of ``types.ObjectKind``, or None for an image.

    A localizer says so in Image Type (PS3.3 C.8.2.1.1.1, C.8.16.1.3), or in Frame Type of all its frames. Whatever has
    the class of a secondary capture is one (PS3.3 A.8), though whole data sets come as such: see
    ``left_out.take_lone_captures``.
    """
    found = _OF_CLASS.get(text(dataset, "SOPClassUID") or "") or _OF_MODALITY.get(text(dataset, "Modality") or "")
    if found and found != "secondary_capture":
        return found
    types = set(texts(dataset, "ImageType"))
    if _SCOUTS & types or _is_scout_by_frame(dataset):
        return "localizer"
    return "secondary_capture" if _SCREENS & types else found


def is_document(dataset: Dataset) -> bool:
    """Whether an object without pixels never had any: a report, a presentation state, a structure set, a DICOMDIR.

    What tells the size of an image, has the class of one (PS3.6, A), or a class of the standard that is none, or none
    at all, as where a file ends before it, was an image for all that is known.
    """
    if number(dataset, "Rows") and number(dataset, "Columns"):
        return False
    uid = UID(text(dataset, "SOPClassUID") or "")
    if not uid:
        return "DirectoryRecordSequence" in dataset
    is_strange = uid.startswith(_STANDARD) and uid.name == uid
    return "Image Storage" not in uid.name and not is_strange


def _is_scout_by_frame(dataset: Dataset) -> bool:
    """Whether every frame of an enhanced object calls itself a localizer."""
    shared = items(dataset, "SharedFunctionalGroupsSequence")[:1]
    if not shared:
        return False
    groups = items(dataset, "PerFrameFunctionalGroupsSequence")
    return all(_is_scout((*shared, group)) for group in groups) if groups else _is_scout(shared)


def _is_scout(groups: tuple[Dataset, ...] | list[Dataset]) -> bool:
    kinds = [item for group in groups for macro in _FRAME_TYPES for item in items(group, macro)]
    return any(_SCOUTS & set(texts(kind, "FrameType")) for kind in kinds)
