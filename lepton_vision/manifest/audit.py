"""Audit of a manifest before training: leaks between splits, duplicates, contradicting labels, prevalence."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from lepton_vision.config import AuditConfig, Config
from lepton_vision.config.sections import PreprocessConfig
from lepton_vision.errors import LabelError, ManifestError
from lepton_vision.manifest.class_counts import label_groups
from lepton_vision.manifest.findings import Audit, Finding, Kind, splits_of
from lepton_vision.manifest.labels import infer_targets, unknown_name
from lepton_vision.manifest.mask_values import count_values, found_in_words, mask_faults
from lepton_vision.manifest.near_duplicates import connect, near_pairs
from lepton_vision.manifest.patients import advise, known_patients
from lepton_vision.manifest.schema import objects
from lepton_vision.manifest.split import shared_patients
from lepton_vision.manifest.table import Manifest
from lepton_vision.manifest.value_ranges import narrow_ranges
from lepton_vision.types import SPLITS, Target
from lepton_vision.types.words import UNKNOWN_WORDS, without

_LOGGER = logging.getLogger(__name__)
_OFTEN_ANNOTATED = ("US", "XC", "ES", "GM", "OP", "SC")  # values of Modality (PS3.3 C.7.3.1.1.1)


def audit_manifest(manifest: Manifest, config: AuditConfig | Config | None = None) -> Audit:
    """Look for leaks between splits, duplicates, contradicting labels and what else a reader of the result must know.

    Identical means equal decoded pixels; near-identical means a perceptual hash within ``near_distance`` bits and
    thumbnails that agree pixel by pixel (see ``near``), for which the candidates are read once more. Constant images
    are left out of both. Near-duplicates are searched for between splits, not within one patient; and everywhere where
    labels differ, but not between the slices of one series or file. In one patient these are a note.

    Args:
        manifest: with or without splits.
        config: what to search for; the targets of a whole Config say which labels may contradict each other.

    Raises:
        LabelError: a label is none of the classes of a target of ``config``.
    """
    settings = config.audit if isinstance(config, Config) else config or AuditConfig()
    targets, questions = _targets(manifest, config)
    frame = manifest.frame[manifest.is_ok]
    columns = _label_columns(manifest, targets)
    frame = frame.assign(**{name: without(frame[name], UNKNOWN_WORDS) for name in columns})
    findings = [*_patient_leaks(frame), *_identical(frame, label_columns=columns)]
    if settings.near_duplicates:
        findings += _near(manifest, frame, label_columns=columns, distance=settings.near_distance)
    findings += [*_narrow(frame, config), *_burned_in(frame)]
    findings += [*questions, *_notes(manifest, frame), *_prevalence(manifest, targets), *_masks(manifest, config)]
    rank = {"error": 0, "warning": 1, "note": 2}
    findings.sort(key=lambda finding: rank[finding.severity])
    table = manifest.frame[["image_id", "path", "member", "frame", "split", *manifest.label_columns]]
    return Audit(tuple(findings), fingerprint=manifest.fingerprint, rows=len(manifest), table=table)


def warn_of(audit: Audit, kind: Kind) -> None:
    """Log the findings of one kind as warnings, where training begins and nobody has called the audit."""
    for finding in audit.findings:
        if finding.kind == kind:
            _LOGGER.warning(finding.message)


def drop_leaks(manifest: Manifest, audit: Audit) -> Manifest:
    """Reject, with reason "leakage", the training copies of images that stand in two splits (else validation's).

    The test split stays as it is.

    Raises:
        LeakageError: a patient stands in two splits, which dropping copies does not settle.
        ManifestError: the audit was made of another manifest.
    """
    if audit.rows != len(manifest) or audit.fingerprint != manifest.fingerprint:
        raise ManifestError("The audit was made of another manifest. Audit this one, then drop its leaks.")
    patients = [finding for finding in audit.leaks if finding.cause == "patient"]
    if patients:
        replace(audit, findings=tuple(patients)).raise_on({"leakage"})
    split = objects(manifest.frame["split"])
    dropped: set[int] = set()
    for finding in audit.leaks:
        present = [name for name in SPLITS if any(split[row] == name for row in finding.rows)]
        dropped |= {row for row in finding.rows if split[row] != present[-1]}
    frame = manifest.frame.copy()
    rows = sorted(dropped)
    for column, value in (("status", "rejected"), ("reason", "leakage"), ("split", None), ("fold", None)):
        frame.loc[rows, column] = pd.NA if value is None else value
    return replace(manifest, frame=frame)


def _targets(manifest: Manifest, config: AuditConfig | Config | None) -> tuple[tuple[Target, ...], list[Finding]]:
    """Targets of the configuration or evident ones, without which columns are compared as they are; and the doubt."""
    if isinstance(config, Config) and config.targets:
        return config.targets, []
    try:
        return infer_targets(manifest), []
    except LabelError as doubt:
        is_about_values = doubt.key in manifest.label_columns
        return (), [Finding("labels", "warning", str(doubt))] if is_about_values else []


def _label_columns(manifest: Manifest, targets: Sequence[Target]) -> list[str]:
    named = [column for target in targets for column in target.columns if column in manifest.frame.columns]
    return named or list(manifest.label_columns)


def _patient_leaks(frame: pd.DataFrame) -> list[Finding]:
    rows = shared_patients(frame, column="split")
    groups = frame.loc[rows].groupby("patient_id", sort=False)
    findings = []
    for _, group in groups:
        where = splits_of(group["split"])
        message = f"One patient stands in {' and '.join(where)} with {len(group)} images."
        findings.append(Finding("leakage", "error", message, _positions(group), "patient", where))
    return findings


def _identical(frame: pd.DataFrame, *, label_columns: Sequence[str]) -> list[Finding]:
    """Groups of equal pixels: across splits, within a split, with different labels."""
    hashed = frame[frame["pixel_hash"].notna() & frame["phash"].notna()]
    hashed = hashed[hashed["pixel_hash"].duplicated(keep=False)]
    findings = []
    for _, group in hashed.groupby("pixel_hash", sort=False):
        counts, rows = group["split"].astype(object).fillna("").value_counts(), _positions(group)
        splits = splits_of(group["split"])
        if len(splits) > 1:
            message = f"{len(group)} images with identical pixels stand in {' and '.join(splits)}."
            findings.append(Finding("leakage", "error", message, rows, "identical", splits))
        if counts.max() > 1:
            name = str(counts.index[0])
            message = f"{int(counts.max())} images with identical pixels stand in {name or 'no split'}."
            findings.append(Finding("duplicate", "warning", message, rows, splits=(name,) if name else ()))
        differing = _differing(group, label_columns)
        if differing:
            message = f"{len(group)} images with identical pixels have different labels in {differing}."
            findings.append(Finding("conflict", "warning", message, rows, splits=splits))
    return findings


def _differing(group: pd.DataFrame, label_columns: Sequence[str]) -> str:
    """Label columns whose known values differ, the first five of them."""
    return ", ".join([column for column in label_columns if group[column].nunique() > 1][:5])


def _near(manifest: Manifest, frame: pd.DataFrame, *, label_columns: Sequence[str], distance: int) -> list[Finding]:
    """Images that show the same but are not identical: in two splits, or with different labels."""
    labels = np.stack([pd.factorize(frame[name])[0] for name in label_columns], axis=1) if label_columns else None
    places: dict[Any, int] = {name: k for k, name in enumerate(SPLITS)}
    parts = np.asarray([places.get(name, -1) for name in objects(frame["split"])], dtype=np.int64)
    has_labels = labels is not None and bool((labels.max(axis=0, initial=-1) > 0).any())
    if frame["split"].nunique() < 2 and not has_labels:
        return []
    near = near_pairs(manifest, frame.index.to_numpy(), parts=parts, labels=labels, distance=distance)
    findings = []
    for group in connect(near.same.tolist()):
        members = frame.loc[group]
        splits = splits_of(members["split"])
        message = f"{len(group)} near-identical images stand in {' and '.join(splits)}."
        findings.append(Finding("leakage", "error", message, _positions(members), "near", splits))
    findings += [_near_conflict(frame.loc[group], label_columns) for group in connect(near.contradicting.tolist())]
    if near.unverified:
        message = (
            f"{near.unverified} pairs may be near-identical but were not compared: a file cannot be read, or there are "
            "too many candidates (lower audit.near_distance)."
        )
        findings.append(Finding("unverified", "warning", message))
    return findings


def _near_conflict(group: pd.DataFrame, label_columns: Sequence[str]) -> Finding:
    """A note where all are of one patient: adjoining slices may rightly differ."""
    is_one = bool(known_patients(group).all()) and group["patient_id"].nunique() == 1
    message = f"{len(group)} near-identical images{' of one patient' if is_one else ''} have different labels in "
    message += f"{_differing(group, label_columns)}."
    severity: Literal["note", "warning"] = "note" if is_one else "warning"
    return Finding("conflict", severity, message, _positions(group), "near", splits_of(group["split"]))


def _notes(manifest: Manifest, frame: pd.DataFrame) -> list[Finding]:
    findings = []
    unknown = frame[~known_patients(frame)]
    if len(unknown):
        message = (
            f"{len(unknown)} of {len(frame)} usable images name no patient; each file, series or study counts as a "
            f"patient of its own. {advise(unknown)}"
        )
        some = _positions(unknown) if len(unknown) < len(frame) else ()
        findings.append(Finding("unknown_patient", "warning", message, some))
    if manifest.rejected:
        rows = np.flatnonzero(~manifest.is_ok)
        reasons = ", ".join(f"{reason}: {count}" for reason, count in manifest.rejected.items())
        message = f"{len(rows)} of {len(manifest)} rows are rejected ({reasons})."
        findings.append(Finding("rejected", "warning", message, tuple(int(row) for row in rows)))
    notes = manifest.label_notes
    if manifest.unmatched_labels and not notes:  # of a manifest that an older version wrote
        notes = (f"{manifest.unmatched_labels} rows of the label table matched no file.",)
    findings += [Finding("unmatched_labels", "warning", note) for note in notes]
    return findings


def _narrow(frame: pd.DataFrame, config: AuditConfig | Config | None) -> list[Finding]:
    preprocess = config.preprocess if isinstance(config, Config) else PreprocessConfig()
    return [Finding("narrow_range", "warning", one.message, one.rows) for one in narrow_ranges(frame, preprocess)]


def _burned_in(frame: pd.DataFrame) -> list[Finding]:
    """Images that say that text is in their pixels, and those of kinds that often have some and do not say "NO"."""
    said = frame["burned_in_annotation"]
    is_stated = (said == "YES").fillna(False)
    is_usual = frame["modality"].isin(_OFTEN_ANNOTATED) | (frame["object_kind"] == "secondary_capture").fillna(False)
    is_usual &= ~is_stated & ~(said == "NO").fillna(False)
    what = "text in their pixels, which may name patients and give a label away"
    found = []
    if is_stated.any():
        message = (
            f"{int(is_stated.sum())} images say that they have {what}. Look at them, and leave them out or cover it."
        )
        found.append(Finding("burned_in", "warning", message, _positions(frame[is_stated])))
    if is_usual.any():
        message = (
            f"{int(is_usual.sum())} images are of a kind that often has {what} (ultrasound, endoscopy, photographs, "
            "secondary captures), and do not say that they have none. Look at some of them."
        )
        found.append(Finding("burned_in", "note", message, _positions(frame[is_usual])))
    return found


def _prevalence(manifest: Manifest, targets: Sequence[Target]) -> list[Finding]:
    """Class counts of each target by split; a warning where a split lacks a class that another one has."""
    findings = []
    usable = manifest.ok
    split = objects(usable.frame["split"])
    names: list[str | None] = [name for name in SPLITS if (split == name).any()] or [None]
    for target in targets:
        groups = _groups(usable, target)
        per_split = {name or "all": _counts(groups, split == name) for name in names}
        counts = "; ".join(
            f"{name} " + ", ".join(f"{label}: {n}" for label, n in part.items()) for name, part in per_split.items()
        )
        lacking = [
            (name, label)
            for name, part in per_split.items()
            for label in groups
            if label != unknown_name(target) and part[label] == 0 and any(other[label] for other in per_split.values())
        ]
        message = f"Target {target.name}: {counts}."
        message += "".join(f" Split {name} has no {label}." for name, label in lacking)
        findings.append(Finding("prevalence", "warning" if lacking else "note", message))
    return findings


def _masks(manifest: Manifest, config: AuditConfig | Config | None) -> list[Finding]:
    """Findings about the values in masks; with a whole configuration, also about its structures."""
    counts = count_values(manifest)
    segmentation = config.segmentation if isinstance(config, Config) else None
    if not counts:
        return []
    findings = [Finding("masks", "note", f"Values of the masks. {found_in_words(counts)}")]
    for split, fault in ({} if segmentation is None else mask_faults(manifest, segmentation)).items():
        findings.append(Finding("masks", "error" if split in ("", "train") else "warning", fault))
    return findings


def _groups(manifest: Manifest, target: Target) -> dict[str, npt.NDArray[np.bool_]]:
    """Rows of each class, or quarter of the values, and of the unknown."""
    labels = manifest.labels(target)
    unknown = np.asarray(np.isnan(labels.reshape(len(labels), -1)).all(axis=1))
    return label_groups(labels, target) | {unknown_name(target): unknown}


def _counts(groups: Mapping[str, npt.NDArray[np.bool_]], rows: npt.NDArray[np.bool_]) -> dict[str, int]:
    """How many of some rows are in each group; the last one, the unknown, is left out where it has none."""
    counts = {name: int((group & rows).sum()) for name, group in groups.items()}
    *_, unknown = counts
    return counts if counts[unknown] else {name: counts[name] for name in counts if name != unknown}


def _positions(frame: pd.DataFrame) -> tuple[int, ...]:
    return tuple(int(row) for row in frame.index)
