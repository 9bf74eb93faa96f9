"""The page in a real browser: no message on the console, no request, nothing wider than a phone."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from mask_studies import make_froc, make_mask_evaluation, make_overlays
from report_studies import FLOW, PROVENANCE

from lepton_vision.evaluation.classes.evaluation import Evaluation
from lepton_vision.reporting import write_report, write_segmentation_report

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-logging=stderr", "--v=0", "--timeout=20000",
)  # fmt: skip
CONSOLE = re.compile(r"CONSOLE[:(\]].*")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BROWSER, reason="no Chromium is installed: apt-get install chromium"),
]


def browse(page: Path, profile: Path) -> tuple[str, list[str]]:
    """Open a page; return its document as the browser understood it, and the messages on its console."""
    command = [BROWSER, *FLAGS, f"--user-data-dir={profile}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout, done.stderr[-2000:]
    return done.stdout, CONSOLE.findall(done.stderr)


def test_the_page_opens_without_a_message(several: Evaluation, tmp_path: Path) -> None:
    page = write_report(several, tmp_path / "report.html", data_flow=FLOW, provenance=PROVENANCE)
    document, messages = browse(page, tmp_path / "profile")
    assert messages == []
    analyses = several.analyses
    more = [
        len(curves) for found in (analyses.decision_curve, analyses.abstention) for curves in (found or {}).values()
    ]
    explored = 1 + 3  # classes with a threshold; two small drawings each
    drawn = 2 * 3 + 2 * (1 + 4 + 3) + 2 * explored + sum(more)  # by target, by class
    assert document.count('<svg class="plot"') == drawn
    assert document.count('data-at="') == explored  # the script has started in each
    assert f"{several.figures['covid']['auroc'].value:.3f}" in document
    assert "Most wrong cases" in document


def write_mask_page(path: Path) -> Path:
    found = make_mask_evaluation()
    return write_segmentation_report(found, path, overlays=make_overlays(found), froc={"lesion": make_froc()})


def test_the_page_of_masks_opens_without_a_message(tmp_path: Path) -> None:
    document, messages = browse(write_mask_page(tmp_path / "report.html"), tmp_path / "profile")
    assert messages == []
    assert document.count('<svg class="plot"') == 2 + 2 * 3 + 1  # spread; volumes by structure; FROC
    assert "Rules for empty masks" in document


def test_a_message_would_be_noticed(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text("<!doctype html><script>console.error('broken')</script><p>text")
    _, messages = browse(page, tmp_path / "profile")
    assert len(messages) == 1
    assert "broken" in messages[0]


@pytest.mark.parametrize("kind", ["classes", "masks"])
@pytest.mark.parametrize("width", [390, 1200])
def test_nothing_is_wider_than_the_window(several: Evaluation, tmp_path: Path, width: int, kind: str) -> None:
    if kind == "masks":
        report = write_mask_page(tmp_path / "report.html")
    else:
        report = write_report(several, tmp_path / "report.html", data_flow=FLOW, provenance=PROVENANCE)
    # The page's own policy forbids scripts, so a copy without it measures itself at the width of a frame.
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", report.read_text(encoding="utf-8"))
    measure = "<script>parent.postMessage(document.documentElement.scrollWidth,'*')</script></body>"
    (tmp_path / "inner.html").write_text(text.replace("</body>", measure), encoding="utf-8")
    outer = tmp_path / "outer.html"
    outer.write_text(
        "<!doctype html><p id=w></p>"
        "<script>onmessage=e=>document.getElementById('w').textContent='wide '+e.data</script>"
        f"<iframe src=inner.html style='border:0;width:{width}px;height:800px'></iframe>"
    )
    document, _ = browse(outer, tmp_path / "profile")
    found = re.search(r"wide (\d+)", document)
    assert found is not None
    assert int(found[1]) <= width
