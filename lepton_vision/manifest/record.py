"""Manifest rows of one file: header facts, ids and hashes. Runs in worker processes: plain data in and out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy.typing as npt

from lepton_vision.errors import ReadError
from lepton_vision.manifest.hashes import perceptual_hash, pixel_hash
from lepton_vision.manifest.value_ranges import value_facts
from lepton_vision.readers.channels import named_channels
from lepton_vision.readers.content import begins_like_npz
from lepton_vision.readers.frames import read_frames
from lepton_vision.readers.identity import pseudonym
from lepton_vision.readers.image import FileFacts, probe, read_image
from lepton_vision.readers.npz import npz_members, read_npz_table
from lepton_vision.types import SPLITS, Image, Split

# A file of several frames up to this many pixels is decoded at once; a larger one frame by frame.
_AT_ONCE: Final = 2**26
_COSTLY: Final = ("too_large", "too_slow")  # whoever refuses a file for these is not asked twice
BASE: Final = "base_id"  # id of the file without frame; not kept in the manifest
LABEL: Final = "label:"  # prefix of label values that a file brings itself

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ScanRules:
    """Rules of a scan for the files that become samples.

    Attributes:
        include: kinds of objects that are samples too, see ``config.ScanConfig``.
        channels: of NIfTI files, see ``config.VolumeConfig``.
    """

    include: frozenset[str] = frozenset()
    channels: tuple[str, ...] = ()


NO_RULES: Final = ScanRules()


def begin_worker() -> None:
    """Set up a worker process: Ctrl-C is the parent's business, and each process uses one core."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def describe_files(jobs: Sequence[tuple[str, str]], rules: ScanRules = NO_RULES) -> list[list[Record]]:
    """Rows of several files, each given as (path, path relative to the root)."""
    return [describe_file(path, relative, rules=rules) for path, relative in jobs]


def describe_file(path: str, relative: str, *, rules: ScanRules = NO_RULES) -> list[Record]:
    """Rows of one file: one for a still image or a volume, one per frame or array entry otherwise; never raises.

    Values that are unknown are left out. A file that cannot be read, or that is of an ``object_kind`` which is not to
    be included, is one row with status "rejected" and the reason.
    """
    place = Path(path)
    member = named_channels(place, rules.channels)
    unknown = {"image_id": pseudonym("image", relative), BASE: pseudonym("image", relative), "path": relative}
    try:
        arrays = _official_arrays(place)
        if arrays:
            return [record for split in arrays for record in _describe_array(place, relative, split=split)]
    except ReadError as error:
        return [_rejected(unknown, error.reason)]
    try:
        facts = probe(place, member=member)
    except ReadError as error:
        return [_rejected(unknown, _reason_of(place, member=member, told=error.reason))]
    common = _common(facts, relative=relative) | ({} if member is None else {"member": member})
    kind = common.get("object_kind")
    if kind is not None and kind not in rules.include:
        return [_rejected(common, kind)]
    if facts.frames <= 1 or facts.source_format == "nifti":
        try:
            return [_named(common, read_image(place, member=member))]
        except ReadError as error:
            return [_rejected(common, error.reason)]
    try:
        return _describe_frames(place, facts=facts, common=common)
    except ReadError as error:  # the file as a whole: it has changed meanwhile
        return [_rejected(common, error.reason)]


def _reason_of(path: Path, *, member: str | None, told: str) -> str:
    """Why ``read_image`` refuses a file whose header was refused for the reason ``told``: all say the same."""
    if told in _COSTLY:
        return told
    try:
        read_image(path, member=member)
    except ReadError as error:
        return error.reason
    return told


def _common(facts: FileFacts, *, relative: str) -> Record:
    """Columns shared by all rows of a file."""
    own = facts.image_id or pseudonym("image", relative)
    values: Record = {
        "image_id": own,
        BASE: own,
        # Without a patient, what surely comes from one stays together: the study, the series, the frames of a file.
        "patient_id": facts.patient_id or facts.study_id or facts.series_id or own,
        "patient_known": facts.patient_id is not None,
        "study_id": facts.study_id,
        "series_id": facts.series_id,
        "path": relative,
        "status": "ok",
        "source_format": facts.source_format,
        "modality": facts.modality,
        "rows": facts.rows,
        "columns": facts.columns,
        "frames": facts.frames,
        **facts.facts,
    }
    return {name: value for name, value in values.items() if value is not None}


