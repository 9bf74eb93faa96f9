"""Scans of folders: the rows that each kind of file gives."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from lepton_vision.demo import write_demo_study
from lepton_vision.errors import ManifestError
from lepton_vision.manifest import record, workers
from lepton_vision.manifest.hashes import pixel_hash
from lepton_vision.manifest.labels import infer_targets
from lepton_vision.manifest.table import Manifest
from lepton_vision.readers.identity import pseudonym
from lepton_vision.readers.image import read_image


def test_every_visible_file_is_a_row_in_sorted_order(study: Path) -> None:
    (study / "README.txt").write_text("hello")
    (study / "p00" / "cut.png").write_bytes((study / "p00" / "0.png").read_bytes()[:60])
    (study / "p00" / "void.dcm").write_bytes(b"")
    (study / ".hidden.png").write_bytes(b"x")
    (study / ".git").mkdir()
    (study / ".git" / "config").write_text("x")
    manifest = Manifest.scan(study)
    frame = manifest.frame
    assert frame["path"].tolist() == sorted(frame["path"])
    assert len(frame) == 24 + 3
    assert sum(manifest.rejected.values()) == 3
    assert (manifest.rejected["empty"], manifest.rejected["not_an_image"]) == (1, 1)
    assert not frame["path"].str.startswith(".").any()
    ok = manifest.ok.frame
    assert ok["pixel_hash"].nunique() == 24
    assert ok["image_id"].is_unique
    assert (ok["rows"].iloc[0], ok["columns"].iloc[0], ok["frames"].iloc[0], ok["frame"].isna().all()) == (
        48,
        40,
        1,
        True,
    )


def test_processes_and_one_process_give_the_same_manifest(study: Path) -> None:
    seen: list[tuple[int, int]] = []
    together = Manifest.scan(study, workers=2, progress=lambda done, total: seen.append((done, total)))
    alone = Manifest.scan(study, workers=0)
    pd.testing.assert_frame_equal(together.frame, alone.frame)
    assert seen == [(done, 24) for done in range(1, 25)]


def test_a_file_that_kills_its_worker_costs_one_row(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        """A pool as it looks when a worker has died of the file "p05/1.png"."""

        def __init__(self, workers: int) -> None:
            del workers

        def __enter__(self) -> Broken:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def shutdown(self, **_: object) -> None:
            pass

        def submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
            future: Future[Any] = Future()
            if "p05/1.png" in str(arguments):
                future.set_exception(BrokenProcessPool())
            else:
                future.set_result(work(*arguments))
            return future

    monkeypatch.setattr(workers, "_pool", Broken)
    manifest = Manifest.scan(study, workers=2)
    assert manifest.rejected == {"decoder_failed": 1}
    assert manifest.frame["path"].tolist() == Manifest.scan(study, workers=1).frame["path"].tolist()


def test_links_are_followed_but_never_in_circles(study: Path) -> None:
    (study / "p00" / "loop").symlink_to(study, target_is_directory=True)
    (study / "again.png").symlink_to(study / "p00" / "0.png")
    assert len(Manifest.scan(study)) == 25


@pytest.mark.parametrize("kind", ["absent", "empty", "no image"])
def test_a_folder_without_images_is_refused(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "secret-patient"
    if kind != "absent":
        folder.mkdir()
    if kind == "no image":
        (folder / "a.txt").write_text("x")
    expected = {
        "absent": "does not exist",
        "empty": "holds no file",
        "no image": r"None of the 1 files.*not_an_image: 1",
    }
    with pytest.raises(ManifestError, match=expected[kind]) as caught:
        Manifest.scan(folder)
    assert "secret" not in str(caught.value)


def test_ids_do_not_depend_on_where_the_folder_lies(study: Path, tmp_path: Path) -> None:
    before = Manifest.scan(study)
    study.rename(tmp_path / "elsewhere")
    after = Manifest.scan(tmp_path / "elsewhere")
    assert before.fingerprint == after.fingerprint


def test_class_folders_are_labels(study: Path) -> None:
    assert Manifest.scan(study).label_columns == ("label",)
    for k, folder in enumerate(sorted(study.iterdir())):
        target = study / ("normal" if k % 2 else "pneumonia")
        target.mkdir(exist_ok=True)
        folder.rename(target / folder.name)
    manifest = Manifest.scan(study)
    (target,) = infer_targets(manifest)
    assert target.classes == ("normal", "pneumonia")
    assert np.bincount(manifest.labels(target).astype(int)).tolist() == [12, 12]
    assert manifest.frame["split"].isna().all()


def test_split_folders_around_class_folders_are_official_splits(study: Path) -> None:
    for k, folder in enumerate(sorted(study.iterdir())):
        target = study / "images" / ("train", "valid", "test")[k % 3] / ("no", "yes")[k // 3 % 2]
        target.mkdir(parents=True, exist_ok=True)
        folder.rename(target / folder.name)
    manifest = Manifest.scan(study)
    assert manifest.frame["split"].value_counts().to_dict() == {"train": 8, "val": 8, "test": 8}
    assert manifest.frame["label"].value_counts().to_dict() == {"no": 12, "yes": 12}


def test_files_in_one_folder_have_no_labels(study: Path) -> None:
    for k, path in enumerate(sorted(study.rglob("*.png"))):
        path.rename(study / f"{k}.png")
    assert Manifest.scan(study).label_columns == ()


def test_a_dicom_study_is_joined_by_uid_and_keeps_patients_apart(tmp_path: Path) -> None:
    demo = write_demo_study(tmp_path / "demo", patients=6)
    table = pd.read_csv(demo.labels)
    manifest = Manifest.scan(demo.study, labels=demo.labels)
    frame = manifest.ok.frame
    assert (len(frame), manifest.label_columns, manifest.unmatched_labels) == (demo.images, ("finding",), 0)
    by_id = {
        pseudonym("image", uid): value for uid, value in zip(table["SOPInstanceUID"], table["finding"], strict=True)
    }
    for image_id, value in zip(frame["image_id"], frame["finding"], strict=True):
        assert by_id[image_id] == value or (pd.isna(by_id[image_id]) and pd.isna(value))
    assert frame["patient_known"].all()
    assert frame.groupby("patient_id")["path"].agg(lambda paths: paths.str.split("/").str[0].nunique()).max() == 1
    assert frame["manufacturer"].nunique() > 1
    # without a label table a folder per patient is no class
    assert Manifest.scan(demo.study).label_columns == ()


def test_copies_of_one_instance_get_ids_of_their_own(tmp_path: Path) -> None:
    source = Path(str(get_testdata_file("CT_small.dcm")))
    for name in ("a.dcm", "b.dcm"):
        (tmp_path / name).write_bytes(source.read_bytes())
    frame = Manifest.scan(tmp_path).frame
    assert frame["image_id"].is_unique
    assert frame["image_id"].iloc[1].startswith(frame["image_id"].iloc[0] + "-")
    assert frame["pixel_hash"].nunique() == frame["patient_id"].nunique() == 1


def write_cine(path: Path, *, is_anonymous: bool = False) -> np.ndarray:
    """A DICOM file of 6 frames; returns its stored values (D, H, W)."""
    dataset = dcmread(str(get_testdata_file("CT_small.dcm")))
    values = np.stack([np.roll(dataset.pixel_array, 9 * k, axis=1) for k in range(6)])
    dataset.NumberOfFrames, dataset.PixelData = 6, values.tobytes()
    for keyword in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID") if is_anonymous else ():
        delattr(dataset, keyword)
    dataset.save_as(path)
    return values


def test_each_frame_of_a_multi_frame_file_is_a_row(tmp_path: Path) -> None:
    values = write_cine(tmp_path / "cine.dcm")
    manifest = Manifest.scan(tmp_path)
    assert manifest.frame["frame"].tolist() == list(range(6))
    assert manifest.frame["patient_id"].nunique() == 1
    for row in (0, 3):
        address = manifest.locate(row)
        image = read_image(address.path, frame=address.frame)
        assert image.image_id == manifest.frame["image_id"].iloc[row]
        np.testing.assert_array_equal(image.pixels[0], values[row].astype(np.float32) - 1024)
        assert pixel_hash(image.pixels) == manifest.frame["pixel_hash"].iloc[row]


def test_a_large_file_is_read_frame_by_frame_with_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cine(tmp_path / "cine.dcm")
    at_once = Manifest.scan(tmp_path).frame
    monkeypatch.setattr(record, "_AT_ONCE", 1)
    pd.testing.assert_frame_equal(Manifest.scan(tmp_path).frame, at_once)


def test_frames_without_patient_still_belong_together(tmp_path: Path) -> None:
    write_cine(tmp_path / "anonymous.dcm", is_anonymous=True)
    frame = Manifest.scan(tmp_path).frame
    assert frame["patient_id"].nunique() == 1
    assert not frame["patient_known"].any()


def write_npz(path: Path, *, columns: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 8), ("val", 3), ("test", 4)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = rng.integers(0, 2, (count, columns))
    np.savez_compressed(path, **arrays)
    return arrays


def test_an_npz_file_keeps_official_splits_labels_and_order(tmp_path: Path) -> None:
    arrays = write_npz(tmp_path / "set.npz")
    manifest = Manifest.scan(tmp_path / "set.npz")
    assert manifest.frame["split"].tolist() == ["train"] * 8 + ["val"] * 3 + ["test"] * 4
    for split in ("train", "val", "test"):
        part = manifest.subset(split)  # type: ignore[arg-type]
        assert part.frame["label"].tolist() == arrays[f"{split}_labels"][:, 0].tolist()
        address = part.locate(1)
        image = read_image(address.path, member=address.member, frame=address.frame)
        np.testing.assert_array_equal(image.pixels[0], arrays[f"{split}_images"][1])
    assert manifest.frame["patient_id"].is_unique
    inside = Manifest.scan(tmp_path)  # the same file found in its folder
    assert inside.fingerprint == manifest.fingerprint


def test_an_npz_file_with_several_label_columns_is_multilabel(tmp_path: Path) -> None:
    write_npz(tmp_path / "set.npz", columns=3)
    assert Manifest.scan(tmp_path / "set.npz").label_columns == ("label_0", "label_1", "label_2")


def test_an_npz_file_with_too_few_labels_is_refused(tmp_path: Path) -> None:
    arrays = write_npz(tmp_path / "set.npz")
    arrays["val_labels"] = arrays["val_labels"][:1]
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(ManifestError, match="mismatch: 1"):
        Manifest.scan(tmp_path / "set.npz")


def test_a_nifti_volume_is_one_row(shared: Path) -> None:
    source = sorted((shared / "data" / "msd-hippocampus" / "images").glob("*.nii.gz"))[0]
    manifest = Manifest.scan(source)
    row = manifest.frame.iloc[0]
    assert (len(manifest), row["source_format"], pd.isna(row["frame"])) == (1, "nifti", True)
    assert row["frames"] > 1


def test_the_public_names(study: Path) -> None:
    import lepton_vision as lv

    manifest = lv.Manifest.scan(study, labels=study.parent / "labels.csv", workers=1)
    assert isinstance(manifest, Manifest)
    assert len(lv.split_manifest(manifest).subset("train")) == 16


def test_files_without_patient_stay_together_by_study_then_series(tmp_path: Path) -> None:
    dataset = dcmread(str(get_testdata_file("CT_small.dcm")))
    del dataset.PatientID
    for k in range(6):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{k}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"1.2.4.{k // 4}", f"1.2.5.{k // 2}"
        if k >= 4:
            del dataset.StudyInstanceUID
        dataset.save_as(tmp_path / f"{k}.dcm")
    frame = Manifest.scan(tmp_path).frame
    assert frame["patient_id"].tolist() == [frame["study_id"][0]] * 4 + [frame["series_id"][4]] * 2
    assert not frame["patient_known"].any()
