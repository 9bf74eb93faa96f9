"""The README is one page, and what it links to is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 8_000


def test_links_of_pages_outside_the_documentation_lead_somewhere() -> None:
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md"):
        links = re.findall(r"\]\(([^)\s]+)\)", (ROOT / name).read_text(encoding="utf-8"))
        inner = [one.split("#")[0] for one in links if "://" not in one]
        assert inner or name == "CONTRIBUTING.md"
        assert [one for one in inner if not (ROOT / one).exists()] == []
