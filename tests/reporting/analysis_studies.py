"""Made-up analyses and heat maps: values of the right form, whose numbers the tests look for in the page."""

from __future__ import annotations

import math

import numpy as np

from lepton_vision.evaluation.classes.analyses import (
    Abstention,
    Analyses,
    Band,
    CalibrationBin,
    CalibrationStatistics,
    ConformalSets,
    DecisionCurve,
    External,
    Gap,
    Recalibration,
    Referral,
    Shift,
    Subgroup,
    SubgroupColumn,
)
from lepton_vision.evaluation.classes.evaluation import Evaluation
from lepton_vision.types import CaseKey, Figure, HeatMaps


def make_maps(evaluation: Evaluation, *, side: int = 64) -> HeatMaps:
    """A warm spot for each case of the galleries; every third map is empty."""
    y, x = np.mgrid[0 : 1 : side * 1j, 0 : 1 : side * 1j]
    maps = {}
    for name in evaluation.worst:
        for k, case in enumerate((*evaluation.worst[name], *evaluation.unsure[name])):
            spot = np.exp(-((x - 0.3 - 0.04 * k) ** 2 + (y - 0.5) ** 2) / 0.02) * (k % 3 > 0)
            maps[CaseKey(case.image_id, name, case.class_name)] = spot.astype(np.float32)
    return maps


def band(value: np.ndarray, width: float) -> Band:
    return Band(value, value - width, value + width)


def make_analyses(target: str = "covid", class_name: str = "COVID") -> Analyses:
    t = np.linspace(0.02, 0.98, 49)
    gain = 0.12 - (t - 0.4) ** 2
    curve = DecisionCurve(
        class_name, 240, t, band(0.3 - 0.25 * t, 0.03), band(0.45 - 0.55 * t / (1 - t), 0.02), band(gain, 0.05)
    )
    statistics = CalibrationStatistics(
        class_name, 240, 110, (CalibrationBin(0.2, Figure(0.25, 0.1, 0.4, 40)),),
        {"slope": Figure(0.871, 0.702, 1.044, 240), "intercept": Figure(-0.132, -0.401, 0.118, 240)},
    )  # fmt: skip
    sets = ConformalSets(
        "", ("NonCOVID", "COVID"), 0.9, (0.2, 0.3), (80, 70), 240,
        {"NonCOVID": Figure(0.912, 0.85, 0.95, 130), "COVID": Figure(0.884, 0.81, 0.93, 110)},
        Figure(1.213, 1.15, 1.28, 240), (Figure(0.0, 0.0, 0.02, 240), Figure(0.787, 0.7, 0.85, 240),
                                         Figure(0.213, 0.15, 0.28, 240)),
    )  # fmt: skip
    coverage = np.linspace(0.05, 1.0, 20)
    abstention = Abstention(
        "", 240, coverage, band(0.22 * coverage**2, 0.02), Figure(0.081, 0.06, 0.11, 240),
        (Referral(0.05, Figure(0.523, 0.41, 0.63, 240)), Referral(0.01, Figure(math.nan, math.nan, math.nan, 240))),
    )  # fmt: skip
    return Analyses(
        {target: (statistics,)}, {target: (curve,)}, {target: (sets,)}, {target: (abstention,)},
        (make_column(target, "sex", ("female", "male")), make_column(target, "site", ("A", "B", "C<i>"))),
        External(
            "evaluation, split test, n = 512",
            {target: {"auroc": Shift(*(Figure(v, v - 0.04, v + 0.04, 240) for v in (0.931, 0.874, -0.057)))}},
            {target: (Recalibration(class_name, {"observed": Figure(0.458, 0.39, 0.52, 240)}),)},
        ),
    )  # fmt: skip


def make_column(target: str, name: str, values: tuple[str, ...]) -> SubgroupColumn:
    groups = []
    for k, value in enumerate(values):
        figures = {
            key: Figure(center - 0.03 * k, center - 0.03 * k - 0.05, center - 0.03 * k + 0.04, 80 - k)
            for key, center in (("auroc", 0.93), ("sensitivity", 0.88), ("specificity", 0.79))
        }
        groups.append(Subgroup(value, 120 - 50 * k, 40 - 17 * k, k == 2, {target: figures}))
    gap = Gap(target, "auroc", values[0], values[1], Figure(0.031, 0.002, 0.094, 160), 0.0412, 0.1236)
    return SubgroupColumn(name, tuple(groups), 7, (gap,), ("A small group.",))
