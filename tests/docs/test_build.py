"""The documentation builds without a warning, and its links lead somewhere."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("sphinx")

ROOT = Path(__file__).resolve().parents[2]


class Links(HTMLParser):
    """Targets of links and names of anchors in a page."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors |= {one for name in ("id", "name") if (one := found.get(name))}
        target = found.get("href" if tag in {"a", "link"} else "src")
        if target:
            self.targets.append(target)


def dead_links(folder: Path) -> list[str]:
    """Links of pages below a folder to files or anchors that do not exist; other sites are left out."""
    pages = {}
    for path in folder.rglob("*.html"):
        pages[path] = Links()
        pages[path].feed(path.read_text(encoding="utf-8"))
    dead = []
    for path, links in pages.items():
        for target in links.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            place = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[place].anchors if place in pages else None
            if not place.exists() or (parts.fragment and anchors is not None and parts.fragment not in anchors):
                dead.append(f"{path.relative_to(folder)} -> {target}")
    return dead


@pytest.mark.slow
def test_the_documentation_builds_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, "-d", tmp_path / "trees", ROOT / "docs", tmp_path / "html"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert dead_links(tmp_path / "html") == []


def test_a_dead_link_would_be_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="b.html">b</a><a href="#x">x</a><a href="a.html#y">y</a><p id="y">')
    assert sorted(dead_links(tmp_path)) == ["a.html -> #x", "a.html -> b.html"]
