"""Aggregation to series, studies and patients: probabilities and labels by hand, and refused inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation import aggregate, evaluate, fit_aggregation
from lepton_vision.evaluation.classes.units import Aggregation
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.types import Target

Make = Callable[..., Predictions]
SICK = Target("sick", "binary", ("no", "yes"))
ORGAN = Target("organ", "multiclass", ("liver", "lung", "brain"))
POINT = OperatingPoint({"sick": (0.5,)}, "stated")


def images() -> Predictions:
    """Patients q (two series of one study), p (one image) and one that is unknown."""
    return Predictions(
        (SICK,),
        np.array(["i0", "i1", "i2", "i3", "i4"]),
        np.array(["q", "p", "q", "q", ""]),
        np.array(["s1", "s2", "s1", "s3", "s4"]),
        {"sick": np.array([0, np.nan, np.nan, 1, 0])},
        {"sick": np.array([0.2, 0.9, 0.5, 0.6, 0.1])},
        study_id=np.array(["t1", "t2", "t1", "t1", "t3"]),
    )


@pytest.mark.parametrize(
    ("method", "expected"),
    [("max", [0.6, 0.9, 0.1]), ("mean", [1.3 / 3, 0.9, 0.1]), ("noisy_or", [1 - 0.8 * 0.5 * 0.4, 0.9, 0.1])],
)
def test_patients_by_hand(method: str, expected: list[float]) -> None:
    cases = aggregate(images(), unit="patient", method=method)  # type: ignore[arg-type]
    assert cases.image_id.tolist() == ["q", "p", "i4"]  # order of appearance; an unknown patient is its own
    assert cases.patient_id.tolist() == ["q", "p", ""]
    np.testing.assert_allclose(cases.y_prob["sick"], expected, atol=1e-15)
    np.testing.assert_array_equal(cases.y_true["sick"], [1.0, np.nan, 0.0])


def test_series_and_studies() -> None:
    series = aggregate(images(), unit="series", method="max")
    assert series.image_id.tolist() == series.series_id.tolist() == ["s1", "s2", "s3", "s4"]
    np.testing.assert_array_equal(series.y_true["sick"], [0.0, np.nan, 1.0, 0.0])
    assert series.y_prob["sick"].tolist() == [0.5, 0.9, 0.6, 0.1]
    study = aggregate(images(), unit="study", method="max")
    assert study.study_id is not None
    assert study.study_id.tolist() == ["t1", "t2", "t3"]
    assert study.patient_id.tolist() == ["q", "p", ""]
    assert aggregate(images(), unit="image").image_id.tolist() == images().image_id.tolist()


def organs(truth: list[float]) -> Predictions:
    ids, patients = np.array(["a", "b", "c"]), np.array(["p", "p", "q"])
    prob = np.array([[0.5, 0.3, 0.2], [0.1, 0.7, 0.2], [0.2, 0.2, 0.6]])
    return Predictions((ORGAN,), ids, patients, ids, {"organ": np.array(truth)}, {"organ": prob})


def test_exclusive_classes_sum_to_one() -> None:
    cases = aggregate(organs([1, np.nan, 2]), unit="patient", method="max")
    np.testing.assert_allclose(cases.y_prob["organ"][0], np.array([0.5, 0.7, 0.2]) / 1.4)
    np.testing.assert_array_equal(cases.y_true["organ"], [1, 2])
    mean = aggregate(organs([1, 1, 2]), unit="patient").y_prob["organ"][0]
    np.testing.assert_allclose(mean, [0.3, 0.5, 0.2])


def test_what_is_refused() -> None:
    with pytest.raises(EvaluationError, match=r"differ within a patient. Received: 1 such units of 2"):
        aggregate(organs([0, 1, 2]), unit="patient")
    with pytest.raises(EvaluationError, match="noisy_or is for binary"):
        aggregate(organs([1, 1, 2]), unit="patient", method="noisy_or")
    with pytest.raises(EvaluationError, match="needs the column study_id"):
        aggregate(organs([1, 1, 2]), unit="study")
    with pytest.raises(EvaluationError, match="needs a fit"):
        aggregate(images(), unit="patient", method="learnt")
    with pytest.raises(EvaluationError, match="one for 'series'"):
        aggregate(images(), unit="patient", method="learnt", learnt=fit_aggregation(images(), unit="series"))
    crossed = replace(images(), patient_id=np.array(["q", "p", "r", "q", ""]))
    with pytest.raises(EvaluationError, match="must be of one patient"):
        aggregate(crossed, unit="study")
    for split in ("test", "train"):
        with pytest.raises(EvaluationError, match="fitted on validation"):
            fit_aggregation(replace(images(), split=split), unit="patient")
    with pytest.raises(EvaluationError, match="needs labelled units"):
        fit_aggregation(replace(images(), y_true={"sick": np.full(5, np.nan)}), unit="patient")


def rare_findings(seed: int, split: str) -> Predictions:
    """Sick patients show it in one image of ten; the mean hides what the maximum finds."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(200), 10)
    truth = (rng.random(200) < 0.5)[patient].astype(float)
    shows = (np.arange(2000) % 10 == 0) & (truth > 0)
    prob = 1 / (1 + np.exp(-(rng.normal(size=2000) - 2 + 4 * shows)))
    ids = np.array([f"i{k}" for k in range(2000)])
    patients = np.array([f"p{k}" for k in patient])
    return Predictions((SICK,), ids, patients, ids, {"sick": truth}, {"sick": prob}, split=split)


