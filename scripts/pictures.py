"""Make every picture of the documentation from the demo, whose patients are synthetic.

    python scripts/pictures.py [--demo demo-run] [--out docs/images] [NAME ...]

Pictures of report pages are taken by Chromium without a window; the others are drawn by the library. Without --demo a
demo is made first, which takes some minutes.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bs4 import BeautifulSoup
from PIL import Image as Picture

import lepton_vision as lv
from lepton_vision.reporting import plot_reliability, plot_roc
from lepton_vision.reporting.classes.comparison_page import write_comparison
from lepton_vision.reporting.figures import Plot

OUT = Path(__file__).resolve().parents[1] / "docs" / "images"
WIDEST, LARGEST = 1280, 150_000
TALLEST = 3500
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(PICTURES)}; default all")
    parser.add_argument("--demo", type=Path, help="folder that `lepton-vision demo` wrote; default: one is made")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        demo = given.demo or make_demo(Path(folder) / "demo-run")
        for name in given.names or PICTURES:
            save(PICTURES[name](demo, Path(folder)), given.out / f"{name}.png")


def make_demo(folder: Path) -> Path:
    subprocess.run(["lepton-vision", "demo", "--out", str(folder)], check=True)
    return folder


def save(picture: Picture.Image, path: Path) -> None:
    """Write a picture with a palette, made smaller until it is small enough."""
    width = min(picture.width, WIDEST)
    while True:
        size = (width, round(picture.height * width / picture.width))
        shown = picture if size == picture.size else picture.resize(size, Picture.Resampling.LANCZOS)
        buffer = io.BytesIO()
        palette = {"method": Picture.Quantize.MEDIANCUT, "dither": Picture.Dither.NONE}
        shown.convert("RGB").quantize(256, **palette).save(buffer, format="png", optimize=True)
        if buffer.tell() < LARGEST:
            break
        width = round(0.9 * width)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
    print(f"{path.name}: {size[0]} x {size[1]}, {buffer.tell() / 1000:.0f} kB")


def cut(page: Path, titles: Sequence[str], *, has_top: bool = False) -> str:
    """HTML of a report page with the cards of these titles alone, and its summary where asked for."""
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    for card in soup.select("main .card"):
        heading = card.find("h3")
        if heading is None or heading.get_text(strip=True) not in titles:
            card.decompose()
    for section in soup.select("main section[id]"):
        if not section.select(".card") and section.get("id") != "summary":
            section.decompose()
        for heading in section.select("h2, p.lead"):
            heading.decompose()
    for one in soup.select("nav, footer"):
        one.decompose()
    if not has_top:
        for one in soup.select("header, #summary"):
            one.decompose()
    return str(soup)


def photograph(html: str, folder: Path, *, width: int) -> Picture.Image:
    """Picture of a page, without the empty part below it."""
    place, shot = folder / "page.html", folder / "shot.png"
    place.write_text(html, encoding="utf-8")
    browser = shutil.which("chromium") or shutil.which("google-chrome") or "chromium"
    how = [f"--user-data-dir={folder / 'browser'}", f"--window-size={width},{TALLEST}", f"--screenshot={shot}"]
    subprocess.run([browser, *FLAGS, *how, place.as_uri()], check=True, capture_output=True, timeout=120)
    return trimmed(Picture.open(shot).convert("RGB"))


def trimmed(picture: Picture.Image, *, margin: int = 16) -> Picture.Image:
    """Cut off the rows at both ends that hold nothing but background."""
    rows = np.asarray(picture)
    is_full = np.flatnonzero((rows != rows[-1, -1]).any(axis=(1, 2)))
    top, bottom = max(0, is_full[0] - margin), min(len(rows), is_full[-1] + 1 + margin)
    return picture.crop((0, int(top), picture.width, int(bottom)))


def drawn(figure: Any, *, dpi: int = 110) -> Picture.Image:
    """Picture of a figure of matplotlib."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return Picture.open(buffer).convert("RGB")


def beside(*pictures: Picture.Image, gap: int = 12) -> Picture.Image:
    """Pictures side by side on white."""
    width = sum(one.width for one in pictures) + gap * (len(pictures) - 1)
    sheet, left = Picture.new("RGB", (width, max(one.height for one in pictures)), "white"), 0
    for one in pictures:
        sheet.paste(one, (left, 0))
        left += one.width + gap
    return sheet


def report(demo: Path, folder: Path) -> Picture.Image:
    page = cut(demo / "run/evaluation/report.html", ("ROC curve", "Reliability"), has_top=True)
    soup = BeautifulSoup(page, "html.parser")
    for caption in soup.select("figcaption"):
        caption.decompose()
    return photograph(str(soup), folder, width=1000)


def threshold(demo: Path, folder: Path) -> Picture.Image:
    return photograph(cut(demo / "run/evaluation/report.html", ("Threshold explorer",)), folder, width=900)


