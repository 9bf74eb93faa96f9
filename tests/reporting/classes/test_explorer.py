"""The threshold explorer: its table against scikit-learn, and in a real browser, by keyboard, against numpy."""

from __future__ import annotations

import dataclasses
import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
from analysis_studies import make_analyses, make_maps
from html_pages import Page
from report_studies import BINARY, FLOW, PROVENANCE, SIGNS, make_evaluation, make_point, make_predictions
from sklearn import metrics
from test_browser import BROWSER
from webdriver import ARROW_LEFT, ARROW_RIGHT, DRIVER, END, ENTER, HOME, Browser, browser

from lepton_vision.evaluation.classes.evaluation import Evaluation
from lepton_vision.evaluation.statistics.intervals import wilson
from lepton_vision.predictions.predictions import Predictions
from lepton_vision.reporting import write_report
from lepton_vision.reporting.classes.card import render_report
from lepton_vision.reporting.classes.explorer import make_explorers

in_browser = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="no Chromium: apt-get install chromium chromium-driver"
)


@pytest.fixture(scope="module")
def predictions() -> Predictions:
    return make_predictions((BINARY,), None)


def test_the_table_is_scikit_learns(predictions: Predictions) -> None:
    evaluation = make_evaluation((BINARY,))
    (explorer,) = make_explorers(evaluation, BINARY, anchor="x")
    truth, prob = predictions.y_true["covid"], predictions.y_prob["covid"]
    data = json.loads(explorer.data)
    assert [row.is_frozen for row in explorer.rows].count(True) == 1
    for row in explorer.rows:
        at = min(data["t"], key=lambda t: abs(t - float(row.threshold)))
        called = prob >= at
        tn, fp, fn, tp = metrics.confusion_matrix(truth, called).ravel().tolist()
        assert row.counts == tuple(f"{n:,}" for n in (tp, fn, fp, tn))
        expected = (metrics.recall_score(truth, called), metrics.recall_score(1 - truth, ~called),
                    metrics.precision_score(truth, called), metrics.precision_score(1 - truth, ~called))  # fmt: skip
        assert [value for value, _ in row.cells] == [f"{value:.3f}" for value in expected]
        low, high = wilson(tp, tp + fn)
        own = evaluation.figures["covid"]["sensitivity"]
        one_interval = f"{own.low:.3f} – {own.high:.3f}" if row.is_frozen else f"{float(low):.2f} – {float(high):.2f}"
        assert row.cells[0][1] == one_interval
    figures = [evaluation.figures["covid"][name] for name in ("sensitivity", "specificity")]
    assert data["ranges"] == [f"{one.low:.3f} – {one.high:.3f}" for one in figures]


def test_every_class_of_a_multilabel_target_has_one_and_a_multiclass_target_none(several: Evaluation) -> None:
    page = Page(render_report(several))
    found = [json.loads(html.unescape(v["data-explorer"] or "")) for _, v in page.tags if "data-explorer" in v]
    assert len(found) == 1 + len(SIGNS.classes)
    assert "Threshold explorer: nodule" in page.words
    assert "Of 1,000 images at this prevalence" in page.words


def test_one_class_only_leaves_nothing_to_explore(predictions: Predictions) -> None:
    from lepton_vision.config.sections import EvaluationConfig
    from lepton_vision.evaluation import evaluate

    alone = dataclasses.replace(predictions, y_true={"covid": np.zeros(predictions.n)})
    found = evaluate(alone, operating_point=make_point((BINARY,)), config=EvaluationConfig(replicates=100))
    assert make_explorers(found, BINARY, anchor="x") == []


def read(page: Browser) -> dict[str, str]:
    every = "[...document.querySelectorAll('[data-out]')]"
    found = page.run(f"return Object.fromEntries({every}.map(one => [one.dataset.out, one.textContent]))")
    assert isinstance(found, dict)
    return found


def check(shown: dict[str, str], predictions: Predictions, threshold: float, prevalence: float) -> None:
    truth, prob = predictions.y_true["covid"] == 1, predictions.y_prob["covid"]
    called = prob >= threshold
    tp, fn = int((called & truth).sum()), int((~called & truth).sum())
    fp, tn = int((called & ~truth).sum()), int((~called & ~truth).sum())
    assert [shown[key] for key in ("tp", "fn", "fp", "tn")] == [str(n) for n in (tp, fn, fp, tn)]
    sensitivity, specificity = tp / (tp + fn), tn / (tn + fp)
    right, alarms = prevalence * sensitivity, (1 - prevalence) * (1 - specificity)
    cleared, missed = (1 - prevalence) * specificity, prevalence * (1 - sensitivity)
    for key, part, whole in (("sensitivity", tp, tp + fn), ("specificity", tn, tn + fp)):
        assert float(shown[key]) == pytest.approx(part / whole, abs=6e-4)
        low, high = wilson(part, whole)
        own = make_evaluation((BINARY,)).figures["covid"][key]  # at the frozen point, as elsewhere in the page
        ranges = (f"{float(low):.2f} – {float(high):.2f}", f"{own.low:.3f} – {own.high:.3f}")
        assert shown[f"{key}-range"] == ranges[threshold == 0.4]
    for key, part, whole in (("ppv", right, right + alarms), ("npv", cleared, cleared + missed)):
        assert shown[key] == "–" if whole == 0 else float(shown[key]) == pytest.approx(part / whole, abs=6e-4)
    for key, share in (("found", right), ("missed", missed), ("alarms", alarms), ("ill", prevalence)):
        assert abs(float(shown[key]) - 1000 * share) <= 0.51


