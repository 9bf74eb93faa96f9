"""Every command, public name and section of the configuration stands in a page that people read."""

from __future__ import annotations

import re
from pathlib import Path

import typer.main

import lepton_vision
from lepton_vision.cli.app import app
from lepton_vision.config import Config

DOCS = Path(__file__).resolve().parents[2] / "docs"
ROOMS = ("start", "how-to", "explanation")


def text_of(*rooms: str, folder: Path = DOCS) -> str:
    """All pages of some rooms; the generated reference is none of them."""
    return "\n".join(p.read_text(encoding="utf-8") for room in rooms for p in sorted((folder / room).glob("*.md")))


def commands_without(text: str) -> list[str]:
    """Commands of which no page shows a call."""
    return [name for name in typer.main.get_command(app).commands if f"lepton-vision {name}" not in text]


def names_without(text: str) -> list[str]:
    """Public names that no page uses."""
    names = [name for name in lepton_vision.__all__ if name != "__version__"]
    used = r"(lv\.{0}\b|lepton_vision\.{0}\b|import [^\n]*\b{0}\b|`{0}[(`.])"
    return [name for name in names if not re.search(used.format(name), text)]


def sections_without(text: str) -> list[str]:
    """Sections of the configuration of which no page sets a key."""
    used = r"(\b{0}\.\w+|^ *{0}: ?[\[{{\n])"
    return [name for name in Config.model_fields if not re.search(used.format(name), text, re.MULTILINE)]


def test_every_command_has_a_page() -> None:
    assert commands_without(text_of(*ROOMS)) == []


def test_every_public_name_has_a_page() -> None:
    assert names_without(text_of(*ROOMS)) == []


def test_every_section_of_the_configuration_has_a_how_to() -> None:
    assert sections_without(text_of("start", "how-to")) == []


def test_a_part_without_a_page_would_be_noticed(tmp_path: Path) -> None:
    (tmp_path / "how-to").mkdir()
    (tmp_path / "how-to" / "a.md").write_text("`lepton-vision scan data`, `lv.fit(…)`, `train.epochs=3`\n")
    text = text_of("how-to", folder=tmp_path)
    assert "split" in commands_without(text)
    assert "scan" not in commands_without(text)
    assert "predict" in names_without(text)
    assert "fit" not in names_without(text)
    assert "split" in sections_without(text)
    assert "train" not in sections_without(text)
