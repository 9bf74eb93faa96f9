"""The page of two models: their names, differences with margins, both curves, numbers of the comparison."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from html_pages import HOSTILE, Page
from sklearn.metrics import roc_auc_score

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.errors import ReportError
from lepton_vision.evaluation import Comparison, compare
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.reporting import write_comparison
from lepton_vision.types import Target

N = 60
FAST = EvaluationConfig(replicates=100)


def _pair() -> tuple[Predictions, Predictions]:
    rng, ids = np.random.default_rng(0), np.array([f"i{k}" for k in range(N)])
    truth = (np.arange(N) % 2).astype(np.float64)
    target = Target("nodule", "binary", ("no", "yes"))
    prob = [np.clip(weight * truth + rng.random(N) * (1 - weight), 0, 1) for weight in (0.3, 0.15)]
    first, second = (Predictions((target,), ids, ids, ids, {"nodule": truth}, {"nodule": one}) for one in prob)
    return first, second


@pytest.fixture(scope="module")
def pair() -> tuple[Predictions, Predictions]:
    return _pair()


@pytest.fixture(scope="module")
def found(pair: tuple[Predictions, Predictions]) -> Comparison:
    return compare(*pair, operating_point=OperatingPoint({"nodule": (0.5,)}, "stated"), margin=0.2, config=FAST)


def test_the_page_names_both_models_and_gives_the_figures_of_the_comparison(
    pair: tuple[Predictions, Predictions], found: Comparison, tmp_path: Path
) -> None:
    path = write_comparison(found, tmp_path / "c.html", predictions=pair, names=("Old one", "New one"))
    text = path.read_text(encoding="utf-8")
    words = Page(text).words
    truth = pair[0].y_true["nodule"]
    for name, one in zip(("Old one", "New one"), pair, strict=True):
        assert f"AUROC {roc_auc_score(truth, one.y_prob['nodule']):.3f}" in words
        assert name in words
    one = found.differences["nodule"]["auroc"]
    assert f"{one.figure.low:.3f}".replace("-", "−") in words
    assert "margin 0.2" in words
    assert "non-inferior" in words
    assert text.count("<svg class=") == 1
    assert "<script" not in text
    assert "prefers-color-scheme: dark" in text


def test_names_are_escaped_and_must_tell_the_models_apart(found: Comparison, tmp_path: Path) -> None:
    path = write_comparison(found, tmp_path / "c.html", names=(HOSTILE, "b"))
    assert "<script" not in path.read_text(encoding="utf-8")
    with pytest.raises(ReportError, match="two different names"):
        write_comparison(found, tmp_path / "c.html", names=("a", "a"))


def test_every_class_has_its_curves(tmp_path: Path) -> None:
    rng, ids = np.random.default_rng(1), np.array([f"i{k}" for k in range(N)])
    target = Target("grade", "multiclass", ("low", "middle", "high"))
    truth = {"grade": np.arange(N) % 3}
    first, second = (
        Predictions((target,), ids, ids, ids, truth, {"grade": rng.dirichlet(np.ones(3), N)}) for _ in range(2)
    )
    comparison = compare(first, second, operating_point=OperatingPoint({"grade": ()}, "stated"), config=FAST)
    page = write_comparison(comparison, tmp_path / "c.html", predictions=(first, second)).read_text(encoding="utf-8")
    assert page.count("<svg class=") == 3
    assert "ROC curves: middle" in Page(page).words
