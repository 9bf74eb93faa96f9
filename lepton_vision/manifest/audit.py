"""What must be known before training: leaks between splits, duplicates, contradicting labels, prevalence."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from lepton_vision.config import AuditConfig, Config, nearest
from lepton_vision.errors import LeakageError, ManifestError
from lepton_vision.manifest.labels import evident_targets
from lepton_vision.manifest.near import connect, near_pairs
from lepton_vision.manifest.schema import objects
from lepton_vision.manifest.split import shared_patients
from lepton_vision.manifest.table import Manifest
from lepton_vision.types import SPLITS, Target

Kind = Literal[
    "leakage",  # a patient or an image in two splits
    "duplicate",  # identical pixels inside one split
    "conflict",  # identical pixels with different labels
    "unverified",  # perhaps near-duplicates, not compared
    "unknown_patient",
    "rejected",
    "unmatched_labels",
    "prevalence",
]
KINDS: Final[tuple[Kind, ...]] = (
    "leakage",
    "duplicate",
    "conflict",
    "unverified",
    "unknown_patient",
    "rejected",
    "unmatched_labels",
    "prevalence",
)
Cause = Literal["", "patient", "identical", "near"]
_WHAT: Final[dict[str, str]] = {
    "patient": "patients in two splits",
    "identical": "groups of identical images in two splits",
    "near": "groups of near-identical images in two splits",
    "duplicate": "groups of identical images in one split",
    "conflict": "groups of identical images with different labels",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the audit found.

    Attributes:
        kind: what it is, see ``KINDS``.
        severity: "error" must be settled before training, "warning" should be looked at, "note" is for information.
        message: a sentence without patient data.
        rows: rows of the audited manifest, from 0.
        cause: of leakage: "patient", "identical" or "near"; else "".
    """

    kind: Kind
    severity: Literal["error", "warning", "note"]
    message: str
    rows: tuple[int, ...] = ()
    cause: Cause = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "cause": self.cause,
            "message": self.message,
            "rows": list(self.rows),
        }


