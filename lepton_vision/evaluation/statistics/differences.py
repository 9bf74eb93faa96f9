"""Difference of two independent figures, with its interval."""

from __future__ import annotations

import numpy as np

from lepton_vision.evaluation.statistics.composites import Share, square_and_add
from lepton_vision.types import Figure


def difference_figure(figure: Figure, reference: Figure) -> Figure:
    """Give the difference of two figures of other patients the interval that their own intervals give.

    The distances to their ends are squared and added (Zou and Donner, Stat Med 27:1693, 2008); of proportions the ends
    are Wilson's, which is Newcombe's hybrid score interval (Stat Med 17:873, 1998, method 10).

    Args:
        figure: what the reference is taken from.
        reference: the other.
    """
    value, n = figure.value - reference.value, figure.n + reference.n
    if np.isnan(value):
        return Figure(np.nan, np.nan, np.nan, n, "one of the two figures is undefined")
    one, other = _with_ends(figure), _with_ends(reference)
    if not (one.low < one.high and other.low < other.high):
        return Figure(value, np.nan, np.nan, n, "no interval: one of the two figures has none")
    found = square_and_add(lambda a, b: a - b, [one, other])
    return Figure(value, found.low, found.high, n, "", found.method)


def _with_ends(figure: Figure) -> Share:
    """The figure with Wilson's interval where it has one, else with its own."""
    wilson = next((one for one in figure.others if one.method == "wilson"), None)
    return Share(figure.value, figure.low, figure.high) if wilson is None else Share(figure.value, *wilson[1:])
