"""Result types of an evaluation's analyses: calibration, net benefit, prediction sets, subgroups and others.

Values only; each is computed in the module of its name. Wherever a result stands "by target name", its tuple has one
entry for a binary target (the positive class), one for each class of a multilabel target, and for a multiclass target
one for each class against the rest — but one alone where the K answers are judged together (conformal, abstention). A
number has intervals alone.
Every interval comes from resampled patients, at the evaluation's confidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lepton_vision.types import Displayed, Figure, FloatArray, Result


@dataclass(frozen=True, eq=False)
class Band(Displayed):
    """A curve with its pointwise interval; NaN where undefined.

    Attributes:
        value: (P,) float64.
        low: (P,) float64, lower end of the interval.
        high: (P,) float64, upper end.
    """

    value: FloatArray
    low: FloatArray
    high: FloatArray


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Samples of similar probability.

    Attributes:
        predicted: mean probability in [0, 1].
        observed: share of positives in [0, 1], with the number of samples.
    """

    predicted: float
    observed: Figure


@dataclass(frozen=True, eq=False)
class CalibrationStatistics:
    """Calibration of the probabilities of one class.

    Attributes:
        class_name: what is positive.
        n: labelled samples.
        positives: positive ones among them.
        bins: reliability curve, ascending; bins of equal mass, the same as for ``ece``.
        figures: by name. ``slope``: of the logistic recalibration logit P(y) = a + b logit(p), 1 is ideal, below 1 the
            model is too sure (Cox 1958). ``intercept``: calibration-in-the-large, a with b fixed at 1, 0 is ideal,
            above 0 the risks are too low (Van Calster 2016). ``observed_expected``: positives over the sum of the
            probabilities. ``ece``, ``debiased_ece``, ``chance_ece``: expected calibration error, see
            ``calibration_error.CalibrationError``. ``ici``, ``e50``, ``e90``: mean, median and 90th percentile of the
            distance from a smooth curve, see ``calibration_curve.curve_distances``. ``brier_reliability``,
            ``brier_resolution``, ``brier_uncertainty``: Murphy's decomposition over the bins (1973), Brier ≈
            reliability - resolution + uncertainty.
    """

    class_name: str
    n: int
    positives: int
    bins: tuple[CalibrationBin, ...]
    figures: Mapping[str, Figure]


@dataclass(frozen=True, eq=False)
class DecisionCurve(Displayed):
    """Net benefit of treating who reaches a threshold (Vickers and Elkin 2006), per sample.

    Treating nobody has the net benefit 0 everywhere.

    Attributes:
        class_name: what is positive.
        n: labelled samples.
        threshold: (P,) float64 threshold probability, ascending in (0, 1).
        model: (P,) net benefit of the model: TP / n - FP / n * t / (1 - t).
        treat_all: (P,) net benefit of treating everybody.
        gain: (P,) that of the model less the better of treating all and nobody, in each replicate too.
    """

    class_name: str
    n: int
    threshold: FloatArray
    model: Band
    treat_all: Band
    gain: Band


@dataclass(frozen=True, eq=False)
class ConformalSets:
    """Prediction sets with a stated coverage for each class, their quantiles fixed on validation.

    Attributes:
        class_name: class of a multilabel target; "" where the classes of the target are judged together.
        classes: K answers that a set may hold.
        stated: coverage asked for, e.g. 0.9.
        thresholds: K smallest probabilities with which a class is in the set; 0 where validation has too few samples
            of it: the class is then always in.
        n_validation: K patients of each class that the thresholds come from.
        n: labelled samples of this split.
        coverage: by class name, share of its samples whose set holds it; every patient counts once.
        mean_size: answers in a set, 0 … K.
        sizes: K + 1 shares of samples whose set has 0, 1 … K answers.
    """

    class_name: str
    classes: tuple[str, ...]
    stated: float
    thresholds: tuple[float, ...]
    n_validation: tuple[int, ...]
    n: int
    coverage: Mapping[str, Figure]
    mean_size: Figure
    sizes: tuple[Figure, ...]


@dataclass(frozen=True, eq=False)
class ValueIntervals:
    """Intervals of a number with a stated coverage, their width fixed on validation.

    Attributes:
        stated: coverage asked for, e.g. 0.9.
        half_width: how far each reaches below and above the prediction, in the unit of the target; NaN where validation
            has too few patients for the coverage.
        n_validation: patients that it comes from.
        n: labelled samples of this split.
        coverage: share of the samples whose interval holds the true value; every patient counts once.
    """

    stated: float
    half_width: float
    n_validation: int
    n: int
    coverage: Figure

    @property
    def width(self) -> float:
        """Of each interval, in the unit of the target."""
        return 2.0 * self.half_width


@dataclass(frozen=True, slots=True)
class Referral:
    """Share of cases to refer to a reader so that the others are decided with at most a stated risk.

    Attributes:
        risk: largest share of wrong decisions among the others.
        share: smallest share referred; 1 where every kept part is riskier.
    """

    risk: float
    share: Figure


