"""Predictions of one set of samples: ids, labels and probabilities, validated once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_vision.config.sections import PreprocessConfig
from lepton_vision.errors import EvaluationError, nearest
from lepton_vision.predictions.cells import Failure, TextArray, as_failures, as_text, check_labels, check_probabilities
from lepton_vision.predictions.column_names import Columns, names_of
from lepton_vision.predictions.files import check_suffix, load_fields, naming_table, save_table
from lepton_vision.predictions.ledger import Ledger
from lepton_vision.predictions.table_facts import ID_KEY, VERSION
from lepton_vision.types import SPLITS, Displayed, FloatArray, SampleAddress, Table, Target
from lepton_vision.types.id_key import ENVIRONMENT_KEY, SAME_KEY


@dataclass(frozen=True, eq=False)
class Predictions(Displayed):
    """What a model says about N samples, and what is true where that is known.

    Attributes:
        targets: what was predicted.
        image_id: (N,) str, unique.
        patient_id: (N,) str; "" where unknown, and such a sample counts as a patient of its own.
        series_id: (N,) str; "" where unknown.
        y_true: by target name, float64: (N,) 0/1 for binary, (N,) class index for multiclass and ordinal,
            (N, K) 0/1 for multilabel, (N,) the number for regression. NaN is unknown.
        y_prob: by target name, float64 in [0, 1]: (N,) of the positive class for binary, (N, K) otherwise; for
            regression (N,) the predicted value, in the unit of the target.
        split: "train", "val", "test", or None where it is not known.
        bundle_id: id of the bundle that made them, or None for another tool's.
        addresses: where the N samples lie (kept in memory and in Parquet, never in CSV), or None.
        preprocess: how the pixels were prepared, or None.
        failures: samples that could not be read.
        study_id: (N,) str, "" where unknown; None where nothing is known about studies.
        ledger: where ``evaluate`` notes a look at a test split, where it is asked to, or None. It is not saved.
        patient_known: (N,) bool, False where ``patient_id`` stands for a study, series or file, as the patient is not
            known; None where each ``patient_id`` but "" is a patient.
        id_key: ``identity.key_check`` of the key that the ids were made with; "" where nobody knows, or they are
            another tool's.

    Raises:
        EvaluationError: lengths that do not match, an id that stands twice, a probability that is NaN or outside
            [0, 1], multiclass probabilities that do not sum to one, a label outside the classes, a number that is not
            finite, an unknown split.

    Example:
        >>> covid = Target("covid", "binary", ("no", "yes"))
        >>> ids = np.array(["a", "b"])
        >>> Predictions((covid,), ids, ids, ids, {"covid": np.array([0, 1])}, {"covid": np.array([0.2, 0.7])}).n
        2
    """

    targets: tuple[Target, ...]
    image_id: TextArray
    patient_id: TextArray
    series_id: TextArray
    y_true: Mapping[str, FloatArray]
    y_prob: Mapping[str, FloatArray]
    split: str | None = None
    bundle_id: str | None = None
    addresses: tuple[SampleAddress, ...] | None = None
    preprocess: PreprocessConfig | None = None
    failures: tuple[Failure, ...] = field(default=())
    study_id: TextArray | None = None
    ledger: Ledger | None = field(default=None, repr=False, compare=False)
    patient_known: npt.NDArray[np.bool_] | None = None
    id_key: str = ""

    def __post_init__(self) -> None:
        for name in self.ids:
            object.__setattr__(self, name, as_text(getattr(self, name)))
        for name in ("y_true", "y_prob"):
            values = {key: np.asarray(array, dtype=np.float64) for key, array in getattr(self, name).items()}
            object.__setattr__(self, name, values)
        if self.patient_known is not None:
            object.__setattr__(self, "patient_known", np.asarray(self.patient_known, dtype=np.bool_))
        object.__setattr__(self, "failures", as_failures(self.failures))
        _check_ids(self)
        for target in self.targets:
            _check_shapes(self, target)
            check_probabilities(self.y_prob[target.name], target)
            check_labels(self.y_true[target.name], target)

    def __len__(self) -> int:
        return self.n

    @property
    def test_ledger(self) -> Ledger | None:
        """Ledger for looks at these predictions; None if they are of no test split, or belong to no run."""
        return self.ledger if self.split == "test" else None

    @property
    def cases(self) -> str:
        """16 hexadecimal digits for the images and their labels, in any order; not for what a model says of them."""
        digest, order = hashlib.sha256(), np.argsort(self.image_id)
        for target in self.targets:
            digest.update(target.name.encode() + self.y_true[target.name][order].tobytes())
        digest.update("\n".join(self.image_id[order].tolist()).encode())
        return digest.hexdigest()[:16]

    @property
    def n(self) -> int:
        """Number of samples N (failures are not among them)."""
        return int(self.image_id.shape[0])

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the id columns that are there."""
        names = ("image_id", "patient_id", "series_id")
        return names if self.study_id is None else (*names, "study_id")

    @property
    def names_patient(self) -> npt.NDArray[np.bool_]:
        """(N,) bool: samples whose patient is known."""
        is_given = np.asarray(self.patient_id != "", dtype=np.bool_)
        return is_given if self.patient_known is None else is_given & self.patient_known

    def target(self, name: str) -> Target:
        """Return the target of that name; EvaluationError names the nearest one."""
        for target in self.targets:
            if target.name == name:
                return target
        names = [target.name for target in self.targets]
        raise EvaluationError(f"No target {name!r} in these predictions. {nearest(name, names)}", key=name)

    def labelled(self, target: Target) -> npt.NDArray[np.bool_]:
        """Mark the samples with a known label, (N,) bool; for multilabel, with a label for at least one class."""
        known = ~np.isnan(self.y_true[target.name])
        return np.asarray(known.any(axis=1) if known.ndim == 2 else known, dtype=np.bool_)

    def select(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.intp] | Sequence[int]) -> Predictions:
        """Keep some samples: a (N,) bool mask, or positions in the order wanted; failures are left out.

        Raises:
            EvaluationError: a mask of another length, a position outside 0 … N-1, or one that is given twice.
        """
        wanted = np.asarray(rows)
        if wanted.dtype == np.bool_ and wanted.shape != (self.n,):
            raise EvaluationError(f"A mask needs one value for each of the {self.n} samples. Received: {wanted.shape}.")
        if wanted.dtype == np.bool_ and wanted.all():  # nothing to copy: a thousand classes take gigabytes
            return replace(self, failures=()) if self.failures else self
        positions = np.flatnonzero(wanted) if wanted.dtype == np.bool_ else wanted.astype(np.intp)
        if positions.size and (positions.min() < 0 or positions.max() >= self.n):
            raise EvaluationError(
                f"Positions must lie in 0 … {self.n - 1}. Received: {positions.min()} … {positions.max()}."
            )
        addresses = None if self.addresses is None else tuple(self.addresses[i] for i in positions)
        return replace(
            self,
            image_id=self.image_id[positions],
            patient_id=self.patient_id[positions],
            series_id=self.series_id[positions],
            y_true={name: values[positions] for name, values in self.y_true.items()},
            y_prob={name: values[positions] for name, values in self.y_prob.items()},
            addresses=addresses,
            failures=(),
            study_id=None if self.study_id is None else self.study_id[positions],
            patient_known=None if self.patient_known is None else self.patient_known[positions],
        )

    @classmethod
    def concat(cls, parts: Sequence[Predictions]) -> Predictions:
        """Put the predictions of several folds together; an image may stand in one part only.

        Raises:
            EvaluationError: no part, other targets, another split (a threshold must not be chosen on hidden test
                samples), ids of two keys, or an image that stands in two parts.
        """
        if not parts:
            raise EvaluationError("Nothing to put together: give at least one Predictions.")
        first = parts[0]
        if any(part.targets != first.targets for part in parts):
            raise EvaluationError("The parts predict different targets. Put together only folds of one study.")
        splits = {part.split for part in parts}
        if len(splits) > 1:
            names = ", ".join(sorted(str(split) for split in splits))
            raise EvaluationError(f"The parts are of different splits: {names}. Evaluate each split by itself.")
        keys = sorted({part.id_key for part in parts} - {""})
        if len(keys) > 1:
            raise EvaluationError(
                "The ids of the parts were made with different keys, so that one image may stand in two of them. "
                f"{SAME_KEY}, and predict again.",
                key=ENVIRONMENT_KEY,
            )
        bundles = list(dict.fromkeys(part.bundle_id for part in parts if part.bundle_id is not None))
        addresses = [part.addresses for part in parts if part.addresses is not None]
        studies = [part.study_id for part in parts if part.study_id is not None]
        image_id, patient_id, series_id = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("image_id", "patient_id", "series_id")
        )
        return cls(
            first.targets,
            image_id,
            patient_id,
            series_id,
            {name: np.concatenate([part.y_true[name] for part in parts]) for name in first.y_true},
            {name: np.concatenate([part.y_prob[name] for part in parts]) for name in first.y_prob},
            split=first.split,
            bundle_id="+".join(bundles) or None,
            ledger=first.ledger,
            addresses=tuple(a for part in addresses for a in part) if len(addresses) == len(parts) else None,
            preprocess=first.preprocess if all(part.preprocess == first.preprocess for part in parts) else None,
            failures=tuple(failure for part in parts for failure in part.failures),
            study_id=np.concatenate(studies) if len(studies) == len(parts) else None,
            patient_known=np.concatenate([part.names_patient for part in parts]),
            id_key="".join(keys),
        )

    def save(self, path: str | Path) -> Path:
        """Write ``.csv`` or ``.parquet`` atomically; every float comes back bit for bit.

        What is known of the whole table (targets, bundle, split) stands in ``PATH.json`` beside a CSV; without it the
        targets are taken from the columns.

        Raises:
            EvaluationError: another suffix, two columns of one name, or the file cannot be written.
        """
        path = Path(path)
        columns = _columns_of(self, as_arrays=check_suffix(path) == ".parquet")
        return save_table(path, columns, facts=_facts_of(self), addresses=self.addresses)

    @classmethod
    def load(
        cls, path: str | Path, *, targets: Sequence[Target] | None = None, columns: Mapping[str, str] | None = None
    ) -> Predictions:
        """Read what ``save`` wrote, or the plain ``image_id, patient_id, y_true, y_prob`` of any other tool.

        Args:
            path: a ``.csv`` or ``.parquet`` file.
            targets: what the columns mean; None takes it from the file. A file of another tool with ``y_true`` and
                ``y_prob`` becomes one binary target ``y`` with the classes 0 and 1, one with ``y_value`` a number. An
                empty ``y_true`` is unknown.
            columns: names in a table of another tool, by ours: ``{"image_id": "file", "y_prob": "score"}``. Usual ones
                (``predictions.column_names``) are known.

        Raises:
            EvaluationError: no such file, a missing column (the nearest one is named), or values as for the class.
        """
        with naming_table(path):
            return cls(**load_fields(path, targets=targets, columns=columns))

    def _tables(self) -> tuple[Table, ...]:
        facts = {"samples": self.n, "failed": len(self.failures), "split": self.split, "bundle": self.bundle_id}
        caption = " · ".join(f"{key}: {value}" for key, value in facts.items())
        rows = []
        for target in self.targets:
            labels, known = self.y_true[target.name], int(self.labelled(target).sum())
            rows.append((target.name, target.kind, known, _summary(labels, target)))
        return (Table(f"Predictions · {caption}", rows, ("target", "kind", "labelled", "labels")),)


