"""HTML page as a whole: complete, safe, repeatable, and present whatever the figures are."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import math
import re
from pathlib import Path

import numpy as np
import pytest
from html_pages import HOSTILE, Page
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_studies import (
    BINARY,
    FLOW,
    GRADE,
    PROVENANCE,
    SIGNS,
    make_evaluation,
    make_point,
    make_predictions,
)

from lepton_vision.config.sections import EvaluationConfig, PreprocessConfig
from lepton_vision.errors import LeptonError, ReportError
from lepton_vision.evaluation.classes.evaluation import Evaluation, evaluate
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.predictions.predictions import Predictions
from lepton_vision.reporting import write_report
from lepton_vision.reporting.classes.card import render_report
from lepton_vision.reporting.page import read_script
from lepton_vision.types import Figure, Target


def evaluate_quickly(predictions: Predictions, point: OperatingPoint) -> Evaluation:
    return evaluate(predictions, operating_point=point, config=EvaluationConfig(replicates=100))


def test_the_page_shows_every_figure_with_its_interval(binary: Evaluation, tmp_path: Path) -> None:
    path = write_report(binary, tmp_path / "new" / "folder" / "report.html", title="COVID-CT", data_flow=FLOW)
    words = Page(path.read_text(encoding="utf-8")).words
    assert path == tmp_path / "new" / "folder" / "report.html"
    for figure in binary.figures["covid"].values():
        assert f"{figure.value:.3f}" in words
        if figure.low < figure.high:  # what chance alone gives, say, has none
            assert f"{figure.low:.3f} – {figure.high:.3f}" in words
    assert binary.figures["covid"]["auroc"].low < binary.figures["covid"]["auroc"].high
    for part in ("COVID-CT", "1,213", "file cut short", "720 images of 240 patients", "sensitivity ≥ 0.9", "0.400"):
        assert part in words
    (tn, fp), (fn, tp) = binary.confusion["covid"].tolist()
    assert f"NonCOVID n = {tn + fp} {tn} {tn / (tn + fp):.1%} {fp}" in words
    assert f"Of 100 images that are COVID, {100 * tp / (tp + fn):.0f} are found" in words


def test_the_page_asks_for_nothing(several: Evaluation) -> None:
    text = render_report(several, data_flow=FLOW, provenance=PROVENANCE)
    page = Page(text)
    assert [link for link in page.links if not re.match(r"#|data:", link)] == []
    assert [target for target in re.findall(r"url\(([^)]*)\)", text) if not target.startswith("#")] == []
    assert "@import" not in text
    own = read_script("explorer.js")
    assert text.count("<script>") == text.count(f"<script>{own.text}</script>") == 1
    rest = text.replace(own.text, "").replace("<script></script>", "")
    assert not re.search(r"<(script|iframe|object|embed|form)\b|\son\w+=|https?://", rest)
    assert re.findall(r"https?://\S+", own.text) == ['http://www.w3.org/2000/svg",']  # a name, never fetched
    assert not re.search(r"fetch\(|XMLHttp|import\(|eval\(|innerHTML", own.text)
    digest = base64.b64encode(hashlib.sha256(own.text.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in text


def test_ids_are_unique_and_every_inner_link_has_a_place(several: Evaluation) -> None:
    page = Page(render_report(several, data_flow=FLOW, provenance=PROVENANCE))
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)


def test_the_same_evaluation_gives_the_same_bytes(several: Evaluation, tmp_path: Path) -> None:
    first = write_report(several, tmp_path / "a.html", provenance=PROVENANCE).read_bytes()
    (tmp_path / "ledger.jsonl").unlink()  # else the second page is the second look, and says so
    assert write_report(several, tmp_path / "b.html", provenance=PROVENANCE).read_bytes() == first
    assert 100_000 < len(first) < 2_000_000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "b.html", "ledger.jsonl"]


def test_no_path_or_file_name_is_in_the_page(binary: Evaluation) -> None:
    facts = {"weights": "/home/DOE^JANE/resnet.pt", "from": ["C:\\Users\\DOE^JANE\\x.npz"]}
    text = render_report(binary, provenance=facts)
    assert binary.worst["covid"][0].address is not None
    assert "DOE^JANE" in str(binary.worst["covid"][0].address.path)
    text = re.sub(r"data:image/png;base64,[^\"]*", "", text)  # any three letters may stand in a picture's bytes
    assert "DOE" not in text
    assert str(binary.worst["covid"][0].address.path.parent) not in text
    assert "resnet.pt" in text
    assert binary.worst["covid"][0].image_id in text


def test_pictures_are_in_the_page_and_a_lost_file_leaves_a_placeholder(tmp_path: Path) -> None:
    evaluation = make_evaluation((BINARY,), tmp_path / "in", n=60)
    cases = [*evaluation.worst["covid"], *evaluation.unsure["covid"]]
    assert cases[0].address is not None
    assert cases[0].image_id not in {case.image_id for case in cases[1:]}
    cases[0].address.path.unlink()
    page = Page(render_report(evaluation))
    pictures = [v for tag, v in page.tags if tag == "img"]
    assert len(pictures) == len(cases) - 1
    assert all((one["src"] or "").startswith("data:image/png;base64,") and one["alt"] for one in pictures)
    assert "No picture: the image cannot be read any more (missing)." in page.words


def test_ids_of_another_tool_are_not_called_pseudonymous(binary: Evaluation) -> None:
    assert "Ids are pseudonymous." in Page(render_report(binary)).words
    words = Page(render_report(dataclasses.replace(binary, provenance={"bundle_id": None}))).words
    assert "Ids are pseudonymous." not in words
    assert "see that none names a patient" in words


def test_without_places_there_are_no_frames_for_pictures() -> None:
    page = Page(render_report(make_evaluation((BINARY,), n=60)))
    assert "so there are no pictures" in page.words
    assert "false alarm" in page.words
    assert not [v for _, v in page.tags if v.get("class") == "picture"]


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    targets = (
        dataclasses.replace(BINARY, classes=("no", HOSTILE)),
        dataclasses.replace(GRADE, classes=(HOSTILE, "b", "c", HOSTILE + "2")),
        dataclasses.replace(SIGNS, classes=(HOSTILE, "y", "z")),
    )
    point = dataclasses.replace(make_point(targets), criterion=HOSTILE)
    evaluation = evaluate_quickly(make_predictions(targets, None, n=90), point)
    flow = {"rows": 3, "rejected": {HOSTILE: 2}, "splits": {HOSTILE: {"classes": {HOSTILE: {HOSTILE: 1}}}}}
    text = render_report(evaluation, title=HOSTILE, data_flow=flow, provenance={HOSTILE: {HOSTILE: HOSTILE}})
    page = Page(text)
    assert not re.search(r"<script>alert|<img src=x", text)
    assert [tag for tag, _ in page.tags if tag in {"script", "img"}] == ["script"]
    assert HOSTILE.replace("  ", " ") in page.words


def test_no_label_at_all() -> None:
    predictions = make_predictions((BINARY, GRADE, SIGNS), None, n=12)
    unknown = {name: np.full_like(values, np.nan) for name, values in predictions.y_true.items()}
    evaluation = evaluate_quickly(dataclasses.replace(predictions, y_true=unknown), make_point(predictions.targets))
    words = Page(render_report(evaluation)).words
    assert "No image has a label" in words
    assert "no labelled sample" in words


def test_one_class_only_says_why_the_figures_are_undefined() -> None:
    predictions = make_predictions((BINARY,), None, n=40)
    truth = {"covid": np.zeros(40)}
    evaluation = evaluate_quickly(dataclasses.replace(predictions, y_true=truth), make_point((BINARY,)))
    words = Page(render_report(evaluation)).words
    assert "no image is COVID. Figures that compare the classes are undefined there." in words
    assert "no positive sample" in words
    assert "Undefined: the labelled images are all of one class." in words
    assert "AUROC, Average precision, Partial AUROC, Sensitivity, LR+, LR− and 2 more" in words


def test_classes_of_table_cells_are_styled_nowhere_else(several: Evaluation) -> None:
    text = render_report(several)
    kinds = set(re.findall(r'<td class="(\w+)" style="--share', text))
    assert {"right", "wrong"} <= kinds
    assert not [kind for kind in {*kinds, "zero"} if re.search(rf"^\s*\.{kind}\b", text, flags=re.MULTILINE)]


def test_an_evaluation_stripped_to_the_bone_still_renders(several: Evaluation) -> None:
    nothing = Figure(math.nan, math.nan, math.nan, 0)
    bare = dataclasses.replace(
        several,
        figures={"covid": {"auroc": nothing, "novel": dataclasses.replace(nothing, value=7.5)}},
        curves={},
        confusion={},
        worst={},
        unsure={},
        n_unlabelled={},
        split=None,
        preprocess=None,
        provenance={},
        operating_point=OperatingPoint({}, ""),
    )
    words = Page(render_report(bare, data_flow={"splits": {"test": None}}, provenance={"x": None, "y": {}})).words
    assert "It is not known which split" in words
    assert "novel" in words
    assert "7.500" in words


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_number_may_be_missing(several: Evaluation, data: st.DataObject) -> None:
    number = st.one_of(st.none(), st.just(math.nan), st.just(math.inf), st.floats(-1, 2), st.just(1e-9))

    def spoil(figure: Figure) -> Figure:
        value, low, high = (data.draw(number) for _ in range(3))
        return Figure(value, low, high, figure.n, data.draw(st.sampled_from(["", "because"])))  # type: ignore[arg-type]

    figures = {
        target: {name: spoil(figure) for name, figure in some.items() if data.draw(st.booleans())}
        for target, some in several.figures.items()
    }
    worst, unsure = (
        {
            target: tuple(dataclasses.replace(one, y_prob=data.draw(number), address=None) for one in cases[:2])
            for target, cases in found.items()
        }
        for found in (several.worst, several.unsure)
    )
    point = dataclasses.replace(several.operating_point, thresholds={"covid": (data.draw(number),)})
    text = render_report(
        dataclasses.replace(several, figures=figures, worst=worst, unsure=unsure, operating_point=point)
    )
    words = Page(text).words
    assert not re.search(r"\b(nan|inf|None)\b", words)


def test_a_class_may_be_called_none_and_twenty_classes_fit(tmp_path: Path) -> None:
    many = Target("organ", "multiclass", tuple(f"organ {k}" for k in range(20)))
    text = render_report(make_evaluation((many,), n=300))
    assert "12 other classes" in Page(text).words
    assert len(text) < 2_000_000


def test_warnings_name_what_to_distrust(binary: Evaluation) -> None:
    on_val = dataclasses.replace(binary, split="val", n_patients=12)
    words = Page(render_report(on_val)).words
    assert "These are figures of the validation split" in words
    assert "The operating point was chosen on this same validation split" in words
    assert "Only 12 patients" in words
    assert "1 image could not be read and is in no figure." in words
    assert "chosen on this same" not in Page(render_report(binary)).words


def test_rgb_and_tiny_pictures(tmp_path: Path) -> None:
    evaluation = make_evaluation((BINARY,), tmp_path / "in", n=45, side=28)
    settings = PreprocessConfig(size=(28, 28), color="rgb", windows=("full",))
    page = Page(render_report(dataclasses.replace(evaluation, preprocess=settings)))
    assert {v["width"] for tag, v in page.tags if tag == "img"} == {"28"}


def test_where_it_cannot_be_written_the_error_says_so(binary: Evaluation, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"Expected a file .* Received: a folder"):
        write_report(binary, tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LeptonError, match="cannot be written") as caught:
        write_report(binary, tmp_path / "file" / "report.html")
    assert str(tmp_path) not in str(caught.value)
    assert caught.value.path == tmp_path / "file" / "report.html"
    assert (tmp_path / "file").read_text() == "in the way"