@dataclass(frozen=True, eq=False)
class Abstention(Displayed):
    """Decisions kept in the order of their confidence (El-Yaniv and Wiener 2010).

    Attributes:
        class_name: what is positive; "" where K exclusive answers are judged together.
        n: labelled samples.
        coverage: (P,) float64 share of the samples that is decided, ascending in (0, 1].
        risk: (P,) share of wrong decisions among them.
        aurc: area under the risk–coverage curve (Geifman and El-Yaniv 2017): mean risk over all coverages.
        referrals: by stated risk.
    """

    class_name: str
    n: int
    coverage: FloatArray
    risk: Band
    aurc: Figure
    referrals: tuple[Referral, ...]


@dataclass(frozen=True, eq=False)
class Subgroup:
    """The samples with one value of a column.

    Attributes:
        value: the value, or the age band.
        n: labelled samples of any target.
        n_patients: patients among them.
        is_small: fewer patients than ``EvaluationConfig.subgroup_min_patients`` (it takes no part in the gap tests), or
            fewer than half as many of a class that a tested figure rests on: read its figures with care.
        figures: by target name and figure name.
    """

    value: str
    n: int
    n_patients: int
    is_small: bool
    figures: Mapping[str, Mapping[str, Figure]]


@dataclass(frozen=True, slots=True)
class Gap:
    """Largest difference of one figure between the subgroups of a column.

    Attributes:
        target: target name.
        figure: figure name.
        highest: value of the subgroup with the highest figure.
        lowest: … with the lowest.
        difference: highest less lowest, at least 0. Its interval holds together with those of all other pairs of
            subgroups, since this pair was picked as the widest apart.
        p: of a test over patients of "among patients with the same labels it does not matter which subgroup they are
            in"; NaN where it cannot be done. The interval of ``difference`` holds 0 where p is above 1 - confidence.
        p_holm: ``p`` corrected for all gaps tested in this evaluation (Holm 1979).
        test: "permutation", or "bootstrap" where patients have images in several subgroups.
    """

    target: str
    figure: str
    highest: str
    lowest: str
    difference: Figure
    p: float
    p_holm: float
    test: str = "permutation"


@dataclass(frozen=True, eq=False)
class SubgroupColumn:
    """Figures by one column of the manifest.

    Attributes:
        column: its name, e.g. "sex".
        subgroups: in the order of their values.
        n_unknown: labelled samples without a value; they are in no subgroup.
        gaps: one for each target and tested figure.
        warnings: what limits the comparison, in plain words.
    """

    column: str
    subgroups: tuple[Subgroup, ...]
    n_unknown: int
    gaps: tuple[Gap, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shift:
    """One figure at the original site and at the new site.

    Attributes:
        internal: figure of the internal evaluation.
        external: figure at the new site.
        difference: external less internal, with the interval that those of both give (``difference_figure``).
    """

    internal: Figure
    external: Figure
    difference: Figure


@dataclass(frozen=True, eq=False)
class Recalibration:
    """Effect of a logistic recalibration at the new site on one class.

    Attributes:
        class_name: what is positive.
        figures: by name. ``in_the_large``: intercept with the slope fixed at 1. ``slope``. ``observed``: prevalence.
            ``expected``: mean probability. ``brier_before``, ``brier_after``, ``brier_gain`` and ``log_loss_before``,
            ``log_loss_after``, ``log_loss_gain`` (before less after, above 0 is better): each patient's probabilities
            are recalibrated with what was fitted on other patients. The gains' intervals take that fit as given.
    """

    class_name: str
    figures: Mapping[str, Figure]


@dataclass(frozen=True, eq=False)
class External:
    """Validation of a locked model at another site.

    Attributes:
        reference: what it is compared with, e.g. "test split, n = 512"; None where nothing was given.
        shifts: by target name and figure name; empty without a reference.
        recalibration: by target name.
    """

    reference: str | None
    shifts: Mapping[str, Mapping[str, Shift]]
    recalibration: Mapping[str, tuple[Recalibration, ...]]


@dataclass(frozen=True, eq=False)
class Analyses(Result):
    """Analyses beside the figures; None where the data do not allow one or nobody asked for it.

    Attributes:
        calibration: by target name.
        decision_curve: by target name.
        conformal: by target name; needs a bundle with quantiles from validation.
        abstention: by target name.
        subgroups: by column asked for.
        external: where the evaluation is of another site.
        intervals: by target name, of numbers; needs a bundle with their width from validation.
    """

    calibration: Mapping[str, tuple[CalibrationStatistics, ...]] | None = None
    decision_curve: Mapping[str, tuple[DecisionCurve, ...]] | None = None
    conformal: Mapping[str, tuple[ConformalSets, ...]] | None = None
    abstention: Mapping[str, tuple[Abstention, ...]] | None = None
    subgroups: tuple[SubgroupColumn, ...] | None = None
    external: External | None = None
    intervals: Mapping[str, ValueIntervals] | None = None
