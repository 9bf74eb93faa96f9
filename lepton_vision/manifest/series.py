"""DICOM series as samples: each one row, its slices no rows of their own."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

from lepton_vision.errors import ReadError
from lepton_vision.manifest.hashes import perceptual_hash, pixel_hash
from lepton_vision.manifest.record import BASE, Record
from lepton_vision.manifest.schema import FACT_COLUMNS
from lepton_vision.readers.identity import pseudonym
from lepton_vision.readers.image import probe
from lepton_vision.readers.series_list import FoundSeries, group_series, read_found

Job = tuple[str, str]
_COMMON: Final = ("patient_id", "study_id", "modality")


def split_series(jobs: list[Job]) -> tuple[list[FoundSeries], list[Job]]:
    """Divide the files of a scan into DICOM series and other files.

    Args:
        jobs: (path, path relative to the root).
    """
    relative = {Path(path): text for path, text in jobs}
    series, others = group_series(relative)
    return series, [(str(path), relative[path]) for path in others]


def describe_series(series: FoundSeries, *, root: Path, include: Collection[str] = ()) -> Record:
    """Return the row of one series; never raises.

    ``path`` is the smallest folder that holds all of its files, relative to the root, and ``member`` the pseudonymous
    id of the series in it. Slices that form no volume are a row with status "rejected" and the reason,
    and so is a series of objects that are not to be included, see ``record.describe_file``.
    """
    own = pseudonym("image", series.series_id)
    path = series.folder.relative_to(root).as_posix()
    record: Record = {"image_id": own, BASE: own, "path": path, "member": series.series_id, "status": "ok"}
    record |= {"series_id": series.series_id, "source_format": "dicom"}
    try:
        facts = probe(series.files[0])
        record |= {name: getattr(facts, name) for name in _COMMON if getattr(facts, name) is not None}
        record |= {name: value for name, value in facts.facts.items() if name in FACT_COLUMNS and value is not None}
        record["patient_known"] = facts.patient_id is not None
        record.setdefault("patient_id", facts.study_id or series.series_id)
        kind = record.get("object_kind")
        if kind is not None and kind not in include:
            return record | {"status": "rejected", "reason": kind}
        pixels = read_found(series).pixels
    except ReadError as error:
        record.setdefault("patient_id", series.series_id)
        return record | {"status": "rejected", "reason": error.reason}
    frames, rows, columns = pixels.shape[1:]
    perceptual = perceptual_hash(pixels)
    record |= {"frames": frames, "rows": rows, "columns": columns, "pixel_hash": pixel_hash(pixels)}
    return record | ({"phash": perceptual} if perceptual else {})
