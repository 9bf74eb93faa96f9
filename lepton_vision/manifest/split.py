"""Patient-level splits and folds: stratified and reproducible, never with one patient on both sides."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lepton_vision.config import AuditConfig, Config
from lepton_vision.config.sections import SplitConfig
from lepton_vision.errors import LabelError, LeakageError, ManifestError
from lepton_vision.manifest.allocation import allocate
from lepton_vision.manifest.class_counts import label_groups
from lepton_vision.manifest.labels import evident_targets, warn_lost
from lepton_vision.manifest.near_duplicates import connect, near_pairs
from lepton_vision.manifest.patients import known_patients, warn_unknown
from lepton_vision.manifest.schema import COLUMNS, objects
from lepton_vision.manifest.table import Manifest
from lepton_vision.types import SPLITS, Split, Target

_LOGGER = logging.getLogger(__name__)
_MOST_VALUES = 64  # distinct values of a column that are balanced; beyond it only the most frequent


@dataclass(frozen=True)
class _Groups:
    """Rows that must stay together: of one patient, or of the same image.

    Attributes:
        codes: (N,) group number of each row of ``manifest``.
        tokens: (G,) text that names a group independently of row order and of the key of the pseudonyms.
    """

    manifest: Manifest
    codes: npt.NDArray[np.int64]
    tokens: tuple[str, ...]


def split_manifest(
    manifest: Manifest,
    config: SplitConfig | Config | None = None,
    *,
    targets: Sequence[Target] | None = None,
    redraw: bool = False,
) -> Manifest:
    """Divide the patients into train, val and test, and into folds where the configuration asks for them.

    No patient stands in two parts, nor do identical or near-identical images (see ``near``; candidates are read once
    more). Classes and the columns of ``balance_by`` are
    spread alike; the number of patients (with their duplicates) in each part is the asked share, rounded. The result
    depends on the seed and on the relative paths, not on the order of rows.

    Splits that the manifest already has are kept and checked, unless ``redraw`` asks to divide anew. Where train and
    test are given without val, val is cut out of train. A given test split stays outside
    the folds.

    Args:
        manifest: rejected rows get no split.
        config: shares, folds, seed and columns to balance; a whole Config also gives its targets.
        targets: what to stratify by; None takes those of the config, or of the label columns.
        redraw: forget the splits that the manifest has, official ones too; figures then compare with no other's.

    Raises:
        LeakageError: given splits share a patient.
        LabelError: a split would have one class only, or no label; given ones may, but for train.
        ManifestError: no usable row, too few patients, or splits given for a part of the rows only.

    Example:
        >>> table = pd.DataFrame({"image_id": list("abcdefgh"), "path": list("abcdefgh"), "y": [0, 1] * 4})
        >>> manifest = Manifest(table, root=".", label_columns=("y",))
        >>> split_manifest(manifest, SplitConfig(val=0.25, test=0.25)).frame["split"].value_counts().to_dict()
        {'train': 4, 'val': 2, 'test': 2}
    """
    if redraw:
        manifest = replace(manifest, frame=manifest.frame.assign(split=pd.Series(dtype=COLUMNS["split"])))
    settings, targets = _settings(manifest, config, targets=targets)
    usable = manifest.ok
    if not len(usable):
        raise ManifestError(
            f"Expected at least one usable image. Received: {len(manifest)} rows, all rejected "
            f"({manifest.rejected or 'none'}). See the column 'reason'."
        )
    warn_unknown(manifest.frame)
    warn_lost(manifest, targets)
    given = usable.frame["split"]
    if given.notna().any():
        check_patients(manifest.frame[manifest.is_ok], column="split")
        split = _keep_given(usable, settings, targets=targets)
    else:
        split = _draw(usable, settings, targets=targets)
    result = _with_column(manifest, "split", values=split)
    check_classes(result, targets, given=set(given.dropna()))
    if settings.folds:
        folded = _with_folds(manifest, settings, targets=targets)  # of the splits as they were given
        result = replace(result, frame=result.frame.assign(fold=folded.frame["fold"]))
    return result


def fold_split(
    manifest: Manifest,
    fold: int,
    *,
    folds: int = 0,
    config: SplitConfig | Config | None = None,
    targets: Sequence[Target] | None = None,
) -> Manifest:
    """The split of one round of cross-validation: test is the fold, val a share of the other patients, train the rest.

    Args:
        manifest: splits it has are replaced, but a row of its test split stays outside the folds where they are drawn.
        fold: number of the fold, from 0.
        folds: draw so many patient-grouped folds first (the same for every ``fold``); 0 uses the column ``fold``.
        config: ``val`` is the share of the patients outside the fold; the seed draws folds and val.
        targets: what to stratify by, as in ``split_manifest``.

    Raises:
        ManifestError: no folds, no such fold, or too few patients.
        LeakageError: a patient stands in two folds.
        LabelError: train or val would have one class only; a fold itself may, as folds are judged together.
    """
    settings, targets = _settings(manifest, config, targets=targets)
    if folds:
        settings = settings.model_copy(update={"folds": folds})
        manifest = _with_folds(manifest, settings, targets=targets)
    usable = manifest.ok
    given = objects(usable.frame["fold"])
    known = sorted({int(value) for value in given if value is not None})
    if fold not in known:
        raise ManifestError(
            f"Expected one of the folds {known}. Received: {fold}. Make folds with split_manifest and split.folds.",
            key="fold",
        )
    check_patients(manifest.frame[manifest.is_ok], column="fold")
    split = np.full(len(usable), None, dtype=object)
    split[given == fold] = "test"
    is_rest = np.asarray([value is not None and value != fold for value in given], dtype=bool)
    how: dict[str, Any] = {"settings": settings, "targets": targets, "purpose": f"fold {fold}"}
    split[is_rest] = _assign(usable.select(is_rest), {"train": 1 - settings.val, "val": settings.val}, **how)
    result = _with_column(manifest, "split", values=split)
    check_classes(result, targets, splits=("train", "val"))  # held-out parts are judged together
    return result


def check_patients(frame: pd.DataFrame, *, column: str) -> None:
    """Refuse a patient who stands in two parts of ``column``.

    Raises:
        LeakageError: with the number of patients and the first rows.
    """
    rows = shared_patients(frame, column=column)
    if len(rows):
        patients = frame.loc[rows, "patient_id"].nunique()
        parts = sorted(str(value) for value in frame.loc[rows, column].dropna().unique())
        raise LeakageError(
            f"{patients} patients stand in more than one {column} ({', '.join(parts)}), {len(rows)} rows in all, the "
            f"first: {[int(row) for row in rows[:8]]}. Expected all images of a patient in one {column}. "
            f"Correct the column {column!r} of the label table, or clear it to have the patients divided anew.",
            row=int(rows[0]),
            key=column,
        )


def shared_patients(frame: pd.DataFrame, *, column: str) -> npt.NDArray[np.int64]:
    """Rows of the patients who stand in two parts of ``column``; rows without a part do not count.

    Copies of a file that names no patient, series or study are no patient, whatever their id, but identical images.
    """
    placed = frame.loc[frame[column].notna() & frame["patient_id"].notna(), ["patient_id", column]]
    counts = placed.groupby("patient_id")[column].transform("nunique")
    shared = frame.loc[placed.index[counts.to_numpy() > 1]]
    ids = zip(objects(shared["image_id"]), objects(shared["patient_id"]), strict=True)
    is_file = ~known_patients(shared) & np.array([str(own).startswith(str(whose)) for own, whose in ids], dtype=bool)
    files = [shared[name].fillna("").mask(~is_file, "") for name in ("path", "member")]
    counts = shared.groupby([shared["patient_id"], *files])[column].transform("nunique")
    return shared.index[counts.to_numpy() > 1].to_numpy(dtype=np.int64)


def check_classes(
    manifest: Manifest, targets: Sequence[Target], *, given: Collection[str] = (), splits: Sequence[Split] = SPLITS
) -> None:
    """Refuse a split whose labelled rows all have one class, or that has no label at all.

    A given val or test split is kept, whatever it has: it is said what cannot be judged.

    Raises:
        LabelError: names target, split and class.
    """
    for split in splits:
        part = manifest.subset(split)
        for target in targets if len(part) else ():
            fault = _class_fault(part, target)
            if fault and (split == "train" or split not in given):
                raise LabelError(
                    f"Split {split!r} ({len(part)} rows) has {fault} for target {target.name!r}. Expected at least two "
                    f"{'values' if target.is_value else 'classes'} in each split: add patients, change "
                    "split.seed or the shares split.val and split.test, or "
                    "correct the given split.",
                    key=target.name,
                )
            if fault:
                _LOGGER.warning(
                    "The given %s split (%d images) has %s for target %r: it can be predicted, not judged.",
                    split,
                    len(part),
                    fault,
                    target.name,
                )


def _class_fault(part: Manifest, target: Target) -> str:
    """Fault of the labels of one target, in words; "" where two classes are there."""
    labels = part.labels(target)
    columns = labels.reshape(len(part), -1)
    seen = [np.unique(column[~np.isnan(column)]) for column in columns.T]
    most = max(map(len, seen))
    if most >= 2:
        return ""
    if not most:
        return "no label"
    if target.has_label_by_class:
        return "no class with both values"
    return "only one value" if target.is_value else f"only class {target.classes[int(seen[0][0])]!r}"


def _settings(
    manifest: Manifest, config: SplitConfig | Config | None, *, targets: Sequence[Target] | None
) -> tuple[SplitConfig, tuple[Target, ...]]:
    """Shares and targets to use; without any told or inferable target the raw label columns are balanced instead."""
    settings = config.split if isinstance(config, Config) else config or SplitConfig()
    if targets is None or not len(targets):
        targets = config.targets if isinstance(config, Config) else ()
    if not len(targets) and manifest.label_columns:
        targets = evident_targets(manifest)
        if not targets:  # nothing can be checked, yet the values can be spread alike
            settings = settings.model_copy(update={"balance_by": (*settings.balance_by, *manifest.label_columns)})
    return settings, tuple(targets)


def _keep_given(usable: Manifest, settings: SplitConfig, *, targets: Sequence[Target]) -> npt.NDArray[np.object_]:
    """Check given splits; cut val out of train where only train and test are given."""
    given = usable.frame["split"]
    missing = given.isna().to_numpy() & _is_labelled(usable, targets)
    if missing.any():
        raise ManifestError(
            f"{int(missing.sum())} of {len(usable)} usable labelled rows have no split while the others have one "
            f"(first row without: {int(np.flatnonzero(missing)[0])}). Give every row a split, or none.",
            key="split",
        )
    split = objects(given)
    if "train" not in split:
        raise ManifestError(
            "The given splits have no train part. Give one, or divide anew (split --redraw).", key="split"
        )
    if "val" not in split and "test" in split and settings.val > 0:
        is_train = split == "train"
        how: dict[str, Any] = {"settings": settings, "targets": targets, "purpose": "val of train"}
        split[is_train] = _assign(usable.select(is_train), {"train": 1 - settings.val, "val": settings.val}, **how)
    return split


def _is_labelled(usable: Manifest, targets: Sequence[Target]) -> npt.NDArray[np.bool_]:
    """Rows with a known label; every row where there is nothing to know."""
    if targets:
        known = [~np.isnan(usable.labels(target).reshape(len(usable), -1)).all(axis=1) for target in targets]
        return np.asarray(np.any(known, axis=0), dtype=bool)
    if usable.label_columns:
        return np.asarray(usable.frame[list(usable.label_columns)].notna().any(axis=1).to_numpy(), dtype=bool)
    return np.ones(len(usable), dtype=bool)


def _draw(usable: Manifest, settings: SplitConfig, *, targets: Sequence[Target]) -> npt.NDArray[np.object_]:
    shares = {"train": 1 - settings.val - settings.test, "val": settings.val, "test": settings.test}
    return _assign(usable, shares, settings=settings, targets=targets, purpose="split")


def _with_folds(manifest: Manifest, settings: SplitConfig, *, targets: Sequence[Target]) -> Manifest:
    """Number the folds; rows that already belong to a test split get none."""
    usable = manifest.ok
    is_open = np.asarray(objects(usable.frame["split"]) != "test", dtype=bool)
    folds = np.full(len(usable), None, dtype=object)
    shares = dict.fromkeys(range(settings.folds), 1 / settings.folds)
    folds[is_open] = _assign(usable.select(is_open), shares, settings=settings, targets=targets, purpose="folds")
    return _with_column(manifest, "fold", values=folds)


def _assign(
    usable: Manifest,
    shares: Mapping[Any, float],
    *,
    settings: SplitConfig,
    targets: Sequence[Target],
    purpose: str,
) -> npt.NDArray[np.object_]:
    """The name of a part for every row, whole groups at a time; ``shares`` are by name."""
    groups = _group(usable)
    parts = sum(share > 0 for share in shares.values())
    if len(groups.tokens) < parts:
        raise ManifestError(
            f"Expected at least {parts} patients for {parts} parts. Received: {len(groups.tokens)} "
            f"({len(usable)} usable images; patients who share an image count as one). "
            "Add patients, name them (--patient-from, or patient_id in the label table), or set split.val and "
            "split.test to 0."
        )
    traits, is_class = _traits(groups, settings, targets=targets)
    keys = [
        hashlib.sha256(f"{settings.seed}\0{purpose}\0{token}".encode("utf-8", "surrogatepass")).digest()
        for token in groups.tokens
    ]
    order = np.asarray(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
    dealt = allocate(traits, is_class=is_class, shares=list(shares.values()), order=order)
    drawn: npt.NDArray[np.object_] = np.asarray(list(shares), dtype=object)[dealt][groups.codes]
    return drawn


def _group(usable: Manifest) -> _Groups:
    """Join rows of one patient, of the same pixels, and of near-identical images.

    Constant images, which have no perceptual hash, are alike without being the same.
    """
    frame = usable.frame
    patients = pd.factorize(frame["patient_id"].fillna(frame["image_id"]))[0].astype(np.int64)
    hashes = pd.factorize(frame["pixel_hash"].where(frame["phash"].notna()))[0]
    first_with: dict[int, int] = {}
    pairs = [(int(p), first_with.setdefault(int(h), int(p))) for p, h in zip(patients, hashes, strict=True) if h >= 0]
    near = near_pairs(usable, np.arange(len(frame)), parts=patients, distance=AuditConfig().near_distance)
    pairs += patients[near.same].tolist()
    leader = np.arange(int(patients.max(initial=-1)) + 1)
    for group in connect(pairs):
        leader[group] = group[0]
    names = [
        f"{path}\0{member or ''}\0{'' if number is None else number}"
        for path, member, number in zip(*(objects(frame[name]) for name in ("path", "member", "frame")), strict=True)
    ]
    tokens = pd.Series(names, dtype=object).groupby(leader[patients]).min().sort_values()
    place = {int(old): new for new, old in enumerate(tokens.index)}
    codes = np.asarray([place[int(old)] for old in leader[patients]], dtype=np.int64)
    return _Groups(usable, codes, tuple(tokens))


def _traits(
    groups: _Groups, settings: SplitConfig, *, targets: Sequence[Target]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """(G, F) traits of the groups and (F,) which of them are classes."""
    count = len(groups.tokens)
    columns: list[npt.NDArray[np.bool_]] = []
    is_class: list[bool] = []

    def add(rows: npt.NDArray[np.bool_], *, of_class: bool) -> None:
        columns.append(np.bincount(groups.codes, weights=rows, minlength=count) > 0)
        is_class.append(of_class)

    for target in targets:
        labels = groups.manifest.labels(target)
        for rows in label_groups(labels, target).values():
            add(rows, of_class=True)
        add(np.asarray(np.isnan(labels.reshape(len(labels), -1)).all(axis=1)), of_class=False)
    for name in settings.balance_by:
        if name in groups.manifest.frame.columns:
            values = objects(groups.manifest.frame[name])
            for value, _ in Counter(value for value in values if value is not None).most_common(_MOST_VALUES):
                add(np.asarray(values == value, dtype=bool), of_class=False)
    # Patients with many images are spread too, so that parts are alike in images as well as in patients.
    octave = np.floor(np.log2(np.bincount(groups.codes, minlength=count))).astype(np.int64)
    columns.extend(octave == value for value in np.unique(octave))
    is_class.extend([False] * len(np.unique(octave)))
    traits = np.stack(columns, axis=1)
    # Ties between traits must hang neither on pseudonyms nor on row order: traits are ranked by who has them.
    ranking = sorted(range(traits.shape[1]), key=lambda trait: traits[:, trait].tobytes(), reverse=True)
    return traits[:, ranking], np.asarray(is_class)[ranking]


def _with_column(manifest: Manifest, name: str, *, values: npt.NDArray[np.object_]) -> Manifest:
    """A copy whose ok rows have ``values`` in a column; rejected rows have nothing there."""
    column = np.full(len(manifest), None, dtype=object)
    column[manifest.is_ok] = values
    return replace(manifest, frame=manifest.frame.assign(**{name: pd.Series(column, dtype=COLUMNS[name])}))