def _summary(labels: FloatArray, target: Target) -> str:
    """How many labels there are of each class, or mean and range of the numbers."""
    if target.is_value:
        known, unit = labels[~np.isnan(labels)], f" {target.unit}" if target.unit else ""
        return f"mean {known.mean():.4g}, {known.min():.4g} to {known.max():.4g}{unit}" if known.size else "none"
    of_each = labels.T if target.has_label_by_class else labels == np.arange(len(target.classes))[:, None]
    return ", ".join(f"{name} {int(np.nansum(one))}" for name, one in zip(target.classes, of_each, strict=True))


def _check_ids(predictions: Predictions) -> None:
    n = predictions.image_id.shape[0] if predictions.image_id.ndim == 1 else -1
    lengths = {name: np.shape(getattr(predictions, name)) for name in predictions.ids}
    if predictions.patient_known is not None:
        lengths["patient_known"] = predictions.patient_known.shape
    if predictions.addresses is not None:
        lengths["addresses"] = (len(predictions.addresses),)
    if any(shape != (n,) for shape in lengths.values()):
        shown = ", ".join(f"{name} {shape}" for name, shape in lengths.items())
        raise EvaluationError(f"Every column needs one value for each sample. Received shapes: {shown}.")
    unique, counts = np.unique(predictions.image_id, return_counts=True)
    if unique.size != n:
        row = int(np.flatnonzero(predictions.image_id == unique[np.argmax(counts)])[1])
        raise EvaluationError(
            f"Each image_id must stand once. Received: {n - unique.size} repeated ids, one in row {row} (from 0). "
            "Remove the duplicates, or keep one row per image.",
            row=row,
            key="image_id",
        )
    if np.any(predictions.image_id == ""):
        row = int(np.flatnonzero(predictions.image_id == "")[0])
        raise EvaluationError(f"Row {row} (from 0) has no image_id. Give every row one.", row=row, key="image_id")
    if predictions.split is not None and predictions.split not in SPLITS:
        expected = ", ".join(SPLITS)
        raise EvaluationError(
            f"Unknown split. Expected: {expected} or none. Received: {predictions.split!r}.", key="split"
        )
    names = [target.name for target in predictions.targets]
    if not names or len(set(names)) != len(names):
        raise EvaluationError(f"Predictions need at least one target, each once. Received: {names}.", key="targets")


