"""Columns that cannot be targets as they stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lepton_vision.errors import LabelError
from lepton_vision.manifest.audit import audit_manifest
from lepton_vision.manifest.labels import evident_targets, infer_targets
from lepton_vision.manifest.table import Manifest

Make = Callable[..., Manifest]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (["Yes", "no", "yes", "No"], r"'Yes' \(1 rows\) and 'yes' \(1 rows\); 'no' \(1 rows\) and 'No'"),
        (["yes", "no", "yes."], "'yes' .* and 'yes.'"),
        (["No Finding", "no_finding", "mass"], "'No Finding' .* and 'no_finding'"),
        (["yes", "yes\u200b", "no"], "'yes'"),
        (["0,5", "0.5", "x"], "'0,5' .* and '0.5'"),
        ([True, False, "0", "1"], "'False' .* and '0'|'0' .* and 'False'"),
        (["yes", "no", "1", "0"], "'no' .* and '0'"),
        (["neg", "negative", "pos"], "'neg' .* and 'negative'"),
        (["mass", "cyst", "mass;cyst"], "several findings in one cell, between ';'"),
        (["mass", "cyst", "cyst, mass"], "several findings in one cell, between ','"),
        (["0", "1", "9"], "9 beside 0 and 1"),
        (["0", "1", "-99"], "-99 beside 0 and 1"),
        (["0", "1", "x"], r"'x' in 1 rows beside 0 and 1"),
        (["grade1", "Grade 1", "grade 2"], "'grade1' .* and 'Grade 1'"),
        (["4a", "4A", "3"], "'4a' .* and '4A'"),
        (["ja", "yes", "nein"], "'ja' .* and 'yes'"),
    ],
)
def test_what_must_be_asked(make_manifest: Make, values: list[Any], shown: str) -> None:
    with pytest.raises(LabelError, match=shown) as caught:
        infer_targets(make_manifest(y=values))
    assert caught.value.key == "y"


@pytest.mark.parametrize(
    "values",
    [
        ["HER2+", "HER2-", "HER2"],
        ["grade 1", "grade 2", "grade 12"],
        ["T1-T2", "T1 T2", "T3"],
        ["adenocarcinoma, NOS", "squamous, NOS", "normal"],
        ["Non-COVID", "COVID", "other"],
        ["1_0", "10", "x"],
        ["1", "2", "9"],
        ["a", "A-", "B"],
    ],
)
def test_what_is_no_doubt(make_manifest: Make, values: list[str]) -> None:
    manifest = make_manifest(y=values)
    assert len(infer_targets(manifest)[0].classes) == 3


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ([61.5, 70.0, 58.25], "measurements"),
        ([20 + k for k in range(45)] * 4, "45 different numbers"),
        ([20 + k for k in range(15)], "15 different values in 15 rows"),
        ([f"acc{k}" for k in range(30)], "30 different values in 30 rows"),
        (["0,5", "1,5", "2,5"], "numbers with decimals"),
        ([f"{k},{100 + k}" for k in range(1, 25)], "24 different numbers"),
        (["061Y", "045Y", "033Y"], "ages"),
        (["2020-01-01", "2021-05-06", "2022-01-01"], "dates"),
        (["normal chest. " * 10, "mass in the left lung. " * 9], "text of up to"),
    ],
)
def test_what_is_no_class(make_manifest: Make, values: list[Any], what: str) -> None:
    with pytest.raises(LabelError, match=what):
        infer_targets(make_manifest(y=values))
    binary = [k % 2 for k in range(len(values))]
    (target,) = infer_targets(make_manifest(("other", "finding"), other=values, finding=binary))
    assert target.name == "finding"


def test_the_doubt_is_told_where_work_goes_on(make_manifest: Make, caplog: pytest.LogCaptureFixture) -> None:
    manifest = make_manifest(y=["Yes", "no", "yes", "No"])
    assert evident_targets(manifest) == ()
    assert "differ in spelling only" in caplog.text
    (finding,) = [finding for finding in audit_manifest(manifest).findings if finding.kind == "labels"]
    assert finding.severity == "warning"
    assert "differ in spelling only" in finding.message


def test_what_is_proposed_can_be_a_label(make_manifest: Make) -> None:
    manifest = make_manifest(("size", "a", "b"), size=[1.5, 2.5, 3.5], a=[0, 1, 0], b=["x", "y", "z"])
    with pytest.raises(LabelError, match=r"several label columns: \['a', 'b'\]"):
        infer_targets(manifest)


def test_the_unknown_contradicts_no_label(make_manifest: Make) -> None:
    same = {"pixel_hash": ["h", "h"], "phash": ["0" * 16, "0" * 16]}
    for value, kinds in (("unknown", set()), ("no", {"conflict"})):
        found = audit_manifest(make_manifest(y=["yes", value], **same)).findings
        assert {finding.kind for finding in found} & {"conflict"} == kinds


@pytest.mark.parametrize(
    ("values", "classes"),
    [(["+", "-"], ("-", "+")), (["-", "1+", "2+"], ("-", "1+", "2+")), (["ja", "nein"], ("nein", "ja"))],
)
def test_signs_and_words_that_say_absent(make_manifest: Make, values: list[str], classes: tuple[str, ...]) -> None:
    (target,) = infer_targets(make_manifest(y=values))
    assert target.classes == classes


def test_a_lone_class_beside_words_for_the_unknown_names_them(make_manifest: Make) -> None:
    with pytest.raises(LabelError, match=r"\['pos'\].*\['-'\] count as unknown, unless the configuration names them"):
        infer_targets(make_manifest(y=["pos", "-"]))


def test_what_is_proposed_has_the_classes_of_its_column(make_manifest: Make) -> None:
    values = {"stage": ["I", "II", "IIIa"], "side": ["A", "A", "B"]}
    with pytest.raises(LabelError, match=r"name: stage\n    kind: multiclass\n    classes: \['I', 'II', 'IIIa'\]"):
        infer_targets(make_manifest(("stage", "side"), **values))
