"""Findings of an audit: single, grouped where equal, and as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

import pandas as pd

from lepton_vision.errors import LeakageError, ManifestError, explain_os_error, nearest
from lepton_vision.files import atomic_file, check_place
from lepton_vision.manifest.storage import table_csv
from lepton_vision.types import SPLITS, Displayed, Table
from lepton_vision.types.columns import Column

Kind = Literal[
    "leakage",
    "duplicate",
    "conflict",
    "unverified",
    "unknown_patient",
    "rejected",
    "unmatched_labels",
    "labels",
    "narrow_range",
    "burned_in",
    "prevalence",
    "masks",
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
MEANINGS: Final[Mapping[Kind, str]] = {
    "leakage": "a patient or an image in two splits",
    "duplicate": "identical pixels inside one split",
    "conflict": "identical or near-identical images with different labels",
    "unverified": "perhaps near-duplicates, not compared",
    "unknown_patient": "images whose patient is not known",
    "rejected": "rows that cannot be used, with their reason codes",
    "unmatched_labels": "rows of the label table without an image, and images without a row",
    "labels": "labels that no target can be made of without being told how",
    "narrow_range": "images that use little of the range of values that they are shown by",
    "burned_in": "text in the pixels, stated or usual for the kind of image",
    "prevalence": "shares of the classes that differ between the splits",
    "masks": "values of masks, and structures that never occur in them",
}
"""What each kind means."""
Cause = Literal["", "patient", "identical", "near"]
_WHAT: Final[dict[tuple[str, str], str]] = {
    ("leakage", "patient"): "patients in two splits",
    ("leakage", "identical"): "groups of identical images in two splits",
    ("leakage", "near"): "groups of near-identical images in two splits",
    ("duplicate", ""): "groups of identical images",
    ("conflict", ""): "groups of identical images with different labels",
    ("conflict", "near"): "groups of near-identical images with different labels",
}
_PLACE: Final = ("image_id", "path", "member", "frame", "split")
TABLE_COLUMNS: Final = (
    Column("group", "always", "from 0", "number of the group of equal findings"),
    Column("finding", "always", "from 0", "number of the finding"),
    Column("kind", "always", "", "[kind of finding](reason-codes.md#findings-of-an-audit)"),
    Column("severity", "always", "", "`error`: settle it before training; `warning`: look at it; `note`"),
    Column("cause", "leakage and conflict", "", "`patient`, `identical` or `near`"),
    Column("message", "always", "", "a sentence without patient data"),
    Column("row", "findings about images", "from 0", "row of the manifest; a finding has a line for each"),
    *(Column(name, "with `row`", "", "as in the manifest") for name in _PLACE),
    Column("label_<column>", "with `row`", "", "label of that column"),
)
"""Of the table of findings."""
_EXAMPLES: Final = 3
_EXAMPLE_ROWS: Final = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding of an audit.

    Attributes:
        kind: what it is, see ``KINDS``.
        severity: "error" must be settled before training, "warning" should be looked at, "note" is for information.
        message: a sentence without patient data.
        rows: rows of the audited manifest, from 0; none where it concerns the manifest as a whole.
        cause: of leakage "patient", "identical" or "near"; of a conflict of near-identical images "near"; else "".
        splits: where its rows stand.
    """

    kind: Kind
    severity: Literal["error", "warning", "note"]
    message: str
    rows: tuple[int, ...] = ()
    cause: Cause = ""
    splits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FindingGroup:
    """Findings of the same kind about different images.

    Attributes:
        findings: of one kind, severity, cause and place; at least one.
    """

    findings: tuple[Finding, ...]

    @property
    def message(self) -> str:
        """The sentence of a single finding, or what there are so many of."""
        first = self.findings[0]
        if len(self.findings) == 1:
            return first.message
        what = _WHAT.get((first.kind, first.cause), first.kind)
        where = " and ".join(first.splits) or "no split"
        return f"{len(self.findings):,} {what} ({where}), {len(self.rows):,} images in all."

    @property
    def rows(self) -> list[int]:
        """All rows concerned, each once."""
        return list(dict.fromkeys(row for finding in self.findings for row in finding.rows))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; ``groups`` are the rows of each finding."""
        first = self.findings[0]
        return {
            "kind": first.kind,
            "severity": first.severity,
            "cause": first.cause,
            "splits": list(first.splits),
            "message": self.message,
            "count": len(self.findings),
            "rows": self.rows,
            "groups": [list(finding.rows) for finding in self.findings],
        }


@dataclass(frozen=True, slots=True)
class Audit(Displayed):
    """All findings of the audit of one manifest.

    Attributes:
        findings: errors first; one finding for each patient or group of images concerned.
        fingerprint: of the manifest that was looked at.
        rows: its number of rows.
        table: its ids, paths, splits and labels, by row.
    """

    findings: tuple[Finding, ...]
    fingerprint: str
    rows: int
    table: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False, compare=False)

    @property
    def leaks(self) -> tuple[Finding, ...]:
        """Patients and images that stand in two splits."""
        return tuple(finding for finding in self.findings if finding.kind == "leakage")

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings by kind."""
        return dict(Counter(finding.kind for finding in self.findings))

    @property
    def groups(self) -> tuple[FindingGroup, ...]:
        """Equal findings together, in the order of the first of each."""
        alike: dict[tuple[Any, ...], list[Finding]] = {}
        for one in self.findings:
            alike.setdefault((one.kind, one.severity, one.cause, one.splits), []).append(one)
        return tuple(FindingGroup(tuple(some)) for some in alike.values())

    def raise_on(self, kinds: Collection[str]) -> None:
        """Stop at findings of these kinds; notes stop nothing.

        Raises:
            LeakageError: how many of what, the first rows and what to do (exit code 1).
            ManifestError: a kind that does not exist.
        """
        for kind in kinds:
            if kind not in KINDS:
                raise ManifestError(f"Unknown kind of finding {kind!r}. {nearest(kind, list(KINDS))}", key=kind)
        found = [finding for finding in self.findings if finding.kind in kinds and finding.severity != "note"]
        if not found:
            return
        counts = Counter(_WHAT.get((finding.kind, finding.cause), finding.kind) for finding in found)
        what = "; ".join(f"{name}: {count}" for name, count in counts.items())
        groups = "; ".join(_numbers(finding.rows) for finding in found[:3] if finding.rows)
        first = f" Rows of the first: {groups}." if groups else ""
        raise LeakageError(
            f"The audit found {what}. Expected none.{first} {_remedy(found)}",
            row=found[0].rows[0] if found[0].rows else None,
        )

    def to_dict(self, *, with_paths: bool = False) -> dict[str, Any]:
        """Plain values for JSON, equal findings together.

        Args:
            with_paths: also give the path of each of the ``rows``, relative to the root.
        """
        findings = [
            group.to_dict() | ({"paths": self._paths(group.rows)} if with_paths else {}) for group in self.groups
        ]
        return {"fingerprint": self.fingerprint, "rows": self.rows, "counts": self.counts, "findings": findings}

    def summary(self) -> dict[str, Any]:
        """Text for a person: a line for equal findings, with rows and relative paths of the first of them."""
        names = ("severity", "kind", "cause", "count", "message")
        findings = [
            {name: value for name, value in group.to_dict().items() if name in names}
            | {"examples": "; ".join(map(self._example, group.findings[:_EXAMPLES]))}
            for group in self.groups
        ]
        return {"fingerprint": self.fingerprint, "rows": self.rows, "counts": self.counts, "findings": findings}

    def _example(self, finding: Finding) -> str:
        if not finding.rows:
            return ""
        rows = finding.rows[:_EXAMPLE_ROWS]
        return f"rows {_numbers(finding.rows, most=_EXAMPLE_ROWS)} ({', '.join(self._paths(rows))})"

    def _paths(self, rows: Sequence[int]) -> list[str]:
        if "path" not in self.table:
            return []
        parts = self.table.loc[list(rows), ["path", "member", "frame"]].astype(object)
        return ["#".join(str(one) for one in place if not pd.isna(one)) for place in parts.itertuples(index=False)]

    def to_frame(self) -> pd.DataFrame:
        """Every finding with every row of it: one line each, in the order of ``findings``.

        Columns are those of ``TABLE_COLUMNS``. A finding without rows is one line.
        """
        number = {id(one): k for k, group in enumerate(self.groups) for one in group.findings}
        lines = [
            (number[id(one)], k, one.kind, one.severity, one.cause, one.message, row)
            for k, one in enumerate(self.findings)
            for row in (one.rows or (None,))
        ]
        names = ["group", "finding", "kind", "severity", "cause", "message", "row"]
        found = pd.DataFrame(lines, columns=names).astype({"row": "Int64"})
        there = self.table.rename(columns={name: f"label_{name}" for name in self.table.columns if name not in _PLACE})
        return found.join(there, on="row")

    def save(self, path: str | Path) -> Path:
        """Write ``to_frame`` as CSV or Parquet, by suffix; the file appears whole or not at all, with mode 0600.

        Text that a spreadsheet would take for a formula begins with an apostrophe in CSV.

        Raises:
            ManifestError: another suffix, or the file cannot be written.
        """
        path, table = Path(path), self.to_frame()
        check_output(path)
        advice = "Nothing was written. Free space or choose another place."
        with explain_os_error("write the findings", error=ManifestError, advice=advice, path=path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path, private=True) as file:  # paths may hold names of patients
                if path.suffix.lower() == ".parquet":
                    table.to_parquet(file, index=False)
                else:
                    file.write(table_csv(table))
        return path

    def _tables(self) -> tuple[Table, ...]:
        firsts = [(group.findings[0], group) for group in self.groups]
        rows = [(one.severity, one.kind, group.message, _numbers(group.rows)) for one, group in firsts]
        return (Table(f"Audit of {self.rows} rows", rows, ("severity", "kind", "what", "rows")),)


