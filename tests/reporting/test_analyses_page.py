"""Analyses on the page: numbers, words, maps of evidence, looks at the test split."""

from __future__ import annotations

import base64
import dataclasses
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from analysis_studies import make_analyses, make_maps
from html_pages import Page
from PIL import Image as Picture
from report_studies import BINARY, make_evaluation
from scipy.stats import betabinom

from lepton_vision.evaluation.classes.analyses import Analyses
from lepton_vision.evaluation.classes.evaluation import Evaluation
from lepton_vision.predictions.operating_point import PointFigures
from lepton_vision.reporting.classes.analysis_figures import decision_figure
from lepton_vision.reporting.classes.card import render_report
from lepton_vision.reporting.classes.gallery import make_heat


@pytest.fixture(scope="module")
def analysed(binary: Evaluation) -> Evaluation:
    return dataclasses.replace(binary, analyses=make_analyses())


def test_every_analysis_is_told(analysed: Evaluation) -> None:
    words = Page(render_report(analysed)).words
    for part in (
        "Slope (ideal 1) 0.871 0.702 – 1.044", "Intercept (ideal 0) −0.132 −0.401 – 0.118",
        "COVID: clearly better than treating everybody or nobody between the thresholds 0.14 and 0.66.",
        "at most 5% wrong 0.523 0.410 – 0.630", "at most 1% wrong no share is enough", "mean 0.081 (0.060 – 0.110)",
        "NonCOVID in the set 90% 0.912 0.850 – 0.950", "Sets with 2 answers – 0.213",
        "Compared with: evaluation, split test, n = 512.", "AUROC 0.931 0.891 – 0.971 0.874 0.834 – 0.914 −0.057",
        "Prevalence observed 0.458", "By sex", "By site", "female 120 images of 40 patients 0.930 0.880 – 0.970",
        "C<i> 20 images of 6 patients few patients: read with care",
        "Largest gap: female less male, 0.031 (0.002 – 0.094); p = 0.041, corrected for all gaps tested 0.124",
        "A small group.",
    ):  # fmt: skip
        assert part in words, part


def test_the_gain_is_where_the_whole_band_lies_above_zero() -> None:
    curve = make_analyses().decision_curve["covid"][0]  # type: ignore[index]
    above = curve.threshold[0.12 - (curve.threshold - 0.4) ** 2 - 0.05 > 0]
    assert (f"{above.min():.2f}", f"{above.max():.2f}") == ("0.14", "0.66")
    drawn = [line.get_xydata().tolist() for line in decision_figure(curve).axes[0].lines]
    assert np.column_stack([curve.threshold, curve.model.value]).tolist() in drawn


def test_without_analyses_there_is_no_empty_section(binary: Evaluation) -> None:
    page = Page(render_report(dataclasses.replace(binary, analyses=Analyses())))
    assert not {"subgroups", "external"} & set(page.ids)
    assert "Decision curve" not in page.words


def test_the_story_says_where_the_point_is_from_and_what_it_gives(binary: Evaluation) -> None:
    figures = {"covid": (PointFigures(0.905, 0.712, 0.7, 0.9, 240, 110),)}
    point = dataclasses.replace(binary.operating_point, figures=figures)
    words = Page(render_report(dataclasses.replace(binary, operating_point=point))).words
    found = [binary.figures["covid"][name] for name in ("sensitivity", "specificity")]
    here = ", ".join(
        f"{name} {one.value:.3f} ({one.low:.3f} – {one.high:.3f})"
        for name, one in zip(("sensitivity", "specificity"), found, strict=True)
    )
    told = "chosen on the validation split (240 images), then frozen (there: sensitivity 0.905, specificity 0.712)"
    assert f"Threshold 0.400: sensitivity ≥ 0.9, {told}. On the test split it gives {here}." in words


def test_looks_at_the_test_split_are_counted_and_many_are_a_caution(binary: Evaluation) -> None:
    assert "Looks at this split" not in Page(render_report(binary)).words
    for looks, kind in ((1, None), (2, "info"), (9, "caution")):
        page = Page(render_report(dataclasses.replace(binary, provenance={**binary.provenance, "test_looks": looks})))
        assert f"Looks at this split {looks} " in page.words
        assert (f"This is look {looks} at the test split" in page.words) == (kind is not None)
        kinds = [v.get("class") for tag, v in page.tags if tag == "li" and v.get("class") in ("info", "caution")]
        assert kind is None or kind in kinds


