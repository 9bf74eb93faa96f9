"""Descriptions of the columns of scores, in the order of ``rows.row_schema`` and ``rows.case_schema``."""

from __future__ import annotations

from typing import Final

from lepton_vision.types.columns import Column

_IDS: Final = (
    Column("series_id", "where the file names a series", "", "pseudonym of the Series Instance UID"),
    Column("study_id", "where the file names a study", "", "pseudonym of the Study Instance UID"),
    Column("patient_id", "where the file names a patient", "", "pseudonym of the Patient ID"),
)
_TARGETS: Final = (
    Column(
        "<target>_probability",
        "binary, status ok",
        "0 to 1",
        "calibrated probability of the positive class, the second of `classes`",
    ),
    Column(
        "<target>_<class>_probability",
        "multilabel, multiclass and ordinal, status ok",
        "0 to 1",
        "calibrated probability of the class; those of a multiclass or ordinal target sum to 1",
    ),
    Column("<target>_value", "regression, status ok", "unit of the target", "predicted number"),
    Column("<target>_class", "multiclass and ordinal, status ok", "", "class of the largest probability"),
    Column(
        "<target>_positive",
        "binary, where there is a threshold",
        "",
        "whether the probability is at or above the threshold",
    ),
    Column("<target>_<class>_positive", "multilabel, where there is a threshold", "", "the same for a class"),
    Column("<target>_threshold", "binary, from the second target on", "0 to 1", "frozen threshold of the target"),
    Column("<target>_<class>_threshold", "multilabel", "0 to 1", "frozen threshold of the class"),
    Column("threshold", "the first target is binary, and has one", "0 to 1", "frozen threshold of the first target"),
)
ROW_COLUMNS: Final = (
    Column(
        "image_id",
        "the input was read",
        "",
        "pseudonym of the SOP Instance UID, or of the content of a file without one; copies share it",
    ),
    Column("path_id", "always", "", "pseudonym of the place; joins rows with manifests, together with `frame`"),
    *_IDS,
    Column("frame", "files of several images", "from 0", "number of the image in its file"),
    Column("status", "always", "", "`ok`, `failed`, or `left_out`: what is no image to classify, and no failure"),
    Column("reason", "status is not ok", "", "[reason code](reason-codes.md)"),
    *_TARGETS,
    Column(
        "<target>_set",
        "not regression; the bundle has set rules",
        "",
        "answers in the conformal set, with `|` between them; empty where no answer is likely enough",
    ),
    Column(
        "<target>_<class>_set", "multilabel; the bundle has set rules", "", "the same: `absent`, `present`, or both"
    ),
    Column(
        "<target>_low",
        "regression; validation had enough patients",
        "unit of the target",
        "lower end of the interval of stated coverage",
    ),
    Column("<target>_high", "as `<target>_low`", "unit of the target", "upper end"),
    Column(
        "novelty",
        "the bundle knows its training images, and the runtime gives features",
        "standardised features",
        "distance from the k-th nearest training image (`evaluation.novelty_neighbours`); an int8 file gives none",
    ),
    Column("novelty_percentile", "as `novelty`", "%", "share of the validation images that are nearer"),
    Column(
        "<structure>_ml", "`--masks`, bundle of volumes", "ml", "volume of the predicted structure; NaN without spacing"
    ),
    Column(
        "<structure>_mm2", "`--masks`, bundle of images", "mm²", "area of the predicted structure; NaN without spacing"
    ),
    Column("mask", "`--masks`, and there is a file", "", "name of the mask file"),
    Column("mask_reason", "`--masks`, and there is none", "", "[reason code](reason-codes.md)"),
    Column("report", "`--dicom-sr`, and there is a file", "", "name of the DICOM Structured Report"),
    Column("report_reason", "`--dicom-sr`, and there is none", "", "[reason code](reason-codes.md)"),
    Column("repair", "bundles of volumes, repaired series", "", "`tilt`, `gaps` or both, with a comma"),
    Column("bundle_id", "always", "", "which bundle"),
    Column("engine", "always", "", "runtime, its version, device, precision and batch size"),
    Column("seconds", "always", "s", "wall time for reading, preparing and predicting this row"),
    Column("source_version", "the file could be looked at", "", "pseudonym of size and time of the file"),
)
CASE_COLUMNS: Final = (
    *_IDS,
    Column("images", "always", "", "images that were joined; copies count once"),
    *_TARGETS,
    Column("novelty_percentile", "as in the rows", "%", "the largest of its images"),
    Column("aggregation", "always", "", "how they were joined, see `evaluation.aggregation`"),
    Column("bundle_id", "always", "", "which bundle"),
)
