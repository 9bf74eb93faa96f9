"""KeyColumn columns and label columns of tables in the shapes of public data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from lepton_vision.config import Config
from lepton_vision.errors import LabelError, ManifestError
from lepton_vision.manifest.labels import infer_targets
from lepton_vision.manifest.table import Manifest
from lepton_vision.readers.identity import pseudonym
from tests.manifest.conftest import picture, write_picture


def scanned(folder: Path, names: Sequence[str], text: str) -> Manifest:
    """Images under these names, and the label table scanned with them."""
    for seed, name in enumerate(names):
        write_picture(folder / "img" / name, picture(seed, size=(12, 10)))
    (folder / "labels.csv").write_text(text)
    return Manifest.scan(folder / "img", labels=folder / "labels.csv", workers=1)


def values_of(manifest: Manifest, column: str) -> list[Any]:
    return [None if pd.isna(value) else value for value in manifest.frame[column]]


def proposed(manifest: Manifest) -> Config:
    """The configuration that the error of an inference shows."""
    with pytest.raises(LabelError) as caught:
        infer_targets(manifest)
    return Config.from_dict(yaml.safe_load("targets:" + str(caught.value).split("targets:", 1)[1]))


def test_nih(tmp_path: Path) -> None:
    manifest = scanned(
        tmp_path,
        ["images/00000001_000.png", "images/00000001_001.png", "images/00000002_000.png"],
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
        "00000001_000.png,Cardiomegaly,0,1,58,M,PA,2682,2749,0.143,0.143,\n"
        "00000001_001.png,Cardiomegaly|Emphysema,1,1,58,M,PA,2894,2729,0.143,0.143,\n"
        "00000002_000.png,No Finding,0,2,81,M,PA,2500,2048,0.168,0.168,\n",
    )
    assert manifest.label_columns == ("Cardiomegaly", "Emphysema", "No Finding")
    assert values_of(manifest, "Cardiomegaly") == [1, 1, 0]
    assert values_of(manifest, "Emphysema") == [0, 1, 0]
    assert values_of(manifest, "No Finding") == [0, 0, 1]
    assert values_of(manifest, "Finding Labels")[1] == "Cardiomegaly|Emphysema"
    assert values_of(manifest, "patient_id") == [pseudonym("patient", one) for one in ("1", "1", "2")]
    assert values_of(manifest, "Patient Age") == [58, 58, 81]
    (target,) = proposed(manifest).targets
    assert (target.kind, target.classes) == ("multilabel", ("Cardiomegaly", "Emphysema", "No Finding"))
    np.testing.assert_array_equal(manifest.labels(target), [[1, 0, 0], [1, 1, 0], [0, 0, 1]])


def test_rsna_with_a_row_for_each_box(tmp_path: Path) -> None:
    text = (
        "patientId,x,y,width,height,Target\n0004-a,,,,,0\n"
        "0004-b,264.0,152.0,213.0,379.0,1\n0004-b,562.0,152.0,256.0,453.0,1\n"
    )
    manifest = scanned(tmp_path, ["0004-a.png", "0004-b.png"], text)
    assert manifest.label_columns == ("Target",)
    assert not {"x", "y", "width", "height"} & set(manifest.frame.columns)
    assert infer_targets(manifest)[0].classes == ("0", "1")
    assert values_of(manifest, "Target") == [0, 1]
    assert manifest.frame["patient_known"].all()
    with pytest.raises(ManifestError, match="repeat a key"):
        scanned(tmp_path, [], text.replace("453.0,1", "453.0,0"))


CHEXPERT = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Edema,Pneumonia,Fracture\n" + "".join(
    f"CheXpert-v1.0-small/train/patient{patient}/study1/view{view}.jpg,Female,{60 + patient},Frontal,AP,{findings}\n"
    for patient, view, findings in ((1, 1, "1.0,,,"), (1, 2, ",1.0,-1.0,"), (2, 1, ",0.0,1.0,"), (3, 1, ",-1.0,0.0,"))
)
VIEWS = ["patient1/study1/view1.jpg", "patient1/study1/view2.jpg", "patient2/study1/view1.jpg"]


def test_chexpert(tmp_path: Path) -> None:
    manifest = scanned(tmp_path, [f"train/{view}" for view in VIEWS], CHEXPERT)
    assert manifest.unmatched_labels == 1
    assert manifest.label_columns == ("No Finding", "Edema", "Pneumonia", "Fracture")
    assert values_of(manifest, "Age") == [61, 61, 62]
    (target,) = proposed(manifest).targets
    assert (target.kind, target.classes, target.uncertain) == ("multilabel", ("Edema", "Pneumonia"), "unknown")
    np.testing.assert_array_equal(manifest.labels(target), [[np.nan, np.nan], [1, np.nan], [0, 1]])


def test_chexpert_with_one_of_its_folders_scanned(tmp_path: Path) -> None:
    manifest = scanned(tmp_path, VIEWS, CHEXPERT)
    assert values_of(manifest, "Edema") == [None, 1, 0]


def test_isic(tmp_path: Path) -> None:
    manifest = scanned(
        tmp_path,
        ["ISIC_0000001.jpg", "ISIC_0000002.jpg"],
        "isic_id,patient_id,sex,age_approx,anatom_site_general,target\n"
        "ISIC_0000001,IP_1,male,55,torso,0\nISIC_0000002,IP_2,unknown,NA,,1\n",
    )
    assert infer_targets(manifest)[0].column is None
    assert values_of(manifest, "target") == [0, 1]
    assert values_of(manifest, "sex") == ["male", None]
    assert values_of(manifest, "age_approx") == [55, None]
    named = scanned(tmp_path, [], "image_name,benign_malignant\nISIC_0000001,benign\nISIC_0000002,malignant\n")
    assert infer_targets(named)[0].classes == ("benign", "malignant")


def test_mimic(tmp_path: Path) -> None:
    manifest = scanned(
        tmp_path,
        ["files/p10/p10000032/s50414267/02aa804e-bde0afdd.jpg", "files/p10/p10000764/s57375967/096052b7-d256dc40.jpg"],
        "dicom_id,subject_id,study_id,Rows,Columns,ViewPosition,Edema\n"
        "02aa804e-bde0afdd,10000032,50414267,3056,2544,PA,0.0\n"
        "096052b7-d256dc40,10000764,57375967,3056,2544,AP,1.0\n",
    )
    assert manifest.label_columns == ("Edema",)
    assert infer_targets(manifest)[0].classes == ("0", "1")
    assert values_of(manifest, "patient_id") == [pseudonym("patient", one) for one in ("10000032", "10000764")]


def test_padchest(tmp_path: Path) -> None:
    manifest = scanned(
        tmp_path,
        ["0/a_1.png", "0/b_2.png"],
        ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientSex_DICOM,Report,Labels\n"
        "0,a_1.png,0,20140915,1-a,8d,F,sin hallazgos,['normal']\n"
        "7,b_2.png,0,20140916,1-b,9e,M,derrame,\"['pleural effusion', 'mass']\"\n",
    )
    assert {"mass", "normal", "pleural effusion"} <= set(manifest.label_columns)
    assert values_of(manifest, "pleural effusion") == [0, 1]
    assert not {"", "Unnamed: 0", "Labels", "StudyID"} & set(manifest.label_columns)


def test_tcia_with_series(tmp_path: Path) -> None:
    from pydicom import dcmread
    from pydicom.data import get_testdata_file

    dataset = dcmread(str(get_testdata_file("CT_small.dcm")))
    for k in range(2):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{k}"
        dataset.SeriesInstanceUID, dataset.PatientID = f"1.2.4.{k}", f"R01-{k}"
        (tmp_path / "img").mkdir(exist_ok=True)
        dataset.save_as(tmp_path / "img" / f"{k}.dcm")
    manifest = scanned(
        tmp_path,
        [],
        "Series UID,Collection,Subject ID,Study UID,Study Date,Modality,SOP Class UID,Number of Images,File Size,"
        "File Location,diagnosis\n"
        "1.2.4.0,X,R01-0,1.2,2001-01-01,CT,1.2,1,1 MB,./X/R01-0,benign\n"
        "1.2.4.1,X,R01-1,1.3,2001-01-02,CT,1.2,1,1 MB,./X/R01-1,malignant\n",
    )
    assert manifest.label_columns == ("diagnosis",)
    assert infer_targets(manifest)[0].classes == ("benign", "malignant")


def test_uids_are_the_names_of_converted_files(tmp_path: Path) -> None:
    manifest = scanned(tmp_path, ["ID_0a.png", "ID_0b.png"], "SOPInstanceUID,any\nID_0a,1\nID_0b,0\n")
    assert values_of(manifest, "any") == [1, 0]


def test_numbers_of_patients_are_no_file_names(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"None of the 2 rows .* 'PatientID'"):
        scanned(tmp_path, ["1.png", "2.png"], "PatientID,y\n1,0\n2,1\n")


def test_of_two_columns_of_paths_the_one_that_matches_joins(tmp_path: Path) -> None:
    manifest = scanned(tmp_path, ["a.png", "b.png"], "image,file_name,finding\n1,a.png,1\n2,b.png,0\n")
    assert values_of(manifest, "finding") == [1, 0]
    assert manifest.label_columns == ("finding",)


def test_a_coarser_key_never_stands_in_for_rows_of_images(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"'path' or 'PatientID'"):
        scanned(tmp_path, ["a.png", "b.png"], "path,PatientID,y\nx.png,a,0\nz.png,a,1\n")


def test_a_file_name_of_an_image_is_not_that_of_its_mask(tmp_path: Path) -> None:
    """Images and masks of the same names in two folders, and a table of file names alone."""
    for number in range(3):
        write_picture(
            tmp_path / "masks" / f"{number}.png", np.eye(*picture(0, size=(12, 10)).shape[:2], dtype=np.uint8) * 255
        )
    manifest = scanned(tmp_path, [f"images/{n}.png" for n in range(3)], "image,label\n0.png,a\n1.png,b\n2.png,a\n")
    assert values_of(manifest, "label") == ["a", "b", "a"]
    (tmp_path / "masks").rename(tmp_path / "img" / "masks")
    again = Manifest.scan(tmp_path / "img", labels=tmp_path / "labels.csv", workers=1)
    assert values_of(again.ok, "label") == ["a", "b", "a"]
    assert values_of(again.ok, "mask_path") == ["masks/0.png", "masks/1.png", "masks/2.png"]


def test_a_column_id_is_a_key_where_no_other_is(study: Path) -> None:
    (study / "p00" / "0.png").rename(study / "p00" / "00ab.png")
    frame = Manifest.scan(study, labels=pd.DataFrame({"id": ["00ab"], "label": [1]}), workers=1).frame
    assert frame["label"].dropna().tolist() == [1]
    table = pd.DataFrame({"id": ["secret"], "file": ["00ab.png"], "label": [1]})
    manifest = Manifest.scan(study, labels=table, workers=1)
    assert manifest.label_columns == ("label",)
    assert "secret" not in set(manifest.frame["id"].dropna())


def test_a_table_that_only_differs_by_suffix_is_told_so(study: Path) -> None:
    (study / "p00" / "0.png").rename(study / "p00" / "only.png")
    with pytest.raises(ManifestError, match="But for the suffix, 1 of them would"):
        Manifest.scan(study, labels=pd.DataFrame({"image": ["only.tif"], "label": [1]}), workers=1)
