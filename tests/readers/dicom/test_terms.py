"""Header texts: known terms stay, all others become categories that hide the text."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from PIL.PngImagePlugin import PngInfo
from pydicom.sr._cid_dict import cid_concepts

from lepton_vision.pipeline.facts import inspect_path
from lepton_vision.readers.dicom.terms import known_term
from lepton_vision.readers.image import probe, read_image

Make = Callable[..., Path]
GRAY = np.zeros((4, 4), dtype=np.uint16)
CATEGORY = re.compile(r"other-[0-9a-f]{16}")


@pytest.mark.parametrize(
    ("keyword", "text", "term"),
    [
        ("BodyPartExamined", "Chest", "CHEST"),
        ("BodyPartExamined", "HEAD_AND_NECK", "HEAD_AND_NECK"),
        ("BodyPartExamined", "WHOLE BODY", "WHOLE BODY"),
        ("Modality", "ct", "CT"),
        ("Manufacturer", "Philips Medical Systems, Inc.", "Philips Medical Systems, Inc."),
        ("Manufacturer", "TOSHIBA_MEC", "TOSHIBA_MEC"),
        ("ManufacturerModelName", "SOMATOM Definition AS+", "SOMATOM Definition AS+"),
        ("ManufacturerModelName", "Optima CT520 Series", "Optima CT520 Series"),
        ("ManufacturerModelName", "Prisma_fit", "Prisma_fit"),
        ("ManufacturerModelName", "uMR 780", "uMR 780"),
        ("Manufacturer", "UIH", "UIH"),
        ("ViewPosition", "RMLO", "RMLO"),
        ("BodyPartExamined", "WRIST LT", "WRIST LT"),
        ("TransferSyntaxUID", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.90"),
        ("ImageLaterality", "l", "L"),
        ("ImageLaterality", "doe", None),
        ("PatientSex", "jane", None),
        ("BodyPartExamined", "", None),
        ("Units", None, None),
    ],
)
def test_terms_stay(keyword: str, text: str | None, term: str | None) -> None:
    assert known_term(keyword, text) == term  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("keyword", "text"),
    [
        ("BodyPartExamined", "jane doe"),
        ("BodyPartExamined", "CHEST DOE"),
        ("BodyPartExamined", "CHEST 19510304"),
        ("Modality", "DOE"),
        ("ViewPosition", "DOE JANE"),
        ("Units", "DOE^JANE"),
        ("Manufacturer", "ACME [/x]"),
        ("Manufacturer", "SIEMENS\x1b[2J"),
        ("ManufacturerModelName", "MRN 1234567"),
        ("ManufacturerModelName", "SOMATOM of Jane Doe"),
        ("TransferSyntaxUID", "1.2.3.19510304"),
    ],
)
def test_any_other_text_is_a_category(keyword: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = known_term(keyword, text)  # type: ignore[arg-type]
    assert found is not None
    assert CATEGORY.fullmatch(found)
    assert found == known_term(keyword, text) != known_term(keyword, text + "x")  # type: ignore[arg-type]
    monkeypatch.setenv("LEPTON_VISION_ID_KEY", "another")
    assert known_term(keyword, text) != found  # type: ignore[arg-type]


def test_body_parts_of_the_standard_are_known() -> None:
    names = [name for name in cid_concepts[4031]["SCT"] if name.isalpha()]  # Common Anatomic Region, pydicom's copy
    known = [name for name in names if known_term("BodyPartExamined", name) == name.upper()]
    assert len(known) > 0.8 * len([name for name in names if len(re.findall(r"[A-Z]", name)) == 1])


def test_no_planted_text_leaves_a_header(make_dicom: Make) -> None:
    planted = ("BodyPartExamined", "ViewPosition", "Manufacturer", "ManufacturerModelName", "RescaleType", "Modality")
    path = make_dicom(GRAY, RescaleSlope=1, RescaleIntercept=0, **dict.fromkeys(planted, "zzyzx jane"))
    image = read_image(path)
    seen = [repr(image), image._repr_html_(), repr(probe(path)), str(inspect_path(path)), image.units]
    assert "zzyzx" not in " ".join(seen).lower()
    assert CATEGORY.fullmatch(image.units)


def test_loggers_of_decoders_say_nothing_of_a_file(
    tmp_path: Path, make_dicom: Make, caplog: pytest.LogCaptureFixture
) -> None:
    text = PngInfo()
    text.add_text("Description", "Jane Zzyzx")
    picture = Picture.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    picture.save(tmp_path / "a.png", pnginfo=text)
    picture.save(tmp_path / "b.tif", description="Jane Zzyzx", compression="tiff_lzw")
    picture.save(tmp_path / "c.tif", description="Jane Zzyzx", compression="jpeg")
    for name in (None, "PIL", "PIL.PngImagePlugin", "PIL.TiffImagePlugin", "pydicom", "tifffile"):
        caplog.set_level(logging.DEBUG, logger=name)
    for path in (*sorted(tmp_path.glob("*.*")), make_dicom(GRAY, ImageComments="Jane Zzyzx")):
        read_image(path)
        probe(path)
    assert [record for record in caplog.records if "Zzyzx" in record.getMessage()] == []
    assert [record.name for record in caplog.records if not record.name.startswith("lepton_vision")] == []
