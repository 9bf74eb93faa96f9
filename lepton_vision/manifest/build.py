"""Building of a manifest from a folder: one row per file, with its labels joined."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import pandas as pd

from lepton_vision.config.sections import GapChoice, TiltChoice, VolumeConfig
from lepton_vision.errors import ManifestError, nearest
from lepton_vision.manifest.join import SPLIT_WORDS, join_labels
from lepton_vision.manifest.label_files import read_table, source_of
from lepton_vision.manifest.layouts import are_layout, attach_named, find_masks, mask_records, warn_of_mask_files
from lepton_vision.manifest.left_out import CAPTURE, check_include, include_hint, take_lone_captures, warn_of_left_out
from lepton_vision.manifest.lost_labels import warn_of_lost_labels
from lepton_vision.manifest.masks import attach_masks
from lepton_vision.manifest.patients import name_patients, warn_unknown
from lepton_vision.manifest.record import BASE, LABEL, Record, ScanRules
from lepton_vision.manifest.schema import COLUMNS, conform, objects
from lepton_vision.manifest.series import Job, describe_series, split_series
from lepton_vision.manifest.workers import describe_all
from lepton_vision.readers.channels import first_files, suffixes_of
from lepton_vision.readers.folders import walk_folder
from lepton_vision.readers.identity import id_of_copy, key_check, path_id, pseudonym
from lepton_vision.readers.series import check_repairs
from lepton_vision.readers.series_list import FoundSeries
from lepton_vision.types.words import is_unknown

_LOGGER = logging.getLogger(__name__)
_MOST_CLASSES: Final = 100  # more first-level folders than this are patients or studies, not classes


def scan_folder(
    folder: str | Path,
    *,
    labels: str | Path | pd.DataFrame | None = None,
    workers: int | None = None,
    volumes: bool = False,
    include: Collection[str] = (),
    channels: Collection[str] = (),
    patient_from: str | None = None,
    gaps: GapChoice = "refuse",
    tilt: TiltChoice = "refuse",
    progress: Callable[[int, int], None] | None = None,
    listed: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Read every file below a folder once: what a ``Manifest`` is made of.

    Files are taken in sorted order, links followed (a folder only once), hidden files and folders left out. Each
    remaining file is at least one row; what cannot be read is a row with status "rejected" and a reason code, so
    README files and DICOMDIRs are rejected rows too. Only the label table itself is left out. A still image, a NIfTI
    volume and each frame of a multi-frame file make one row, as does each entry of a MedMNIST ``.npz``, whose official
    splits and labels are kept. With ``volumes`` the slices of a DICOM series make one row together (see
    ``series.describe_series``); what belongs to no series is as before.

    Without a label table, and where the files bring no labels themselves, folders may be classes: ``<class>/file``
    or ``<train|val|test>/<class>/file`` (folders around them that hold everything do not count). They are not taken as
    classes where each one holds exactly one patient, nor where they are those of images and masks.

    Files that are masks by their names (see ``layouts.find_masks``) are no images: each is the mask of its image where
    there is one such file and the label table names no masks, else a rejected row.

    Args:
        folder: a folder, or one file (an ``.npz``).
        labels: CSV or Parquet path, or DataFrame; see ``join.join_labels`` for the key columns and
            ``masks.attach_masks`` for a column of masks.
        workers: processes; None takes one per core where there are many files, 0 or 1 stay in this process.
        volumes: whether DICOM series are samples, rather than their slices.
        include: what else than images are samples, see ``config.ScanConfig.include``; without it such files are
            rejected rows that say what they are.
        channels: of NIfTI files, see ``config.VolumeConfig.channels``; the files of a case are one row, and the column
            ``member`` holds the channels.
        patient_from: whose an image is, in place of what headers and table say: a column of the label table, or a
            regular expression of the relative path (see ``patients.name_patients``). Where images
            name no patient, a warning says what looks as if it did.
        gaps: with ``volumes``, "fill" interpolates missing slices, see ``readers.read_series``; the column ``repair``
            says of which rows, and whoever reads them repairs them again.
        tilt: the same for "shear" and a tilted gantry.
        progress: called with (files done, files in all).
        listed: paths from the folder of the files to read, in this order; None reads all.

    Raises:
        ManifestError: no such folder, no file, no image among them, or a label table that cannot be used.

    Example:
        >>> manifest = Manifest(**scan_folder("data/ct", labels="data/labels.csv"))  # doctest: +SKIP
    """
    check_repairs(gaps=gaps, tilt=tilt)
    folder, source = Path(folder), source_of(labels)
    table = None if labels is None else read_table(labels, patient_from=patient_from)
    root = folder if folder.is_dir() else folder.parent
    jobs: list[Job] = [] if listed is None else [((root / path).as_posix(), path) for path in listed]
    jobs, unusable = (jobs, []) if jobs else _list_jobs(folder, root, left_out=source)
    rules = ScanRules(check_include(include), VolumeConfig(channels=tuple(channels)).channels)
    jobs, masks = _choose_jobs(jobs, rules)
    how: dict[str, Any] = {"workers": workers, "repairs": {"gaps": gaps, "tilt": tilt}, "progress": progress}
    records = _describe(jobs, root, volumes=volumes, rules=rules, **how)
    records += [*mask_records(masks), *unusable]
    _check_usable(records)
    warn_of_left_out(records, volumes=volumes)
    _name_places(records, root)
    _make_unique(records)
    fields, unnamed = _assemble(records, root, table=table, patient_from=patient_from)
    frame = fields["frame"]
    warn_unknown(frame)
    if frame["mask_path"].isna().all():
        frame = attach_named(frame, masks, root=root)
    else:
        frame = attach_masks(
            frame, root=root, table_folder=None if source is None else source.parent, progress=progress
        )
    warn_of_mask_files(frame, masks)
    notes = warn_of_lost_labels(frame, unnamed, notes=fields.get("label_notes", ()))
    return fields | {"frame": frame, "label_notes": notes, "id_key": key_check()}


