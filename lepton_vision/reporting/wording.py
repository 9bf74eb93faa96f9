"""Plain wording of figures, reasons and facts for readers who are not statisticians."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from lepton_vision.evaluation.classes.figure_table import SPECS
from lepton_vision.types import Target
from lepton_vision.types.figure import FigureSpec, unknown_spec

GROUPS: Mapping[str, str] = {
    "ranking": "Ranking, no threshold needed",
    "decisions": "Decisions at the operating point",
    "probabilities": "Trust in the probabilities",
    "error": "Error of the predictions",
    "agreement": "Agreement with the true values",
    "sample": "Sample",
    "own": "Own figures",
    "further": "Further figures",
}
"""Headings of the groups of figures (``FigureSpec.group``), in order."""

METHOD_NAMES: Mapping[str, str] = {
    "delong_logit_t": "DeLong, logit scale, t",
    "delong": "DeLong",
    "obuchowski_logit_t": "Obuchowski, logit scale, t",
    "obuchowski": "Obuchowski",
    "bca": "Bootstrap (BCa)",
    "percentile": "Bootstrap (percentiles)",
    "wilson": "Wilson",
    "clopper_pearson": "Clopper–Pearson",
    "mcnemar_exact": "McNemar, exact",
    "obuchowski_1998": "Obuchowski, for clusters",
    "bootstrap": "Bootstrap",
}

SPLIT_NAMES: Mapping[str, str] = {"train": "training", "val": "validation", "test": "test"}

READING: Mapping[str, str] = {
    "roc": "The closer the curve to the upper left corner, the better; the dotted diagonal is a coin toss.",
    "pr": "The higher the curve, the fewer false alarms among the calls; the dotted line is what guessing gives.",
    "reliability": (
        "Points on the dotted diagonal mean that the probabilities can be taken at their word. "
        "Below it the model says too much, above it too little. Each point is a group of about equal size, with its "
        "95 % Wilson interval (images taken as independent)."
    ),
    "scores": (
        "Upwards: images that are positive; downwards: those that are not. The less the two overlap, the better."
    ),
    "confusion": "Rows say what is true, columns what was decided; percentages add up to 100 in each row.",
    "gallery": (
        "Decisions that were wrong, the surest first: look here for wrong labels, artefacts and findings that the "
        "model never learnt."
    ),
    "unsure": (
        "Decisions nearest to the threshold, correct or wrong: a little noise would have turned them. A reader "
        "should see such cases."
    ),
    "calibration": (
        "Slope 1 and intercept 0 mean that the probabilities can be taken at their word. A slope below 1: the "
        "model is too sure. An intercept above 0: the probabilities are too low on the whole. Observed over "
        "expected compares the positives with the sum of the probabilities. An ECE above what chance alone gives "
        "means that probabilities are off; the interval is where the true error lies. ICI, E50 and E90 are mean, "
        "median and 90th percentile of how far the probabilities are from a smooth calibration curve; 0 is perfect."
    ),
    "benefit": (
        "Net benefit counts true positives and takes off the false ones, weighed by what a threshold says about "
        "their cost. At a threshold probability at which you would act, take the highest line."
    ),
    "abstention": (
        "The images are sorted by how sure the model is. From left to right more of them are decided; the line "
        "says how many of those are decided wrongly."
    ),
    "sets": (
        "Instead of one answer a set of answers, made on validation so that the true one is among them as often "
        "as stated. Small sets that keep their word are good; empty or full sets say that the model does not "
        "know."
    ),
    "external": "The locked model on images of another site; nothing was fitted there. Below 0 it is worse here.",
    "explorer": (
        "Move the threshold and see what changes. The frozen operating point stays what it was: a threshold that "
        "is chosen here, on the images that it is then judged on, flatters the model."
    ),
    "scatter": (
        "On the dotted line the prediction is the true value. Points above it are predicted too high, below it too low."
    ),
    "bland_altman": (
        "Each difference over the size of what is measured. The middle line is the bias; between the dashed lines lie "
        "about 95 of 100 differences. A slope or a funnel means that the error depends on the size."
    ),
    "intervals": (
        "Each prediction comes with an interval, made on validation so that it holds the true value as often as "
        "stated. Narrow intervals that keep their word are good."
    ),
    "errors": (
        "The largest errors first: look here for wrong labels, artefacts and cases that the model never learnt."
    ),
    "forest": (
        "Each bar is the interval of one subgroup; the upright line is the figure of all images. Intervals of "
        "small groups are wide: that they overlap does not prove that the groups are treated alike."
    ),
}

ANALYSIS_NAMES: Mapping[str, str] = {
    "slope": "Slope (ideal 1)",
    "intercept": "Intercept (ideal 0)",
    "in_the_large": "Intercept, slope fixed at 1 (ideal 0)",
    "observed_expected": "Observed over expected (ideal 1)",
    "ece": "Calibration error (ECE)",
    "debiased_ece": "ECE without what chance adds",
    "chance_ece": "ECE that chance alone gives",
    "ici": "Mean distance from the curve (ICI)",
    "e50": "Median distance (E50)",
    "e90": "90 % of the distances are below (E90)",
    "brier_reliability": "Brier: reliability (0 is best)",
    "brier_resolution": "Brier: resolution (more is better)",
    "brier_uncertainty": "Brier: uncertainty (of the sample)",
    "observed": "Prevalence observed",
    "expected": "Mean probability",
    "brier_before": "Brier score before",
    "brier_after": "Brier score after",
    "brier_gain": "Brier score gained",
    "log_loss_before": "Log loss before",
    "log_loss_after": "Log loss after",
    "log_loss_gain": "Log loss gained",
}

REASON_NAMES: Mapping[str, str] = {
    "missing": "not there, or not permitted",
    "empty": "empty file",
    "not_an_image": "not an image",
    "no_pixels": "DICOM without pixels",
    "truncated": "file cut short",
    "corrupt": "damaged",
    "too_large": "too large",
    "unsupported": "kind not supported",
    "decoder_missing": "decoder not installed",
    "decoder_failed": "decoder gave up",
    "mismatch": "header and pixels disagree",
    "non_finite": "NaN or infinite pixels",
    "no_frame": "no such frame",
    "volume": "volume, not one image",
    "geometry": "irregular series",
    "units": "not in Hounsfield units",
    "no_window": "no window in the header",
    "channels": "unfit number of channels",
    "leakage": "also in another split",
}


def term(name: str, target: Target | None = None, own: Mapping[str, FigureSpec] | None = None) -> FigureSpec:
    """Describe a figure in the words for a target; an unknown one keeps its own name and gets no scale.

    ``own`` holds the figures that the caller of the evaluation brought.
    """
    spec = (own or {}).get(name) or SPECS.get(name)
    if spec is None:
        return _averaged(name) or unknown_spec(name)
    if target is None:
        return spec
    if target.is_exclusive and spec.of_exclusive:
        return replace(spec, meaning=spec.of_exclusive)
    if target.has_label_by_class and name in SPECS:
        return replace(spec, meaning=f"Mean over the classes. {spec.meaning}")
    return replace(spec, title=with_unit(spec.title, target)) if spec.has_unit else spec


def with_unit(text: str, target: Target) -> str:
    """Return a heading with the unit of a target behind it.

    Example:
        >>> with_unit("Bias", Target("age", "regression", unit="years")), with_unit("Bias", Target("x", "regression"))
        ('Bias (years)', 'Bias')
    """
    return f"{text} ({target.unit})" if target.unit else text


def in_unit(text: str, target: Target) -> str:
    """Return a number as text with the unit of a target.

    Example:
        >>> in_unit("3.5", Target("age", "regression", unit="years"))
        '3.5 years'
    """
    return f"{text} {target.unit}" if target.unit else text


_AVERAGES: Mapping[str, str] = {
    "macro": "mean, every class counts the same",
    "micro": "pooled over all classes, every decision counts the same",
    "weighted": "mean, a class counts as often as it is true",
}


def _averaged(name: str) -> FigureSpec | None:
    """Description of a figure over all classes, such as ``sensitivity_micro``."""
    base, _, kind = name.rpartition("_")
    if kind not in _AVERAGES or base not in SPECS:
        return None
    title, meaning = f"{SPECS[base].title} ({kind})", f"{_AVERAGES[kind].capitalize()}."
    return FigureSpec(name, title, meaning, scale=SPECS[base].scale)


def split_name(split: str | None) -> str:
    """Return the split in words."""
    return "unknown" if split is None else SPLIT_NAMES.get(split, split)
