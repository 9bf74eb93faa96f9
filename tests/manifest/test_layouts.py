"""Mask layouts of public data sets, against pairs written down by hand."""

from __future__ import annotations

from pathlib import Path

import cv2
import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from lepton_vision.config import Config
from lepton_vision.errors import ManifestError
from lepton_vision.manifest.labels import infer_targets
from lepton_vision.manifest.layouts import are_layout, find_masks
from lepton_vision.manifest.table import Manifest
from lepton_vision.transforms import make_loader

RNG = np.random.default_rng(0)
LAYOUTS = {
    "BUSI": {
        "b/benign (1).png": None,
        "b/benign (1)_mask.png": ("b/benign (1).png",),
        "b/benign (1)_mask_1.png": ("b/benign (1).png",),
        "b/benign (11).png": None,
    },
    "ISIC": {
        "Training_Input/ISIC_0000000.jpg": None,
        "Training_GroundTruth/ISIC_0000000_segmentation.png": ("Training_Input/ISIC_0000000.jpg",),
        "Training_GroundTruth/ISIC_0000009_segmentation.png": None,
    },
    "nnU-Net": {
        "imagesTr/c1_0000.nii.gz": None,
        "imagesTr/c1_0001.nii.gz": None,
        "labelsTr/c1.nii.gz": ("imagesTr/c1_0000.nii.gz", "imagesTr/c1_0001.nii.gz"),
        "imagesTs/c1_0000.nii.gz": None,
        "dataset.json": None,
    },
    "Decathlon": {
        "Task04/imagesTr/h_001.nii.gz": None,
        "Task04/imagesTs/h_001.nii.gz": None,
        "Task04/labelsTr/h_001.nii.gz": ("Task04/imagesTr/h_001.nii.gz",),
        "Task04/labelsTr/h_002.nii.gz": (),
    },
    "DRIVE": {
        "training/images/21_training.tif": None,
        "training/mask/21_training_mask.gif": ("training/images/21_training.tif",),
        "training/1st_manual/21_manual1.gif": ("training/images/21_training.tif",),
        "training/1st_manual/22_manual1.gif": (),
    },
    "BraTS": {
        "B_000/B_000_flair.nii.gz": None,
        "B_000/B_000_t1.nii.gz": None,
        "B_000/B_000_seg.nii.gz": (),  # the names say of which case, not on which of its images
        "B_001/B_001_t1.nii.gz": None,
        "B_001/B_001_seg.nii.gz": ("B_001/B_001_t1.nii.gz",),
    },
    "KiTS": {
        "case_00000/imaging.nii.gz": None,
        "case_00000/segmentation.nii.gz": ("case_00000/imaging.nii.gz",),
        "case_00001/t1.nii.gz": None,
        "case_00001/t2.nii.gz": None,
        "case_00001/mask.nii.gz": (),
    },
    "LiTS": {"volume-0.nii": None, "segmentation-0.nii": ("volume-0.nii",), "volume-10.nii": None},
    "BTCV": {"img/img0001.nii.gz": None, "label/label0001.nii.gz": ("img/img0001.nii.gz",)},
    "TotalSegmentator": {
        "s0000/ct.nii.gz": None,
        "s0000/segmentations/liver.nii.gz": ("s0000/ct.nii.gz",),
        "s0000/segmentations/spleen.nii.gz": ("s0000/ct.nii.gz",),
    },
    "VOC": {"JPEGImages/a.jpg": None, "SegmentationClass/a.png": ("JPEGImages/a.jpg",)},
    "OpenMMLab": {"img_dir/train/a.jpg": None, "ann_dir/train/a.png": ("img_dir/train/a.jpg",)},
    "Carvana": {"train_images/a.jpg": None, "train_masks/a_mask.gif": ("train_images/a.jpg",)},
    "Montgomery": {
        "CXR_png/M_1_0.png": None,
        "ManualMask/leftMask/M_1_0.png": ("CXR_png/M_1_0.png",),
        "ManualMask/rightMask/M_1_0.png": ("CXR_png/M_1_0.png",),
    },
    "COVID-QU-Ex": {
        "Train/COVID-19/images/c_1.png": None,
        "Train/COVID-19/infection masks/c_1.png": ("Train/COVID-19/images/c_1.png",),
        "Train/Normal/images/n_1.png": None,
        "Train/Normal/lung masks/n_1.png": ("Train/Normal/images/n_1.png",),
    },
    "labels in the names": {"a/img_0001_label_3.png": None, "a/img_0002_label_0.png": None},
    "folders": {
        "train/images/a/1.png": None,
        "train/Masks/a/1.png": ("train/images/a/1.png",),
        "test/images/a/1.png": None,
        "x/1.png": None,
        "x/masks/1.png": ("x/1.png",),
        "y/scan-01.nii": None,
        "y/scan-01-label.nii": ("y/scan-01.nii",),
        "y/scan-01_seg.nii.gz": ("y/scan-01.nii",),
    },
    "faces": {  # classes whose names sound like masks
        "mask/1.png": None,
        "no_mask/1.png": None,
        "mask/person_mask.png": None,
        "no_mask/person_no_mask.png": None,
        "seg/leg_seg.png": None,
        "notes/1_mask.txt": None,
        "notes/1.txt": None,
        "with_mask/1.png": None,
        "without_mask/1.png": None,
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_masks_are_found_by_their_names(layout: str) -> None:
    wanted = {path: images for path, images in LAYOUTS[layout].items() if images is not None}
    assert find_masks(LAYOUTS[layout]) == wanted


@pytest.mark.parametrize(
    ("folders", "is_layout"),
    [
        (("imagesTr", "imagesTs"), True),
        (("images", "labels"), True),
        (("mask", "no_mask"), False),
        (("seg", "normal"), False),
        (("images", "benign"), False),
        (("train_images", "train_masks"), True),
        (("train_images", "test_masks"), False),
        (("with_mask", "without_mask"), False),
        (("CXR_png", "ManualMask"), True),
    ],
)
def test_folders_of_a_layout_are_no_classes(folders: tuple[str, ...], is_layout: bool) -> None:
    assert are_layout(folders) == is_layout


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels.astype(np.uint8))


@pytest.fixture
def busi(tmp_path: Path) -> Path:
    """Two classes of three images; one has two masks, one a mask of another size."""
    root = tmp_path / "busi"
    for name in ("benign", "malignant"):
        for number in range(3):
            write(root / name / f"{name} ({number}).png", RNG.integers(0, 255, (16, 12)))
            mask = np.zeros((16, 12))
            mask[2 : 5 + number, 3:9] = 255
            write(root / name / f"{name} ({number})_mask.png", mask)
    write(root / "benign" / "benign (0)_mask_1.png", mask)
    write(root / "malignant" / "malignant (0)_mask.png", np.zeros((8, 8)))
    return root


def test_masks_are_no_images_and_each_image_has_its_own(busi: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest = Manifest.scan(busi, workers=1)
    frame = manifest.ok.frame
    assert frame["label"].value_counts().to_dict() == {"benign": 3, "malignant": 3}
    masks = dict(zip(frame["path"], frame["mask_path"].fillna(""), strict=True))
    assert masks == {
        "benign/benign (0).png": "benign/benign (0)_mask.png",  # and a further one
        "benign/benign (1).png": "benign/benign (1)_mask.png",
        "benign/benign (2).png": "benign/benign (2)_mask.png",
        "malignant/malignant (0).png": "",  # of another size
        "malignant/malignant (1).png": "malignant/malignant (1)_mask.png",
        "malignant/malignant (2).png": "malignant/malignant (2)_mask.png",
    }
    assert frame["mask_values"].dropna().unique().tolist() == ["0,255"]
    assert frame["mask_member"].dropna().tolist() == ["+/benign (0)_mask_1.png"]
    assert manifest.rejected == {}
    assert "7 files are masks by their names" in caplog.text
    assert "--include mask_file" in caplog.text
    assert len(Manifest.scan(busi, include=["mask_file"], workers=1).ok) == 13


def test_several_masks_of_one_image_are_one(busi: Path) -> None:
    config = Config.model_validate({"segmentation": {"structures": {"tumour": 255}, "unknown": None}})
    config = config.override("preprocess.size=[16, 12]")

    def trained_on(manifest: Manifest) -> np.ndarray:
        dataset = make_loader(manifest, config, cache_dir=busi.parent / "cache").dataset
        row = manifest.ok.frame["path"].tolist().index("benign/benign (0).png")
        masks = dataset[row].masks
        assert masks is not None
        return np.asarray(masks)

    low, high = np.zeros((16, 12), bool), np.zeros((16, 12), bool)
    low[1:3, 1:4], high[9:12, 6:9] = True, True
    write(busi / "benign" / "benign (0)_mask.png", low * 255)
    write(busi / "benign" / "benign (0)_mask_1.png", high * 255)
    manifest = Manifest.scan(busi, workers=1)
    manifest = Manifest.load(manifest.save(busi.parent / "m.parquet"))
    assert np.array_equal(trained_on(manifest)[0], low | high)
    write(busi / "benign" / "benign (0)_mask_1.png", low * 255)  # the cache must see it
    assert np.array_equal(trained_on(manifest)[0], low)
    write(busi / "benign" / "benign (0)_mask_1.png", low * 100)
    frame = Manifest.scan(busi, workers=1).ok.frame.set_index("path")
    assert frame.loc["benign/benign (0).png", ["mask_path", "mask_member"]].isna().all()
    write(busi / "benign" / "benign (0)_mask_1.png", high * 100)
    frame = Manifest.scan(busi, workers=1).ok.frame.set_index("path")
    assert frame.loc["benign/benign (0).png", "mask_values"] == "0,100,255"


def test_masks_of_other_names_are_not_united(busi: Path) -> None:
    path = busi / "benign" / "benign (0)_mask_1.png"
    path.rename(path.with_name("benign (0)_seg.png"))
    frame = Manifest.scan(busi, workers=1).ok.frame.set_index("path")
    assert frame.loc["benign/benign (0).png", ["mask_path", "mask_member"]].isna().all()


def test_a_label_table_says_whose_masks_they_are(busi: Path) -> None:
    path, mask = "benign/benign (0).png", "benign/benign (0)_mask_1.png"
    table = pd.DataFrame({"path": [path], "mask": [mask], "finding": [1]})
    frame = Manifest.scan(busi, labels=table, workers=1).ok.frame
    assert frame["mask_path"].dropna().tolist() == [mask]
    assert len(frame) == 6


def test_an_nnunet_root_has_no_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (tmp_path / folder).mkdir()
        for number in range(2):
            voxels = RNG.integers(0, 2 if folder == "labelsTr" else 99, (5, 6, 7)).astype(np.int16)
            name = f"c{number}.nii.gz" if folder == "labelsTr" else f"c{number}_0000.nii.gz"
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / folder / name)
    (tmp_path / "imagesTr" / "._c0_0000.nii.gz").write_bytes(b"\0")
    manifest = Manifest.scan(tmp_path, workers=1)
    frame = manifest.ok.frame
    assert manifest.label_columns == ()
    assert dict(zip(frame["path"], frame["mask_path"].fillna(""), strict=True)) == {
        "imagesTr/c0_0000.nii.gz": "labelsTr/c0.nii.gz",
        "imagesTr/c1_0000.nii.gz": "labelsTr/c1.nii.gz",
        "imagesTs/c0_0000.nii.gz": "",
        "imagesTs/c1_0000.nii.gz": "",
    }
    assert "not taken for classes" in caplog.text
    with pytest.raises(ManifestError, match="no label column"):
        infer_targets(manifest)
