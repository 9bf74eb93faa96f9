"""Plain wording of figures, reasons and facts for readers who are not statisticians."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lepton_vision.types import EXCLUSIVE, TargetKind


@dataclass(frozen=True, slots=True)
class Term:
    """A figure's name and its meaning.

    Attributes:
        name: as it stands in the page.
        meaning: one plain sentence.
        is_share: whether it lies in [0, 1] with 1 the best, and may be drawn on a scale.
    """

    name: str
    meaning: str
    is_share: bool = True


TERMS: Mapping[str, Term] = {
    "auroc": Term("AUROC", "How often a positive image gets a higher score than a negative one; 0.5 is chance."),
    "average_precision": Term("Average precision", "Area under the precision–recall curve; chance is the prevalence."),
    "sensitivity": Term("Sensitivity", "Share of the positive images that were called positive."),
    "specificity": Term("Specificity", "Share of the negative images that were called negative."),
    "ppv": Term("PPV", "Share of the calls “positive” that were correct; holds at this prevalence only."),
    "npv": Term("NPV", "Share of the calls “negative” that were correct; holds at this prevalence only."),
    "accuracy": Term("Accuracy", "Share of correct decisions; easy to reach where one class is rare."),
    "accuracy_at_half": Term(
        "Accuracy at 0.5",
        "Share of right decisions if a probability of one half were the threshold, as often published.",
    ),
    "balanced_accuracy": Term("Balanced accuracy", "Mean over the classes of the share decided correctly."),
    "f1": Term("F1", "Harmonic mean of sensitivity and PPV."),
    "f1_macro": Term("F1 (mean)", "Harmonic mean of sensitivity and PPV, averaged over the classes."),
    "partial_auroc": Term("Partial AUROC", "AUROC where false alarms are few, rescaled: 0.5 is chance, 1 is perfect."),
    "mcc": Term("Matthews correlation", "Correlation of truth and decision; 0 is chance, 1 is perfect."),
    "lr_positive": Term("LR+", "By how much a call “positive” raises the odds of being positive.", is_share=False),
    "lr_negative": Term("LR−", "By how much a call “negative” lowers the odds of being positive.", is_share=False),
    "ppv_at_prevalence": Term("PPV at the stated prevalence", "PPV where as many images are positive as was stated."),
    "npv_at_prevalence": Term("NPV at the stated prevalence", "NPV where as many images are positive as was stated."),
    "kappa_quadratic": Term(
        "Quadratic weighted kappa", "Agreement of grades beyond chance; an error counts by the square of its steps."
    ),
    "class_error": Term("Mean error in steps", "How many grades the call is away from the truth.", is_share=False),
    "brier": Term("Brier score", "Mean squared error of the probability; 0 is perfect.", is_share=False),
    "log_loss": Term("Log loss", "Penalty for being sure and wrong, in nats; 0 is perfect.", is_share=False),
    "ece": Term("Calibration error", "Mean gap between said and seen (ECE, equal mass); 0 is perfect.", is_share=False),
    "debiased_ece": Term(
        "Calibration error without chance",
        "The gap that is left when what chance adds to it is taken off.",
        is_share=False,
    ),
    "chance_ece": Term(
        "Calibration error of chance",
        "What perfect probabilities would give on so few or many images: more than 0, as shares of few images scatter.",
        is_share=False,
    ),
    "prevalence": Term("Prevalence", "Share of positive images in this sample."),
}

GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Ranking, no threshold needed", ("auroc", "average_precision", "partial_auroc")),
    (
        "Decisions at the operating point",
        (
            *("sensitivity", "specificity", "ppv", "npv", "ppv_at_prevalence", "npv_at_prevalence"),
            *(
                "lr_positive",
                "lr_negative",
                "accuracy",
                "accuracy_at_half",
                "balanced_accuracy",
                "f1",
                "f1_macro",
                "mcc",
            ),
            *("kappa_quadratic", "class_error"),
        ),
    ),
    ("Trust in the probabilities", ("brier", "log_loss", "ece", "debiased_ece", "chance_ece")),
    ("Sample", ("prevalence",)),
)

HEADLINES: Mapping[TargetKind, tuple[str, ...]] = {
    "binary": ("auroc", "average_precision", "sensitivity", "specificity"),
    "multiclass": ("auroc", "accuracy", "balanced_accuracy", "f1_macro"),
    "multilabel": ("auroc", "average_precision", "sensitivity", "specificity"),
    "ordinal": ("kappa_quadratic", "class_error", "auroc", "accuracy"),
}
BY_CLASS = ("auroc", "average_precision", "sensitivity", "specificity", "ppv", "npv", "prevalence")

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


def term(name: str, kind: TargetKind = "binary") -> Term:
    """Return the wording of a figure; an unknown one keeps its own name and gets no scale."""
    words = TERMS.get(name) or _averaged(name) or Term(name.replace("_", " "), "", is_share=False)
    if kind in EXCLUSIVE and name in _MULTICLASS:
        return replace(words, meaning=_MULTICLASS[name])
    if kind == "multilabel" and name in TERMS:
        return replace(words, meaning=f"Mean over the classes. {words.meaning}")
    return words


_AVERAGES: Mapping[str, str] = {
    "macro": "mean, every class counts the same",
    "micro": "pooled over all classes, every decision counts the same",
    "weighted": "mean, a class counts as often as it is true",
}


def _averaged(name: str) -> Term | None:
    """Wording of a figure over all classes, such as ``sensitivity_micro``."""
    base, _, kind = name.rpartition("_")
    if kind not in _AVERAGES or base not in TERMS:
        return None
    return Term(f"{TERMS[base].name} ({kind})", f"{_AVERAGES[kind].capitalize()}.", TERMS[base].is_share)


_MULTICLASS: Mapping[str, str] = {
    "auroc": "Each class against the rest, mean over the classes; 0.5 is chance.",
    "average_precision": "Each class against the rest, mean over the classes; chance is the mean prevalence.",
    "balanced_accuracy": "Share of each class that was called by its name, mean over the classes.",
    "brier": "Squared error of the probabilities, summed over the classes; 0 is perfect, 2 the worst.",
}


def split_name(split: str | None) -> str:
    """Return the split in words."""
    return "unknown" if split is None else SPLIT_NAMES.get(split, split)
