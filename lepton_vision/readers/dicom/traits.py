"""Header elements that distinguish repetitions of a slice: part of the doorway to pydicom.

Headers of whole series are read for these, so values are compared as they are stored, and hardly any is converted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydicom.dataset import Dataset

from lepton_vision.readers.dicom.header import items, number, numbers, texts
from lepton_vision.readers.traits import TRAITS

# By trait, the elements whose values make it up: text, and numbers in binary form.
_TEXT = {
    "echo": (0x00180086, 0x00180081),  # Echo Numbers, Echo Time
    "inversion": (0x00180082,),
    "flip": (0x00181314,),
    "agent": (0x00180010,),
    "voltage": (0x00180060,),
    "kernel": (0x00181210,),
    "phase": (0x00200100,),  # Temporal Position Identifier
    "trigger": (0x00181060, 0x00541300),  # Trigger Time, Frame Reference Time
    "acquisition": (0x00200012,),
    "time": (0x0008002A, 0x00080022, 0x00080032),  # Acquisition DateTime, Date, Time
}
_CONTENT_TIME = (0x00080023, 0x00080033)  # Content Date, Time: where no acquisition is timed
_BINARY = {
    "b": (0x00189087, "DiffusionBValue"),
    "direction": (0x00189089, "DiffusionGradientOrientation"),
    "cycle": (0x00209241, "NominalPercentageOfCardiacPhase"),
}
# The b-value where a vendor keeps it for itself: element, that of its creator, and what it says.
_PRIVATE_B = (
    (0x0019100C, 0x00190010, "SIEMENS MR HEADER"),
    (0x00431039, 0x00430010, "GEMS_PARM_01"),
    (0x20011003, 0x20010010, "PHILIPS IMAGING DD 001"),
)
# Macros of enhanced files (PS3.3 C.7.6.16, C.8.13) and the elements in them.
_MACROS = {
    "type": ("MRImageFrameTypeSequence", ("FrameType", "ComplexImageComponent")),
    "type ": ("CTImageFrameTypeSequence", ("FrameType",)),
    "echo": ("MREchoSequence", ("EffectiveEchoTime",)),
    "inversion": ("MRModifierSequence", ("InversionTimes",)),
    "flip": ("MRTimingAndRelatedParametersSequence", ("FlipAngle",)),
    "b": ("MRDiffusionSequence", ("DiffusionBValue",)),
    "phase": ("FrameContentSequence", ("TemporalPositionIndex",)),
    "trigger": ("CardiacSynchronizationSequence", ("NominalCardiacTriggerDelayTime",)),
    "voltage": ("CTXRayDetailsSequence", ("KVP",)),
    "time": ("FrameContentSequence", ("FrameAcquisitionDateTime",)),
}


def read_traits(dataset: Dataset, *, frames: int) -> list[tuple[str, ...]]:
    """Values of ``TRAITS`` for each frame, "" where the header does not say."""
    found = {key: _joined(dataset, tags) for key, tags in _TEXT.items()}
    found["time"] = found["time"] or _joined(dataset, _CONTENT_TIME)
    found["type"] = "\\".join((*texts(dataset, "ImageType"), *texts(dataset, "ComplexImageComponent")))
    there = dataset.keys()  # a look-up takes a tenth of that of pydicom
    for key, (tag, keyword) in _BINARY.items():
        if tag in there:
            found[key] = "\\".join(f"{value:g}" for value in numbers(dataset, keyword))
    found["b"] = found.get("b") or _private_b(dataset)
    top = tuple(found.get(trait.key, "") for trait in TRAITS)
    groups = items(dataset, "PerFrameFunctionalGroupsSequence")
    if not groups:
        return [top] * frames
    shared = items(dataset, "SharedFunctionalGroupsSequence")[:1]
    return [_of_frame([*groups[frame : frame + 1], *shared], top) for frame in range(frames)]


def _joined(dataset: Dataset, tags: Sequence[int]) -> str:
    values = [_stored(dataset, tag) for tag in tags]
    return " ".join(values) if any(values) else ""


def _stored(dataset: Dataset, tag: int) -> str:
    """Text of an element without conversion; numbers that are written differently are the same."""
    element: Any = dataset.get_item(tag) if tag in dataset.keys() else None  # noqa: SIM118  without conversion
    content = None if element is None else element.value
    if content is None:
        return ""
    raw = content.decode("latin-1") if isinstance(content, bytes) else str(content)
    stripped = raw.strip(" \0")
    try:
        return repr(float(stripped)) if stripped else ""
    except ValueError:
        return stripped


def _private_b(dataset: Dataset) -> str:
    for tag, creator, name in _PRIVATE_B:
        element: Any = dataset.get_item(tag) if tag in dataset.keys() else None  # noqa: SIM118  without conversion
        if element is None or not _stored(dataset, creator).upper().startswith(name):
            continue
        content = element.value
        return content.hex() if isinstance(content, bytes) else str(content)
    return ""


def _of_frame(groups: Sequence[Dataset], top: tuple[str, ...]) -> tuple[str, ...]:
    found: dict[str, str] = {}
    for key, (macro, keywords) in _MACROS.items():
        held = next((inner[0] for group in groups if (inner := items(group, macro))), None)
        if held is None:
            continue
        values = [_value(held, keyword) for keyword in keywords]
        if any(values):
            found[key.strip()] = " ".join(values)
        if key == "b" and (way := items(held, "DiffusionGradientDirectionSequence")):
            found["direction"] = _value(way[0], "DiffusionGradientOrientation")
    return tuple(found.get(trait.key, value) for trait, value in zip(TRAITS, top, strict=True))


def _value(dataset: Dataset, keyword: str) -> str:
    several = numbers(dataset, keyword)
    if several:
        return "\\".join(f"{value:.9g}" for value in several)
    single = number(dataset, keyword)
    return "\\".join(texts(dataset, keyword)) if single is None else f"{single:.9g}"
