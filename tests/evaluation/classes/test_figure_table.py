"""The table of figures: what it says of each kind of target is what an evaluation of it gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.evaluation import compare, evaluate
from lepton_vision.evaluation.classes.figure_table import BINARY, SPECS, Entry, parse_key
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.reporting.classes.card import render_report
from lepton_vision.reporting.wording import GROUPS
from lepton_vision.types import Target
from lepton_vision.types.figure import KINDS, FigureSpec

CLASSES: dict[str, tuple[str, ...]] = {
    "binary": ("no", "yes"),
    "multiclass": ("a", "b", "c"),
    "multilabel": ("a", "b"),
    "ordinal": ("a", "b", "c"),
    "regression": (),
}


def predictions_of(kind: str, *, seed: int = 0) -> Predictions:
    target = Target("t", kind, CLASSES[kind])  # type: ignore[arg-type]
    rng, k = np.random.default_rng(seed), len(CLASSES[kind])
    shape = target.output_shape(90)
    prob = rng.random(shape)
    truth = rng.random(90) if target.is_value else rng.integers(0, 2 if target.is_yes_no else k, target.label_shape(90))
    if target.is_exclusive:
        prob /= prob.sum(axis=1, keepdims=True)
    ids = np.array([f"i{n}" for n in range(90)])
    return Predictions((target,), ids, ids, ids, {"t": truth.astype(float)}, {"t": prob})


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_the_figures_that_the_table_says(kind: str) -> None:
    first, second = predictions_of(kind), predictions_of(kind)
    point = OperatingPoint({"t": (0.4,) * first.targets[0].outputs}, "stated")
    settings = EvaluationConfig(replicates=100, prevalence=0.2)
    figures = evaluate(first, operating_point=point, config=settings).figures["t"]
    whole = {name for name in figures if not parse_key(name, first.targets[0])[1]}
    assert whole == {name for name, spec in SPECS.items() if kind in spec.kinds}
    compared = compare(first, second, operating_point=point, config=settings)
    for name, spec in SPECS.items():
        assert {*spec.headline, *spec.endpoint, *spec.tested} <= set(spec.kinds), name
        assert spec.group in GROUPS, name
        assert (name in compared.endpoints["t"]) == (kind in spec.endpoint), name


@pytest.mark.parametrize("kind", KINDS)
def test_the_direction_and_the_scale_of_each_figure_hold(kind: str) -> None:
    """Of perfect and of reversed answers the first is better; a share lies in [0, 1] with 1 the best."""
    some = predictions_of(kind)
    target, truth = some.targets[0], some.y_true["t"]
    right = np.eye(3)[truth.astype(int)] if target.is_exclusive else truth
    best, worst = 0.02 + 0.94 * right, 0.96 - 0.94 * right
    if target.is_exclusive:
        best, worst = (one / one.sum(axis=1, keepdims=True) for one in (best, worst))
    point = OperatingPoint({"t": (0.4,) * target.outputs}, "stated")
    settings = EvaluationConfig(replicates=100, prevalence=0.2)
    good, bad = (
        evaluate(
            Predictions((target,), some.image_id, some.image_id, some.image_id, some.y_true, {"t": prob}),
            operating_point=point,
            config=settings,
        ).figures["t"]
        for prob in (best, worst)
    )
    for name, spec in SPECS.items():
        if kind in spec.kinds and spec.better != "neither":
            a, b = good[name].value, bad[name].value
            assert np.isnan(a) or np.isnan(b) or (a < b if spec.better == "lower" else a > b), name
            assert spec.scale == "number" or spec.better == "lower" or a == pytest.approx(1.0), name


def test_one_entry_is_all_that_a_further_figure_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = FigureSpec("youden", "Youden's index", "Sensitivity and specificity less 1.", kinds=("binary",))
    entry = Entry(spec, lambda cells: cells.sensitivity + cells.specificity - 1.0)
    monkeypatch.setitem(BINARY, "youden", entry)  # type: ignore[arg-type]
    monkeypatch.setitem(SPECS, "youden", spec)  # type: ignore[arg-type]
    first, second = predictions_of("binary"), predictions_of("binary", seed=1)
    second = replace(first, y_prob=second.y_prob)
    point = OperatingPoint({"t": (0.4,)}, "stated")
    settings = EvaluationConfig(replicates=100)
    columns = {"half": ["a"] * 45 + ["b"] * 45}
    found = evaluate(first, operating_point=point, config=settings, columns=columns)
    figures = found.figures["t"]
    expected = figures["sensitivity"].value + figures["specificity"].value - 1.0
    assert figures["youden"].value == pytest.approx(expected)
    assert figures["youden"].low < expected < figures["youden"].high
    assert found.analyses.subgroups is not None
    assert "youden" in found.analyses.subgroups[0].subgroups[0].figures["t"]
    page = render_report(found)
    assert "Youden&#39;s index" in page
    assert "Sensitivity and specificity less 1." in page
    compared = compare(first, second, operating_point=point, config=settings, margin={"youden": 0.9})
    difference = compared.differences["t"]["youden"]
    assert difference.figure.value == pytest.approx(difference.b - difference.a)
    assert difference.margin == 0.9
