"""Tables of mask files: every format, the written tables, and bad input as one clear error or a row with a reason."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image as PillowImage

from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.masks.table import evaluate_mask_table, parse_structures, read_mask_table
from lepton_vision.readers import read_image
from lepton_vision.scoring import write_mask
from tests.readers.segmentation_files import blobs, write_seg, write_series

STRUCTURES = {"a": 1, "b": 2}
ZOOMS = (0.5, 0.75, 2.0)  # X, Y, Z


def volume(shift: int = 0) -> np.ndarray:
    """(X, Y, Z) labels."""
    labels = np.zeros((10, 8, 4), dtype=np.uint8)
    labels[1 + shift : 5 + shift, 2:6, 1:3], labels[6:8, 2:6, 1:3] = 1, 2
    return labels


def nifti(
    path: Path,
    values: np.ndarray,
    *,
    zooms: tuple[float, ...] = ZOOMS,
    flip: bool = False,
    origin: tuple[float, ...] = (0.0, 0.0, 0.0),
    turn_degrees: float = 0.0,
) -> str:
    affine = np.diag([*zooms, 1.0])
    affine[0, 0] *= -1 if flip else 1
    angle = np.radians(turn_degrees)  # about the head-foot axis
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = origin
    nibabel.Nifti1Image(values, affine).to_filename(path)
    return path.name


def table(folder: Path, *rows: tuple[str, ...], header: str = "image_id,patient_id,truth,prediction") -> Path:
    path = folder / "masks.csv"
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    return nifti(tmp_path / "t.nii.gz", volume()), nifti(tmp_path / "p.nii", volume(1))


def test_nifti_pairs_by_hand(tmp_path: Path, pair: tuple[str, str]) -> None:
    calls: list[tuple[int, int]] = []
    path = table(tmp_path, ("i0", "p", *pair), ("i1", "q", pair[0], pair[0]))
    found = evaluate_mask_table(
        path,
        out=tmp_path / "out",
        structures=STRUCTURES,
        lesions=["a"],
        progress=lambda done, total: calls.append((done, total)),
    )
    rows = list(csv.DictReader((tmp_path / "out" / "cases.csv").read_text().splitlines()))
    assert [(r["image_id"], r["patient_id"], r["structure"]) for r in rows] == [
        ("i0", "p", "a"),
        ("i0", "p", "b"),
        ("i1", "q", "a"),
        ("i1", "q", "b"),
    ]
    assert float(rows[0]["dice"]) == 0.75  # 4 columns, shifted by one
    assert float(rows[0]["hd95_mm"]) == 0.5  # along X
    assert float(rows[0]["volume_truth_ml"]) == pytest.approx(4 * 4 * 2 * 0.75 / 1000)
    assert (rows[0]["lesions_found"], rows[1]["lesions_found"]) == ("1", "")
    written = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert written == found.to_dict()
    assert written["structures"]["a"]["figures"]["dice"]["value"] == 0.875
    assert calls == [(1, 2), (2, 2)]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["cases.csv", "figures.json"]


@pytest.mark.parametrize("kind", ["png", "tiff", "npz"])
def test_slices_without_a_spacing(tmp_path: Path, kind: str) -> None:
    names = []
    for number, labels in enumerate((volume()[:, :, 1], volume(1)[:, :, 1])):
        path = tmp_path / f"{number}.{kind}"
        if kind == "npz":
            np.savez(path, mask=labels[None])
        else:
            PillowImage.fromarray(labels).save(path)
        names.append(path.name)
    found = evaluate_mask_table(
        table(tmp_path, ("i0", "p", names[0], names[1])), out=tmp_path / "out", structures=STRUCTURES
    )
    assert found.figures["a"]["dice"].value == 0.75
    assert found.figures["a"]["hd95_mm"].reason == "pixel spacing unknown (1 cases)"


def test_a_prediction_without_geometry_lies_on_the_truths_grid(tmp_path: Path, pair: tuple[str, str]) -> None:
    np.savez(tmp_path / "p.npz", mask=volume(1).transpose(2, 1, 0)[None])
    path = table(tmp_path, ("i0", "p", pair[0], "p.npz"))
    figures = evaluate_mask_table(path, out=tmp_path / "out", structures=STRUCTURES).figures["a"]
    assert (figures["dice"].value, figures["hd95_mm"].value) == (0.75, 0.5)


def test_a_prediction_in_another_axis_order_is_turned(tmp_path: Path, pair: tuple[str, str]) -> None:
    shifted = nibabel.Nifti1Image(volume(1), np.diag([*ZOOMS, 1.0]))
    shifted.as_reoriented([[2, -1], [0, 1], [1, -1]]).to_filename(tmp_path / "turned.nii")
    path = table(tmp_path, ("i0", "p", pair[0], "turned.nii"))
    figures = evaluate_mask_table(path, out=tmp_path / "out", structures=STRUCTURES).figures["a"]
    assert (figures["dice"].value, figures["hd95_mm"].value) == (0.75, 0.5)


def test_where_the_truth_is_unknown_nothing_is_judged(tmp_path: Path, pair: tuple[str, str]) -> None:
    truth = volume()
    truth[5, 2:6, 1:3] = 255  # where the shifted prediction has its false column
    path = table(tmp_path, ("i0", "p", nifti(tmp_path / "void.nii", truth), pair[1]))
    found = evaluate_mask_table(path, out=tmp_path / "out", structures=STRUCTURES, unknown=255)
    assert found.figures["a"]["dice"].value == pytest.approx(2 * 3 / (4 + 3))  # columns
    assert json.loads((tmp_path / "out" / "figures.json").read_text()) == found.to_dict()
    with pytest.raises(EvaluationError, match=r"Received: 255.*--unknown"):
        evaluate_mask_table(path, out=tmp_path / "out", structures=STRUCTURES)
    with pytest.raises(EvaluationError, match=r"not 0\. Received: 2"):
        evaluate_mask_table(path, out=tmp_path / "out", structures=STRUCTURES, unknown=2)


def test_a_broken_file_is_a_row_with_a_reason(tmp_path: Path, pair: tuple[str, str]) -> None:
    (tmp_path / "broken.nii").write_bytes((tmp_path / pair[1]).read_bytes()[:400])
    (tmp_path / "empty.nii").write_bytes(b"")
    path = table(tmp_path, ("i0", "p", *pair), ("i1", "p", pair[0], "broken.nii"), ("i2", "q", "empty.nii", pair[1]))
    found = evaluate_mask_table(path, out=tmp_path / "out", structures=STRUCTURES)
    assert (found.n, found.to_dict()["n_failed"]) == (1, 2)
    rows = list(csv.DictReader((tmp_path / "out" / "cases.csv").read_text().splitlines()))
    failed = {row["image_id"]: row["reason"] for row in rows if row["status"] == "failed"}
    assert failed == {"i1": "prediction: truncated", "i2": "truth: empty"}


def refuse(path: Path, match: str, *, row: int | None, key: str | None) -> None:
    with pytest.raises(EvaluationError, match=match) as caught:
        evaluate_mask_table(path, out=path.parent / "out", structures=STRUCTURES)
    assert (caught.value.row, caught.value.key) == (row, key)
    assert "masks.csv" not in str(caught.value)
    assert str(path.parent) not in str(caught.value)
    assert not (path.parent / "out").exists()


def test_a_prediction_on_another_grid_is_refused(tmp_path: Path, pair: tuple[str, str]) -> None:
    good = ("i0", "p", *pair)
    other = tmp_path / "other.nii"

    def against(values: np.ndarray, **geometry: object) -> Path:
        nifti(other, values, **geometry)  # type: ignore[arg-type]
        return table(tmp_path, good, ("i1", "p", pair[0], other.name))

    refuse(against(volume()[:, :, :3]), r"needs the shape of its truth, \(4, 8, 10\)", row=1, key="prediction")
    refuse(against(volume(), zooms=(0.5, 0.75, 2.1)), "Received: 2.1 x 0.75 x 0.5 mm", row=1, key="prediction")
    refuse(against(volume(), flip=True), "orientation of its truth, RAS. Received: LAS", row=1, key="prediction")
    path = against(volume(), zooms=(0.5, 0.75, 2.001))  # a header rounded by another tool
    assert evaluate_mask_table(path, out=tmp_path / "out", structures=STRUCTURES).n == 2


@pytest.mark.parametrize(
    ("place", "gap"),
    [
        ({"origin": (0.0, 0.0, 2.0)}, "position (by 2.000 mm, 4 voxels)"),  # one slice too high
        ({"origin": (0.25, 0.0, 0.0)}, "position (by 0.250 mm, 0.5 voxels)"),
        ({"origin": (0.01, 0.0, 0.0)}, None),  # rounded by another tool
        ({"turn_degrees": 2.0}, "orientation (by "),  # sin 2 degrees of 7 steps of 0.75 mm are 0.18 mm
        ({"turn_degrees": 0.05}, None),  # 0.0009
    ],
)
def test_a_prediction_elsewhere_in_the_patient_is_a_row_with_a_reason(
    tmp_path: Path, pair: tuple[str, str], place: dict[str, object], gap: str | None
) -> None:
    nifti(tmp_path / "other.nii", volume(), **place)  # type: ignore[arg-type]
    path = table(tmp_path, ("i0", "p", *pair), ("i1", "q", pair[0], "other.nii"))
    found = evaluate_mask_table(path, out=tmp_path / "out", structures=STRUCTURES)
    reasons = dict(found.failures)
    assert list(reasons) == ([] if gap is None else ["i1"])
    assert found.n == (2 if gap is None else 1)
    rows = list(csv.DictReader((tmp_path / "out" / "cases.csv").read_text().splitlines()))
    assert [row["reason"] for row in rows if row["status"] == "failed"] == list(reasons.values())
    assert all(reason.startswith(f"prediction: geometry ({gap}") for reason in reasons.values())


def test_a_place_that_only_one_file_knows_is_not_compared(tmp_path: Path) -> None:
    placed = nifti(tmp_path / "placed.nii", volume(), origin=(9.0, 0.0, 0.0))
    nowhere = nibabel.Nifti1Image(volume(), None)  # both codes 0: says nothing about the patient (nifti1.h, method 1)
    nowhere.header.set_zooms(ZOOMS)
    nowhere.to_filename(tmp_path / "nowhere.nii")
    path = table(tmp_path, ("i0", "p", placed, "nowhere.nii"))
    assert evaluate_mask_table(path, out=tmp_path / "out", structures=STRUCTURES).n == 1


def test_the_column_image_may_be_there_and_its_cells_blank(tmp_path: Path, pair: tuple[str, str]) -> None:
    header = "image_id,patient_id,truth,prediction,image"
    path = table(tmp_path, ("i0", "p", *pair, pair[0]), ("i1", "p", *pair, ""), header=header)
    assert [row.image for row in read_mask_table(path)] == [tmp_path / pair[0], None]
    path = table(tmp_path, ("i0", "p", *pair, "none.nii"), header=header)
    refuse(path, "1 of 3 files are not there, the first in the column 'image'", row=0, key="image")


@pytest.mark.parametrize("word", ["NULL", "unknown", "n/a"])
def test_words_for_the_unknown_are_blank_cells(tmp_path: Path, pair: tuple[str, str], word: str) -> None:
    header = "image_id,patient_id,truth,prediction,image,volume_id"
    rows = [(f"i{number}", word, *pair, word, word) for number in range(3)]
    found = evaluate_mask_table(table(tmp_path, *rows, header=header), out=tmp_path / "out", structures=STRUCTURES)
    assert (found.n_patients, found.provenance["unknown_patient"]) == (3, 3)
    assert found.by_volume is None


def test_values_that_are_no_labels_are_refused(tmp_path: Path, pair: tuple[str, str]) -> None:
    nifti(tmp_path / "soft.nii", (volume() * 0.4).astype(np.float32))
    refuse(table(tmp_path, ("i0", "p", pair[0], "soft.nii")), r"whole numbers.*Received: 0\.", row=0, key="prediction")
    nifti(tmp_path / "more.nii", volume() * 3)
    refuse(table(tmp_path, ("i0", "p", "more.nii", pair[1])), "Received: 3, 6", row=0, key="truth")
    PillowImage.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(tmp_path / "colour.png")
    refuse(table(tmp_path, ("i0", "p", "colour.png", "colour.png")), "3 channels in the truth", row=0, key="truth")


def test_segmentations_lie_on_the_other_mask_or_on_the_image(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    truth = blobs()
    found = np.roll(truth, 1, axis=2)
    sources = write_series(tmp_path / "ct")
    write_seg(tmp_path / "t.dcm", sources, truth)
    write_seg(tmp_path / "p.dcm", sources, found * (np.arange(6) < 4)[:, None, None])
    image = read_image(tmp_path / "ct")
    write_mask(truth, tmp_path / "t.nii", image=image, structures=("a", "b"))
    header = "image_id,patient_id,truth,prediction,image"
    rows = (("i0", "p", "t.dcm", "t.nii", ""), ("i1", "p", "t.nii", "t.dcm", ""), ("i2", "p", "t.dcm", "p.dcm", "ct"))
    path = table(tmp_path, *rows, header=header)
    cases = evaluate_mask_table(path, out=tmp_path / "out", structures={"a": 1, "b": 2}).cases
    dice = {(case.image_id, case.structure): case.figures.dice for case in cases}
    assert [dice[f"i{k}", name] for k in (0, 1) for name in "ab"] == [1.0] * 4
    assert dice["i2", "a"] == pytest.approx(2 * 18 / 48)  # 3 of 4 columns shared, on 3 slices
    assert dice["i2", "b"] == pytest.approx(2 * 12 / 40)  # and one of 3 slices lost
    path = table(tmp_path, ("i0", "p", "t.dcm", "p.dcm"))
    with pytest.raises(EvaluationError, match="Two DICOM Segmentations leave out other slices") as caught:
        evaluate_mask_table(path, out=tmp_path / "out", structures={"a": 1, "b": 2})
    assert (caught.value.row, caught.value.key) == (0, "image")


def test_a_structure_that_no_mask_holds_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """White on black beside labels from 1: each value means what is stated."""
    white = np.zeros((6, 6), np.uint8)
    white[1:3, 1:5] = 255
    for name, values in (("white", white), ("one", white // 255), ("empty", white * 0)):
        PillowImage.fromarray(values).save(tmp_path / f"{name}.png")
    path, out = table(tmp_path, ("a", "p", "white.png", "one.png")), tmp_path / "out"
    refuse(path, r"Expected: 0, 1, 2\. Received: 255", row=0, key="truth")
    with pytest.raises(EvaluationError, match=r"Expected: 0, 255\. Received: 1\."):
        evaluate_mask_table(path, out=out, structures={"lesion": 255})
    found = evaluate_mask_table(path, out=out, structures={"lesion": (1, 255)})
    assert found.figures["lesion"]["dice"].value == 1.0
    with pytest.raises(EvaluationError, match=r"holds the structure 'b' \(value 2\)") as caught:
        evaluate_mask_table(path, out=out, structures={"lesion": (1, 255), "b": 2})
    assert "Received: 0 (background), lesion (1+255)." in str(caught.value)
    assert not caplog.records
    path = table(tmp_path, ("a", "p", "empty.png", "one.png"))
    assert evaluate_mask_table(path, out=out, structures={"lesion": 1}).statuses["lesion"]["false_positive"] == 1
    assert [record.message for record in caplog.records] == [
        "No truth of 1 cases holds the structure 'lesion' (value 1)."
    ]


def test_tables_that_cannot_be_used_are_refused(tmp_path: Path, pair: tuple[str, str]) -> None:
    header = "image_id,patient_id,truht,prediction"
    refuse(table(tmp_path, ("i0", "p", *pair), header=header), "Did you mean 'truht'", row=None, key="truth")
    twice = "image_id,patient_id,truth,prediction,truth"
    refuse(table(tmp_path, ("i0", "p", *pair, pair[1]), header=twice), "names a column twice", row=None, key=None)
    refuse(table(tmp_path, ("i0", "p", *pair), ("i0", "q", *pair)), "stands twice", row=1, key="image_id")
    refuse(table(tmp_path, ("", "p", *pair)), "is empty", row=0, key="image_id")
    refuse(
        table(tmp_path, ("i0", "p", *pair), ("i1", "p", pair[0], "none.nii")), "1 of 4 files", row=1, key="prediction"
    )
    refuse(table(tmp_path, ("i0", "p", pair[0], ".")), "1 of 2 files", row=0, key="prediction")
    refuse(table(tmp_path, ("i0", "p", pair[0])), "3 cells, the header 4", row=0, key=None)
    refuse(table(tmp_path), "is empty", row=None, key=None)
    refuse(tmp_path / "absent.csv", "Cannot read the table", row=None, key=None)
    (tmp_path / "masks.csv").write_bytes(b"image_id,\xff\xfe\n1,2\n")
    refuse(tmp_path / "masks.csv", "not UTF-8", row=None, key=None)


def test_every_file_unreadable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.nii").write_bytes(b"")
    refuse(table(tmp_path, ("i0", "p", "x.nii", "x.nii")), "1 failed, none read.*truth: empty", row=None, key="cases")


def test_a_byte_order_mark_and_spare_columns_are_no_trouble(tmp_path: Path, pair: tuple[str, str]) -> None:
    path = tmp_path / "masks.csv"
    text = f"note, patient_id,image_id,truth,prediction\r\nx,p,i0,{pair[0]},{tmp_path / pair[1]}\r\n"
    path.write_bytes(text.encode("utf-8-sig"))
    (row,) = read_mask_table(path)
    assert (row.image_id, row.patient_id, row.truth, row.prediction) == (
        "i0",
        "p",
        tmp_path / pair[0],
        tmp_path / pair[1],
    )


def test_structures_in_words() -> None:
    assert parse_structures("anterior=1, posterior = 2,whole=1+2") == {
        "anterior": (1,),
        "posterior": (2,),
        "whole": (1, 2),
    }
    for text in ("", "a", "a=", "a=x", "=1", "a=1,a=2", "a=1.5", "a=-1", "a=1+", "a=²"):
        with pytest.raises(EvaluationError, match="Expected structures as name=value"):
            parse_structures(text)


def test_a_column_names_the_volume_of_each_slice(tmp_path: Path) -> None:
    for k in range(4):
        PillowImage.fromarray(volume()[:, :, k % 2]).save(tmp_path / f"t{k}.png")
        PillowImage.fromarray(volume(k)[:, :, k % 2]).save(tmp_path / f"p{k}.png")
    rows = [(f"i{k}", "p", f"t{k}.png", f"p{k}.png", "" if k == 3 else "v") for k in range(4)]
    path = table(tmp_path, *rows, header="image_id,patient_id,truth,prediction,volume_id")
    found = evaluate_mask_table(path, out=tmp_path / "out", structures=STRUCTURES)
    assert found.by_volume is not None
    assert (found.n, found.by_volume.n) == (4, 2)
    read = [[np.asarray(PillowImage.open(tmp_path / f"{side}{k}.png")) == 1 for k in range(3)] for side in "tp"]
    truth, prediction = (np.stack(part) for part in read)
    dice = 2 * (truth & prediction).sum() / (truth.sum() + prediction.sum())
    volumes = list(csv.DictReader((tmp_path / "out" / "volumes.csv").read_text().splitlines()))
    assert [(row["image_id"], row["structure"]) for row in volumes][:2] == [("v", "a"), ("v", "b")]
    assert float(volumes[0]["dice"]) == pytest.approx(dice, abs=1e-6)
