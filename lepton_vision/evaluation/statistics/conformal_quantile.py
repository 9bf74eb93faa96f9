"""Split-conformal quantile over patients."""

from __future__ import annotations

import numpy as np

from lepton_vision.evaluation.statistics.ranking import IntArray
from lepton_vision.types import FloatArray


def conformal_quantile(scores: FloatArray, unit: IntArray, *, coverage: float) -> tuple[float, int]:
    """Lowest score that the ``coverage`` of the patients do not exceed, one unseen patient counted in.

    The images of a patient share one unit of weight (Lee, Barber and Willett, arXiv:2306.06342); with one image for a
    patient it is the ⌈(n + 1) coverage⌉-th lowest score (Lei et al., JASA 113:1094, 2018).

    Args:
        scores: (N,) float64, how badly each sample conforms.
        unit: (N,) patient of each.
        coverage: in (0, 1).

    Returns:
        The score, NaN where there are too few patients for the coverage, and the number of patients.
    """
    patient = np.unique(unit, return_inverse=True)[1]
    images = np.bincount(patient)
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(1.0 / images[patient[order]]) / (images.size + 1)
    enough = np.flatnonzero(reached >= coverage - 1e-12)
    return float(scores[order[enough[0]]]) if enough.size else float("nan"), int(images.size)