def with_relative_paths(table: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Return a table of files with its column ``path`` as from ``root``.

    Raises:
        ManifestError: no such folder or column, or a row without a path below ``root``.
    """
    if not root.is_dir():
        raise ManifestError("The root is no folder. Give the one that the paths are below.", path=root)
    table = read_table(table)
    if "path" not in table.columns:
        raise ManifestError(f"Expected a column 'path'. {nearest('path', list(table.columns))}", key="path")
    paths = [None if is_unknown(path) else _below(str(path), root) for path in table["path"]]
    bad = [row for row, path in enumerate(paths) if path is None]
    if bad:
        raise ManifestError(
            f"Expected in each row a path of a file below the root. Received: {len(bad)} rows without one or with one "
            f"elsewhere (counted from 0: {', '.join(map(str, bad[:5]))}{', …' if len(bad) > 5 else ''}).",
            key="path",
        )
    return table.assign(path=pd.Series(paths, dtype=object))


def _below(path: str, root: Path) -> str | None:
    """A path as from ``root``; None where it lies elsewhere."""
    top = os.path.normpath(root.absolute())
    whole = os.path.normpath(os.path.join(top, Path(path).expanduser()))  # noqa: PTH118  keeps links as they are
    return None if whole == top or os.path.commonpath([top, whole]) != top else os.path.relpath(whole, top)


def _describe(
    jobs: list[Job],
    root: Path,
    *,
    volumes: bool,
    workers: int | None,
    rules: ScanRules,
    repairs: Mapping[str, Any],
    progress: Callable[[int, int], None] | None,
) -> list[Record]:
    """Rows of the series, then of the other files."""

    def describe_some(some: Sequence[FoundSeries | Job], *, rules: ScanRules, **how: Any) -> list[list[Record]]:
        series = [one for one in some if isinstance(one, FoundSeries)]
        files = [one for one in some if not isinstance(one, FoundSeries)]
        rows = [describe_series(one, root=root, include=rules.include, **repairs) for one in series]
        return rows + list(describe_all(files, workers=workers, rules=rules, **how))

    series: list[FoundSeries] = []
    if volumes:
        series, jobs = split_series(jobs)
    listed: list[FoundSeries | Job] = [*series, *jobs]
    described = describe_some(listed, rules=rules, progress=progress)
    more = replace(rules, include=rules.include | {CAPTURE})
    take_lone_captures(described, listed, again=partial(describe_some, rules=more))
    return [record for records in described for record in records]


def _choose_jobs(jobs: list[Job], rules: ScanRules) -> tuple[list[Job], dict[str, tuple[str, ...]]]:
    """Files to read, one for each case of several, and the masks among the others, see ``find_masks``."""
    is_asked = "mask_file" in rules.include
    masks = {} if is_asked else find_masks((job[1] for job in jobs), endings=suffixes_of(rules.channels))
    jobs = [job for job in jobs if job[1] not in masks]
    firsts = set(first_files((Path(path) for path, _ in jobs), rules.channels))
    return [job for job in jobs if Path(job[0]) in firsts], masks


def _list_jobs(folder: Path, root: Path, *, left_out: Path | None) -> tuple[list[tuple[str, str]], list[Record]]:
    """Files to read, and rejected rows of what cannot even be named or opened."""
    if not folder.exists():
        raise ManifestError("The folder to scan does not exist. Give a folder of images or an .npz file.", path=folder)
    paths = map(Path, walk_folder(folder)) if folder.is_dir() else iter([folder])
    skipped = left_out.resolve() if left_out is not None else None
    jobs: list[tuple[str, str]] = []
    unusable: list[Record] = []
    for path in paths:
        if skipped is not None and path.name == skipped.name and path.resolve() == skipped:
            continue
        relative = path.relative_to(root).as_posix()
        is_folder = os.path.isdir(path)  # noqa: PTH112  no error where its folder cannot be entered
        if relative.encode("utf-8", "replace").decode() != relative or is_folder:
            shown = relative.encode("utf-8", "replace").decode()
            image_id = pseudonym("image", relative)
            record = {"image_id": image_id, BASE: image_id, "path": shown, "status": "rejected"}
            unusable.append(record | {"reason": "missing" if is_folder else "unsupported"})
            continue
        jobs.append((str(path), relative))
    if not jobs and not unusable:
        raise ManifestError("The folder holds no file. Expected images (hidden files do not count).", path=folder)
    return jobs, unusable


def _check_usable(records: list[Record]) -> None:
    if any(record["status"] == "ok" for record in records):
        return
    reasons = Counter(record["reason"] for record in records)
    counts = ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common())
    raise ManifestError(
        f"None of the {len(records)} files is an image that can be read ({counts}). Expected DICOM, NIfTI, PNG, JPEG, "
        f"TIFF or npz files. {include_hint(reasons) or 'Check the folder.'}"
    )


def _name_places(records: list[Record], root: Path) -> None:
    """Give each row the ``path_id`` that scores have of its file; of a series by the series, of an npz by the entry."""
    top = os.path.normpath(root.absolute())
    for record in records:
        place = os.path.join(top, record["path"])  # noqa: PTH118  keeps texts
        if record.get("source_format") == "npz" and "frame" in record:
            place = f"{place}\0{record.get('member') or ''}\0{record['frame']}"
        elif record.get("source_format") == "dicom" and "member" in record:
            place = record["member"]
        record["path_id"] = path_id(os.path.normpath(place))


def _make_unique(records: list[Record]) -> None:
    """Give later copies of one SOP Instance UID an id of their own, made of the first id and the path."""
    seen: set[str] = set()
    for record in records:
        if record["status"] != "ok":
            continue
        if record["image_id"] in seen:
            record["image_id"] = id_of_copy(record["image_id"], place=record["path_id"])
        seen.add(record["image_id"])


def _assemble(
    records: list[Record], root: Path, *, table: pd.DataFrame | None, patient_from: str | None
) -> tuple[dict[str, Any], frozenset[str]]:
    """What a manifest is made of (rows, labels, splits), and the images that the label table does not name."""
    base_ids = [record[BASE] for record in records]
    own_labels = tuple(dict.fromkeys(name for record in records for name in record if name.startswith(LABEL)))
    values = {name: [record.get(name) for record in records] for name in (*COLUMNS, *own_labels)}
    records.clear()
    frame = pd.DataFrame({name: pd.Series(one, dtype=object) for name, one in values.items()})
    label_columns = tuple(name.removeprefix(LABEL) for name in own_labels)
    frame = conform(
        frame.rename(columns=dict(zip(own_labels, label_columns, strict=True))), label_columns=label_columns
    )
    columns = () if table is None else tuple(map(str, table.columns))
    by_column = patient_from if patient_from in columns else None
    by_path = patient_from if by_column is None else None
    if by_path is not None:  # before the table, whose key may be the patient
        frame = name_patients(frame, by_path, columns=columns)
    if table is not None:
        bare = frame.drop(columns=list(label_columns))
        joined = join_labels(bare, base_ids=base_ids, table=table, root=root, patient_from=by_column)
        fields: dict[str, Any] = {
            "frame": joined.frame if by_path is None else name_patients(joined.frame, by_path),
            "root": root,
            "label_columns": joined.label_columns,
            "unmatched_labels": joined.unmatched,
            "label_notes": (joined.note,) if joined.note else (),
        }
        return fields, joined.unnamed
    if not label_columns:
        frame, label_columns = _label_by_folder(frame)
    return {"frame": frame, "root": root, "label_columns": label_columns}, frozenset()


def _label_by_folder(frame: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Classes, and official splits, from an image-folder layout; nothing where the folders are no classes."""
    is_ok = objects(frame["status"]) == "ok"
    parts: dict[int, tuple[str, ...]] = {
        int(row): tuple(str(frame["path"].iloc[row]).split("/")[:-1]) for row in is_ok.nonzero()[0]
    }
    while parts and all(parts.values()) and len({folders[0] for folders in parts.values()}) == 1:
        parts = {row: folders[1:] for row, folders in parts.items()}
    if not parts or not all(parts.values()):
        return frame, ()
    splits: dict[int, str] = {}
    if all(folders[0].lower() in SPLIT_WORDS for folders in parts.values()):
        splits = {row: SPLIT_WORDS[folders[0].lower()] for row, folders in parts.items()}
        parts = {row: folders[1:] for row, folders in parts.items()}
    result = _with_values(frame, "split", values=splits) if splits else frame
    classes = {row: folders[0] for row, folders in parts.items() if folders}
    if are_layout(classes.values()):
        _LOGGER.warning(
            "The folders hold images and masks (%s) and are not taken for classes. Give a label table.",
            ", ".join(sorted(set(classes.values()))[:8]),
        )
        return result, ()
    if len(classes) < len(parts) or not _are_classes(frame, classes):
        return result, ()
    return _with_values(result, "label", values=classes), ("label",)


def _are_classes(frame: pd.DataFrame, folders: dict[int, str]) -> bool:
    """Whether folder names can be classes: several, not too many, and not simply one for each patient."""
    names = set(folders.values())
    if not 2 <= len(names) <= _MOST_CLASSES:
        return False
    known = frame.iloc[list(folders)]["patient_known"].fillna(False).to_numpy(dtype=bool)
    pairs = set(zip(folders.values(), frame.iloc[list(folders)]["patient_id"], strict=True))
    patients = {patient for _, patient in pairs}
    return not (known.all() and len(pairs) == len(names) == len(patients))


def _with_values(frame: pd.DataFrame, name: str, *, values: dict[int, Any]) -> pd.DataFrame:
    column = pd.Series([values.get(row) for row in range(len(frame))], dtype=object)
    return frame.assign(**{name: column})
