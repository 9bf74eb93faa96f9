"""Evaluation as a whole: what is counted, what is left out, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from lepton_vision.config import PreprocessConfig
from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation import evaluate
from lepton_vision.evaluation.classification import validation_figures
from lepton_vision.inference import Predictions
from lepton_vision.types import OperatingPoint, SampleAddress, Target

Make = Callable[..., Predictions]
SICK = Target("sick", "binary", ("no", "yes"))
POINT = OperatingPoint({"sick": (0.4,), "signs": (0.3, 0.5, 0.6)}, "stated")


def test_counts_and_provenance(random_predictions: Make) -> None:
    predictions = random_predictions(
        split="test", bundle_id="b7", failures=(("x", "truncated"),), preprocess=PreprocessConfig()
    )
    result = evaluate(predictions, operating_point=POINT)
    unknown = np.isnan(predictions.y_true["sick"])
    signs = np.isnan(predictions.y_true["signs"]).all(axis=1)
    used = ~(unknown & np.isnan(predictions.y_true["organ"]) & signs)
    assert result.n_unlabelled["sick"] == unknown.sum()
    assert result.n_unlabelled["signs"] == signs.sum()
    assert result.n == used.sum()
    assert result.n_patients == len(set(predictions.patient_id[used]))
    assert (result.split, result.n_failed, result.preprocess) == ("test", 1, PreprocessConfig())
    assert result.operating_point is POINT
    assert result.provenance["bundle_id"] == "b7"


def test_confusion_is_scikit_learns(random_predictions: Make) -> None:
    predictions = random_predictions(seed=3)
    result = evaluate(predictions, operating_point=POINT)
    truth, prob = predictions.y_true, predictions.y_prob
    known = ~np.isnan(truth["sick"])
    expected = metrics.confusion_matrix(truth["sick"][known], prob["sick"][known] >= 0.4)
    np.testing.assert_array_equal(result.confusion["sick"], expected)
    known = ~np.isnan(truth["organ"])
    expected = metrics.confusion_matrix(truth["organ"][known], prob["organ"][known].argmax(1))
    np.testing.assert_array_equal(result.confusion["organ"], expected)
    for k, threshold in enumerate(POINT.thresholds["signs"]):
        known = ~np.isnan(truth["signs"][:, k])
        expected = metrics.confusion_matrix(truth["signs"][known, k], prob["signs"][known, k] >= threshold)
        np.testing.assert_array_equal(result.confusion["signs"][k], expected)
    assert [curves.class_name for curves in result.curves["signs"]] == ["edema", "mass", "air"]
    assert [curves.class_name for curves in result.curves["sick"]] == ["yes"]


def binary(truth: list[float], prob: list[float], **more: object) -> Predictions:
    ids = np.array([f"i{k}" for k in range(len(prob))])
    values = {"sick": np.array(truth, dtype=float)}, {"sick": np.array(prob, dtype=float)}
    return Predictions((SICK,), ids, ids, ids, *values, **more)  # type: ignore[arg-type]


def test_a_score_at_the_threshold_is_positive() -> None:
    result = evaluate(binary([0, 1], [0.3, 0.4]), operating_point=OperatingPoint({"sick": (0.4,)}, "stated"))
    assert result.confusion["sick"].tolist() == [[1, 0], [0, 1]]
    assert result.worst["sick"] == ()


def test_worst_cases_are_wrong_and_in_order() -> None:
    where = tuple(SampleAddress(Path(f"Jane_Doe/{k}.dcm"), None, k) for k in range(5))
    predictions = binary([0, 1, 1, 0, np.nan], [0.95, 0.2, 0.45, 0.1, 0.99], addresses=where)
    result = evaluate(predictions, operating_point=POINT)
    assert [(c.image_id, c.y_true, c.y_prob, c.truth) for c in result.worst["sick"]] == [
        ("i0", 0.0, 0.95, "no"),
        ("i1", 1.0, 0.2, "yes"),
    ]
    assert result.worst["sick"][0].address == where[0]
    assert "Jane" not in json.dumps(result.to_dict())


def test_worst_cases_of_the_other_kinds(random_predictions: Make) -> None:
    predictions = random_predictions(seed=2)
    result = evaluate(predictions, operating_point=POINT)
    organ = result.worst["organ"]
    assert 0 < len(organ) <= 12
    assert [case.y_prob for case in organ] == sorted(case.y_prob for case in organ)
    for case in organ:
        row = int(case.image_id[1:])
        assert case.y_prob == predictions.y_prob["organ"][row, int(predictions.y_true["organ"][row])]
        assert case.truth != case.class_name == ("liver", "lung", "brain")[predictions.y_prob["organ"][row].argmax()]
    for case in result.worst["signs"]:
        row, k = int(case.image_id[1:]), ("edema", "mass", "air").index(case.class_name)
        assert (case.y_true, case.y_prob) == (predictions.y_true["signs"][row, k], predictions.y_prob["signs"][row, k])
        assert (case.y_prob >= POINT.thresholds["signs"][k]) != bool(case.y_true)
        assert case.truth == ("present" if case.y_true else "absent")


@pytest.mark.parametrize("truth", [[1, 1, 1], [0, 0, 0], [np.nan] * 3, []])
def test_undefined_figures_carry_a_reason(truth: list[float]) -> None:
    result = evaluate(binary(truth, [0.1, 0.6, 0.7][: len(truth)]), operating_point=POINT)
    figures = result.figures["sick"]
    assert np.isnan(figures["auroc"].value)
    assert np.isnan(figures["auroc"].low)
    for figure in figures.values():
        assert bool(figure.reason) >= bool(np.isnan(figure.value))
    assert (
        json.loads(json.dumps(result.to_dict(), allow_nan=False))["targets"]["sick"]["figures"]["auroc"]["value"]
        is None
    )
    assert "undefined" in result._repr_html_()


def test_a_class_without_samples_leaves_the_mean_undefined(random_predictions: Make) -> None:
    predictions = random_predictions()
    part = predictions.select(predictions.y_true["organ"] != 2)
    part.y_true["signs"][:, 1] = 0.0  # type: ignore[index]
    figures = evaluate(part, operating_point=POINT).figures
    assert figures["organ"]["auroc"].reason == "no sample of class brain"
    assert np.isfinite(figures["organ"]["accuracy"].value)
    assert np.isnan(figures["organ"]["f1_macro"].value)
    assert figures["signs"]["auroc"].reason == "class mass: no positive sample"
    assert np.isfinite(figures["signs"]["auroc_edema"].value)


@pytest.mark.parametrize(
    ("thresholds", "word"),
    [
        ({}, "no threshold for the target 'sick'"),
        ({"sik": (0.5,)}, "'sik'"),
        ({"sick": ()}, "1 finite"),
        ({"sick": (0.5, 0.5)}, "1 finite"),
        ({"sick": (float("nan"),)}, "1 finite"),
    ],
)
def test_an_operating_point_that_does_not_fit(thresholds: dict[str, tuple[float, ...]], word: str) -> None:
    with pytest.raises(EvaluationError, match=word) as caught:
        evaluate(binary([0, 1], [0.2, 0.7]), operating_point=OperatingPoint(thresholds, "stated"))
    assert caught.value.key == "sick"


def test_the_operating_point_is_required() -> None:
    with pytest.raises(TypeError, match="operating_point"):
        evaluate(binary([0, 1], [0.2, 0.7]))  # type: ignore[call-arg]


def test_validation_figures_are_means_over_targets(random_predictions: Make) -> None:
    predictions = random_predictions()
    figures = evaluate(predictions, operating_point=POINT).figures
    for key, name in {
        "val_auroc": "auroc",
        "val_average_precision": "average_precision",
        "val_loss": "log_loss",
    }.items():
        expected = np.mean([figures[target][name].value for target in ("sick", "organ", "signs")])
        assert validation_figures(predictions)[key] == pytest.approx(expected, abs=1e-12)


def test_notebook_table_shows_the_point() -> None:
    html = evaluate(binary([0, 1], [0.2, 0.7]), operating_point=POINT)._repr_html_()
    assert "stated" in html
    assert "auroc" in html


def test_evaluation_never_loads_torch_or_pandas() -> None:
    code = (
        "import sys, json; import numpy as np; import lepton_vision as lv;"
        "import lepton_vision.evaluation.calibration;"
        "ids = np.array(['a', 'b', 'c']); t = lv.Target('t', 'binary', ('0', '1'));"
        "p = lv.Predictions((t,), ids, ids, ids, {'t': [0, 1, 1]}, {'t': [.1, .7, .4]});"
        "lv.evaluate(p, operating_point=lv.choose_operating_point(p));"
        "print(json.dumps([m for m in ('torch', 'pandas', 'pyarrow', 'sklearn', 'matplotlib') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
