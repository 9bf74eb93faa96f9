"""Makers of the folders of the pages on data: small synthetic studies, laid out as public data sets are."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as Pillow
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, CTImageStorage, ExplicitVRLittleEndian, generate_uid

Pixels = npt.NDArray[np.uint8]


def draw(number: int, *, has_finding: bool, size: int = 64) -> tuple[Pixels, Pixels]:
    """A grey body on noise, with a bright disc where there is a finding; and the mask of the disc, 0 and 1."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:size, :size] - size * rng.uniform(0.45, 0.55, 2)[:, None, None]
    body = (y / (size * rng.uniform(0.38, 0.46))) ** 2 + (x / (size * rng.uniform(0.32, 0.42))) ** 2 < 1
    row, column = rng.uniform(-0.18, 0.18, 2) * size
    disc = (y - row) ** 2 + (x - column) ** 2 < (rng.uniform(0.09, 0.15) * size) ** 2
    values = rng.normal(20, 14, (size, size)) + 80.0 * body + rng.uniform(15, 45) * (disc & has_finding)
    return np.clip(values, 0, 255).astype(np.uint8), (disc & has_finding).astype(np.uint8)


def save(path: Path, pixels: npt.NDArray[np.generic]) -> None:
    """An image file of a kind that its suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(pixels).save(path)


def save_table(path: Path, rows: Sequence[Sequence[object]]) -> None:
    """A CSV table, its header first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def png_study(folder: Path, request: pytest.FixtureRequest) -> None:
    """150 PNG images of 75 patients with a label table, and three new images to score."""
    rows: list[tuple[object, ...]] = [("file", "patient_id", "tumour", "sex")]
    for patient in range(1, 76):
        has = patient % 5 in (0, 3)
        for shot in "ab":
            name = f"p{patient:03d}_{shot}.png"
            save(folder / "images" / name, draw(2 * patient + (shot == "b"), has_finding=has)[0])
            rows.append((name, f"p{patient:03d}", "yes" if has else "no", "FM"[patient // 2 % 2]))
    save_table(folder / "labels.csv", rows)
    for number, has in enumerate((True, False)):
        save(folder / "inbox" / f"new_{number}.png", draw(900 + number, has_finding=has)[0])
    (folder / "inbox" / "cut.png").write_bytes((folder / "inbox" / "new_0.png").read_bytes()[:600])


def use_covid_ct(source: Path, folder: Path) -> None:
    """Put slices of COVID-CT in the place of the images of ``png_study``: each patient becomes a real one."""
    slices: dict[str, dict[str, list[Path]]] = {"COVID": {}, "NonCOVID": {}}
    with (source / "index.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            slices[row["label"]].setdefault(row["patient_id"], []).append(source / row["file"])
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    kept: list[tuple[object, ...]] = [("file", "patient_id", "tumour", "sex")]
    left = {"yes": iter(slices["COVID"].values()), "no": iter(slices["NonCOVID"].values())}
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        files = next(left[first["tumour"]])
        for row, real in zip((first, second), files, strict=False):
            (folder / "images" / row["file"]).write_bytes(real.read_bytes())
            kept.append(tuple(row.values()))
        if len(files) == 1:
            (folder / "images" / second["file"]).unlink()
    save_table(folder / "labels.csv", kept)


def label_tables(folder: Path, request: pytest.FixtureRequest) -> None:
    """A small tree of each public data set that the page names, with the column names of its tables."""
    for make in (_chexpert, _nih, _rsna, _isic, _mimic, _tcia, _plain):
        make(folder)


def _chexpert(folder: Path) -> None:
    root, named = folder / "CheXpert-v1.0-small", ["No Finding", "Cardiomegaly", "Edema", "Pleural Effusion"]
    for part, patients in (("train", range(1, 25)), ("valid", range(101, 109))):
        rows: list[Sequence[object]] = [["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *named]]
        for patient in patients:
            path = f"{part}/patient{patient:05d}/study1/view1_frontal.jpg"
            save(root / path, draw(patient, has_finding=patient % 2 == 0)[0])
            unsure = -1.0 if part == "train" and patient % 6 == 1 else float(patient % 3 == 0)
            labels = [1.0 if patient % 4 == 3 else "", float(patient % 2 == 0), unsure, float(patient % 4 < 2)]
            sex, age = ("Female", "Male")[patient // 2 % 2], 40 + patient % 40
            rows.append([f"{root.name}/{path}", sex, age, "Frontal", "AP", *labels])
        save_table(root / f"{part}.csv", rows)


def _nih(folder: Path) -> None:
    root = folder / "ChestX-ray14"
    found = ("No Finding", "Cardiomegaly|Effusion", "Effusion", "Infiltration", "No Finding", "Cardiomegaly")
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    header += "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
    rows: list[Sequence[object]] = [header.split(",")]
    lists: dict[str, list[str]] = {"train_val": [], "test": []}
    for patient in range(1, 31):
        for follow in range(2):
            name = f"{patient:08d}_{follow:03d}.png"
            save(
                root / f"images_00{1 + patient // 16}" / "images" / name,
                draw(2 * patient + follow, has_finding=True)[0],
            )
            shape = [2500, 2048, 0.168, 0.168, ""]
            rows.append([name, found[patient % 6], follow, patient, 50, "FM"[patient % 2], "PA", *shape])
            lists["test" if patient > 20 else "train_val"].append(name)
    text = "\n".join(",".join(map(str, row)) for row in rows)
    (root / "Data_Entry_2017.csv").write_text(text + "\n", encoding="utf-8")
    for part, names in lists.items():
        (root / f"{part}_list.txt").write_text("\n".join(names), encoding="utf-8")


def _rsna(folder: Path) -> None:
    rows: list[Sequence[object]] = [["patientId", "x", "y", "width", "height", "Target"]]
    for number in range(16):
        name = f"0004cfab-14fd-4e49-80ba-63a80b6b{number:04x}"
        save_dicom(folder / "rsna" / "stage_2_train_images" / f"{name}.dcm", number=number, patient=name, modality="CR")
        boxes: list[list[object]] = [[264.0, 152.0, 213.0, 379.0], [562.0, 152.0, 256.0, 453.0]]
        rows += [[name, *box, 1] for box in boxes] if number % 2 else [[name, "", "", "", "", 0]]
    save_table(folder / "rsna" / "stage_2_train_labels.csv", rows)


def _isic(folder: Path) -> None:
    root, classes = folder / "ISIC2019", ["MEL", "NV", "BCC"]
    truth: list[Sequence[object]] = [["image", *classes]]
    facts: list[Sequence[object]] = [["image", "age_approx", "anatom_site_general", "lesion_id", "sex"]]
    for number in range(36):
        name = f"ISIC_{number:07d}"
        pixels = np.stack([draw(number, has_finding=number % 3 == 0)[0]] * 3, axis=-1)
        save(root / "ISIC_2019_Training_Input" / f"{name}.jpg", pixels)
        truth.append([name, *(float(number // 2 % 3 == place) for place in range(3))])
        facts.append([name, 55.0, "anterior torso", f"MSK4_{number // 2:07d}", ("female", "male")[number // 3 % 2]])
    save_table(root / "ISIC_2019_Training_GroundTruth.csv", truth)
    save_table(root / "ISIC_2019_Training_Metadata.csv", facts)


def _mimic(folder: Path) -> None:
    root = folder / "mimic-cxr-jpg"
    labels: list[Sequence[object]] = [["subject_id", "study_id", "Atelectasis", "Edema"]]
    facts: list[Sequence[object]] = [["dicom_id", "subject_id", "study_id", "ViewPosition", "Rows", "Columns"]]
    splits: list[Sequence[object]] = [["dicom_id", "study_id", "subject_id", "split"]]
    for number in range(24):
        subject, study = 10000032 + number, 50414267 + number
        labels.append([subject, study, (1.0, 0.0, "")[number % 3], (0.0, 1.0, 0.0, -1.0)[number % 4]])
        for view in range(2):
            name = f"02aa804e-bde0afdd-112c0b34-7bc16630-{2 * number + view:08x}"
            path = root / "files" / f"p{str(subject)[:2]}" / f"p{subject}" / f"s{study}" / f"{name}.jpg"
            save(path, draw(2 * number + view, has_finding=number % 3 == 0)[0])
            facts.append([name, subject, study, ("PA", "LATERAL")[view], 3056, 2544])
            splits.append([name, study, subject, "validate" if number < 6 else "test" if number < 12 else "train"])
    for name, rows in (("chexpert", labels), ("metadata", facts), ("split", splits)):
        save_table(root / f"mimic-cxr-2.0.0-{name}.csv", rows)


def _tcia(folder: Path) -> None:
    rows: list[Sequence[object]] = [["Patient ID", "Diagnosis", "Age at Diagnosis"]]
    for number in range(12):
        patient = f"LUNG1-{number + 1:03d}"
        for instance in range(2):
            path = folder / "tcia" / "images" / patient / "series-1" / f"1-{instance + 1:03d}.dcm"
            save_dicom(path, number=10 * number + instance, patient=patient, modality="CT")
        rows.append([patient, ("adenocarcinoma", "squamous cell carcinoma")[number % 2], 60 + number])
    save_table(folder / "tcia" / "clinical.csv", rows)


def _plain(folder: Path) -> None:
    rows: list[Sequence[object]] = [["file", "patient_id", "fracture"]]
    for number in range(24):
        save(folder / "plain" / "images" / f"wrist_{number:02d}.png", draw(number, has_finding=number % 4 < 2)[0])
        rows.append(
            [
                f"wrist_{number:02d}.png",
                f"w{number // 2:02d}",
                "unknown" if number == 9 else ("yes", "no")[number // 2 % 2],
            ]
        )
    save_table(folder / "plain" / "labels.csv", rows)


def save_dicom(path: Path, *, number: int, patient: str, modality: str) -> None:
    """One slice of 64 pixels a side as DICOM; slices of a patient are a series, one above the other."""
    series = generate_uid(entropy_srcs=[patient])
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CTImageStorage if modality == "CT" else ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[patient, str(number)])
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["study", patient]), series
    dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame", patient])
    for name in (
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "StudyDate",
        "StudyTime",
        "StudyID",
        "AccessionNumber",
    ):
        setattr(dataset, name, "")
    dataset.PatientID, dataset.Modality, dataset.InstanceNumber = patient, modality, number
    dataset.Rows = dataset.Columns = 64
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelSpacing, dataset.RescaleSlope, dataset.RescaleIntercept = (
        [0.8, 0.8],
        1,
        -1024 if modality == "CT" else 0,
    )
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, 2.5 * number], [1, 0, 0, 0, 1, 0]
    pixels = draw(number, has_finding=number % 2 == 1)[0].astype(np.uint16) * 8
    dataset.PixelData = pixels.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def parts(folder: Path, request: pytest.FixtureRequest) -> None:
    """Photographs of metal parts, two cameras a part, with a scratch on some; and a table that divides the images."""
    rows: list[tuple[object, ...]] = [("file", "split")]
    for serial in range(1, 51):
        kind = "scratched" if serial % 3 == 0 else "intact"
        for camera in (1, 2):
            name = f"SN{serial:04d}_cam{camera}.png"
            save(
                folder / "parts" / kind / name, _metal(2 * serial + camera, serial=serial, is_scratched=serial % 3 == 0)
            )
            rows.append((f"{kind}/{name}", ("train", "train", "val", "test", "train")[(serial + 2 * camera) % 5]))
    save_table(folder / "random.csv", rows)


def _metal(seed: int, *, serial: int, is_scratched: bool) -> Pixels:
    """Brushed steel in colour: lines of the part's own, and a dark scratch."""
    rng, own = np.random.default_rng(seed), np.random.default_rng(10_000 + serial)
    lines = np.repeat(own.normal(0, 25, (64, 1)), 64, axis=1)
    values = 150 + lines + rng.normal(0, 6, (64, 64))
    if is_scratched:
        start, end = rng.uniform(8, 56, 2), rng.uniform(8, 56, 2)
        for step in np.linspace(0, 1, 200):
            row, column = (start + step * (end - start)).astype(int)
            values[row : row + 3, column : column + 3] = 30
    colour = np.stack([values, values * 0.98, values * 0.94], axis=-1)
    return np.clip(colour, 0, 255).astype(np.uint8)


def several_labels(folder: Path, request: pytest.FixtureRequest) -> None:
    """Images with several findings each, some not known, and a rare one; a grade and two numbers beside them."""
    rng = np.random.default_rng(0)
    rows: list[tuple[object, ...]] = [
        ("file", "patient_id", "effusion", "nodule", "rare", "view_quality", "grade", "area", "age")
    ]
    for number in range(160):
        patient = number // 2
        has, bright = patient % 2 == 0, patient % 3 == 0
        pixels, mask = draw(number, has_finding=has)
        pixels = np.clip(pixels.astype(float) + 30 * bright * (np.arange(64)[:, None] > 48), 0, 255).astype(np.uint8)
        save(folder / "images" / f"{number:03d}.png", pixels)
        area = int(mask.sum())
        grade = "none" if not area else "small" if area < 190 else "large"
        quality = ("good", "fair", "poor")[int(rng.integers(3))]
        findings = ["" if number % 9 == 0 else int(bright), int(has), int(patient % 12 == 5)]
        rows.append((f"{number:03d}.png", f"p{patient:02d}", *findings, quality, grade, area, 40 + patient % 30))
    save_table(folder / "labels.csv", rows)
