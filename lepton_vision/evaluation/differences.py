"""The difference of two figures as a figure."""

from __future__ import annotations

import numpy as np

from lepton_vision.evaluation.intervals import Bootstrap
from lepton_vision.types import Figure, FloatArray


def difference_figure(value: float, drawn: FloatArray, *, n: int, bootstrap: Bootstrap) -> Figure:
    """Give a difference its percentile interval.

    Args:
        value: the difference; NaN where one of the figures is undefined.
        drawn: (R,) float64 differences of replicates; NaN where undefined.
        n: samples behind both figures.
        bootstrap: the confidence.
    """
    if np.isnan(value):
        return Figure(np.nan, np.nan, np.nan, n, "one of the two figures is undefined")
    defined = drawn[~np.isnan(drawn)]
    if defined.size < 2 or defined.size < 0.5 * drawn.size:
        return Figure(value, np.nan, np.nan, n, "no interval: undefined in most replicates")
    tail = (1.0 - bootstrap.confidence) / 2
    low, high = np.quantile(defined, [tail, 1.0 - tail])
    return Figure(value, float(low), float(high), n)
