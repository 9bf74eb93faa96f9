"""Columns of the score tables."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from lepton_vision.types import Target
from lepton_vision.types.target import output_stems, probability_names, set_names

_TEXT, _NUMBER, _FLAG = pa.string(), pa.float64(), pa.bool_()
Fields = list[tuple[str, pa.DataType]]
NOVELTY = ("novelty", "novelty_percentile")


def row_schema(
    targets: tuple[Target, ...],
    *,
    measures: Sequence[str] = (),
    sets: Sequence[str] = (),
    has_novelty: bool = False,
    has_reports: bool = False,
    has_repairs: bool = False,
) -> pa.Schema:
    """Columns of a scored row, in order; ``threshold`` is that of the first target.

    A binary target gives ``<target>_probability`` and ``<target>_positive``; a multilabel target the same per class as
    ``<target>_<class>_…``; a multiclass target a probability per class and ``<target>_class``. Further targets bring a
    ``<target>_threshold`` of their own. Decision and threshold are empty where a class has no operating point.

    Args:
        targets: what is predicted.
        measures: ``<structure>_ml`` or ``<structure>_mm2``: with them come ``mask`` and ``mask_reason``.
        sets: targets with set rules: ``<target>_set``, or ``<target>_<class>_set`` of a multilabel target, are the
            answers in the conformal set, with "|" between them; empty where no answer is likely enough.
        has_novelty: ``novelty`` is the distance to the training images, ``novelty_percentile`` the share of validation
            images that are nearer; see ``novelty.Novelty``. Both are empty where the runtime gives no features: a file
            of int8, or one that was exported before files gave them.
        has_reports: ``report`` is the name of a DICOM report, ``report_reason`` why there is none.
        has_repairs: ``repair`` is what was repaired in a series: "tilt", "gaps" or both, with a comma.
    """
    names = ("image_id", "path_id", "series_id", "study_id", "patient_id")
    fields: Fields = [(name, _TEXT) for name in names]
    fields += [("frame", pa.int64()), ("status", _TEXT), ("reason", _TEXT)]
    fields += target_fields(targets)
    for target in targets:
        if target.name in sets:
            fields += [(name, _TEXT) for name in set_names(target)]
    fields += [(name, _NUMBER) for name in NOVELTY] if has_novelty else []
    if measures:
        fields += [(name, _NUMBER) for name in measures] + [("mask", _TEXT), ("mask_reason", _TEXT)]
    fields += [("report", _TEXT), ("report_reason", _TEXT)] if has_reports else []
    fields += [("repair", _TEXT)] if has_repairs else []
    fields += [("bundle_id", _TEXT), ("engine", _TEXT), ("seconds", _NUMBER), ("source_version", _TEXT)]
    return pa.schema(fields)


def case_schema(targets: tuple[Target, ...], *, unit: str, has_novelty: bool = False) -> pa.Schema:
    """Columns of a row of a series, study or patient: ids, number of images, and those of the targets.

    ``novelty_percentile`` is the largest of its images.
    """
    above = ("series_id", "study_id", "patient_id")
    fields: Fields = [(name, _TEXT) for name in above[above.index(f"{unit}_id") :]]
    fields += [("images", pa.int64()), *target_fields(targets)]
    fields += [(NOVELTY[1], _NUMBER)] if has_novelty else []
    return pa.schema([*fields, ("aggregation", _TEXT), ("bundle_id", _TEXT)])


def target_fields(targets: tuple[Target, ...]) -> Fields:
    """Columns of probabilities and decisions."""
    fields: Fields = []
    for position, target in enumerate(targets):
        fields += [(name, _NUMBER) for name in probability_names(target)]
        if target.is_exclusive:
            fields += [(f"{target.name}_class", _TEXT)]
            continue
        for stem in output_stems(target):
            fields += [(f"{stem}_positive", _FLAG)]
            if position or target.kind == "multilabel":
                fields += [(f"{stem}_threshold", _NUMBER)]
    return [*fields, ("threshold", _NUMBER)]
