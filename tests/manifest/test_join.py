"""Label tables: keys, spellings, contradictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image as Pillow

from lepton_vision.errors import ManifestError
from lepton_vision.manifest.table import Manifest
from lepton_vision.readers.identity import pseudonym


def labels_of(study: Path, table: pd.DataFrame | Path) -> dict[str, Any]:
    frame = Manifest.scan(study, labels=table, workers=1).frame
    return {path: None if pd.isna(value) else value for path, value in zip(frame["path"], frame["y"], strict=True)}


@pytest.mark.parametrize("column", ["path", "file", "FileName", "image", "image_path", "file name", "Image_ID"])
def test_paths_relative_to_the_folder_join(study: Path, column: str) -> None:
    found = labels_of(study, pd.DataFrame({column: ["p03/1.png", "p00/0.png"], "y": [1, 0]}))
    assert {path: value for path, value in found.items() if value is not None} == {"p03/1.png": 1, "p00/0.png": 0}


def test_other_ways_to_write_a_path(study: Path) -> None:
    (study / "p00" / "0.png").rename(study / "p00" / "unique.png")
    names = ["./p01/0.png", "p02\\0.png", str(study / "p03/0.png"), "data/study/p04/0.png", "unique", "p05/0"]
    found = labels_of(study, pd.DataFrame({"path": names, "y": range(6)}))
    expected = ["p01/0.png", "p02/0.png", "p03/0.png", "p04/0.png", "p00/unique.png", "p05/0.png"]
    assert {path: value for path, value in found.items() if value is not None} == dict(
        zip(expected, range(6), strict=True)
    )


def test_a_name_that_occurs_in_several_folders_is_refused(study: Path) -> None:
    with pytest.raises(ManifestError, match=r"Row 1 .* occurs 12 times") as caught:
        labels_of(study, pd.DataFrame({"file": ["p00/1.png", "0.png"], "y": [0, 1]}))
    assert caught.value.row == 1


def test_a_row_for_an_absent_file_takes_no_other_files_place(study: Path) -> None:
    (study / "p00" / "0.png").rename(study / "p00" / "only.png")
    manifest = Manifest.scan(study, labels=pd.DataFrame({"path": ["gone/1.png", "p01/1.png"], "y": [1, 0]}))
    assert manifest.unmatched_labels == 1
    assert manifest.frame["y"].notna().sum() == 1


def test_files_without_a_row_are_unknown_and_the_count_of_unmatched_rows_is_kept(study: Path, tmp_path: Path) -> None:
    manifest = Manifest.scan(study, labels=pd.DataFrame({"path": ["p00/0.png", "x.png", "y.png"], "y": [1, 0, 1]}))
    assert manifest.unmatched_labels == 2
    assert manifest.frame["y"].isna().sum() == 23
    loaded = type(manifest).load(manifest.save(tmp_path / "m.csv"))
    assert loaded.unmatched_labels == 2


def test_a_split_called_validate_as_that_of_mimic_is_known(study: Path) -> None:
    table = pd.DataFrame({"path": ["p00/0.png", "p01/0.png"], "y": [0, 1], "split": ["validate", "train"]})
    frame = Manifest.scan(study, labels=table, workers=1).frame.set_index("path")
    assert frame.loc[["p00/0.png", "p01/0.png"], "split"].tolist() == ["val", "train"]


def test_whole_numbers_of_any_length_and_dates_of_birth_of_padchest(study: Path) -> None:
    number = 20536686640136348236148679891455886468
    table = pd.DataFrame({"path": ["p00/0.png"], "y": [1], "code": [number], "PatientBirth": [1960.0]})
    frame = Manifest.scan(study, labels=table, workers=1).frame
    assert frame.set_index("path").loc["p00/0.png", "code"] == str(number)
    assert "PatientBirth" not in frame.columns


def test_a_modality_of_the_table_serves_files_that_name_none(study: Path) -> None:
    table = pd.DataFrame({"path": ["p00/0.png", "p01/0.png"], "modality": ["CT", "MR"]})
    frame = Manifest.scan(study, labels=table, workers=1).frame.set_index("path")
    assert frame.loc[["p00/0.png", "p01/0.png"], "modality"].tolist() == ["CT", "MR"]


def test_a_column_frame_chooses_one_image_of_a_file_and_says_nothing_of_others(tmp_path: Path) -> None:
    pages = [Pillow.fromarray(np.full((8, 8), 40 * k, np.uint8)) for k in range(3)]
    pages[0].save(tmp_path / "cine.tif", save_all=True, append_images=pages[1:])
    pages[1].save(tmp_path / "still.png")
    table = pd.DataFrame({"path": ["cine.tif", "cine.tif", "still.png"], "frame": [0, 2, 57], "y": [0, 1, 1]})
    frame = Manifest.scan(tmp_path, labels=table, workers=1).frame
    found = {(row.path, row.frame if pd.notna(row.frame) else None): row.y for row in frame.itertuples()}
    assert found.pop(("cine.tif", 1)) is pd.NA
    assert found == {("cine.tif", 0): 0, ("cine.tif", 2): 1, ("still.png", None): 1}
    with pytest.raises(ManifestError, match="names frame 3 of a file with 3 usable frames"):
        Manifest.scan(tmp_path, labels=table.assign(frame=[1, 3, 1]), workers=1)


def test_no_match_at_all_is_refused(study: Path) -> None:
    with pytest.raises(ManifestError, match=r"None of the 2 rows .* 'path'.*relative to the scanned folder"):
        labels_of(study, pd.DataFrame({"path": ["x.png", "y.png"], "y": [1, 0]}))


def test_no_key_column_names_what_is_there(study: Path) -> None:
    with pytest.raises(ManifestError, match=r"no key column.*SOPInstanceUID.*Received: \['picture', 'y'\]"):
        labels_of(study, pd.DataFrame({"picture": ["p00/0.png"], "y": [1]}))


def test_repeated_keys_must_agree(study: Path) -> None:
    agreeing = pd.DataFrame({"path": ["p00/0.png", "p00/0.png", "p01/0.png"], "y": [1, 1, 0]})
    assert labels_of(study, agreeing)["p00/0.png"] == 1
    with pytest.raises(ManifestError, match="repeat a key") as caught:
        labels_of(study, agreeing.assign(y=[1, 0, 0]))
    assert caught.value.row == 1
    half_known = agreeing.assign(y=[1, None, 0])
    with pytest.raises(ManifestError, match="repeat a key"):
        labels_of(study, half_known)


def test_patient_split_fold_and_site_override(study: Path) -> None:
    table = pd.DataFrame(
        {
            "path": ["p00/0.png", "p00/1.png", "p01/0.png"],
            "PatientID": ["0012", "0012", None],
            "Split": ["Training", "validation", "TEST"],
            "fold": [0, 1, None],
            "site": ["A", "B", None],
            "PatientName": ["Doe^Jane", "Doe^Jane", "Roe"],
            "age": [40, 40, 50],
            "y": [0, 1, 1],
        }
    )
    manifest = Manifest.scan(study, labels=table)
    frame = manifest.frame
    assert manifest.label_columns == ("y",)
    assert frame["age"].tolist()[:3] == [40, 40, 50]  # a fact, no label
    assert frame["patient_id"].tolist()[:2] == [pseudonym("patient", "0012")] * 2
    assert frame["patient_known"].tolist()[:4] == [True, True, False, False]
    assert frame["patient_id"].iloc[2] == frame["image_id"].iloc[2]
    assert frame["split"].tolist()[:3] == ["train", "val", "test"]
    assert frame["fold"].tolist()[:2] == [0, 1]
    assert frame["site"].tolist()[:2] == ["A", "B"]
    assert "Doe" not in frame.to_csv()
    with pytest.raises(ManifestError, match=r"'holdout'.*Expected train, val or test"):
        Manifest.scan(study, labels=table.assign(Split="holdout"))


def test_a_reserved_column_name_is_refused(study: Path) -> None:
    with pytest.raises(ManifestError, match=r"'status'.*Rename"):
        Manifest.scan(study, labels=pd.DataFrame({"path": ["p00/0.png"], "status": ["x"]}))


@pytest.mark.parametrize(
    ("separator", "encoding"),
    [(",", "utf-8"), (";", "utf-8"), ("\t", "utf-8-sig"), ("\t", "utf-16"), (";", "utf-16")],
)
def test_csv_dialects_and_ids_with_leading_zeros(study: Path, separator: str, encoding: str) -> None:
    lines = [["path", "patient_id", "y"], ["p00/0.png", "007", "None"], ["p00/1.png", "7", ""]]
    path = study / "labels.csv"
    path.write_text("\n".join(separator.join(line) for line in lines), encoding=encoding)
    manifest = Manifest.scan(study, labels=path)
    assert len(manifest) == 24  # the label table itself is no row
    frame = manifest.frame
    assert frame["patient_id"].iloc[0] == pseudonym("patient", "007") != frame["patient_id"].iloc[1]
    assert frame["y"].iloc[0] == "None"  # a class name, not a blank
    assert pd.isna(frame["y"].iloc[1])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("first", ["sep=;\n", "SEP=;\r\n", '"sep=;"\r', "sep=;;;\n"])
def test_the_line_by_which_excel_names_its_separator_is_no_header(study: Path, first: str, encoding: str) -> None:
    path = study / "labels.csv"
    path.write_bytes((first + "path;y;note\np00/0.png;1;a,b,c,d\np00/1.png;0;Müller\n").encode(encoding))
    frame = Manifest.scan(study, labels=path).frame
    assert len(frame) == 24
    assert frame["y"].tolist()[:2] == [1, 0]
    assert frame["note"].tolist()[:2] == ["a,b,c,d", "Müller"]


def test_utf_16_of_either_order_is_read(study: Path) -> None:
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        path = study / "labels.txt"
        path.write_bytes(mark + "path\ty\r\np00/0.png\tpneumonía\r\n".encode(encoding))
        assert labels_of(study, path)["p00/0.png"] == "pneumonía"


def test_a_named_index_and_names_with_blanks_are_read_alike_from_each_kind_of_table(
    study: Path, tmp_path: Path
) -> None:
    table = pd.DataFrame({" y ": [1]}, index=pd.Index(["p00/0.png"], name="path"))
    table.to_parquet(tmp_path / "t.parquet")
    table.to_csv(tmp_path / "t.csv")
    for one in (table, tmp_path / "t.parquet", tmp_path / "t.csv"):
        assert labels_of(study, one)["p00/0.png"] == 1


def test_parquet_tables_join(study: Path, tmp_path: Path) -> None:
    pd.DataFrame({"path": ["p00/0.png"], "y": [0.5]}).to_parquet(tmp_path / "t.parquet")
    assert labels_of(study, tmp_path / "t.parquet")["p00/0.png"] == 0.5


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty"),
        (b"path,y\n", "no rows"),
        (b"path,y,y\na,1,2\n", "twice"),
        (b"path,y\na,1\nb,1,2,3\n", "parsed"),
        (b"path,y\n\xff\xfe\xfa,1\n", "UTF-8"),
        (b'path,y\n"a,1\n', "parsed"),
    ],
)
def test_an_unreadable_table_is_refused_before_anything_is_read(
    study: Path, tmp_path: Path, content: bytes, what: str
) -> None:
    path = tmp_path / "secret.csv"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=what) as caught:
        Manifest.scan(study, labels=path)
    assert "secret" not in str(caught.value)
    assert caught.value.path == path


def test_a_missing_table_and_another_kind_of_file_are_refused(study: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="Cannot read the label table"):
        Manifest.scan(study, labels=tmp_path / "none.csv")
    with pytest.raises(ManifestError, match=r"\.xlsx"):
        Manifest.scan(study, labels=tmp_path / "t.xlsx")


def test_a_dicom_series_study_and_patient_join_all_their_images(tmp_path: Path) -> None:
    from pydicom import dcmread
    from pydicom.data import get_testdata_file

    dataset = dcmread(str(get_testdata_file("CT_small.dcm")))
    for k in range(4):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{k}"
        dataset.SeriesInstanceUID, dataset.StudyInstanceUID = f"1.2.4.{k // 2}", f"1.2.5.{k // 2}"
        dataset.PatientID = f"id{k // 2}"
        dataset.save_as(tmp_path / f"{k}.dcm")
    keys = {
        "SOPInstanceUID": ["1.2.3.0", "1.2.3.1", "1.2.3.2", "1.2.3.3"],
        "series_instance_uid": ["1.2.4.0", "1.2.4.1"],
        "StudyInstanceUID": ["1.2.5.0", "1.2.5.1"],
        "patient id": ["id0", "id1"],
    }
    for column, values in keys.items():
        labels = np.repeat([5, 9], len(values) // 2)
        manifest = Manifest.scan(tmp_path, labels=pd.DataFrame({column: values, "y": labels}))
        assert manifest.frame["y"].tolist() == [5, 5, 9, 9], column
        assert manifest.label_columns == ("y",)
        assert "1.2.3.0" not in manifest.frame.to_csv()


def test_a_row_with_a_folder_takes_no_file_of_another_folder(study: Path) -> None:
    (study / "p00" / "0.png").rename(study / "p00" / "moved.png")
    found = labels_of(study, pd.DataFrame({"path": ["old/moved.png", "p01/0.png"], "y": [1, 0]}))
    assert {path: value for path, value in found.items() if value is not None} == {"p01/0.png": 0}


@pytest.mark.parametrize("column", ["Site", "institution", "Hospital", "InstitutionName", "center"])
def test_sites_of_the_table_are_named_as_it_names_them_and_are_no_label(column: str, study: Path) -> None:
    table = pd.DataFrame({"path": ["p00/0.png", "p00/1.png"], column: ["North", "unknown"], "y": [0, 1]})
    manifest = Manifest.scan(study, labels=table)
    assert manifest.label_columns == ("y",)
    assert manifest.frame["site"].tolist()[0] == "North"
    assert manifest.frame["site"].isna().tolist()[1]


def test_a_column_whose_values_are_file_names_is_named_though_its_name_says_nothing(study: Path) -> None:
    table = pd.DataFrame({"bild": ["p00/0.png", "p00/1.png"], "patient_id": ["x", "y"], "y": [1, 0]})
    with pytest.raises(ManifestError) as caught:
        labels_of(study, table)
    assert "'patient_id'" in str(caught.value)
    assert str(caught.value).endswith(
        " No column is known to name files. The values of 'bild' look like the names of scanned files: rename it to "
        "'file'."
    )
    with pytest.raises(ManifestError) as caught:
        labels_of(study, table.assign(bild=["x.png", "y.png"]))
    assert str(caught.value).endswith("No column is known to name files.")
    with pytest.raises(ManifestError, match="values of 'bild' look like") as caught:
        labels_of(study, table.assign(file=["x.png", "y.png"]))
    assert "is known to name files" not in str(caught.value)