@dataclass(frozen=True, slots=True)
class Audit:
    """Everything that was found in one manifest.

    Attributes:
        findings: errors first; one finding for each patient or group of images concerned.
        fingerprint: of the manifest that was looked at.
        rows: its number of rows.
    """

    findings: tuple[Finding, ...]
    fingerprint: str
    rows: int

    @property
    def leaks(self) -> tuple[Finding, ...]:
        """Patients and images that stand in two splits."""
        return tuple(finding for finding in self.findings if finding.kind == "leakage")

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings by kind."""
        return dict(Counter(finding.kind for finding in self.findings))

    def raise_on(self, kinds: Collection[str]) -> None:
        """Stop at findings of these kinds.

        Raises:
            LeakageError: how many of what, the first rows and what to do (exit code 1).
            ManifestError: a kind that does not exist.
        """
        for kind in kinds:
            if kind not in KINDS:
                raise ManifestError(f"Unknown kind of finding {kind!r}. {nearest(kind, list(KINDS))}", key=kind)
        found = [finding for finding in self.findings if finding.kind in kinds]
        if not found:
            return
        counts = Counter(finding.cause or finding.kind for finding in found)
        what = "; ".join(f"{_WHAT.get(name, name)}: {count}" for name, count in counts.items())
        groups = "; ".join(_rows(finding.rows) for finding in found[:3])
        causes = {finding.cause for finding in found}
        raise LeakageError(
            f"The audit found {what}. Expected none. Rows of the first: {groups}. {_remedy(causes)}",
            row=found[0].rows[0] if found[0].rows else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        findings = [finding.to_dict() for finding in self.findings]
        return {"fingerprint": self.fingerprint, "rows": self.rows, "counts": self.counts, "findings": findings}

    def _repr_html_(self) -> str:
        head = "<tr><th>severity</th><th>kind</th><th>what</th><th>rows</th></tr>"
        body = "".join(
            f"<tr><td>{f.severity}</td><td>{f.kind}</td><td>{html.escape(f.message)}</td><td>{_rows(f.rows)}</td></tr>"
            for f in self.findings[:50]
        )
        more = len(self.findings) - 50
        tail = f"<tr><td colspan='4'>and {more} more</td></tr>" if more > 0 else ""
        return f"<table><caption>Audit of {self.rows} rows</caption>{head}{body}{tail}</table>"


def audit_manifest(manifest: Manifest, config: AuditConfig | Config | None = None) -> Audit:
    """Look for leaks between splits, duplicates, contradicting labels and what else a reader of the result must know.

    Identical means equal decoded pixels; near-identical means a perceptual hash within ``near_distance`` bits and
    thumbnails that agree pixel by pixel (see ``near``), for which the candidates are read once more. Constant images
    are left out of both. Near-duplicates are only searched for between splits, and not within one patient.

    Args:
        manifest: with or without splits.
        config: what to search for; the targets of a whole Config say which labels may contradict each other.

    Raises:
        LabelError: a label is none of the classes of a target of ``config``.
    """
    settings = config.audit if isinstance(config, Config) else config or AuditConfig()
    targets = _targets(manifest, config)
    frame = manifest.frame[manifest.is_ok]
    findings = [*_patient_leaks(frame), *_identical(frame, label_columns=_label_columns(manifest, targets))]
    if settings.near_duplicates:
        findings += _near(manifest, frame, distance=settings.near_distance)
    findings += [*_notes(manifest, frame), *_prevalence(manifest, targets)]
    rank = {"error": 0, "warning": 1, "note": 2}
    findings.sort(key=lambda finding: rank[finding.severity])
    return Audit(tuple(findings), fingerprint=manifest.fingerprint, rows=len(manifest))


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


def _targets(manifest: Manifest, config: AuditConfig | Config | None) -> tuple[Target, ...]:
    if isinstance(config, Config) and config.targets:
        return config.targets
    return evident_targets(manifest)  # without any the audit compares the columns as they are


def _label_columns(manifest: Manifest, targets: Sequence[Target]) -> list[str]:
    named = [column for target in targets for column in target.columns if column in manifest.frame.columns]
    return named or list(manifest.label_columns)


def _patient_leaks(frame: pd.DataFrame) -> list[Finding]:
    rows = shared_patients(frame, column="split")
    groups = frame.loc[rows].groupby("patient_id", sort=False)
    findings = []
    for _, group in groups:
        where = _splits(group["split"])
        message = f"One patient stands in {where} with {len(group)} images."
        findings.append(Finding("leakage", "error", message, _positions(group), "patient"))
    return findings


def _identical(frame: pd.DataFrame, *, label_columns: Sequence[str]) -> list[Finding]:
    """Groups of equal pixels: across splits, within a split, with different labels."""
    hashed = frame[frame["pixel_hash"].notna() & frame["phash"].notna()]
    hashed = hashed[hashed["pixel_hash"].duplicated(keep=False)]
    findings = []
    for _, group in hashed.groupby("pixel_hash", sort=False):
        counts = group["split"].astype(object).fillna("").value_counts()
        if group["split"].nunique() > 1:
            message = f"{len(group)} images with identical pixels stand in {_splits(group['split'])}."
            findings.append(Finding("leakage", "error", message, _positions(group), "identical"))
        if counts.max() > 1:
            name = str(counts.index[0])
            message = f"{int(counts.max())} images with identical pixels stand in {name or 'no split'}."
            findings.append(Finding("duplicate", "warning", message, _positions(group)))
        differing = [column for column in label_columns if group[column].nunique() > 1]
        if differing:
            message = f"{len(group)} images with identical pixels have different labels in {', '.join(differing[:5])}."
            findings.append(Finding("conflict", "warning", message, _positions(group)))
    return findings


def _near(manifest: Manifest, frame: pd.DataFrame, *, distance: int) -> list[Finding]:
    """Images of two splits that show the same but are not identical."""
    usable = frame[frame["split"].notna()]
    if usable["split"].nunique() < 2:
        return []
    parts = np.asarray([SPLITS.index(value) for value in usable["split"]], dtype=np.int64)
    near = near_pairs(manifest, usable.index.to_numpy(), parts=parts, distance=distance)
    findings = []
    for group in connect(near.same.tolist()):
        members = usable.loc[group]
        message = f"{len(group)} near-identical images stand in {_splits(members['split'])}."
        findings.append(Finding("leakage", "error", message, _positions(members), "near"))
    if near.unverified:
        message = (
            f"{near.unverified} pairs may be near-identical but were not compared: a file cannot be read, or there are "
            "too many candidates (lower audit.near_distance)."
        )
        findings.append(Finding("unverified", "warning", message))
    return findings


def _notes(manifest: Manifest, frame: pd.DataFrame) -> list[Finding]:
    findings = []
    unknown = frame[~frame["patient_known"].fillna(False).to_numpy(dtype=bool)]
    if len(unknown):
        message = (
            f"{len(unknown)} of {len(frame)} usable images name no patient; each file, series or study counts as a "
            "patient of its own. Give patient_id in the label table if one patient has several."
        )
        findings.append(Finding("unknown_patient", "warning", message))
    if manifest.rejected:
        rows = np.flatnonzero(~manifest.is_ok)
        reasons = ", ".join(f"{reason}: {count}" for reason, count in manifest.rejected.items())
        message = f"{len(rows)} of {len(manifest)} rows are rejected ({reasons})."
        findings.append(Finding("rejected", "warning", message, tuple(int(row) for row in rows)))
    if manifest.unmatched_labels:
        message = f"{manifest.unmatched_labels} rows of the label table matched no file."
        findings.append(Finding("unmatched_labels", "warning", message))
    return findings


def _prevalence(manifest: Manifest, targets: Sequence[Target]) -> list[Finding]:
    """Class counts of each target by split; a warning where a split lacks a class that another one has."""
    findings = []
    usable = manifest.ok
    split = objects(usable.frame["split"])
    names: list[str | None] = [name for name in SPLITS if (split == name).any()] or [None]
    for target in targets:
        labels = usable.labels(target)
        per_split = {name or "all": _class_counts(labels[split == name], target) for name in names}
        counts = "; ".join(
            f"{name} " + ", ".join(f"{label}: {n}" for label, n in part.items()) for name, part in per_split.items()
        )
        lacking = [
            (name, label)
            for name, part in per_split.items()
            for label in target.classes
            if part[label] == 0 and any(other[label] for other in per_split.values())
        ]
        message = f"Target {target.name}: {counts}."
        message += "".join(f" Split {name} has no {label}." for name, label in lacking)
        findings.append(Finding("prevalence", "warning" if lacking else "note", message))
    return findings


def _class_counts(labels: npt.NDArray[np.float32], target: Target) -> dict[str, int]:
    if target.kind == "multilabel":
        counts = {name: int((labels[:, k] == 1).sum()) for k, name in enumerate(target.classes)}
        unknown = int(np.isnan(labels).all(axis=1).sum())
    else:
        counts = {name: int((labels == k).sum()) for k, name in enumerate(target.classes)}
        unknown = int(np.isnan(labels).sum())
    return {**counts, "unknown": unknown} if unknown else counts


def _remedy(causes: set[Cause]) -> str:
    if "patient" in causes:
        return "Divide by patient: clear the column 'split' and run split_manifest, or correct patient_id or split."
    if causes & {"identical", "near"}:
        return (
            "Set audit.on_leakage to 'drop_train' to leave out the training copies, correct the splits, or set it to "
            "'allow' if the given splits must stay as they are (and say so beside the result)."
        )
    return "Correct the label table, or remove the copies."


def _splits(values: pd.Series[Any]) -> str:
    present = set(values.dropna())
    return " and ".join(name for name in SPLITS if name in present)


def _positions(frame: pd.DataFrame) -> tuple[int, ...]:
    return tuple(int(row) for row in frame.index)


def _rows(rows: Sequence[int], *, most: int = 8) -> str:
    return ", ".join(str(row) for row in rows[:most]) + (f" … ({len(rows)})" if len(rows) > most else "")