# whether there are marks of the patient's sides, and how many of them another text lies on
COVERED = """
const marks = [...document.querySelectorAll(".case .mark")];
const boxes = [...document.querySelectorAll(".case .badge, .case .gone")];
const meets = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
const lies = mark => boxes.some(box => meets(mark.getBoundingClientRect(), box.getBoundingClientRect()));
return [marks.length > 0 && boxes.length > 0, marks.filter(lies).length];
"""


@pytest.mark.slow
@in_browser
def test_in_a_browser_by_keyboard_the_numbers_are_numpys(predictions: Predictions, tmp_path: Path) -> None:
    evaluation = make_evaluation((BINARY,))
    report = write_report(evaluation, tmp_path / "report.html", data_flow=FLOW, provenance=PROVENANCE)
    table = evaluation.curves["covid"][0].thresholds.threshold
    with browser(BROWSER, tmp_path / "profile") as page:
        page.open(report)
        sample = float(predictions.y_true["covid"].mean())
        check(read(page), predictions, 0.4, round(100 * sample, 2) / 100)
        page.clear("[data-rate-typed]")
        page.type("[data-rate-typed]", "2")
        at = int(np.flatnonzero(table == 0.4)[0])
        for keys, place in (
            (ARROW_RIGHT * 3, at + 3), (ARROW_LEFT * 10, at - 7), (HOME, 0), (ARROW_RIGHT, 1), (END, table.size - 1),
        ):  # fmt: skip
            page.type("[data-slider]", keys)
            check(read(page), predictions, float(table[place]), 0.02)
        for threshold in (0.05, 0.2345, 0.5, 0.777, 0.95):
            page.clear("[data-typed]")
            page.type("[data-typed]", f"{threshold}{ENTER}")
            check(read(page), predictions, threshold, 0.02)
        page.type("[data-back]", ENTER)
        check(read(page), predictions, 0.4, round(100 * sample, 2) / 100)
        told = page.run("return document.querySelector('[data-slider]').getAttribute('aria-valuetext')")
        assert str(told).startswith("threshold 0.4, sensitivity 0.9")
        assert page.messages() == []


@pytest.mark.slow
@in_browser
def test_a_page_with_everything_fits_a_phone_and_prints_without_controls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lepton_vision.reporting.classes.gallery.edge_marks", lambda orientation: tuple("RLAP"))
    evaluation = dataclasses.replace(make_evaluation((BINARY,), tmp_path / "in"), analyses=make_analyses())
    report = write_report(
        evaluation, tmp_path / "report.html", data_flow=FLOW, provenance=PROVENANCE, maps=make_maps(evaluation)
    )
    assert report.stat().st_size < 5_000_000
    style = "return getComputedStyle(document.querySelector(arguments[0])).display"
    with browser(BROWSER, tmp_path / "profile", phone=390) as page:
        page.open(report)
        assert page.run("return [innerWidth, document.documentElement.scrollWidth]") == [390, 390]
        assert page.run(style, "[data-live]") == "block"
        assert page.run(style, "img.heat") != "none"
        assert page.run(COVERED) == [True, 0]
        page.click(".heat-switch label")
        assert page.run(style, "img.heat") == "none"
        assert page.print_pdf().startswith(b"%PDF")
        assert page.messages() == []
    # what only a medium for paper changes
    text = report.read_text(encoding="utf-8").replace("@media print", "@media screen")
    (tmp_path / "paper.html").write_text(text, encoding="utf-8")
    with browser(BROWSER, tmp_path / "profile") as page:
        page.open(tmp_path / "paper.html")
        assert page.run(style, "[data-live]") == page.run(style, "nav") == "none"
        assert page.run(style, ".thresholds") == "table"


def test_without_a_script_there_is_a_table_and_no_dead_control() -> None:
    text = render_report(make_evaluation((BINARY,)))
    live = re.search(r'<div class="live" data-live hidden>', text)
    assert live is not None
    assert text.count('<table class="cells thresholds stacked">') == 1
