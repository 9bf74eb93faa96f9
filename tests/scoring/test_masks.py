"""Masks of images beside their rows: pixels, sizes, file names, and reasons for their absence."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image as PilImage

from lepton_vision.inference import predict
from lepton_vision.inference.engine import Engine, EngineOutput
from lepton_vision.inference.masks import MaskPrediction, predict_masks
from lepton_vision.models import Bundle
from lepton_vision.readers.archives import open_member
from lepton_vision.readers.dicom.sources import read_sources
from lepton_vision.readers.limits import Limits
from lepton_vision.scoring import score, write_mask
from tests.transforms.volumes import write_nifti

from .bundles import image_bundle, read, same_files, same_rows
from .dicom_series import PATIENT, header, save, write_enhanced

BRIGHT = {"RescaleSlope": 1, "RescaleIntercept": 0}


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, shape).astype(np.uint8)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return image_bundle()


@pytest.fixture(scope="module")
def inbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three PNG files, a CT slice, a radiograph, one without a frame of reference, an enhanced file, a NIfTI stack."""
    root = tmp_path_factory.mktemp("inbox")
    for number in range(3):
        PilImage.fromarray(noise(40, 30, seed=number)).save(root / f"{number}.png")
    place = {"ImagePositionPatient": [1, 2, 3], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    save(header(noise(24, 20), PixelSpacing=[0.5, 0.8], **place, **BRIGHT), root / "ct.dcm")
    save(header(noise(24, 20, seed=7), ImagerPixelSpacing=[0.1, 0.1], Modality="DX", **BRIGHT), root / "dx.dcm")
    lost: dict[str, Any] = {"FrameOfReferenceUID": None, **place}
    save(header(noise(24, 20, seed=8), PixelSpacing=[1, 1], **lost, **BRIGHT), root / "lost.dcm")
    write_enhanced(root / "frames.dcm", [0, 2, 4], RescaleSlope=80, RescaleIntercept=0)
    write_nifti(root / "stack.nii", noise(18, 16, 4, seed=9).astype(np.float32), np.diag([0.5, 2.0, 3.0, 1]))
    return root


def found_by_id(bundle: Bundle, inbox: Path) -> dict[str, MaskPrediction]:
    found = list(predict_masks(bundle, inbox, device="cpu", batch_size=4))
    assert all(isinstance(one, MaskPrediction) for one in found)
    return {one.image_id: one for one in found if isinstance(one, MaskPrediction)}


@pytest.mark.parametrize("has_targets", [True, False])
def test_masks_and_probabilities_are_those_of_predict(inbox: Path, tmp_path: Path, has_targets: bool) -> None:
    bundle = image_bundle() if has_targets else image_bundle(targets=())
    masks = tmp_path / "masks"
    summary = score(bundle, inbox, tmp_path / "out", masks=masks, batch_size=4, device="cpu")
    assert (summary.rows, summary.scored, summary.masks, summary.without_mask) == (13, 13, 13, {})
    rows = read(tmp_path / "out").set_index("image_id")
    spacings = {"ct.dcm": 0.4, "lost.dcm": 1.0, "frames.dcm": 0.375, "stack.nii": 1.0}
    for image_id, found in found_by_id(bundle, inbox).items():
        written = np.array(PilImage.open(masks / rows.loc[image_id, "mask"]))
        assert rows.loc[image_id, "mask"] == f"{image_id}.png"
        assert np.array_equal(written, found.labels)
        area = spacings.get(found.address.path.name, math.nan)  # PNG says none; a detector is not the patient
        for label, name in ((1, "disc_mm2"), (2, "rim_mm2")):
            expected = np.count_nonzero(written == label) * area
            assert rows.loc[image_id, name] == pytest.approx(expected, rel=1e-6, nan_ok=True)
    assert rows["disc_mm2"].isna().sum() == 4
    if has_targets:
        same = predict(bundle, inbox, device="cpu", batch_size=4)
        assert np.array_equal(
            rows.loc[list(same.image_id), "sick_probability"].to_numpy(np.float32), same.y_prob["sick"]
        )


def test_nifti_masks_lie_where_their_slice_does(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    summary = score(bundle, inbox, tmp_path / "out", masks=masks, mask_format="nifti", batch_size=4, device="cpu")
    assert (summary.scored, summary.masks, summary.without_mask) == (13, 10, {"no_spacing": 3})
    rows = read(tmp_path / "out").set_index("image_id")
    assert rows["sick_probability"].notna().all()
    stack = {one.address.frame: one for one in found_by_id(bundle, inbox).values() if one.address.path.suffix == ".nii"}
    affine = nib.load(inbox / "stack.nii").affine
    for frame, found in stack.items():
        written = nib.load(masks / f"{found.image_id}.nii.gz")
        assert written.shape == (18, 16, 1)
        assert np.array_equal(np.asarray(written.dataobj)[:, :, 0].T, found.labels)
        np.testing.assert_allclose(written.affine @ [3, 5, 0, 1], affine @ [3, 5, frame, 1], atol=1e-5)
        assert rows.loc[found.image_id, "frame"] == frame


def test_segmentations_of_slices_and_frames_overlay_them(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    summary = score(bundle, inbox, tmp_path / "out", masks=masks, mask_format="dicom", batch_size=4, device="cpu")
    rows = read(tmp_path / "out").set_index("image_id")
    assert summary.scored == 13
    assert summary.without_mask["not_dicom"] == 7
    refused = [reason for reason in summary.without_mask if reason.startswith("refused: ")]
    assert len(refused) == 1, summary.without_mask
    assert "Frame of Reference" in refused[0]
    assert summary.masks == 13 - 7 - summary.without_mask[refused[0]] == 5
    for image_id, found in found_by_id(bundle, inbox).items():
        name = rows.loc[image_id, "mask"]
        if found.image.source_format != "dicom" or not isinstance(name, str):
            continue
        source = pydicom.dcmread(found.address.path)
        segmentation = highdicom.seg.segread(masks / name)
        if found.address.frame is None:
            back = segmentation.get_pixels_by_source_instance([source.SOPInstanceUID], combine_segments=True)
        else:
            numbers = [found.address.frame + 1]
            back = segmentation.get_pixels_by_source_frame(source.SOPInstanceUID, numbers, combine_segments=True)
        assert np.array_equal(back[0], found.labels)
    text = read(tmp_path / "out").to_csv() + " ".join(path.name for path in masks.iterdir())
    assert not [value for value in PATIENT.values() if len(value) > 2 and value in text]


def test_the_limits_of_the_run_hold_for_the_source_of_a_mask_too(
    bundle: Bundle, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the member were above the default limits: what was scored under the run's own gets its mask."""
    deflated = pydicom.dcmread(inbox / "ct.dcm")
    deflated.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    deflated.save_as(tmp_path / "ct.dcm", enforce_file_format=True)
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.write(tmp_path / "ct.dcm", "ct.dcm")
    for function in (write_mask, read_sources, open_member.__wrapped__):  # type: ignore[attr-defined]
        monkeypatch.setitem(function.__kwdefaults__, "limits", Limits(max_bytes=1))
    options: dict[str, Any] = {"mask_format": "dicom", "device": "cpu"}
    summary = score(bundle, tmp_path / "in.zip", tmp_path / "out", masks=tmp_path / "masks", limits=Limits(), **options)
    assert (summary.scored, summary.masks, summary.without_mask) == (1, 1, {})


def test_two_images_of_one_id_do_not_overwrite_each_other(bundle: Bundle, tmp_path: Path) -> None:
    for number in range(3):
        pixels = noise(24, 20, seed=number)
        save(header(pixels, SOPInstanceUID="1.2.3.4", **BRIGHT), tmp_path / "in" / f"{number}.dcm")
    first = score(bundle, tmp_path / "in" / "0.dcm", tmp_path / "out", masks=tmp_path / "masks", device="cpu")
    mask = next((tmp_path / "masks").glob("*.png"))
    before = mask.read_bytes()
    again = score(bundle, tmp_path / "in", tmp_path / "out", masks=tmp_path / "masks", device="cpu")
    assert (first.masks, again.masks, again.without_mask, again.scored) == (1, 1, {"duplicate": 2}, 3)
    assert mask.read_bytes() == before


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
def test_an_interrupted_run_goes_on_to_the_same_rows_and_masks(
    bundle: Bundle, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_format: Any
) -> None:
    options: dict[str, Any] = {"batch_size": 4, "device": "cpu", "precision": "fp32", "file_format": file_format}
    whole = score(bundle, inbox, tmp_path / "whole", masks=tmp_path / "masks", **options)
    original, calls = Engine.examine_pixels, list[int]()

    def failing(self: Engine, images: Any) -> EngineOutput:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "examine_pixels", failing)
        with pytest.raises(KeyboardInterrupt):
            score(bundle, inbox, tmp_path / "parts", masks=tmp_path / "again", **options)
    found = score(bundle, inbox, tmp_path / "parts", masks=tmp_path / "again", **options)
    assert 0 < found.new_rows < 13
    assert (found.rows, found.masks) == (whole.rows, whole.masks) == (13, 13)
    same_files(tmp_path / "masks", tmp_path / "again")
    if file_format == "parquet":
        same_rows(tmp_path / "whole", tmp_path / "parts")


def test_a_network_whose_masks_are_no_numbers(inbox: Path, tmp_path: Path) -> None:
    for targets, scored in (((), 0), (image_bundle().targets, 13)):
        sound = image_bundle(targets=targets)
        state = {name: tensor.clone() for name, tensor in sound.state.items()}
        state["decoder.last.bias"][:] = float("nan")
        broken = Bundle(config=sound.config, targets=targets, state=state, operating_point=sound.operating_point)
        out = tmp_path / f"out{scored}"
        summary = score(broken, inbox, out, masks=tmp_path / f"masks{scored}", batch_size=4, device="cpu")
        assert (summary.scored, summary.masks, summary.without_mask) == (scored, 0, {"non_finite_output": 13})
        assert read(out)["disc_mm2"].isna().all()
        assert summary.failed == ({} if scored else {"non_finite_output": 13})
