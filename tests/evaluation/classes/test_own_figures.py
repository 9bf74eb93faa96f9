"""Figures of the caller: values and intervals against scikit-learn and resamples by hand, and what is refused."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn import metrics

import lepton_vision as lv
from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.classes.external import Site
from lepton_vision.evaluation.statistics.intervals import draw_counts, patient_units
from lepton_vision.predictions import Predictions
from lepton_vision.types import Target

Make = Callable[..., Predictions]
POINT = lv.OperatingPoint({"sick": (0.4,), "signs": (0.3, 0.5, 0.6)}, "stated")
QUICK = EvaluationConfig(replicates=100, subgroup_min_patients=5)
SICK = Target("sick", "binary", ("no", "yes"))


def f2(y_true: Any, y_prob: Any, sample_weight: Any) -> float:
    called, true = y_prob >= 0.4, y_true == 1
    hits, wrong, missed = (float(sample_weight @ one) for one in (called & true, called & ~true, ~called & true))
    return 5 * hits / (5 * hits + 4 * missed + wrong)


def binary_alone(predictions: Predictions) -> Predictions:
    truth, prob = {"sick": predictions.y_true["sick"]}, {"sick": predictions.y_prob["sick"]}
    return Predictions((SICK,), predictions.image_id, predictions.patient_id, predictions.image_id, truth, prob)


@pytest.fixture
def sick(random_predictions: Make) -> Predictions:
    return binary_alone(random_predictions(n=100, patients=25))


def test_a_plain_function_has_the_value_of_scikit_learn_and_the_interval_of_resamples_by_hand(
    sick: Predictions,
) -> None:
    settings = EvaluationConfig(replicates=200, interval="percentile", seed=3)
    figure = lv.evaluate(sick, operating_point=POINT, config=settings, figures={"f2": f2}).figures["sick"]["f2"]
    known = sick.select(sick.labelled(SICK))
    truth, prob = known.y_true["sick"].astype(int), known.y_prob["sick"]
    assert figure.value == pytest.approx(metrics.fbeta_score(truth, prob >= 0.4, beta=2), abs=1e-12)
    unit, units = patient_units(known.patient_id)
    drawn = []
    for counts in draw_counts(units, replicates=200, samples=known.n, seed=3):
        for row in counts.astype(int):
            rows = np.concatenate([np.flatnonzero(unit == patient) for patient in np.repeat(np.arange(units), row)])
            drawn.append(metrics.fbeta_score(truth[rows], prob[rows] >= 0.4, beta=2))
    assert (figure.low, figure.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=1e-12)
    assert (figure.n, figure.method, figure.reason) == (known.n, "percentile", "")


@pytest.mark.parametrize("name", ["auroc", "brier"])
def test_one_of_ours_given_as_a_function_is_the_same_everywhere(sick: Predictions, name: str) -> None:
    function = {
        "auroc": metrics.roc_auc_score,
        "brier": lambda y, p, w: (y - p) ** 2 @ w / w.sum(),
    }[name]
    better, scale = ("higher", "share") if name == "auroc" else ("lower", "number")
    own = {"mine": lv.OwnFigure(function, better=better, scale=scale)}
    sex = {"sex": np.where(np.arange(sick.n) % 3 > 0, "f", "m").tolist()}
    there = Predictions(
        sick.targets,
        np.char.add("x", sick.image_id),
        sick.patient_id,
        sick.image_id,
        sick.y_true,
        {"sick": np.clip(sick.y_prob["sick"] + np.random.default_rng(1).normal(0, 0.2, sick.n), 0.01, 0.99)},
    )
    found = lv.evaluate(sick, operating_point=POINT, config=QUICK, figures=own, columns=sex, site=Site(there))

    def same(a: Any, b: Any) -> None:
        assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), abs=1e-9)
        assert (a.n, a.method, a.reason) == (b.n, b.method, b.reason)

    figures = found.figures["sick"]
    same(figures["mine"], figures[name])
    assert figures["mine"].method == "bca"
    assert found.analyses.subgroups is not None
    assert found.analyses.external is not None
    (column,) = found.analyses.subgroups
    for group in column.subgroups:
        same(group.figures["sick"]["mine"], group.figures["sick"][name])
    gaps = {gap.figure: gap for gap in column.gaps}
    assert "mine" in gaps
    if name == "auroc":
        assert gaps["mine"].p == pytest.approx(gaps[name].p, abs=1e-9)
        assert gaps["mine"].difference.low == pytest.approx(gaps[name].difference.low, abs=1e-9)
    shifts = found.analyses.external.shifts["sick"]
    same(shifts["mine"].difference, shifts[name].difference)
    compared = lv.compare(
        sick, there_of(sick, there), operating_point=POINT, config=QUICK, figures=own, margin={"mine": 0.2, name: 0.2}
    ).differences["sick"]
    same(compared["mine"].figure, compared[name].figure)
    assert (compared["mine"].a, compared["mine"].b) == pytest.approx((compared[name].a, compared[name].b), abs=1e-9)
    assert compared["mine"].is_non_inferior == compared[name].is_non_inferior
    assert compared["mine"].p_non_inferior == pytest.approx(compared[name].p_non_inferior)


def there_of(here: Predictions, there: Predictions) -> Predictions:
    """A second model on the same cases, with the probabilities of the other site."""
    return Predictions(here.targets, here.image_id, here.patient_id, here.image_id, here.y_true, there.y_prob)


def test_each_kind_of_target_gets_the_arrays_that_are_documented(random_predictions: Make) -> None:
    predictions = random_predictions(n=60, patients=30)
    seen: dict[tuple[int, ...], Any] = {}

    def look(y_true: Any, y_prob: Any, sample_weight: Any) -> float:
        seen.setdefault((y_true.ndim, y_prob.ndim), []).append((y_true, y_prob, sample_weight))
        return float(sample_weight @ np.nan_to_num(y_prob.reshape(len(y_prob), -1)[:, 0]))

    found = lv.evaluate(
        predictions, operating_point=POINT, config=EvaluationConfig(replicates=100), figures={"x": look}
    )
    kinds = {"sick": (1, 1), "organ": (1, 2), "signs": (2, 2)}
    for target in predictions.targets:
        part = predictions.select(predictions.labelled(target))
        truth, prob, weight = seen[kinds[target.name]][0]
        np.testing.assert_array_equal(truth, part.y_true[target.name])
        np.testing.assert_array_equal(prob, part.y_prob[target.name])
        assert truth.dtype == (np.float64 if target.kind == "multilabel" else np.int64)
        assert prob.dtype == weight.dtype == np.float64
        assert weight.tolist() == [1.0] * part.n
        for _, _, drawn in seen[kinds[target.name]]:
            units = np.bincount(patient_units(part.patient_id)[0])
            assert drawn.shape == (part.n,)
            assert drawn.max() <= units.size
        assert found.figures[target.name]["x"].n == part.n


def test_a_figure_may_be_for_some_kinds_alone(random_predictions: Make) -> None:
    own = lv.OwnFigure(f2, kinds=("binary",))
    found = lv.evaluate(random_predictions(), operating_point=POINT, config=QUICK, figures={"f2": own})
    assert [name for name, figures in found.figures.items() if "f2" in figures] == ["sick"]
    with pytest.raises(EvaluationError, match=r"'f2' needs a target that is ordinal.*sick \(binary\)"):
        lv.evaluate(
            binary_alone(random_predictions()),
            operating_point=POINT,
            config=QUICK,
            figures={"f2": lv.OwnFigure(f2, kinds=("ordinal",))},
        )


def test_results_tell_of_them(sick: Predictions, tmp_path: Any) -> None:
    own = {
        "f2": lv.OwnFigure(f2, title="F2 <score>", meaning="Sensitivity counts more.", scale="share"),
        "plain_one": f2,
    }
    sex = {"sex": np.where(np.arange(sick.n) % 3 > 0, "f", "m").tolist()}
    found = lv.evaluate(sick, operating_point=POINT, config=QUICK, figures=own, columns=sex)
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["own_figures"]["f2"] == {
        "title": "F2 <score>",
        "meaning": "Sensitivity counts more.",
        "better": "higher",
        "scale": "share",
    }
    assert plain["own_figures"]["plain_one"]["title"] == "plain one"
    assert plain["targets"]["sick"]["figures"]["f2"]["low"] < plain["targets"]["sick"]["figures"]["f2"]["high"]
    assert "f2" in repr(found)
    assert "own_figures" not in lv.evaluate(sick, operating_point=POINT, config=QUICK).to_dict()
    compared = lv.compare(sick, sick, operating_point=POINT, config=QUICK, figures=own, endpoints=["f2"])
    assert compared.to_dict()["own_figures"] == plain["own_figures"]
    assert not np.isnan(compared.differences["sick"]["f2"].p_adjusted)
    page = lv.write_report(found, tmp_path / "report.html").read_text(encoding="utf-8")
    for text in ("Own figures", "F2 &lt;score&gt;", "Sensitivity counts more.", "plain one"):
        assert text in page
    assert page.count('class="forest"') == 5, "three of ours, and both of these"
    assert page.count('class="ticks"') == 4, "a plain function has no scale from 0 to 1"


def test_images_are_joined_before_a_figure_sees_them(sick: Predictions) -> None:
    settings = EvaluationConfig(replicates=100, unit="patient", aggregation="mean")
    seen: set[int] = set()

    def count(y_true: Any, y_prob: Any, sample_weight: Any) -> float:
        seen.add(len(y_true))
        return float(sample_weight.mean())

    lv.evaluate(sick, operating_point=POINT, config=settings, figures={"x": count})
    joined = lv.aggregate(sick, unit="patient", method="mean")
    assert seen == {int(joined.labelled(SICK).sum())}


def test_a_figure_that_is_undefined_in_some_samples_is_like_ours(sick: Predictions) -> None:
    """Of a subgroup without a positive, and of resamples without one."""
    truth = np.zeros(sick.n)
    truth[:3] = 1
    few = Predictions((SICK,), sick.image_id, sick.image_id, sick.image_id, {"sick": truth}, sick.y_prob)

    def sensitivity(y_true: Any, y_prob: Any, sample_weight: Any) -> float:
        positive = sample_weight @ (y_true == 1)
        return float((sample_weight @ ((y_true == 1) & (y_prob >= 0.4))) / positive) if positive else np.nan

    groups = {"half": ["a" if k < sick.n // 2 else "b" for k in range(sick.n)]}
    found = lv.evaluate(few, operating_point=POINT, config=QUICK, figures={"mine": sensitivity}, columns=groups)
    mine, ours = (found.figures["sick"][name] for name in ("mine", "sensitivity"))
    assert mine.value == ours.value
    assert "of replicates in which it is defined" in mine.reason or not mine.low < mine.high
    assert found.analyses.subgroups is not None
    rest = found.analyses.subgroups[0].subgroups[1].figures["sick"]["mine"]
    assert np.isnan(rest.value)
    assert rest.reason == "the function that was given says NaN"


def spoil(y_true: Any, y_prob: Any, sample_weight: Any) -> float:
    y_true[0] = 1
    return 1.0


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda y, p, w: 1 / 0, "'mine' failed with ZeroDivisionError"),
        (lambda y, p: 1.0, "'mine' failed with TypeError"),
        (spoil, "'mine' failed with ValueError.*leave its arrays as they are"),
        (lambda y, p, w: np.nan, "'mine' needs a number from all .* labelled samples of 'sick'.*NaN"),
        (lambda y, p, w: np.inf, "'mine' needs to return a finite number.*infinity"),
        (lambda y, p, w: p, "'mine' needs to return a finite number.*ndarray"),
        (lambda y, p, w: {}, "'mine' needs to return a finite number.*dict"),
        (lambda y, p, w: None, "'mine' needs to return a finite number.*NoneType"),
        (lambda y, p, w: "0.5", "'mine' needs to return a finite number.*str"),
    ],
)
def test_what_a_function_must_not_do_is_one_error_that_names_it(sick: Predictions, function: Any, message: str) -> None:
    for call in (
        lambda: lv.evaluate(sick, operating_point=POINT, config=QUICK, figures={"mine": function}),
        lambda: lv.compare(sick, sick, operating_point=POINT, config=QUICK, figures={"mine": function}),
    ):
        with pytest.raises(EvaluationError, match=message) as caught:
            call()
        assert caught.value.key == "mine"
    if "failed" in message:
        assert caught.value.__cause__ is not None


def test_a_function_that_fails_on_a_resample_alone_is_named_too(sick: Predictions) -> None:
    def picky(y_true: Any, y_prob: Any, sample_weight: Any) -> float:
        if (sample_weight == 0).any():
            raise KeyError("whatever")
        return 0.5

    with pytest.raises(EvaluationError, match="'mine' failed with KeyError"):
        lv.evaluate(sick, operating_point=POINT, config=QUICK, figures={"mine": picky})


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ({"auroc": f2}, "'auroc' is the name of a figure of this package"),
        ({"sensitivity_lung": f2}, r"'sensitivity_lung' is the name of a figure.*Sensitivity"),
        ({"f1_weighted": f2}, "'f1_weighted' is the name of a figure"),
        ({"f 2": f2}, "letters, digits and underscores"),
        ({2: f2}, "letters, digits and underscores"),
        ({"mine": 0.5}, "'mine' needs a function"),
        ({"mine": lv.OwnFigure(f2, better="up")}, "'mine' needs one of higher, lower, neither. Received: 'up'"),  # type: ignore[arg-type]
        ({"mine": lv.OwnFigure(f2, scale="percent")}, "'mine' needs one of share, number"),  # type: ignore[arg-type]
        ({"mine": lv.OwnFigure(f2, kinds=("binry",))}, "'mine' needs one of binary, .*'binry'"),  # type: ignore[arg-type]
        ([f2], "expected functions by name"),
    ],
)
def test_figures_that_cannot_be_are_refused(random_predictions: Make, figures: Any, message: str) -> None:
    predictions = random_predictions(n=60)
    with pytest.raises(EvaluationError, match=message):
        lv.evaluate(predictions, operating_point=POINT, config=QUICK, figures=figures)
    with pytest.raises(EvaluationError, match=message):
        lv.compare(predictions, predictions, operating_point=POINT, config=QUICK, figures=figures)


def test_the_weights_go_to_the_parameter_of_their_name(sick: Predictions) -> None:
    def late(y_true: Any, y_prob: Any, threshold: float = 0.4, sample_weight: Any = None) -> float:
        return f2(y_true, y_prob - (threshold - 0.4), sample_weight)

    def keyword(y_true: Any, y_prob: Any, *, sample_weight: Any) -> float:
        return f2(y_true, y_prob, sample_weight)

    found = lv.evaluate(sick, operating_point=POINT, config=QUICK, figures={"f2": f2, "late": late, "keyword": keyword})
    figures = found.figures["sick"]
    assert figures["f2"] == figures["late"] == figures["keyword"]


def test_warnings_of_the_function_are_its_own(sick: Predictions) -> None:
    def loud(y_true: Any, y_prob: Any, sample_weight: Any) -> float:
        warnings.warn("of the function", UserWarning, stacklevel=1)
        return 0.5

    with pytest.warns(UserWarning, match="of the function"):
        lv.evaluate(sick, operating_point=POINT, config=EvaluationConfig(replicates=100), figures={"mine": loud})
