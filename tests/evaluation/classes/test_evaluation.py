"""Evaluation as a whole: samples counted, samples left out, and refused inputs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from lepton_vision.config.sections import PreprocessConfig
from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation import evaluate
from lepton_vision.evaluation.classes.figures import validation_figures
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.types import SampleAddress, Target

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


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_means_are_over_the_classes_that_are_there_and_say_so(
    random_predictions: Make, caplog: pytest.LogCaptureFixture
) -> None:
    predictions = random_predictions(unknown=0.0)
    part = predictions.select(predictions.y_true["organ"] != 2)
    part.y_true["signs"][:, 1] = 0.0  # type: ignore[index]
    figures = evaluate(part, operating_point=POINT).figures
    truth, prob = part.y_true["organ"], part.y_prob["organ"]
    areas = [metrics.roc_auc_score(truth == k, prob[:, k]) for k in (0, 1)]
    assert figures["organ"]["auroc"].value == pytest.approx(np.mean(areas), abs=1e-12)
    recalled = metrics.balanced_accuracy_score(truth, prob.argmax(1))
    assert figures["organ"]["balanced_accuracy"].value == pytest.approx(recalled, abs=1e-12)
    f1 = metrics.f1_score(truth, prob.argmax(1), labels=[0, 1], average="macro")
    assert figures["organ"]["f1_macro"].value == pytest.approx(f1, abs=1e-12)
    told = "mean of 2 of 3 classes, without brain (no positive sample)"
    assert {figures["organ"][name].reason.split(";")[0] for name in ("auroc", "balanced_accuracy")} == {told}
    assert figures["organ"]["accuracy"].reason == ""
    signs, shown = part.y_true["signs"], part.y_prob["signs"]
    areas = [metrics.roc_auc_score(signs[:, k], shown[:, k]) for k in (0, 2)]
    assert figures["signs"]["auroc"].value == pytest.approx(np.mean(areas), abs=1e-12)
    assert [one.method for one in figures["signs"]["auroc"].others] == ["obuchowski_logit_t", "obuchowski"]
    assert np.isnan(figures["signs"]["auroc_mass"].value)
    assert [message.split(",")[0] for message in caplog.messages] == ["Target 'organ'", "Target 'signs'"]


def test_one_positive_patient_gives_no_interval_of_the_ranking(random_predictions: Make) -> None:
    predictions = random_predictions(n=60, patients=30, unknown=0.0)
    sick, organ, first = predictions.y_true["sick"], predictions.y_true["organ"], predictions.patient_id[0]
    is_first = predictions.patient_id == first
    sick[:], organ[organ == 2] = is_first, 1  # type: ignore[index]
    organ[is_first] = 2  # type: ignore[index]
    figures = evaluate(predictions, operating_point=POINT).figures
    for target, name in (("sick", "auroc"), ("sick", "partial_auroc"), ("organ", "auroc_brain"), ("organ", "auroc")):
        one = figures[target][name]
        assert np.isfinite(one.value)
        assert np.isnan([one.low, one.high]).all()
        assert one.reason.startswith("no interval: one class has one patient only")
    assert np.isfinite(figures["sick"]["specificity"].low)
    assert np.isfinite(figures["organ"]["auroc_lung"].low)


def test_a_class_without_an_operating_point_has_no_figure_of_decisions(random_predictions: Make) -> None:
    predictions = random_predictions(unknown=0.0)
    point = OperatingPoint({"sick": (float("nan"),), "signs": (0.3, float("nan"), 0.6)}, "stated")
    result = evaluate(predictions, operating_point=point)
    signs, sick = result.figures["signs"], result.figures["sick"]
    truth, prob = predictions.y_true["signs"], predictions.y_prob["signs"]
    for figures, end in ((sick, ""), (signs, "_mass")):
        for name in ("sensitivity", "specificity", "ppv", "npv", "accuracy", "f1", "mcc", "lr_positive"):
            assert np.isnan(figures[f"{name}{end}"].value)
            assert figures[f"{name}{end}"].reason == "no operating point"
            assert figures[f"{name}{end}"].others == ()
        assert all(np.isfinite(figures[f"{name}{end}"].value) for name in ("auroc", "brier", "prevalence"))
    recalled = [metrics.recall_score(truth[:, k], prob[:, k] >= t) for k, t in ((0, 0.3), (2, 0.6))]
    assert signs["sensitivity"].value == pytest.approx(np.mean(recalled), abs=1e-12)
    assert signs["sensitivity"].reason.startswith("mean of 2 of 3 classes, without mass (no operating point)")
    assert signs["auroc"].reason == ""
    assert signs["f1_micro"].reason == "a class has no operating point"
    assert result.confusion["signs"][1].sum() == result.confusion["sick"].sum() == 0
    assert {case.class_name for case in result.worst["signs"] + result.unsure["signs"]} == {"edema", "air"}
    assert (result.worst["sick"], result.unsure["sick"]) == ((), ())
    assert [one.class_name for one in result.analyses.abstention["signs"]] == ["edema", "air"]  # type: ignore[index]
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["operating_point"]["thresholds"] == {"sick": [None], "signs": [0.3, None, 0.6]}
    again = OperatingPoint.from_dict(plain["operating_point"]).thresholds["signs"]
    np.testing.assert_array_equal(again, (0.3, np.nan, 0.6))


@pytest.mark.parametrize(
    ("thresholds", "word"),
    [
        ({}, "no threshold for the target 'sick'"),
        ({"sik": (0.5,)}, "'sik'"),
        ({"sick": ()}, "1 finite"),
        ({"sick": (0.5, 0.5)}, "1 finite"),
        ({"sick": (float("inf"),)}, "1 finite"),
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
    assert len(validation_figures(predictions)) == 3


def test_validation_figures_leave_out_what_validation_lacks(random_predictions: Make) -> None:
    predictions = random_predictions(unknown=0.0)
    part = predictions.select(predictions.y_true["organ"] != 2)
    part.y_true["sick"][:] = np.nan  # type: ignore[index]
    part.y_true["signs"][:, 1] = 0.0  # type: ignore[index]
    part.y_true["signs"][:, 2] = np.nan  # type: ignore[index]
    figures = validation_figures(part)
    truth, prob, signs, shown = (values[name] for name in ("organ", "signs") for values in (part.y_true, part.y_prob))
    for key, score in (
        ("val_auroc", metrics.roc_auc_score),
        ("val_average_precision", metrics.average_precision_score),
    ):
        organ = np.mean([score(truth == k, prob[:, k]) for k in (0, 1)])
        assert figures[key] == pytest.approx((organ + score(signs[:, 0], shown[:, 0])) / 2, abs=1e-12)
    losses = [metrics.log_loss(signs[:, k], shown[:, k], labels=[0, 1]) for k in (0, 1)]
    expected = (metrics.log_loss(truth, prob, labels=[0, 1, 2]) + np.mean(losses)) / 2
    assert figures["val_loss"] == pytest.approx(expected, abs=1e-9)
    assert (figures["val_classes_judged"], figures["val_classes_left_out"]) == (3, 4)
    part.y_true["organ"][:], part.y_true["signs"][:] = np.nan, np.nan  # type: ignore[index]
    assert np.isnan([validation_figures(part)[key] for key in ("val_auroc", "val_loss")]).all()


def test_notebook_table_shows_the_point() -> None:
    html = evaluate(binary([0, 1], [0.2, 0.7]), operating_point=POINT)._repr_html_()
    assert "stated" in html
    assert "auroc" in html


def test_evaluation_never_loads_torch_or_pandas() -> None:
    code = (
        "import sys, json; import numpy as np; import lepton_vision as lv;"
        "import lepton_vision.evaluation.choices.calibration;"
        "ids = np.array(['a', 'b', 'c']); t = lv.Target('t', 'binary', ('0', '1'));"
        "p = lv.Predictions((t,), ids, ids, ids, {'t': [0, 1, 1]}, {'t': [.1, .7, .4]});"
        "lv.evaluate(p, operating_point=lv.choose_operating_point(p));"
        "print(json.dumps([m for m in ('torch', 'pandas', 'pyarrow', 'sklearn', 'matplotlib') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