def _check_shapes(predictions: Predictions, target: Target) -> None:
    n = predictions.n
    expected = {"y_true": target.label_shape(n), "y_prob": target.output_shape(n)}
    for name, shape in expected.items():
        values: FloatArray | None = getattr(predictions, name).get(target.name)
        if values is None:
            raise EvaluationError(
                f"{name} lacks the target {target.name!r}. Give an array of shape {shape}.", key=target.name
            )
        if values.shape != shape:
            raise EvaluationError(
                f"{name} of the {target.kind} target {target.name!r} needs shape {shape}. Received: {values.shape}.",
                key=target.name,
            )


def _columns_of(predictions: Predictions, *, as_arrays: bool) -> Columns:
    """Cells by column; numbers as arrays, which take a quarter of what lists take, or as lists."""
    columns: Columns = {name: getattr(predictions, name).tolist() for name in predictions.ids}
    if not predictions.names_patient.all():
        columns["patient_known"] = predictions.names_patient.astype(int).tolist()
    columns["split"] = [predictions.split] * predictions.n
    for target in predictions.targets:
        names = names_of(target, len(predictions.targets) == 1)
        for kind_names, values in zip(names, (predictions.y_true, predictions.y_prob), strict=True):
            table = values[target.name].reshape(predictions.n, len(kind_names))
            for k, name in enumerate(kind_names):
                if name in columns:
                    raise EvaluationError(
                        f"Two columns would be called {name!r}. Rename a target or a class.", key=name
                    )
                columns[name] = table[:, k] if as_arrays else table[:, k].tolist()
    return columns


def _facts_of(predictions: Predictions) -> dict[str, Any]:
    """Plain values for JSON, as ``parse_facts`` gives them back."""
    targets = [
        {"name": t.name, "kind": t.kind, "classes": t.classes, "column": t.column, "is_lateral": t.is_lateral}
        | ({"unit": t.unit} if t.unit else {})
        for t in predictions.targets
    ]
    preprocess = predictions.preprocess
    return {
        "version": VERSION,
        "targets": targets,
        "split": predictions.split,
        "bundle_id": predictions.bundle_id,
        "preprocess": None if preprocess is None else json.loads(preprocess.model_dump_json()),
        "failures": [list(failure) for failure in predictions.failures],
        ID_KEY: predictions.id_key,
    }
