"""The reference is what the code says: its pages are up to date, and every column and reason code is described."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lepton_vision.cli.exit_codes import MEANINGS as EXIT_MEANINGS
from lepton_vision.cli.exit_codes import ExitCode
from lepton_vision.errors import LeptonError, ReadError
from lepton_vision.manifest.findings import KINDS
from lepton_vision.manifest.findings import MEANINGS as FINDINGS
from lepton_vision.scoring.cases import UNITS
from lepton_vision.scoring.columns import CASE_COLUMNS, ROW_COLUMNS
from lepton_vision.scoring.rows import case_schema, row_schema
from lepton_vision.types import Target
from lepton_vision.types.columns import Column
from lepton_vision.types.reasons import FILE_REASONS, FURTHER_REASONS, READ_REASONS, UNFORESEEN

ROOT = Path(__file__).resolve().parents[2]
CODES = {*READ_REASONS, *FURTHER_REASONS, *FILE_REASONS, UNFORESEEN}
GIVERS = {"_refusal", "_refuse_zip", "reason_of", "reason_not_slice"}
"""Functions that return a reason code."""
WORDED = {"evaluation", "reporting"}
"""Stages whose reasons are words for people."""
TARGETS = (
    Target("covid", "binary", ("no", "yes")),
    Target("signs", "multilabel", ("edema", "nodule")),
    Target("kind", "multiclass", ("a", "b", "c")),
    Target("grade", "ordinal", ("low", "high")),
    Target("age", "regression", unit="years"),
)


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("reference")


@pytest.mark.slow
def test_the_pages_of_the_reference_are_up_to_date(reference: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert reference.main(["--check"]) == 0, capsys.readouterr().out


def test_a_page_that_is_out_of_date_would_be_noticed(
    reference: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reference, "PAGES", {"a": lambda: "new\n", "b": lambda: "same\n"})
    (tmp_path / "a.md").write_text("old\n")
    (tmp_path / "b.md").write_text("same\n")
    assert reference.main(["--check", "--folder", str(tmp_path)]) == 1
    assert "Out of date: a.md" in capsys.readouterr().out
    assert (tmp_path / "a.md").read_text() == "old\n"
    assert reference.main(["--folder", str(tmp_path)]) == 0
    assert (tmp_path / "a.md").read_text() == "new\n"


def pattern(name: str) -> re.Pattern[str]:
    """What a described name may be, with words for its parts in angle brackets."""
    words = {"<target>": "covid|signs|kind|grade|age", "<class>": "edema|nodule|a|b|c|low|high", "<structure>": "liver"}
    parts = re.split("(<[a-z]+>)", name)
    return re.compile("".join(f"({words[part]})" if part in words else re.escape(part) for part in parts))


def places(names: list[str], columns: tuple[Column, ...]) -> list[int]:
    """Which description holds for each name; a name with none or several fails."""
    found = [[k for k, one in enumerate(columns) if pattern(one.name).fullmatch(name)] for name in names]
    assert all(len(one) == 1 for one in found), [n for n, one in zip(names, found, strict=True) if len(one) != 1]
    return [one[0] for one in found]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.kind)
def test_every_column_of_a_row_of_scores_is_described_in_its_order(target: Target) -> None:
    extras: dict[str, Any] = {"has_novelty": True, "has_reports": True, "has_repairs": True}
    for unit in ("ml", "mm2"):
        schema = row_schema((target,), measures=[f"liver_{unit}"], sets=[target.name], **extras)
        found = places(schema.names, ROW_COLUMNS)
        assert found == sorted(found) or not target.is_single  # of several classes each has its columns in turn
    for unit in UNITS:
        places(case_schema((target,), unit=unit, has_novelty=True).names, CASE_COLUMNS)


def test_no_described_column_is_without_a_table() -> None:
    extras: dict[str, Any] = {"has_novelty": True, "has_reports": True, "has_repairs": True}
    sets = [target.name for target in TARGETS]
    rows = row_schema(TARGETS, measures=["liver_ml", "liver_mm2"], sets=sets, **extras).names
    second = row_schema((TARGETS[1], TARGETS[0])).names
    assert {*places(rows, ROW_COLUMNS), *places(second, ROW_COLUMNS)} == set(range(len(ROW_COLUMNS)))
    cases = [name for unit in UNITS for name in case_schema(TARGETS, unit=unit, has_novelty=True).names]
    cases += case_schema((TARGETS[1], TARGETS[0]), unit="series").names
    assert set(places(cases, CASE_COLUMNS)) == set(range(len(CASE_COLUMNS)))


def reason_codes(tree: ast.AST) -> Iterator[str]:
    """Texts of a module that stand where a reason code stands."""
    for node in ast.walk(tree):
        values: list[ast.expr | None] = []
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in {"ReadError", "raise_read_errors", "Location", "Member"}:
                values += [word.value for word in node.keywords if word.arg == "reason"]
            if name in {"Failure", "_rejected", "Member"}:
                values += node.args[-1:]
            if name in {"_no_mask", "_no_report", "not_predicted"}:
                values += node.args
        elif isinstance(node, ast.Dict):
            keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
            values += [v for k, v in zip(keys, node.values, strict=True) if k == "reason" or "_reason" in str(k)]
        elif isinstance(node, ast.FunctionDef) and node.name in GIVERS:
            values += [one.value for one in ast.walk(node) if isinstance(one, ast.Return)]
        for value in values:
            yield from _texts(value)


def _texts(value: ast.expr | None) -> Iterator[str]:
    if isinstance(value, ast.IfExp):
        yield from (*_texts(value.body), *_texts(value.orelse))
    elif isinstance(value, ast.BoolOp):
        yield from (text for one in value.values for text in _texts(one))
    elif isinstance(value, ast.JoinedStr) and isinstance(value.values[0], ast.Constant):
        yield str(value.values[0].value)
    elif isinstance(value, ast.Constant) and isinstance(value.value, str) and value.value:
        yield value.value


def test_no_other_reason_code_occurs_in_the_sources() -> None:
    package = ROOT / "lepton_vision"
    found = {
        code.split(":")[0]: path.relative_to(package).as_posix()
        for path in sorted(package.rglob("*.py"))
        if path.relative_to(package).parts[0] not in WORDED
        for code in reason_codes(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert {code: where for code, where in found.items() if code not in CODES} == {"truth": "pipeline/masks.py"}
    assert len(found) > 40


def test_every_reason_code_occurs_in_the_sources() -> None:
    register = ROOT / "lepton_vision" / "types" / "reasons.py"
    sources = [path for path in (ROOT / "lepton_vision").rglob("*.py") if path != register]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    assert [code for code in CODES - {UNFORESEEN} if not re.search(rf"[\"']{code}\b", text)] == []


def test_codes_have_a_meaning_and_advice() -> None:
    for reasons in (READ_REASONS, FURTHER_REASONS, FILE_REASONS):
        assert all(one.meaning and one.advice.endswith(".") for one in reasons.values())
    assert set(READ_REASONS) == ReadError.REASONS
    assert set(FINDINGS) == set(KINDS)
    assert set(EXIT_MEANINGS) == set(ExitCode)
    errors = [LeptonError, *LeptonError.__subclasses__()]
    assert {one.exit_code for one in errors} <= set(map(int, ExitCode))
