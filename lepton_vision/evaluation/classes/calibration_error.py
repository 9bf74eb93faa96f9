"""Binned calibration error (ECE): raw, debiased, and its expected value under perfect calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaln, ndtr, stdtrit, xlog1py, xlogy

from lepton_vision.evaluation.classes.curves import equal_mass_bins
from lepton_vision.evaluation.statistics.ranking import IntArray, ratio
from lepton_vision.types import Figure, FloatArray

NAMES = ("ece", "debiased_ece", "chance_ece")
_SURE = 2.0  # standard errors by which the gap of a bin may be smaller than it looks
_NAN = float("nan")


@dataclass(frozen=True, slots=True)
class CalibrationError:
    """Expected calibration error of one class.

    A gap between the observed share and the mean probability of a bin is never 0 in a sample, so that the mean of the
    absolute gaps is too large: perfect probabilities of 100 images give about 0.1. Gaps are taken for normal around
    the true ones (Bröcker, Clim Dyn 39:655, 2012; Kumar, Liang and Ma, NeurIPS 2019), with a spread between patients.

    Attributes:
        value: mean absolute gap over bins of equal mass, weighed by their samples.
        debiased: the same of gaps so much smaller that their expected mean is ``value`` (Kumar et al. subtract the
            expected excess at the counted gaps, which leaves more than half of it where the gaps are chance alone);
            0 where ``value`` is what chance gives or less.
        chance: what perfectly calibrated probabilities would give on average: the mean absolute deviation of a
            binomial in each bin.
        low: of the interval, may lie below 0; it allows for the excess of every bin whose gap may be chance.
        high: of the interval, from the signed residuals of the patients and Student's t.
        n: number of samples.
        reason: why there is no interval, or no figure.
    """

    value: float = _NAN
    debiased: float = _NAN
    chance: float = _NAN
    low: float = _NAN
    high: float = _NAN
    n: int = 0
    reason: str = "no labelled sample"

    def figures(self) -> dict[str, Figure]:
        """Figures by ``NAMES``; the estimates share the interval of the true error, and chance has none."""
        low, high = max(self.low, 0.0) if np.isfinite(self.low) else _NAN, self.high
        method = "normal_gaps" if np.isfinite(low) else ""
        reference = self.reason if np.isnan(self.chance) else "no interval: a value to compare with"
        return {
            "ece": Figure(self.value, low, high, self.n, self.reason, method),
            "debiased_ece": Figure(self.debiased, low, high, self.n, self.reason, method),
            "chance_ece": Figure(self.chance, _NAN, _NAN, self.n, reference),
        }


def calibration_error(
    truth: FloatArray, prob: FloatArray, *, unit: IntArray, confidence: float = 0.95
) -> CalibrationError:
    """Estimate the calibration error of one class.

    Args:
        truth: (N,) float64 of 0 and 1.
        prob: (N,) float64 in [0, 1].
        unit: (N,) patient of each sample.
        confidence: of the interval.

    Example:
        >>> prob = np.array([0.2, 0.2, 0.8, 0.8])
        >>> found = calibration_error(np.array([0.0, 0.0, 1.0, 1.0]), prob, unit=np.arange(4))
        >>> round(found.value, 3), found.debiased, round(found.chance, 3)
        (0.2, 0.0, 0.256)
    """
    n = int(truth.size)
    if not n:
        return CalibrationError()
    which, patient = equal_mass_bins(prob), np.unique(unit, return_inverse=True)[1]
    size, residual = np.bincount(which).astype(np.float64), truth - prob
    gap, share = np.bincount(which, residual) / size, size / n
    value, independent = float(share @ np.abs(gap)), np.bincount(which, prob * (1.0 - prob)) / size**2
    spread, effect = _spread(residual - gap[which], which=which, patient=patient, size=size)
    chance = float(share @ (_deviation(size, np.bincount(which, prob) / size, independent * size) / size)) * effect**0.5
    spread = np.sqrt(np.maximum(spread, independent * effect))
    patients = int(patient.max()) + 1
    if patients < 2:
        return CalibrationError(value, _NAN, chance, n=n, reason="no interval: one patient only")
    signed = np.bincount(patient, np.sign(gap)[which] * residual - value)
    variance = max(patients / (patients - 1) * float(signed @ signed), float((prob * (1.0 - prob)).sum()) * effect)
    half = float(stdtrit(patients - 1, 0.5 + confidence / 2)) * variance**0.5 / n
    least = np.maximum(np.abs(gap) - _SURE * spread, 0.0)
    excess = float(share @ (_folded(least, spread) - least))
    if not half > 0.0:
        return CalibrationError(value, value, chance, n=n, reason="no interval: all probabilities are 0 or 1 and right")
    debiased = _shrunk(gap, spread, share=share, value=value)
    return CalibrationError(value, debiased, chance, value - excess - half, min(value + half, 1.0), n, "")


def mean_error(several: Sequence[CalibrationError]) -> CalibrationError:
    """Mean over classes (classwise ECE, Kull et al., NeurIPS 2019); its interval allows for classes that err alike."""
    if not several:
        return CalibrationError()
    parts = np.array([(one.value, one.debiased, one.chance, one.low, one.high) for one in several])
    value, debiased, chance, low, high = (float(x) for x in parts.mean(axis=0))
    reasons = [one.reason for one in several if one.reason]
    n = max(one.n for one in several)
    return CalibrationError(value, debiased, chance, low, high, n, reasons[0] if reasons else "")


def _spread(residual: FloatArray, *, which: IntArray, patient: IntArray, size: FloatArray) -> tuple[FloatArray, float]:
    """Variance of the gap of each bin between patients, and by how much that exceeds the one of independent samples."""
    bins, patients = size.size, int(patient.max()) + 1
    pair, index = np.unique(patient * bins + which, return_inverse=True)
    square = np.bincount(pair % bins, np.bincount(index, residual) ** 2, minlength=bins)
    held = np.bincount(pair % bins, minlength=bins)
    clustered = np.nan_to_num(ratio(held * square, (held - 1.0) * size**2))
    alone = np.nan_to_num(ratio(np.bincount(which, residual**2), (size - 1.0) * size))
    if patients == residual.size:
        return clustered, 1.0
    return clustered, max(float(ratio(size**2 @ clustered, size**2 @ alone)), 1.0) if (alone > 0).any() else 1.0


def _deviation(size: FloatArray, share: FloatArray, variance: FloatArray) -> FloatArray:
    """Mean absolute deviation of the sum of a bin: a binomial's (De Moivre), scaled to the variance of unlike chances.

    ``variance`` is that of one sample.
    """
    mode = np.floor(size * share) + 1.0
    log = gammaln(size + 1) - gammaln(mode + 1) - gammaln(np.maximum(size - mode, 0.0) + 1)
    log += xlogy(mode, share) + xlog1py(np.maximum(size - mode, 0.0) + 1.0, -share)
    scale = np.sqrt(np.nan_to_num(ratio(variance, share * (1.0 - share))))
    found: FloatArray = 2.0 * mode * np.exp(log) * scale
    return found


def _folded(gap: FloatArray, spread: FloatArray) -> FloatArray:
    """Mean of the absolute value of a normal around ``gap`` (Leone et al., Technometrics 3:543, 1961)."""
    size = np.abs(gap)
    z = np.divide(size, spread, out=np.full(size.shape, np.inf), where=spread > 0)
    found: FloatArray = spread * np.sqrt(2.0 / np.pi) * np.exp(-(z**2) / 2.0) + size * (1.0 - 2.0 * ndtr(-z))
    return found


def _shrunk(gap: FloatArray, spread: FloatArray, *, share: FloatArray, value: float) -> float:
    """Mean absolute gap after all gaps shrink by one factor, so that ``value`` is what they would give on average."""

    def surplus(factor: float) -> float:
        return float(share @ _folded(factor * gap, spread)) - value

    if surplus(0.0) >= 0.0:
        return 0.0
    return value * (float(brentq(surplus, 0.0, 1.0)) if surplus(1.0) > 0.0 else 1.0)
