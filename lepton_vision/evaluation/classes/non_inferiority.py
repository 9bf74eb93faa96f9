"""Non-inferiority test of a second model against a margin, with a verdict for samples that are too small."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from lepton_vision.errors import EvaluationError, nearest
from lepton_vision.evaluation.classes.figure_table import spec_of
from lepton_vision.evaluation.classes.paired_figures import PairedFigure
from lepton_vision.evaluation.statistics.paired_intervals import non_inferiority_p
from lepton_vision.types import Target
from lepton_vision.types.figure import FigureSpec

FEWEST = 10  # patients in a class, below which nothing is judged


class Verdict(NamedTuple):
    """Verdict of a comparison against a margin.

    Attributes:
        is_non_inferior: None where it cannot be judged.
        p_value: one-sided, of a loss of the margin or more; NaN where it cannot be judged.
        reason: why it cannot be judged; "" where it can.
    """

    is_non_inferior: bool | None
    p_value: float
    reason: str = ""


def check_margins(
    margin: float | Mapping[str, float] | None, endpoints: tuple[str, ...], figures: Iterable[str], *, target: Target
) -> dict[str, float]:
    """Return the margin by figure; one for all endpoints is, of a number, for those in its unit.

    Raises:
        EvaluationError: a margin of what is no figure, or one that is not above 0.
    """
    if margin is None:
        return {}
    known = list(figures)
    meant = [name for name in endpoints if not target.is_value or spec_of(name, target).has_unit]
    margins = dict(margin) if isinstance(margin, Mapping) else dict.fromkeys(meant, float(margin))
    for name, value in margins.items():
        if name not in known:
            raise EvaluationError(f"No figure {name!r} for a margin. {nearest(name, known)}", key=name)
        if not (np.isfinite(value) and value > 0):
            raise EvaluationError(f"A margin of non-inferiority is above 0. Received: {value:g} for {name}.", key=name)
    return margins


def patients_needed(spec: FigureSpec, *, margin: float, confidence: float = 0.95) -> int:
    """Fewest patients of each class from which a loss of the margin could be excluded.

    A loss may sit in a few patients that the model gets wholly wrong. Among n patients of whom none is such, the score
    interval of their share ends at z² / (n + z²): below n = z² (1 - margin) / margin the whole loss may be unseen, and
    an interval that knows only what was seen (a bootstrap, DeLong's) would exclude it from no evidence.

    Example:
        >>> from lepton_vision.evaluation.classes.figure_table import SPECS
        >>> patients_needed(SPECS["auroc"], margin=0.05), patients_needed(SPECS["brier"], margin=0.05)
        (73, 10)
    """
    if spec.scale != "share" or margin >= 1.0:
        return FEWEST
    return max(FEWEST, math.ceil(float(ndtri(0.5 + confidence / 2)) ** 2 * (1.0 - margin) / margin))


def judge_margin(found: PairedFigure, *, spec: FigureSpec, margin: float, confidence: float) -> Verdict:
    """Judge by the interval: the second model is non-inferior where it excludes a loss of the margin or more.

    Proportions are judged by Tango's score interval and ``non_inferiority_p``: both must say so, as the interval of few
    pairs of which many are discordant is a little too narrow. Other figures are judged by their bootstrap, where there
    are ``patients_needed`` in each class. Nothing is judged from an interval without width, or from fewer than ten.
    """
    needed = FEWEST if found.pairs is not None else patients_needed(spec, margin=margin, confidence=confidence)
    if found.patients < needed:
        return Verdict(None, float("nan"), f"{found.patients} patients, {needed} needed for this margin")
    low, high = found.figure.low, found.figure.high
    if not low < high:
        return Verdict(None, float("nan"), found.figure.reason or "no interval")
    is_error = spec.better == "lower"
    worst = -high if is_error else low
    if found.pairs is not None:
        p = non_inferiority_p(found.pairs, margin=margin)
        return Verdict(bool(worst > -margin and p <= (1.0 - confidence) / 2), p)
    gain = -found.drawn if is_error else found.drawn
    return Verdict(bool(worst > -margin), float(((gain <= -margin).sum() + 1) / (gain.size + 1)))