def test_other_intervals_stand_beside_the_bootstrap(binary: Evaluation) -> None:
    words = Page(render_report(binary)).words
    student, delong = binary.figures["covid"]["auroc"].others
    name = "DeLong" if delong.method == "delong" else "Obuchowski"
    assert f"{name}, logit scale, t {student.low:.3f} – {student.high:.3f}" in words
    assert f"{name} {delong.low:.3f} – {delong.high:.3f}" in words
    assert "Clopper–Pearson" in words


def test_the_page_says_what_validation_lets_expect(binary: Evaluation) -> None:
    """SciPy's beta-binomial for as many cases as the page shows; an older point without counts says nothing."""
    (tn, fp), (fn, tp) = binary.confusion["covid"].tolist()
    there = PointFigures(sensitivity=0.95, specificity=0.8, ppv=0.8, npv=0.95, n=140, positives=60)
    point = dataclasses.replace(binary.operating_point, chosen_on="val", n=140, figures={"covid": (there,)})
    found = dataclasses.replace(binary, split="test", operating_point=point)
    ends = betabinom(tp + fn, 57.5, 3.5).ppf([0.025, 0.975]) / (tp + fn)
    text = f"To be expected of as many new cases: sensitivity {ends[0]:.3f} – {ends[1]:.3f}, specificity "
    assert text in Page(render_report(found)).words
    (stored,) = found.to_dict()["targets"]["covid"]["expected"]
    assert stored["sensitivity"] == pytest.approx(tuple(ends))
    assert (stored["positives"], stored["negatives"]) == (tp + fn, tn + fp)
    old = dataclasses.replace(found, operating_point=dataclasses.replace(point, figures={}))
    assert "To be expected" not in Page(render_report(old)).words
    assert "Accuracy at 0.5" in Page(render_report(found)).words or point.thresholds["covid"] == (0.5,)


def decode(uri: str) -> np.ndarray:
    return np.asarray(Picture.open(BytesIO(base64.b64decode(uri.split(",")[1]))))


def test_heat_is_see_through_where_there_is_no_evidence() -> None:
    heat = np.zeros((64, 48), dtype=np.float32)
    heat[:32] = 2.0
    pixels = decode(make_heat(heat, largest=2.0).uri)
    assert pixels.shape == (56, 42, 4)
    assert (pixels[-20:, :, 3] == 0).all()
    assert (pixels[:20, :, 3] > 150).all()
    assert (decode(make_heat(heat, largest=8.0).uri)[:20, :, 3] < pixels[:20, :, 3]).all()
    assert (decode(make_heat(heat * 0, largest=0.0).uri)[..., 3] == 0).all()


def test_maps_lie_over_their_own_pictures_and_the_page_stays_small(tmp_path: Path) -> None:
    evaluation = make_evaluation((BINARY,), tmp_path / "in", n=90)
    maps = make_maps(evaluation)
    cases = len(evaluation.worst["covid"]) + len(evaluation.unsure["covid"])
    text = render_report(evaluation, maps=maps)
    assert text.count('<img class="heat"') == cases
    some = dict(list(maps.items())[:3])
    assert render_report(evaluation, maps=some).count('<img class="heat"') == 3
    assert len(text) < 5_000_000
    assert "Show where the evidence" not in render_report(evaluation)
    assert "Show where the evidence" in text


def test_decisions_nearest_to_the_threshold_say_whether_they_are_right(binary: Evaluation) -> None:
    page = Page(render_report(binary))
    badges = page.words.split("Least sure cases")[1]
    for case in binary.unsure["covid"]:
        assert case.image_id in badges
        called = "COVID" if case.y_prob >= 0.4 else "NonCOVID"
        assert f"{case.truth} called {called}" in badges
    assert any((case.y_prob >= 0.4) == (case.y_true == 1) for case in binary.unsure["covid"])