def splits_of(values: pd.Series[Any]) -> tuple[str, ...]:
    """The splits that occur, in their order."""
    present = set(values.dropna())
    return tuple(name for name in SPLITS if name in present)


def _remedy(found: Sequence[Finding]) -> str:
    causes = {finding.cause for finding in found if finding.kind == "leakage"}
    if "patient" in causes:
        return "Divide by patient (split --redraw; in Python redraw=True), or correct patient_id or split."
    if causes:
        return (
            "Set audit.on_leakage to 'drop_train' to leave out the training copies, correct the splits, or set it to "
            "'allow' if the given splits must stay as they are (and say so beside the result)."
        )
    if all(finding.kind == "unknown_patient" for finding in found):
        return found[0].message
    return "Correct the label table, or remove the copies. `audit --out findings.csv` lists every image."


def _numbers(rows: Sequence[int], *, most: int = 8) -> str:
    return ", ".join(str(row) for row in rows[:most]) + (f" … ({len(rows)})" if len(rows) > most else "")


def check_output(path: Path) -> None:
    """Refuse a place that no findings can be written to, before any work.

    Raises:
        ManifestError: another suffix, a folder, or a place that cannot be written.
    """
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise ManifestError(
            f"Findings are written to a .csv or .parquet file. Received: {path.suffix or 'no suffix'!r}.", path=path
        )
    check_place(path, what="table of findings", error=ManifestError)