def cases(demo: Path, folder: Path) -> Picture.Image:
    page = BeautifulSoup(cut(demo / "run/evaluation/report.html", ("Most wrong cases",)), "html.parser")
    for one in page.select(".case")[4:]:
        one.decompose()
    return photograph(str(page), folder, width=900)


def masks(demo: Path, folder: Path) -> Picture.Image:
    page = cut(demo / "run/evaluation/masks/report.html", ("Best, median and worst case",))
    return photograph(page, folder, width=900)


def curves(demo: Path, folder: Path) -> Picture.Image:
    result = lv.evaluate(lv.Predictions.load(demo / "run/evaluation/predictions.csv"), operating_point=point(demo))
    return beside(drawn(plot_roc(result)), drawn(plot_reliability(result)))


def point(demo: Path) -> lv.OperatingPoint | None:
    return lv.Bundle.load(demo / "run/bundle").operating_point


def comparison(demo: Path, folder: Path) -> Picture.Image:
    """The model of the demo against itself with noise on its logits."""
    ours = lv.Predictions.load(demo / "run/evaluation/predictions.csv")
    rng, (name,) = np.random.default_rng(0), ours.y_prob
    inside = np.clip(ours.y_prob[name], 1e-6, 1 - 1e-6)
    noisy = np.log(inside / (1 - inside)) + rng.normal(0.0, 2.0, size=ours.n)
    columns = {"y_prob": {name: 1 / (1 + np.exp(-noisy))}, "bundle_id": "noisy"}
    other = lv.Predictions(**{field: getattr(ours, field) for field in ours.__dataclass_fields__} | columns)
    found = lv.compare(ours, other, operating_point=point(demo), margin=0.05)
    names = ("model A", "model B")
    write_comparison(found, folder / "comparison.html", names=names)
    return photograph(cut(folder / "comparison.html", ("Differences",), has_top=True), folder, width=900)


def batch(demo: Path, folder: Path) -> Picture.Image:
    manifest = lv.Manifest.load(demo / "run/manifest.parquet")
    config = lv.Config.from_yaml(demo / "run/config.yaml").override("train.batch_size=16", "augment.strength=1.5")
    return drawn(lv.show_batch(lv.make_loader(manifest.subset("train"), config, training=True), images=16), dpi=80)


def grad_cam(demo: Path, folder: Path) -> Picture.Image:
    """Images of the test split that the model calls positive, without and with the heat map."""
    found = lv.Predictions.load(demo / "run/evaluation/predictions.csv")
    (name,) = found.y_prob
    best = np.argsort(-found.y_prob[name])[:4]
    rows = lv.Manifest.load(demo / "run/manifest.parquet").frame.set_index("image_id")
    bundle, figure = lv.Bundle.load(demo / "run/bundle"), Plot(figsize=(8.4, 4.4), layout="constrained")
    for place, row in enumerate(best):
        path = demo / "study" / str(rows.loc[found.image_id[row], "path"])
        seen = lv.explain(bundle, path)
        grey = seen.pixels[0]
        for line, pixels in enumerate((grey, seen.picture)):
            axes = figure.add_subplot(2, 4, 4 * line + place + 1)
            axes.imshow(pixels, cmap="gray")
            axes.set_axis_off()
            if line == 0:
                axes.set_title(f"{name}: {seen.class_name} {seen.probability:.2f}", fontsize=9)
    return drawn(figure)


def series(demo: Path, folder: Path) -> Picture.Image:
    """A DICOM series as one volume: a slice along each axis, in millimetres."""
    image = lv.read_image(demo / "series")
    volume, (deep, down, across) = image.pixels[0], image.spacing_mm
    at = (volume.shape[0] // 2, int(0.45 * volume.shape[1]), int(0.3 * volume.shape[2]))
    planes = (
        ("axial", volume[at[0]], down / across, (0, 2)),
        ("coronal", volume[:, at[1]], deep / across, (0, 1)),
        ("sagittal", volume[:, :, at[2]], deep / down, (1, 2)),
    )
    figure = Plot(figsize=(8.4, 4.4), layout="constrained")
    grid = figure.add_gridspec(2, 2)
    for title, pixels, aspect, (first, last) in planes:
        axes = figure.add_subplot(grid[first:last, 0 if title == "axial" else 1])
        axes.imshow(pixels, cmap="gray", vmin=-1000, vmax=400, aspect=aspect)
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    return drawn(figure)


PICTURES: dict[str, Callable[[Path, Path], Picture.Image]] = {
    "report": report,
    "threshold": threshold,
    "cases": cases,
    "masks": masks,
    "curves": curves,
    "comparison": comparison,
    "batch": batch,
    "grad-cam": grad_cam,
    "series": series,
}


if __name__ == "__main__":
    main()
