"""Manifest table: one row per sample, rejected files included."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lepton_vision.config.sections import GapChoice, TiltChoice
from lepton_vision.errors import ManifestError, nearest
from lepton_vision.manifest import storage
from lepton_vision.manifest.build import scan_folder, with_relative_paths
from lepton_vision.manifest.label_columns import label_array
from lepton_vision.manifest.patients import name_patients
from lepton_vision.manifest.schema import conform, take_rows
from lepton_vision.readers.identity import is_other_key
from lepton_vision.types import SPLITS, Displayed, SampleAddress, Split, Table, Target
from lepton_vision.types.id_key import ENVIRONMENT_KEY, SAME_KEY


@dataclass(frozen=True, eq=False)
class Manifest(Displayed):
    """Table of the images of a data set: patients, facts, labels and splits.

    Attributes:
        frame: one row per sample, numbered from 0. The columns of ``schema.COLUMNS`` come first (``image_id``,
            ``patient_id``, ``path``, ``member``, ``frame``, ``status``, ``reason``, ``split``, ``fold``,
            ``pixel_hash``, … and header facts), then the columns of the label table as they were given. Text is
            pandas' ``string``, whole numbers ``Int64``, both with ``pd.NA`` where unknown. A file that cannot be used
            is a row with status "rejected" and a reason code.
        root: folder that the column ``path`` is relative to.
        label_columns: columns that hold labels.
        unmatched_labels: rows of the label table that matched no file (0 without a table).
        label_notes: sentences about labels that were lost between the label table and the files.
        numbers: (N,) row of each row in the manifest that this is a part of, from 0; None where it is a whole one.
        id_key: ``identity.key_check`` of the key that the ids were made with at the scan; "" where nobody knows.

    Raises:
        ManifestError: a column stands twice or is missing, or two ok rows share an ``image_id``.

    Example:
        >>> table = pd.DataFrame({"image_id": ["a", "b"], "path": ["a.png", "b.png"], "tumour": [0, 1]})
        >>> manifest = Manifest(table, root=Path("data"), label_columns=("tumour",))
        >>> manifest.labels(Target("tumour", "binary", ("0", "1"))).tolist()
        [0.0, 1.0]
    """

    frame: pd.DataFrame
    root: Path
    label_columns: tuple[str, ...] = ()
    unmatched_labels: int = 0
    label_notes: tuple[str, ...] = ()
    numbers: npt.NDArray[np.int64] | None = None
    id_key: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "frame", conform(self.frame, label_columns=self.label_columns))
        object.__setattr__(self, "root", Path(self.root))
        object.__setattr__(self, "label_columns", tuple(self.label_columns))
        object.__setattr__(self, "label_notes", tuple(self.label_notes))
        if self.numbers is not None and len(self.numbers) != len(self.frame):  # of other rows than the frame now has
            object.__setattr__(self, "numbers", None)

    @classmethod
    def scan(
        cls,
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
    ) -> Manifest:
        """Read every file of a folder, or one MedMNIST .npz, once and join a label table; see ``build.scan_folder``."""
        how: dict[str, Any] = {"workers": workers, "volumes": volumes, "include": include, "progress": progress}
        how |= {"channels": channels, "gaps": gaps, "tilt": tilt}
        return cls(**scan_folder(folder, labels=labels, patient_from=patient_from, **how))

    @classmethod
    def from_frame(
        cls,
        table: pd.DataFrame,
        *,
        root: str | Path = ".",
        **options: Any,
    ) -> Manifest:
        """Read the files that a table names once, and no others: rows in its order, checked and typed as of ``scan``.

        Args:
            table: a row for each image. ``path`` (text) is needed: of the file, from ``root`` or absolute inside it.
                ``patient_id`` (text or number; kept as a pseudonym), ``split`` ("train", "val", "test"), ``fold``
                (whole number), ``mask`` (path of a mask, from ``root``), ``frame`` (whole number from 0, of a file of
                several images), ``site``, ``sex`` and other facts of headers may be there; empty cells are unknown.
                Every other column holds labels. Ids of images are made of the files.
            root: folder of the images.
            **options: ``workers``, ``volumes``, ``patient_from`` … as of ``scan``.

        Raises:
            ManifestError: no column ``path``, rows without a path below ``root``, contradicting rows, an unknown split,
                or no image among the files. A file that cannot be read is a rejected row.

        Example:
            >>> table = pd.DataFrame({"path": ["a.png", "b.png"], "patient_id": [1, 2], "tumour": [0, 1]})
            >>> Manifest.from_frame(table, root="data").label_columns  # doctest: +SKIP
            ('tumour',)
        """
        table = with_relative_paths(table, Path(root))
        return cls(**scan_folder(root, labels=table, listed=list(dict.fromkeys(table["path"])), **options))

    @classmethod
    def load(cls, path: str | Path) -> Manifest:
        """Read what ``save`` wrote.

        Raises:
            ManifestError: no such file, neither Parquet nor CSV, damaged, or written by a newer version.
        """
        return cls(**storage.read(Path(path)))

    def save(self, path: str | Path) -> Path:
        """Write Parquet or CSV, by suffix; the file appears whole or not at all.

        Raises:
            ManifestError: another suffix, or the file cannot be written (no space, no permission).
        """
        return storage.write(
            self.frame,
            Path(path),
            root=self.root,
            label_columns=self.label_columns,
            unmatched_labels=self.unmatched_labels,
            label_notes=self.label_notes,
            id_key=self.id_key,
        )

    def require_key(self, why: str) -> None:
        """Refuse ids that were made with another key than the user's; ``why`` ends the sentence that says so.

        Raises:
            ManifestError: they were.
        """
        if is_other_key(self.id_key):
            raise ManifestError(
                f"The ids of the manifest were made with another key than that of this machine or user, {why}. "
                f"{SAME_KEY}, or scan again here.",
                key=ENVIRONMENT_KEY,
            )

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def is_ok(self) -> npt.NDArray[np.bool_]:
        """(N,) bool: rows that can be used."""
        return _is_equal(self.frame["status"], "ok")

    @property
    def ok(self) -> Manifest:
        """The rows that can be used, numbered anew."""
        return self.select(self.is_ok)

    @property
    def rejected(self) -> dict[str, int]:
        """Number of rejected rows by reason code, most frequent first."""
        reasons = self.frame.loc[self.frame["status"] == "rejected", "reason"].fillna("unknown")
        return {str(reason): int(count) for reason, count in reasons.value_counts().items()}

    def subset(self, split: Split) -> Manifest:
        """The ok rows of one split, in manifest order; none where the manifest is not divided yet.

        Raises:
            ManifestError: no such split.
        """
        if split not in SPLITS:
            raise ManifestError(f"Unknown split {split!r}. {nearest(str(split), list(SPLITS))}", key="split")
        return self.select(self.is_ok & _is_equal(self.frame["split"], split))

    def with_patients(self, patient_from: str) -> Manifest:
        """The same rows with their patients taken from a column, or from a part of the relative path.

        Args:
            patient_from: name of a column of ``frame``; else a regular expression, whose group (or whole match) is the
                patient. Only the pseudonym is kept.

        Raises:
            ManifestError: neither a column nor a regular expression, more than one group, no row named, or ids of
                another key.

        Example:
            >>> table = pd.DataFrame({"image_id": ["a", "b"], "path": ["patient1/a.png", "patient1/b.png"]})
            >>> Manifest(table, root=Path("data")).with_patients("patient[0-9]+").frame["patient_id"].nunique()
            1
        """
        self.require_key("and patients named now would get other ids than the same patients have in it")
        return replace(self, frame=name_patients(self.frame, patient_from))

    def select(self, rows: npt.ArrayLike | pd.Series[Any]) -> Manifest:
        """The rows of a boolean mask (N,) or of integer positions, numbered anew from 0."""
        chosen = np.asarray(rows)
        if chosen.dtype == bool and chosen.shape != (len(self),):
            raise ManifestError(f"Expected a mask of {len(self)} values. Received: {chosen.size}.")
        positions = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
        numbers = positions if self.numbers is None else self.numbers[positions]
        part = copy(self)
        object.__setattr__(part, "frame", take_rows(self.frame, positions, label_columns=self.label_columns))
        object.__setattr__(part, "numbers", numbers)
        return part

    def locate(self, row: int) -> SampleAddress:
        """Location of the pixels of one row."""
        member, frame, repair = (self.frame[name].iloc[row] for name in ("member", "frame", "repair"))
        return SampleAddress(
            path=self.root / str(self.frame["path"].iloc[row]),
            member=None if pd.isna(member) else str(member),
            frame=None if pd.isna(frame) else int(frame),
            repair="" if pd.isna(repair) else str(repair),
        )

    def labels(self, target: Target) -> npt.NDArray[np.float32]:
        """Labels of all rows, rejected ones too.

        Class names are matched as text ("1.0" is "1"); where no class name is a number, an index 0 … K-1 is taken
        as well. A blank, or a word for the unknown (``words.UNKNOWN_WORDS``), is NaN: unknown, never negative.

        Returns:
            (N,) float32 class index for binary and multiclass; (N, K) of 0, 1 for multilabel; NaN where unknown.

        Raises:
            LabelError: the column is missing, or a value is none of the classes.
        """
        return label_array(self.frame, target, label_columns=self.label_columns)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over ids, labels, splits and pixel hashes of the ok rows, in order.

        It does not change when the folder moves.
        """
        names = ["image_id", "patient_id", "split", "fold", "pixel_hash", *self.label_columns]
        names += ["mask_hash"] if self.frame["mask_hash"].notna().any() else []
        table = self.frame.loc[self.frame["status"] == "ok", names]
        digest = hashlib.sha256("\x1f".join(names).encode())
        for name in names:
            text = table[name].astype("object").map(str, na_action="ignore").fillna("\x00")
            digest.update(("\x1f".join(text) + "\x1e").encode())
        return digest.hexdigest()[:16]

    def _tables(self) -> tuple[Table, ...]:
        ok = self.ok.frame
        facts: dict[str, object] = {
            "rows": len(self),
            "usable": len(ok),
            "patients": ok["patient_id"].nunique(),
            "rejected": ", ".join(f"{reason}: {n}" for reason, n in self.rejected.items()) or "none",
            "splits": _counts(ok["split"]),
            "formats": _counts(ok["source_format"]),
        }
        facts |= {name: _counts(ok[name]) for name in self.label_columns[:12]}
        return (Table("Manifest", facts.items()),)


def _is_equal(values: pd.Series[Any], text: str) -> npt.NDArray[np.bool_]:
    """(N,) where a column of text holds ``text``; compared in Arrow, as a Python string a row takes 50 MB a million."""
    return np.asarray((values == text).to_numpy(dtype=np.bool_, na_value=False))


def _counts(values: pd.Series[Any], *, most: int = 8) -> str:
    """Value counts as text, the most frequent first."""
    counts = values.astype("object").where(values.notna(), "unknown").value_counts()
    shown = [f"{value}: {n}" for value, n in list(counts.items())[:most]]
    return ", ".join(shown) + (f" … ({len(counts)} values)" if len(counts) > most else "")
