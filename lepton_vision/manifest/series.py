"""DICOM series as samples: one row per series, no rows for its slices."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from lepton_vision.config import Config
from lepton_vision.config.sections import GapChoice, TiltChoice
from lepton_vision.errors import ReadError
from lepton_vision.manifest.hashes import perceptual_hash, pixel_hash
from lepton_vision.manifest.record import BASE, Record, ScanRules, describe_file
from lepton_vision.manifest.schema import FACT_COLUMNS
from lepton_vision.manifest.value_ranges import value_facts
from lepton_vision.readers.identity import pseudonym
from lepton_vision.readers.image import probe
from lepton_vision.readers.series import repairs_of
from lepton_vision.readers.series_list import FoundSeries, group_series, read_found

Job = tuple[str, str]
_COMMON: Final = ("patient_id", "study_id", "modality")
_LOGGER = logging.getLogger(__name__)


def split_series(jobs: list[Job]) -> tuple[list[FoundSeries], list[Job]]:
    """Divide the files of a scan into DICOM series and other files.

    Args:
        jobs: (path, path relative to the root).
    """
    relative = {Path(path): text for path, text in jobs}
    series, others = group_series(relative)
    return series, [(str(path), relative[path]) for path in others]


def describe_series(
    series: FoundSeries,
    *,
    root: Path,
    include: Collection[str] = (),
    gaps: GapChoice = "refuse",
    tilt: TiltChoice = "refuse",
) -> list[Record]:
    """Return the row of one volume of a series, and a rejected one of each file that was left out; never raises.

    A file that was left out is a sample by itself where its kind is included. ``path`` is the smallest folder that
    holds all files of the series, relative to the root, and ``member`` the pseudonymous id of the volume in it. Slices
    that form no volume are a row with status "rejected" and the reason, and so is a series of objects that are not to
    be included, see ``record.describe_file``. ``repair`` says what was repaired, as asked for: see ``read_series``.
    """
    own = series.image_id
    path = series.folder.relative_to(root).as_posix()
    record: Record = {"image_id": own, BASE: own, "path": path, "member": series.member, "status": "ok"}
    record |= {"series_id": series.series_id, "source_format": "dicom"}
    left_out = [
        row
        for path, reason in series.left_out
        for row in _left_out(path, root=root, reason=reason, series=series, include=include)
    ]
    try:
        facts = probe(series.files[0])
        record |= {name: getattr(facts, name) for name in _COMMON if getattr(facts, name) is not None}
        record |= {name: value for name, value in facts.facts.items() if name in FACT_COLUMNS and value is not None}
        record["patient_known"] = facts.patient_id is not None
        record.setdefault("patient_id", facts.study_id or series.series_id)
        kind = record.get("object_kind")
        if kind is not None and kind not in include:
            return [record | {"status": "rejected", "reason": kind}, *left_out]
        image = read_found(series, gaps=gaps, tilt=tilt)
    except ReadError as error:
        record.setdefault("patient_id", series.series_id)
        return [record | {"status": "rejected", "reason": error.reason}, *left_out]
    frames, rows, columns = image.pixels.shape[1:]
    perceptual = perceptual_hash(image.pixels)
    record |= {"frames": frames, "rows": rows, "columns": columns, "pixel_hash": pixel_hash(image.pixels)}
    record |= value_facts(image)
    record |= {"repair": repairs_of(image)} if repairs_of(image) else {}
    return [record | ({"phash": perceptual} if perceptual else {}), *left_out]


def _left_out(path: Path, *, root: Path, reason: str, series: FoundSeries, include: Collection[str]) -> list[Record]:
    """Rows of a file that is no slice of its series: rejected, or those of the file by itself."""
    relative = path.relative_to(root).as_posix()
    if reason in include:
        return describe_file(str(path), relative, rules=ScanRules(frozenset(include)))
    own = pseudonym("image", relative)
    record: Record = {"image_id": own, BASE: own, "path": relative, "status": "rejected", "reason": reason}
    return [record | {"series_id": series.series_id, "source_format": "dicom"}]


def scan_settings(config: Config) -> dict[str, Any]:
    """Scan settings of a configuration, as ``scan_source`` takes them."""
    names = () if config.volume is None else ("channels", "gaps", "tilt")
    own = {name: getattr(config.volume, name) for name in names}
    return {"volumes": config.is_volume, "include": config.scan.include, **own}
