"""The page of a mask evaluation: complete, safe, repeatable, its numbers those of figures.json."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from html_pages import HOSTILE, Page
from mask_studies import (
    STRUCTURES,
    make_froc,
    make_labels,
    make_mask_evaluation,
    make_overlays,
    save_nifti,
    write_table,
)

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.errors import ReportError
from lepton_vision.evaluation.masks.evaluation import MaskCase, SegmentationEvaluation, evaluate_masks
from lepton_vision.evaluation.masks.table import evaluate_mask_table
from lepton_vision.reporting import write_segmentation_report
from lepton_vision.reporting.masks.overlays import Overlay
from lepton_vision.reporting.masks.table import write_mask_table_report


def page_text(evaluation: SegmentationEvaluation, **content: Any) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = write_segmentation_report(evaluation, Path(folder) / "report.html", **content)
        return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def evaluation() -> SegmentationEvaluation:
    return make_mask_evaluation()


@pytest.fixture(scope="module")
def text(evaluation: SegmentationEvaluation) -> str:
    return page_text(
        evaluation, overlays=make_overlays(evaluation), froc={"lesion": make_froc()}, split="test", provenance={"a": 1}
    )


def cells(text: str, anchor: str, name: str) -> list[str]:
    """Value, interval, n and undefined of one figure in the table of a structure."""
    section = text[text.index(f'<section id="{anchor}"') :]
    row = section[section.index(f'<th scope="row">{name}<') :]
    row = row[: row.index("</tr>")]
    return [re.sub(r"<.*?>", "", cell).strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)][:4]


def test_the_numbers_are_those_of_the_json_file(evaluation: SegmentationEvaluation, text: str) -> None:
    written = json.loads(json.dumps(evaluation.to_dict()))
    names = {
        "dice": "Dice", "iou": "IoU", "hd95_mm": "HD95 [mm]", "hd95_mm_mean": "HD95, mean [mm]",
        "surface_dice": "Surface Dice at 1.5 mm", "sensitivity": "Sensitivity (voxels)",
        "precision": "Precision (voxels)", "volume_error_ml": "Volume error [ml]",
        "absolute_volume_error_ml": "Volume error, absolute [ml]", "missed_rate": "Missed cases",
        "false_positive_rate": "False positive cases", "lesion_sensitivity": "Lesion sensitivity",
        "lesion_precision": "Lesion precision", "false_lesions_per_case": "False lesions per case",
    }  # fmt: skip
    shown = 0
    for position, structure in enumerate(STRUCTURES):
        for key, figure in written["structures"][structure]["figures"].items():
            value = "–" if figure["value"] is None else f"{figure['value']:.3f}".replace("-", "−")
            has_width = figure["low"] is not None and figure["low"] < figure["high"]
            interval = f"{figure['low']:.3f} – {figure['high']:.3f}".replace("-", "−") if has_width else ""
            undefined = str(figure["n_undefined"]) if figure.get("n_undefined") else ""
            assert cells(text, f"structure-{position}", names[key]) == [value, interval, str(figure["n"]), undefined]
            shown += 1
    assert shown == 11 * 3 + 3


def test_counts_and_reasons_stand_in_the_page(evaluation: SegmentationEvaluation, text: str) -> None:
    words = Page(text).words
    assert "Cases 12 Patients 6 Failed 2 Structures 3 Surface tolerance 1.5 mm" in words
    for name in ("Present", "Missed", "False positive", "Absent"):
        assert re.search(rf"3 {name} in", words)  # of the lesion, planned so
    assert "2 cases failed and are in no figure" in words
    assert "prediction: file cut short 1 lost-1" in words
    assert "prediction: irregular series, or elsewhere in the patient than the truth 1 lost-2" in words
    assert "Undefined: no predicted surface (missed) (3); no truth surface (3); absent in truth and prediction (3)" in (
        words
    )
    assert "“lesion”: missed in 3 of 6 cases. HD95 is of the others only." in words
    assert "Only 6 patients" in words
    assert "It is not known which split" not in words
    assert "It is not known which split" in Page(page_text(evaluation)).words
    assert "figures of the validation split" in Page(page_text(evaluation, split="val")).words


def test_the_rules_for_empty_masks_are_stated(text: str) -> None:
    words = Page(text).words
    assert "Missed in the truth only 0 0 undefined no predicted surface (missed) 0 0 undefined no predicted voxel" in (
        words
    )
    assert "False positive in the prediction only 0 0 undefined no truth surface 0 undefined no truth voxel 0" in words


def test_the_page_asks_for_nothing_and_its_links_have_places(text: str) -> None:
    page = Page(text)
    assert [link for link in page.links if not re.match(r"#|data:", link)] == []
    assert [target for target in re.findall(r"url\(([^)]*)\)", text) if not target.startswith("#")] == []
    assert "@import" not in text
    assert not re.search(r"<(script|iframe|object|embed|form)\b|\son\w+=|https?://", text)
    assert "default-src 'none'" in text
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    # spread of Dice and HD95, two figures of volumes by structure, one FROC
    assert text.count('<svg class="plot"') == 2 + 2 * 3 + 1


def test_best_median_and_worst_are_drawn_and_a_lost_one_says_why(evaluation: SegmentationEvaluation, text: str) -> None:
    page = Page(text)
    pictures = [values for tag, values in page.tags if tag == "img"]
    assert len(pictures) == 3 * (len(make_overlays(evaluation)) - 1)
    assert all((one["src"] or "").startswith("data:image/png;base64,") and one["alt"] for one in pictures)
    assert "Not drawn: the image has another spacing." in page.words
    ranked = evaluation.ranked["lesion"]
    row = next(row for row in evaluation.cases if row.image_id == ranked.best and row.structure == "lesion")
    assert f"best Dice {row.figures.dice:.3f} slice 3 of 5, part of it" in page.words
    assert [key for key in ("in both", "missed: in the truth only") if key not in page.words] == []
    patches = re.findall(r'--patch:(rgb\([\d ]+\))"></span>([a-z ]+)', text)[:3]
    assert patches == [("rgb(86 180 233)", "in both"), ("rgb(240 228 66)", "missed"),
                       ("rgb(213 94 0)", "false positive")]  # fmt: skip


def test_masks_only_is_said(evaluation: SegmentationEvaluation) -> None:
    bare = [dataclasses.replace(one, image=None) for one in make_overlays(evaluation) if isinstance(one, Overlay)]
    words = Page(page_text(evaluation, overlays=iter(bare))).words
    assert "The pictures show masks alone: no image was named for them." in words
    assert words.count("Masks only: no image was named for this case.") == len(bare)
    none = Page(page_text(evaluation)).words
    assert "No masks were given to draw, so there are no pictures." in none


def test_the_worst_cases_come_first(evaluation: SegmentationEvaluation, text: str) -> None:
    section = text[text.index('<section id="structure-1"') : text.index('<section id="structure-2"')]
    table = section[section.index("<h3>Worst cases</h3>") :]
    ids = re.findall(r'<th scope="row">(case-\d+)', table)
    rows = [row for row in evaluation.cases if row.structure == "lesion" and not math.isnan(row.figures.dice)]
    by_dice = sorted(rows, key=lambda row: (row.figures.dice, row.image_id))
    assert ids == [row.image_id for row in by_dice]
    assert ids[0] == "case-01"  # missed


def test_the_froc_table_is_by_hand(text: str) -> None:
    words = Page(text).words
    # 3 lesions, 2 cases: at 0.5 false positives per case scores from 0.4 count, so 2 of 3 are found
    assert "Sensitivity at 0.5 false positives per case" in words
    assert re.search(r"Sensitivity at 0\.5 false positives per case 0\.667", words)
    assert "3 lesions, 2 cases" in words
    assert "The FROC curve was made from another number of cases" in words


def test_hostile_names_stay_text() -> None:
    cases = [MaskCase(HOSTILE + str(k), make_labels(), make_labels(shift=k), (5.0, 1.0, 1.0)) for k in range(3)]
    found = evaluate_masks(cases, structures={HOSTILE: 1, "b": 2}, config=EvaluationConfig(replicates=100))
    mask = make_labels() == 1
    overlay = Overlay(HOSTILE, HOSTILE + "0", mask, mask)
    text = page_text(
        found, overlays=[overlay], froc={HOSTILE: make_froc()}, title=HOSTILE, provenance={HOSTILE: {HOSTILE: HOSTILE}}
    )
    page = Page(text)
    assert not re.search(r"<script|<img src=x", text)
    assert "script" not in {tag for tag, _ in page.tags}
    assert all((v["src"] or "").startswith("data:") for tag, v in page.tags if tag == "img")
    assert HOSTILE.replace("  ", " ") in page.words


def test_nothing_known_of_volumes_says_why() -> None:
    flat = [MaskCase(str(k), make_labels()[2], make_labels(shift=k)[2]) for k in range(2)]
    words = Page(page_text(evaluate_masks(flat, structures={"whole": (1, 2)}))).words
    assert "Undefined in every case: pixel spacing unknown." in words
    assert words.count("Undefined: pixel spacing unknown.") == 2
    assert not re.search(r"\b(nan|inf|None)\b", words)
    one = evaluate_masks([MaskCase("a", make_labels(), make_labels(), (1.0, 1.0, 1.0))], structures={"whole": (1, 2)})
    words = Page(page_text(one)).words
    assert "Limits of agreement undefined for one case" in words
    assert "no interval: one patient only" in words


def test_a_page_is_written_whole_and_the_same_again(evaluation: SegmentationEvaluation, tmp_path: Path) -> None:
    first = write_segmentation_report(evaluation, tmp_path / "new" / "a.html", overlays=make_overlays(evaluation))
    second = write_segmentation_report(evaluation, tmp_path / "new" / "b.html", overlays=make_overlays(evaluation))
    assert first.read_bytes() == second.read_bytes()
    assert 100_000 < first.stat().st_size < 2_000_000
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["a.html", "b.html"]
    with pytest.raises(ReportError, match=r"Received: a folder"):
        write_segmentation_report(evaluation, tmp_path)
    mask = np.zeros((4, 4), np.bool_)
    with pytest.raises(ReportError, match=r"Unknown structure 'livr'\. Did you mean 'liver'"):
        write_segmentation_report(evaluation, tmp_path / "c.html", overlays=[Overlay("livr", "a", mask, mask)])
    with pytest.raises(ReportError, match="Unknown structure 'x'"):
        write_segmentation_report(evaluation, tmp_path / "c.html", froc={"x": make_froc()})
    assert not (tmp_path / "c.html").exists()


def test_no_path_is_in_the_page_of_a_table(tmp_path: Path) -> None:
    folder = tmp_path / "DOE^JANE"
    folder.mkdir()
    names = [save_nifti(folder / f"DOE_{k}.nii", make_labels(shift=k)) for k in range(3)]
    table = write_table(folder, [(f"i{k}", f"p{k}", names[0], names[k], names[0] if k else "") for k in range(3)])
    found = evaluate_mask_table(table, out=tmp_path / "out", structures=STRUCTURES)
    text = write_mask_table_report(found, table, tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    text = re.sub(r"data:image/png;base64,[^\"]*", "", text)  # any three letters may stand in a picture's bytes
    assert "DOE" not in text
    assert str(tmp_path) not in text
    words = Page(text).words
    assert "rows 3" in words
    assert "3 pictures show masks alone" in words  # i0 is the best of each structure, without an image


def test_many_structures_fit() -> None:
    structures = {f"organ {k}": k + 1 for k in range(30)}
    labels = np.zeros((2, 30, 8), np.uint8)
    labels[1] = np.arange(1, 31)[:, None]
    cases = [MaskCase(str(k), labels, np.roll(labels, k, axis=2), (1.0, 1.0, 1.0), str(k)) for k in range(2)]
    found = evaluate_masks(cases, structures=structures, config=EvaluationConfig(replicates=100))
    mask = labels > 0
    overlays = [Overlay(name, "0", mask, mask) for name in structures]
    text = page_text(found, overlays=overlays)
    words = Page(text).words
    assert words.count("Masks only") == 24
    assert "Cases of the first 24 structures are drawn, to keep the page small." in words
    assert "The first structures only; 6 more are in the tables." in words
    assert 'class="tile"' not in text
    assert len(text) < 3_000_000


def test_slices_are_shown_by_volume_too() -> None:
    cases = [
        MaskCase(f"{volume}-{k}", make_labels()[k], make_labels(shift=shift)[k], None, f"p{volume}", f"vol-{volume}")
        for volume, shift in enumerate((0, 2))
        for k in range(5)
    ]
    found = evaluate_masks(cases, structures={"whole": (1, 2)}, config=EvaluationConfig(replicates=100))
    text = page_text(found, split="test")
    assert found.by_volume is not None
    card = text[text.index("<h3>By volume</h3>") :]
    dice = found.by_volume.figures["whole"]["dice"]
    assert dice.n == 2
    assert found.figures["whole"]["dice"].n == 6, "two slices of each volume are empty in both"
    assert cells(card.replace("<h3>", '<section id="by-volume"><h3>', 1), "by-volume", "Dice")[0] == f"{dice.value:.3f}"
    cell = r'<td class="num" data-name="Slices">(\d)</td><td data-name="Status">(\w+)</td>'
    volumes = re.findall(rf'<tr><th scope="row">(vol-\d)</th>{cell}', card)
    assert volumes == [("vol-1", "5", "Present"), ("vol-0", "5", "Present")], "lowest Dice first"
    assert "Dice by volume" in text
    assert "By volume" not in page_text(make_mask_evaluation(), split="test")


def test_flat_images_have_no_panel_of_volumes() -> None:
    truth = np.zeros((12, 12), np.uint8)
    truth[3:8, 3:8] = 1
    cases = [MaskCase(f"i{k}", truth, np.roll(truth, k, axis=1), (1.0, 1.0), patient_id=f"p{k}") for k in range(4)]
    evaluation = evaluate_masks(cases, structures={"spot": 1}, config=EvaluationConfig(replicates=100))
    page = Page(page_text(evaluation))
    assert "2-D" not in page.words
    assert "Volume error" not in page.words.split("Rules for empty masks")[0]
    assert "Bland" not in page.words
