"""Header facts that can stand in several places."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sr import _snomed_dict as snomed
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts

from lepton_vision.readers.dicom import facts as dicom_facts
from lepton_vision.readers.image import probe, read_image

Make = Callable[..., Path]
GRAY = np.zeros((4, 4), dtype=np.uint16)
# Defined terms of View Position (PS3.3 C.8.11.5.1.3, C.8.11.7) by the meanings of CID 4010 and 4014.
MEANINGS = {
    "antero-posterior": "AP", "postero-anterior": "PA", "left lateral": "LL", "right lateral": "RL",
    "lateral": "LATERAL", "left anterior oblique": "LAO", "right anterior oblique": "RAO",
    "left posterior oblique": "LPO", "right posterior oblique": "RPO", "medio-lateral oblique": "MLO",
    "cranio-caudal": "CC", "medial-lateral": "ML", "latero-medial": "LM", "lateral-medial": "LM",
    "latero-medial oblique": "LMO", "caudo-cranial": "FB", "superolateral to inferomedial oblique": "SIO",
    "inferomedial to superolateral oblique": "ISO", "cranio-caudal exaggerated laterally": "XCCL",
    "cranio-caudal exaggerated medially": "XCCM",
}  # fmt: skip


def item(**elements: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def coded(value: str, *, scheme: str = "SCT", **elements: Any) -> Dataset:
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning="anything", **elements)


def fact(path: Path, name: str) -> object:
    """A fact as ``probe`` and ``read_image`` both give it."""
    found = probe(path).facts[name]
    assert read_image(path).facts[name] == found
    return found


def codes_of(cid: int) -> dict[str, str]:
    """Code by meaning, of pydicom's own copy of PS3.16."""
    names = cid_concepts[cid]["SCT"]
    entries = [(meaning, code) for name in names for code, (meaning, _) in concepts["SCT"][name].items()]
    return {meaning.lower(): code for meaning, code in entries}


def test_views_are_those_of_the_standard(make_dicom: Make) -> None:
    known = {**codes_of(4010), **codes_of(4014)}
    assert len(MEANINGS.keys() & known.keys()) >= 19
    for meaning, code in known.items():
        assert dicom_facts._VIEWS.get(code) == MEANINGS.get(meaning), meaning
        older = snomed.mapping["SCT"].get(code)
        assert dicom_facts._VIEWS.get(str(older)) == MEANINGS.get(meaning), meaning
    assert fact(make_dicom(GRAY, ViewCodeSequence=[coded("399368009")]), "view_position") == "MLO"
    assert fact(make_dicom(GRAY, ViewCodeSequence=[coded("R-10242", scheme="SNM3")]), "view_position") == "CC"


def test_view_position_comes_before_the_code(make_dicom: Make) -> None:
    code = [coded("399368009")]
    assert fact(make_dicom(GRAY, ViewPosition="CC", ViewCodeSequence=code), "view_position") == "CC"
    assert fact(make_dicom(GRAY, ViewPosition="", ViewCodeSequence=code), "view_position") == "MLO"
    assert fact(make_dicom(GRAY, ViewCodeSequence=[coded("399368009", scheme="99LOCAL")]), "view_position") is None
    assert fact(make_dicom(GRAY, ViewCodeSequence=[coded("1")]), "view_position") is None
    assert fact(make_dicom(GRAY, ViewCodeSequence=[]), "view_position") is None


def frames(*sides: str | None, shared: str | None = None) -> dict[str, Any]:
    """Functional groups with these sides of the frames."""

    def group(side: str | None) -> Dataset:
        return item(FrameAnatomySequence=[item(FrameLaterality=side)]) if side else Dataset()

    return {
        "NumberOfFrames": len(sides),
        "PerFrameFunctionalGroupsSequence": [group(side) for side in sides],
        "SharedFunctionalGroupsSequence": [group(shared)],
    }


@pytest.mark.parametrize(
    ("elements", "side"),
    [
        (frames(None, None, shared="R"), "R"),
        (frames("L", "L"), "L"),
        (frames("L", "R"), None),
        (frames("L", None), None),  # of the second frame nothing is known
        (frames("L", None, shared="L"), "L"),
        (frames("L", None, shared="R"), None),
        (frames(None, None), None),
        (frames("L", "L") | {"ImageLaterality": "R"}, "R"),
        (frames(None, None, shared="B") | {"ImageLaterality": ""}, "B"),
    ],
)
def test_laterality_of_frames(make_dicom: Make, elements: dict[str, Any], side: str | None) -> None:
    assert fact(make_dicom(np.stack([GRAY, GRAY]), **elements), "laterality") == side


def test_laterality_of_the_region(make_dicom: Make) -> None:
    for code, side in (("24028007", "R"), ("7771000", "L"), ("51440002", "B"), ("261183002", None)):
        region = [coded("76752008", AnatomicRegionModifierSequence=[coded(code)])]
        assert fact(make_dicom(GRAY, AnatomicRegionSequence=region), "laterality") == side
        assert fact(make_dicom(GRAY, AnatomicRegionSequence=region, Laterality="L"), "laterality") == "L"
    older = [coded("T-04000", scheme="SRT", AnatomicRegionModifierSequence=[coded("G-A100", scheme="SRT")])]
    assert fact(make_dicom(GRAY, AnatomicRegionSequence=older), "laterality") == "R"
    groups = [item(FrameAnatomySequence=[item(AnatomicRegionSequence=older)])]
    assert fact(make_dicom(GRAY, SharedFunctionalGroupsSequence=groups), "laterality") == "R"


@pytest.mark.parametrize(
    ("age", "band"),
    [
        ("045Y", "40-49"), ("45Y", "40-49"), ("45y", "40-49"), ("51", "50-59"), ("051", "50-59"), ("5", "0-9"),
        ("018M", "0-9"), ("18M", "0-9"), ("300M", "20-29"), ("104W", "0-9"), ("10D", "0-9"), ("090Y", "90+"),
        ("94", "90+"), ("000Y", "0-9"), ("999Y", None), ("51 years", None), ("-5", None), ("1045Y", None), ("Y", None),
    ],
)  # fmt: skip
def test_ages_as_they_are_written(make_dicom: Make, age: str, band: str | None) -> None:
    assert fact(make_dicom(GRAY, PatientAge=age, PatientBirthDate=""), "age_band") == band
