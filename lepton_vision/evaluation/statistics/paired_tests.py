"""Paired tests of two decisions or two scores on the same cases, with adjustment for multiple testing."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np
from scipy.stats import binomtest, chi2

from lepton_vision.evaluation.statistics.ranking import BoolArray, IntArray
from lepton_vision.types import FloatArray

Name = TypeVar("Name", bound=Hashable)


class PairedTest(NamedTuple):
    """A two-sided P value and the test that gave it."""

    p_value: float
    method: str


def compare_proportions(is_right_a: BoolArray, is_right_b: BoolArray, *, unit: IntArray) -> PairedTest:
    """Test whether two decisions are right equally often on the same samples.

    Where every unit has one sample it is the exact test of McNemar (Psychometrika 12:153, 1947): the discordant
    samples against a fair coin. Otherwise the samples of a unit are not independent, and it is the chi-squared test
    of Obuchowski (Stat Med 17:1495, 1998) on the sum of the differences by unit; it needs a fair number of units.

    Args:
        is_right_a: (N,) bool.
        is_right_b: (N,) bool.
        unit: (N,) int, the patient of each sample.

    Returns:
        P is 1 where no sample is discordant, and NaN where there is none at all.

    Example:
        >>> a, b = np.array([True, True, False, True, True]), np.array([True, False, True, True, True])
        >>> compare_proportions(a, b, unit=np.arange(5))
        PairedTest(p_value=1.0, method='mcnemar_exact')
    """
    gap = is_right_a.astype(np.float64) - is_right_b.astype(np.float64)
    _, which = np.unique(unit, return_inverse=True)
    units = int(which.max(initial=-1)) + 1
    is_clustered = units < gap.size
    method = "obuchowski_1998" if is_clustered else "mcnemar_exact"
    if not gap.size or (is_clustered and units < 2):
        return PairedTest(float("nan"), method)
    if not gap.any():
        return PairedTest(1.0, method)
    if not is_clustered:
        discordant = int(np.abs(gap).sum())
        return PairedTest(float(binomtest(int((gap > 0).sum()), discordant).pvalue), method)
    by_unit = np.bincount(which, gap, minlength=units)
    if not by_unit.any():
        return PairedTest(1.0, method)
    statistic = (units - 1) / units * float(by_unit.sum()) ** 2 / float((by_unit**2).sum())
    return PairedTest(float(chi2.sf(statistic, 1)), method)


def compare_draws(drawn: FloatArray) -> PairedTest:
    """Two-sided P of a difference from its bootstrap replicates: twice the share beyond zero, one replicate added.

    Args:
        drawn: (R,) differences without NaN.
    """
    if not drawn.size:
        return PairedTest(float("nan"), "bootstrap")
    beyond = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return PairedTest(min(1.0, 2.0 * (beyond + 1) / (drawn.size + 1)), "bootstrap")


def holm(p_values: Mapping[Name, float]) -> dict[Name, float]:
    """Adjust P values for their number (Holm, Scand J Stat 6:65, 1979); one that is NaN stays so and is not counted.

    Example:
        >>> holm({"auroc": 0.01, "sensitivity": 0.04, "specificity": 0.03})
        {'auroc': 0.03, 'sensitivity': 0.06, 'specificity': 0.06}
    """
    known = sorted((name for name, p in p_values.items() if not np.isnan(p)), key=lambda name: p_values[name])
    adjusted = dict.fromkeys(p_values, float("nan"))
    largest = 0.0
    for rank, name in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p_values[name]))
        adjusted[name] = largest
    return adjusted
