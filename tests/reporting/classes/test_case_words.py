"""Wording of the unit of analysis on the page."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from html_pages import Page
from report_studies import BINARY, GRADE, SIGNS, make_point, make_predictions

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.evaluation import evaluate
from lepton_vision.reporting.classes.card import render_report
from lepton_vision.reporting.classes.case_words import count_cases, in_units
from lepton_vision.reporting.documents.evidence import RunFacts, gather

TARGETS = (BINARY, SIGNS)
# What stays an image whatever the unit is: files, pictures, and how they were joined.
ALLOWED = ("Images of one", "where the images lie", "images found", "image could not be read", "that cannot be read")


@pytest.mark.parametrize(("unit", "words"), [("patient", "patients"), ("study", "studies"), ("series", "series")])
def test_a_page_of_larger_units_does_not_speak_of_images(unit: str, words: str) -> None:
    made = make_predictions(TARGETS, None)
    made = replace(made, study_id=np.array([f"s{k // 2}" for k in range(made.n)]), failures=())
    made = replace(made, patient_id=np.array([f"p{k // 6}" for k in range(made.n)]), series_id=made.study_id)
    config = EvaluationConfig(unit=unit, aggregation="max", replicates=100)
    columns = {"sex": [("F", "M")[k // 6 % 2] for k in range(made.n)]}
    result = evaluate(made, operating_point=make_point(TARGETS), config=config, columns=columns)
    text = Page(render_report(result)).words
    left = [one for one in re.findall(r".{0,20}\b[Ii]mages?\b.{0,20}", text) if not any(w in one for w in ALLOWED)]
    assert left == []
    assert f"all {words}" in text
    assert f"Share of the positive {words} that were called positive." in text
    assert f"({words} taken as independent)" in text
    assert f"Images of one {unit} were joined first (max)." in text
    assert count_cases(result.n, result.n_patients, unit=unit) in gather(RunFacts(result))["performance"]


def test_a_page_of_images_says_so_and_names_of_classes_stay() -> None:
    names = replace(GRADE, classes=("image artefact", "mild", "moderate", "severe"))
    made = make_predictions((names,), None)
    point = make_point((names,))
    plain = Page(render_report(evaluate(made, operating_point=point, config=EvaluationConfig(replicates=100)))).words
    assert "The number of labelled images" in plain
    label = made.y_true[names.name]
    one_each = made.select(np.unique(made.patient_id, return_index=True)[1])
    config = EvaluationConfig(unit="patient", replicates=100)
    joined = Page(render_report(evaluate(one_each, operating_point=point, config=config))).words
    assert label.size == 240
    assert "image artefact" in joined
    assert "patient artefact" not in joined


def test_words_by_hand() -> None:
    assert in_units("Every image; an image, images.", "image") == "Every image; an image, images."
    assert in_units("Every image; an image, images. An image.", "series") == "Every series; a series, series. A series."
    assert count_cases(2400, 3, unit="study") == "2,400 studies of 3 patients"
