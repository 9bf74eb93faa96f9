"""Pages of the documentation that errors name."""

from __future__ import annotations

import pickle
import traceback
from pathlib import Path
from typing import Any

import pytest

from lepton_vision import errors
from lepton_vision.config import Config
from lepton_vision.errors import (
    ConfigError,
    EvaluationError,
    InvalidValueError,
    LabelError,
    LabelTableError,
    LeakageError,
    LeptonError,
    ManifestError,
    MissingExtraError,
    ReadError,
    UnknownKeyError,
    WeightsError,
)

ROOT = Path(__file__).resolve().parents[1]


def test_a_misspelt_key_leads_to_the_configuration() -> None:
    for change in ("trian.epochs=1", "train.epoch=1"):
        with pytest.raises(UnknownKeyError) as caught:
            Config().override(change)
        assert caught.value.page == "docs/reference/configuration.md"
    with pytest.raises(UnknownKeyError):
        Config.from_dict({"trian": {}})


@pytest.mark.parametrize(
    ("error", "page"),
    [
        (LabelTableError("x", key="SOPInstanceUID"), "how-to/label-tables"),
        (LabelError("x", key="mask"), "how-to/label-tables"),  # the name of a target
        (LabelError("x", key="segmentation.structures"), "how-to/masks"),
        (LeakageError("x", key="patient_id"), "explanation/splits"),
        (ManifestError("x", key="patient_from"), "explanation/splits"),
        (ReadError("x", reason="tilt"), "how-to/volumes"),
        (ReadError("x", reason="too_slow"), "reference/reason-codes"),
        (ReadError("x", reason="decoder_missing"), "start/install"),
        (WeightsError("x", key="model.init_from"), "how-to/weights"),
        (MissingExtraError("ray", extra="ray", key="on"), "start/install"),
        (ConfigError("x", key="model.options.depth"), "how-to/own-backbone"),
        (ConfigError("x", key="model.stem"), "reference/configuration"),
        (InvalidValueError("x", key="volume.view"), "how-to/volumes"),
        (EvaluationError("x", key="criterion"), "explanation/operating-points"),
    ],
)
def test_an_error_names_the_page_that_says_more(error: LeptonError, page: str) -> None:
    assert error.page == f"docs/{page}.md"
    assert "docs/" not in str(error)
    told = traceback.format_exception(error)
    assert told[-1].strip() == f"See docs/{page}.md"
    again = pickle.loads(pickle.dumps(error))
    assert traceback.format_exception(again)[-1] == told[-1]


def test_an_error_of_which_no_page_says_more_names_none() -> None:
    for error in (ConfigError("x"), ManifestError("There is no such manifest."), ConfigError("x", key="modelled")):
        assert error.page == ""
        assert not hasattr(error, "__notes__")


def test_one_line_changes_where_pages_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "DOCS", "https://docs.example.org/{}.html")
    assert WeightsError("x").page == "https://docs.example.org/how-to/weights.html"


def classes(kind: type[Any] = LeptonError) -> set[str]:
    return {kind.__name__}.union(*(classes(one) for one in kind.__subclasses__()))


def test_every_page_exists() -> None:
    pages = {page for table in errors._PAGES.values() for page in table}
    assert {page for page in pages if not (ROOT / "docs" / f"{page}.md").is_file()} == set()


def test_every_entry_can_be_met() -> None:
    assert set(errors._PAGES) <= classes()
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "lepton_vision").rglob("*.py"))
    for name, table in errors._PAGES.items():
        subjects = [subject for text in table.values() for subject in text.split() if subject != "*"]
        assert len(subjects) == len(set(subjects)), name
        if name == "ReadError":
            assert set(subjects) <= ReadError.REASONS
        assert [one for one in subjects if f'"{one}"' not in source and f"{one}:" not in source] == []
        stars = [text for text in table.values() if text == "*"]
        assert stars in ([], [list(table.values())[-1]]), name  # what follows it would never be met