def test_a_learnt_aggregation_finds_what_counts_and_travels() -> None:
    learnt = fit_aggregation(rare_findings(0, "val"), unit="patient")
    assert learnt.weights["sick"][0][2] > 1.0  # the maximum, not the mean
    assert Aggregation.from_dict(learnt.to_dict()) == learnt
    test = rare_findings(1, "test")
    areas = {}
    for method in ("mean", "learnt"):
        config = EvaluationConfig(unit="patient", aggregation=method, replicates=100)
        result = evaluate(test, operating_point=POINT, config=config, aggregation=learnt)
        assert result.n == result.n_patients == 200
        assert result.provenance["aggregation"] == method
        cases = aggregate(test, unit="patient", method=method, learnt=learnt)  # type: ignore[arg-type]
        areas[method] = result.figures["sick"]["auroc"].value
        assert areas[method] == pytest.approx(roc_auc_score(cases.y_true["sick"], cases.y_prob["sick"]))
    assert areas["learnt"] > areas["mean"] + 0.02


def test_a_learnt_aggregation_of_other_kinds(random_predictions: Make) -> None:
    first = random_predictions(unknown=0.0, patients=10_000)
    first = first.select(np.unique(first.patient_id, return_index=True)[1])  # labels differ within the others
    learnt = fit_aggregation(first, unit="patient")
    assert len(learnt.weights["signs"]) == 3
    cases = aggregate(first, unit="patient", method="learnt", learnt=learnt)
    np.testing.assert_allclose(cases.y_prob["organ"].sum(axis=1), 1.0)
    with pytest.raises(EvaluationError, match="lacks the target 'sick'"):
        aggregate(first, unit="patient", method="learnt", learnt=Aggregation("patient", {}, 3))


def test_study_ids_are_kept_with_the_rows(tmp_path: object) -> None:
    first = images()
    part = first.select(np.array([3, 0]))
    assert part.study_id is not None
    assert part.study_id.tolist() == ["t1", "t1"]
    for suffix in (".csv", ".parquet"):
        path = first.save(f"{tmp_path}/p{suffix}")
        back = Predictions.load(path)
        assert back.study_id is not None
        assert back.study_id.tolist() == first.study_id.tolist()  # type: ignore[union-attr]
    joined = Predictions.concat([part, first.select(np.array([1]))])
    assert joined.study_id is not None
    assert joined.study_id.tolist() == ["t1", "t1", "t2"]


def test_subgroups_of_patients_take_the_value_that_all_their_images_have() -> None:
    rng = np.random.default_rng(0)
    patients = np.array([f"p{i // 2}" for i in range(80)])
    truth = np.repeat(rng.integers(0, 2, 40), 2).astype(float)
    target = Target("sick", "binary", ("no", "yes"))
    ids = np.array([f"i{k}" for k in range(80)])
    prob = (rng.random(80) + truth) / 2
    images = Predictions((target,), ids, patients, ids, {"sick": truth}, {"sick": prob})
    sex = np.repeat(["f", "m"], 40).tolist()
    sex[1] = "m"  # the first patient has both
    settings = EvaluationConfig(replicates=100, unit="patient", subgroup_min_patients=2)
    found = evaluate(
        images, operating_point=OperatingPoint({"sick": (0.5,)}, ""), config=settings, columns={"sex": sex}
    )
    (column,) = found.analyses.subgroups or ()
    assert [(one.value, one.n) for one in column.subgroups] == [("f", 19), ("m", 20)]
    assert column.n_unknown == 1


@pytest.mark.parametrize(("method", "expected"), [("mean", 0.3), ("noisy_or", 1 - 0.9 * 0.5), ("max", 0.5)])
def test_copies_of_an_image_count_once(method: str, expected: float) -> None:
    one, other, place = "0123456789abcdef", "123456789abcdef0-2", "fedcba9876543210"
    ids = np.array([one, other, f"{other}-{place}", "IM-0000000000000001"])
    patients, truth = np.array(["p", "p", "p", "q"]), {"sick": np.array([0, 0, 1, 0])}
    prob = {"sick": np.array([0.1, 0.5, 0.5, 0.2])}
    cases = aggregate(Predictions((SICK,), ids, patients, ids, truth, prob), unit="patient", method=method)  # type: ignore[arg-type]
    np.testing.assert_allclose(cases.y_prob["sick"], [expected, 0.2])
    assert cases.y_true["sick"].tolist() == [1.0, 0.0]
