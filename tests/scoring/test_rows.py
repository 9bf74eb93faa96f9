"""Columns of rows beside the probabilities: conformal sets and novelty; rows of series, studies and patients."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from lepton_vision.demo.study import write_demo_study
from lepton_vision.errors import BundleError
from lepton_vision.evaluation import evaluate
from lepton_vision.evaluation.classes.units import aggregate, fit_aggregation
from lepton_vision.inference.engine import Engine
from lepton_vision.models import Bundle
from lepton_vision.models.assemble import make_network
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.answer_sets import SetRule
from lepton_vision.predictions.novelty import Features, Novelty, fit_novelty
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.scoring import cases
from lepton_vision.scoring.batch import score
from lepton_vision.scoring.rows import decide, row_schema
from lepton_vision.types import Target
from tests.scoring.bundles import ORGAN, SICK, image_bundle

SETS = {
    "sick": (SetRule(("no", "yes"), 0.9, (0.5, 0.3), (9, 9)),),
    "organ": (SetRule(("a", "b", "c"), 0.9, (0.3, 0.3, 0.9), (9, 9, 9)),),
}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    plain = image_bundle("segmentation=null")
    points = np.random.default_rng(0).random((20, 64), np.float32)
    return plain.with_set_rules(SETS).with_novelty(fit_novelty(points, points + 0.1, k=3))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_demo_study(folder, patients=20)
    return folder / "study"


@pytest.mark.parametrize("side", [-1.0, 0.0, 1.0])
def test_scores_and_evaluations_decide_alike_at_the_threshold(side: float) -> None:
    prob = np.float32(0.40983717)
    threshold = float(np.nextafter(float(prob), float(prob) + side))  # as float32, all three are the score itself
    point = OperatingPoint({"sick": (threshold,), "organ": ()}, "stated")
    bundle = replace(image_bundle("segmentation=null"), operating_point=point)
    row = decide({"sick": np.array([prob]), "organ": np.array([0.4, 0.4, 0.2], np.float32)}, bundle)
    ids, truth = np.array(["a", "b"]), {"sick": np.array([1.0, 0.0])}
    images = Predictions((SICK,), ids, ids, ids, truth, {"sick": np.array([prob, 0.1], np.float32)})
    found = evaluate(images, operating_point=OperatingPoint({"sick": (threshold,)}, "stated"))
    is_called = Fraction(float(prob)) >= Fraction(threshold)
    assert row["sick_positive"] == is_called == (row["sick_probability"] >= row["threshold"])
    assert found.figures["sick"]["sensitivity"].value == float(is_called)


def test_the_set_holds_every_answer_that_reaches_its_threshold(bundle: Bundle) -> None:
    values = {"sick": np.array([0.35], np.float32), "organ": np.array([0.4, 0.4, 0.2], np.float32)}
    row = decide(values, bundle)
    assert (row["sick_set"], row["organ_set"]) == ("no|yes", "a|b")
    values = {"sick": np.array([0.2], np.float32), "organ": np.array([0.2, 0.2, 0.6], np.float32)}
    row = decide(values, bundle)
    assert (row["sick_set"], row["organ_set"]) == ("no", "")
    assert "novelty" not in row  # a runtime without features


def test_without_an_operating_point_there_is_a_probability_and_no_decision(tmp_path: Path) -> None:
    signs = Target("signs", "multilabel", ("edema", "mass"))
    config = image_bundle("segmentation=null").config.with_targets((SICK, signs))
    point = OperatingPoint({"sick": (float("nan"),), "signs": (0.25, float("nan"))}, "stated")
    state = make_network(config).state_dict()
    bundle = Bundle(config=config, targets=config.targets, state=state, operating_point=point)
    again = Bundle.load(bundle.save(tmp_path / "bundle"))
    assert again.bundle_id == bundle.bundle_id
    assert json.loads((tmp_path / "bundle" / "bundle.json").read_text())["operating_point"]["thresholds"] == {
        "sick": [None],
        "signs": [0.25, None],
    }
    bundle = again
    row = decide({"sick": np.array([0.75], np.float32), "signs": np.array([0.5, 0.5], np.float32)}, bundle)
    assert (row["sick_probability"], row["signs_mass_probability"], row["signs_edema_threshold"]) == (0.75, 0.5, 0.25)
    assert row["signs_edema_positive"] is True
    assert [
        row.get(name) for name in ("sick_positive", "threshold", "signs_mass_positive", "signs_mass_threshold")
    ] == [None] * 4
    assert set(row) <= set(row_schema(bundle.targets).names)
    with pytest.raises(BundleError, match="finite thresholds"):
        bundle.with_operating_point(OperatingPoint({"sick": (0.5,), "signs": (0.25, float("inf"))}, "stated"))


def test_the_distance_is_that_to_the_kth_neighbour() -> None:
    rng = np.random.default_rng(1)
    train, val, new = (rng.normal(size=(n, 8)).astype(np.float32) for n in (30, 20, 5))
    novelty = fit_novelty(train, val, k=4)
    assert novelty is not None
    scaler = StandardScaler().fit(train)
    unit = [scaler.transform(part) for part in (train, val, new)]
    finder = NearestNeighbors(n_neighbors=4).fit(unit[0])
    of_val, of_new = (finder.kneighbors(part)[0][:, 3] for part in unit[1:])
    found = novelty.distances_of(new)
    np.testing.assert_allclose(found, of_new, rtol=3e-3)  # a thousandth is added to each deviation
    np.testing.assert_allclose(novelty.distances, np.sort(of_val), rtol=3e-3)
    shares = [novelty.percentile(one) for one in found]
    assert shares == pytest.approx([100 * np.mean(novelty.distances < np.float32(one)) for one in found])
    with_nan = np.stack([new[0], np.full(8, np.nan, np.float32), new[1]])
    np.testing.assert_array_equal(novelty.distances_of(with_nan), [found[0], np.nan, found[1]])
    assert np.isnan(novelty.percentile(float("nan")))


def compared_with_all(novelty: Novelty, features: Features) -> float:
    """Distance of one image, every point compared."""
    point = ((features - novelty.center) / novelty.scale).astype(np.float32)
    apart = novelty.reference - point
    return float(np.sqrt(np.sort(np.einsum("rf,rf->r", apart, apart))[novelty.k - 1]))


@pytest.mark.parametrize(("points", "width", "k"), [(1000, 512, 10), (300, 64, 1), (40, 7, 40), (25, 1, 3), (1, 5, 1)])
@pytest.mark.parametrize("kind", ["apart", "alike", "far", "tiny", "huge"])
def test_points_that_are_left_out_change_no_bit_of_a_distance(points: int, width: int, k: int, kind: str) -> None:
    rng = np.random.default_rng(points)
    reference = rng.normal(size=(points, width)).astype(np.float32)
    new = rng.normal(size=(9, width)).astype(np.float32)
    if kind == "alike":  # differences near the error of rounding: many points may be the k-th
        reference, new = 1 + reference * np.float32(1e-4), 1 + new * np.float32(1e-4)
    new[::2] = new[::2] if kind == "apart" else reference[:1]
    scale = np.float32({"far": 1e6, "tiny": 1e-22, "huge": 1e19}.get(kind, 1.0))
    novelty = Novelty(
        reference * scale, np.zeros(1, np.float32), np.zeros(width, np.float32), np.ones(width, np.float32), k
    )
    with np.errstate(over="ignore"):
        expected = [compared_with_all(novelty, one) for one in new * scale]
        assert novelty.distances_of(new * scale) == expected
    if kind in ("apart", "far") and points == 1000:
        assert novelty._near(new * scale).sum() < 0.1 * 9 * points  # else nothing is left out


def test_novelty_travels_in_the_bundle_and_is_part_of_its_id(bundle: Bundle, tmp_path: Path) -> None:
    again = Bundle.load(bundle.save(tmp_path / "bundle"))
    assert again.bundle_id == bundle.bundle_id != bundle.with_novelty(None).bundle_id
    assert again.novelty is not None
    assert bundle.novelty is not None
    np.testing.assert_array_equal(again.novelty.reference, bundle.novelty.reference)
    assert again.state.keys() == bundle.state.keys()
    other = replace(bundle.novelty, distances=bundle.novelty.distances + 1)
    assert bundle.with_novelty(other).bundle_id != bundle.bundle_id


@pytest.mark.parametrize("runtime", ["torch", "openvino", "onnx"])
def test_the_engine_gives_the_features_that_the_heads_see(bundle: Bundle, runtime: str) -> None:
    if runtime != "torch":
        pytest.importorskip({"openvino": "openvino", "onnx": "onnxruntime"}[runtime])
    engine = Engine(bundle, engine=runtime, device="cpu", precision="fp32", batch_size=4)
    images = torch.rand(3, 1, 32, 32)
    found = engine.examine(images).features
    assert found is not None
    with torch.inference_mode():
        network = bundle.network()
        np.testing.assert_allclose(found, network.features(images).numpy(), atol=1e-5)


@pytest.fixture(scope="module")
def scored(bundle: Bundle, study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("scores") / "out"
    score(bundle, study, output, shard_rows=16)
    return output


def images_of(output: Path) -> Predictions:
    """The rows of images as evaluation sees them, in the order of their path ids."""
    rows = pd.read_parquet(output).query("status == 'ok'").sort_values("path_id")
    organ = rows[[f"organ_{name}_probability" for name in "abc"]].to_numpy()
    unknown = np.full(len(rows), np.nan)
    ids = (rows[name].to_numpy(str) for name in ("image_id", "patient_id", "series_id"))
    prob = {"sick": rows["sick_probability"].to_numpy(), "organ": organ}
    truth = {"sick": unknown, "organ": unknown}
    return Predictions((SICK, ORGAN), *ids, truth, prob, study_id=rows["study_id"].to_numpy(str))


@pytest.mark.parametrize("unit", ["series", "study", "patient"])
def test_rows_of_units_are_what_evaluation_makes_of_the_images(scored: Path, unit: str) -> None:
    found = pd.read_parquet(scored / "_cases" / f"{unit}.parquet").set_index(f"{unit}_id")
    true = aggregate(images_of(scored), unit=unit, method="mean")
    assert set(found.index) == set(true.image_id)
    assert found["images"].sum() == images_of(scored).n
    rows = found.loc[true.image_id]
    np.testing.assert_array_equal(rows["sick_probability"], true.y_prob["sick"])
    np.testing.assert_array_equal(rows[[f"organ_{name}_probability" for name in "abc"]], true.y_prob["organ"])
    assert rows["sick_positive"].isna().all()  # no operating point was chosen for it
    assert (rows["patient_id" if unit != "patient" else "bundle_id"]).notna().all()
    images = pd.read_parquet(scored).query("status == 'ok'")
    assert rows["novelty_percentile"].to_dict() == images.groupby(f"{unit}_id")["novelty_percentile"].max().to_dict()


def test_a_unit_with_an_operating_point_is_decided_there(bundle: Bundle, scored: Path, tmp_path: Path) -> None:
    images = replace(images_of(scored), split="val")
    images = replace(images, y_true={"sick": np.arange(images.n) % 2.0, "organ": np.arange(images.n) * 0.0})
    learnt = fit_aggregation(images, unit="patient")
    cut = float(np.median(aggregate(images, unit="patient", method="learnt", learnt=learnt).y_prob["sick"]))
    point = OperatingPoint({"sick": (cut,), "organ": ()}, "stated")
    kept = {"unit": "patient", "aggregation": "learnt", "operating_point": point.to_dict(), "learnt": learnt.to_dict()}
    declared = bundle.config.override("evaluation.unit=patient", "evaluation.aggregation=learnt")
    bundle = replace(bundle, config=declared, provenance={"unit_of_analysis": kept})
    shards = sorted(scored.glob("part-*"))
    schema = cases.ds.dataset(str(shards[0])).schema
    assert cases.write_cases(tmp_path, shards, schema=schema, bundle=bundle) == {"patient": 20}
    found = pd.read_parquet(tmp_path / "_cases" / "patient.parquet")
    assert (found["sick_positive"] == (found["sick_probability"] >= cut)).all()
    assert found["sick_positive"].sum() == 10
    assert found["threshold"].eq(cut).all()


def test_parts_and_order_of_shards_change_no_bit(
    bundle: Bundle, scored: Path, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cases, "ROWS_AT_ONCE", 7)
    files = sorted(study.rglob("*.dcm"))
    score(bundle, list(reversed(files[5:])), tmp_path / "out", shard_rows=5, file_format="csv")
    assert (tmp_path / "out" / "_cases" / "patient.parquet").exists()
    score(bundle, study, tmp_path / "out", shard_rows=5, file_format="csv")
    for unit in ("series", "study", "patient"):
        one, other = (pd.read_parquet(folder / "_cases" / f"{unit}.parquet") for folder in (scored, tmp_path / "out"))
        other = other.sort_values(f"{unit}_id", ignore_index=True)
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_novelty_of_other_shapes_is_refused() -> None:
    from lepton_vision.errors import EvaluationError

    points = np.eye(3, dtype=np.float32)
    with pytest.raises(EvaluationError, match="neighbour 4"):
        Novelty(points, np.zeros(1, np.float32), points[0], points[0] + 1, 4)
    assert fit_novelty(points, np.full((2, 3), np.nan, np.float32), k=1) is None