def _named(common: Record, image: Image) -> Record:
    """Row of an image that was read, by its own id, which the header alone may not tell."""
    own = common[BASE] if common["source_format"] == "dicom" else image.image_id
    whose = {} if common["patient_id"] != common["image_id"] else {"patient_id": own}
    return common | {"image_id": own, BASE: own} | whose | _describe_pixels(image)


def _describe_pixels(image: Image) -> Record:
    perceptual = perceptual_hash(image.pixels)
    return {
        "pixel_hash": pixel_hash(image.pixels),
        **value_facts(image),
        **({"phash": perceptual} if perceptual else {}),
    }


def _rejected(common: Record, reason: str) -> Record:
    return common | {"status": "rejected", "reason": reason}


def _describe_frames(path: Path, *, facts: FileFacts, common: Record) -> list[Record]:
    """A row per frame; where the file as a whole cannot be decoded, each frame is tried by itself."""
    records = []
    for number, image in enumerate(_frames(path, facts=facts)):
        own = common | {"frame": number, "image_id": f"{common[BASE]}-{number}"}
        if isinstance(image, str):
            records.append(_rejected(own, image))
        elif facts.source_format == "npz":
            records.append(own | {"image_id": image.image_id} | _describe_pixels(image))
        else:
            records.append(own | _describe_pixels(image))
    return records


def _frames(path: Path, *, facts: FileFacts) -> Iterator[Image | str]:
    """Each frame, with pixels (C, H, W), or the reason why there is none."""
    if facts.frames * facts.rows * facts.columns <= _AT_ONCE:
        try:
            volume = read_image(path)
        except ReadError:  # one bad frame must not cost the others
            pass
        else:
            yield from (replace(volume, pixels=volume.pixels[:, number]) for number in range(volume.pixels.shape[1]))
            return
    if facts.source_format != "npz":
        yield from read_frames(path, count=facts.frames)
        return
    for number in range(facts.frames):
        try:
            yield read_image(path, frame=number)
        except ReadError as error:
            yield error.reason


def _official_arrays(path: Path) -> list[Split]:
    """Splits of a MedMNIST file, which names its arrays train_images, val_images and test_images; else none."""
    if not begins_like_npz(path):
        return []
    members = npz_members(path)
    return [split for split in SPLITS if f"{split}_images" in members]


def _describe_array(path: Path, relative: str, *, split: Split) -> list[Record]:
    """A row per entry of one array, with its official split and labels."""
    member = f"{split}_images"
    facts = probe(path, member=member)
    labels = _array_labels(path, split=split, count=facts.frames)
    base = pseudonym("image", f"{relative}#{member}")
    records = []
    for number in range(facts.frames):
        own = f"{base}-{number}"
        record = _common(facts, relative=relative) | {
            "image_id": own,
            BASE: own,
            "patient_id": own,
            "member": member,
            "frame": number,
            "split": split,
        }
        record |= {LABEL + name: values[number].item() for name, values in labels.items()}
        try:
            records.append(_named(record, read_image(path, member=member, frame=number)))
        except ReadError as error:
            records.append(_rejected(record, error.reason))
    return records


def _array_labels(path: Path, *, split: Split, count: int) -> dict[str, npt.NDArray[Any]]:
    """Label columns of one official array: ``label``, or ``label_0`` … where an entry has several."""
    if f"{split}_labels" not in npz_members(path):
        return {}
    values = read_npz_table(path, f"{split}_labels")
    values = values.reshape(len(values), -1)
    if len(values) != count or values.shape[1] == 0:
        raise ReadError(
            f"Expected {count} labels, one for each image. Received: {len(values)}.", reason="mismatch", path=path
        )
    if values.shape[1] == 1:
        return {"label": values[:, 0]}
    return {f"label_{k}": values[:, k] for k in range(values.shape[1])}
