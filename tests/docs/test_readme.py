"""The README is one page, and what it links to is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MADE = ROOT / "docs" / "notebooks"  # by a build


def test_the_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 8_000


def test_links_of_pages_lead_somewhere_without_a_build() -> None:
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("**/*.md")]
    found = 0
    for page in pages:
        if "_build" in page.parts:
            continue
        links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
        inner = [one.split("#")[0] for one in links if "://" not in one and not one.startswith("#")]
        found += len(inner)
        places = {one: (page.parent / one).resolve() for one in inner}
        dead = [one for one, place in places.items() if not place.exists() or place.is_relative_to(MADE)]
        assert dead == [], page
    assert found > 100
