"""Scoring of volumes: rows equal to ``predict`` and ``predict_masks``, also after a kill."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import highdicom
import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image as PilImage

from lepton_vision.errors import ConfigError, ScoringError
from lepton_vision.inference import predict
from lepton_vision.inference.masks import MaskPrediction, VolumeSegmenter, predict_masks
from lepton_vision.models import Bundle
from lepton_vision.readers import read_image
from lepton_vision.readers.identity import pseudonym
from lepton_vision.scoring import score, sink
from lepton_vision.scoring.inputs import inputs
from lepton_vision.types import Image
from tests.transforms.volumes import write_nifti

from .bundles import read, same_files, same_rows, volume_bundle
from .dicom_series import OBLIQUE, write_enhanced, write_series

BRIGHT = {"RescaleSlope": 80, "RescaleIntercept": 0}  # labels 0 to 3 to 0 to 240 HU
STEPS = [2.0 * k for k in range(6)]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return volume_bundle()


@pytest.fixture(scope="module")
def inbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two series in one folder, an oblique one, an enhanced file, two NIfTI files, one of them turned."""
    root = tmp_path_factory.mktemp("inbox")
    for number, path in enumerate(sorted(write_series(root / "two", STEPS, **BRIGHT).iterdir())):
        path.rename(path.with_name(f"{number}-first.dcm"))
    write_series(root / "two", STEPS[:5], **BRIGHT)
    write_series(root / "oblique", [1.5 * k for k in range(7)], ways=OBLIQUE, **BRIGHT)
    write_enhanced(root / "enhanced.dcm", STEPS[:4], **BRIGHT)
    rng = np.random.default_rng(0)
    write_nifti(root / "a.nii.gz", rng.normal(120, 60, (14, 18, 11)).astype(np.float32), np.diag([0.5, 0.8, 2.5, 1]))
    write_nifti(root / "b.nii", rng.normal(120, 60, (9, 12, 20)).astype(np.float32), np.diag([-2.0, 1.0, 1.0, 1]))
    return root


def test_each_series_and_file_has_a_row_with_what_predict_gives(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    summary = score(bundle, inbox, tmp_path / "out", workers=3, device="cpu")
    assert (summary.rows, summary.scored, summary.failed, summary.masks) == (6, 6, {}, None)
    predicted = predict(bundle, inbox, device="cpu")
    rows = read(tmp_path / "out").set_index("image_id").loc[list(predicted.image_id)]
    assert len(set(predicted.y_prob["sick"])) == 6
    assert np.array_equal(rows["sick_probability"].to_numpy(np.float32), predicted.y_prob["sick"])
    organs = rows[[f"organ_{name}_probability" for name in "abc"]].to_numpy(np.float32)
    assert np.array_equal(organs, predicted.y_prob["organ"])
    assert list(rows["series_id"].fillna("")) == list(predicted.series_id)
    assert rows["path_id"].nunique() == 6
    assert "mask" not in rows


def test_a_bag_of_slices_is_scored_as_it_is_predicted(inbox: Path, tmp_path: Path) -> None:
    bundle = volume_bundle("segmentation=null", "volume.view=slices", "preprocess.size=[16, 16]")
    score(bundle, inbox, tmp_path / "out", device="cpu")
    predicted = predict(bundle, inbox, device="cpu")
    rows = read(tmp_path / "out").set_index("image_id").loc[list(predicted.image_id)]
    assert np.array_equal(rows["sick_probability"].to_numpy(np.float32), predicted.y_prob["sick"])
    with pytest.raises(ConfigError, match="predicts masks"):
        score(bundle, inbox, tmp_path / "other", masks=tmp_path / "masks")


SLABS = ("volume.view=2.5d", "preprocess.size=[16, 26]", "volume.spacing_mm=[2.5, 1, 1]")  # slices lie in black


@pytest.mark.parametrize(("has_targets", "changes"), [(True, ()), (False, ()), (True, SLABS)])
def test_masks_are_those_of_predict_masks_on_the_grid_of_their_source(
    inbox: Path, tmp_path: Path, has_targets: bool, changes: tuple[str, ...]
) -> None:
    bundle = volume_bundle(*changes) if has_targets else volume_bundle(*changes, targets=())
    masks = tmp_path / "masks"
    summary = score(bundle, inbox, tmp_path / "out", masks=masks, device="cpu")
    assert (summary.scored, summary.masks, summary.without_mask) == (6, 6, {})
    rows = read(tmp_path / "out").set_index("image_id")
    for found in predict_masks(bundle, inbox, device="cpu"):
        assert isinstance(found, MaskPrediction)
        row = rows.loc[found.image_id]
        assert row["mask"] == f"{found.image_id}.nii.gz"
        written = nib.load(masks / row["mask"])
        assert np.array_equal(np.asarray(written.dataobj).T, found.labels)
        assert len(np.unique(found.labels)) > 1
        if found.image.source_format == "nifti":
            assert np.array_equal(written.affine, nib.load(found.address.path).affine)
        voxel_ml = float(np.prod(written.header.get_zooms())) / 1000
        for label, name in ((1, "box_ml"), (2, "core_ml")):
            assert row[name] == pytest.approx((found.labels == label).sum() * voxel_ml, rel=1e-6)
    if has_targets:
        same = predict(bundle, inbox, device="cpu")
        assert np.array_equal(
            rows.loc[list(same.image_id), "sick_probability"].to_numpy(np.float32), same.y_prob["sick"]
        )


def test_a_written_segmentation_lies_on_the_slices_of_its_series(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    summary = score(bundle, inbox, tmp_path / "out", masks=masks, mask_format="dicom", device="cpu")
    assert (summary.scored, summary.masks, summary.without_mask) == (6, 4, {"not_dicom": 2})
    rows = read(tmp_path / "out").set_index("image_id")
    assert rows.loc[rows["mask"].isna(), "sick_probability"].notna().all()
    assert rows["box_ml"].notna().all()
    files = [pydicom.dcmread(path, stop_before_pixels=True) for path in inbox.rglob("*.dcm")]
    for found in predict_masks(bundle, inbox, device="cpu"):
        assert isinstance(found, MaskPrediction)
        if found.image.source_format != "dicom":
            continue
        segmentation = highdicom.seg.segread(masks / rows.loc[found.image_id, "mask"])
        assert segmentation.PatientID == "MRN-PLANTED-4711"
        assert [str(one.SegmentLabel) for one in segmentation.SegmentSequence] == ["box", "core"]
        own = [one for one in files if pseudonym("series", one.SeriesInstanceUID) == found.address.member]
        if len(own) == 1:  # frames in the order of the file, which is that of their positions
            numbers = list(range(1, 5))
            back = segmentation.get_pixels_by_source_frame(own[0].SOPInstanceUID, numbers, combine_segments=True)
        else:
            normal = np.cross(*np.array(own[0].ImageOrientationPatient, float).reshape(2, 3))
            own.sort(key=lambda one: float(normal @ np.array(one.ImagePositionPatient, float)))
            uids = [one.SOPInstanceUID for one in own]
            back = segmentation.get_pixels_by_source_instance(uids, combine_segments=True)
        assert np.array_equal(back, found.labels)


def test_what_cannot_be_a_volume_is_one_row_with_its_reason(bundle: Bundle, tmp_path: Path) -> None:
    root = tmp_path / "in"
    write_series(root / "good", STEPS, **BRIGHT)
    write_series(root / "gap", [0, 2, 4, 8], **BRIGHT)
    write_series(root / "twice", [0, 2, 2, 4], **BRIGHT)
    mixed = write_series(root / "mixed", STEPS, **BRIGHT)
    one = pydicom.dcmread(mixed / "000.dcm")
    one.PixelSpacing = [3, 3]
    one.save_as(mixed / "000.dcm")
    cut = write_series(root / "cut", STEPS, **BRIGHT)
    (cut / "001.dcm").write_bytes((cut / "001.dcm").read_bytes()[:-40])
    lost = write_series(root / "lost", STEPS, **BRIGHT)
    (lost / "002.dcm").write_bytes(b"")
    (root / "note.txt").write_text("no image")
    PilImage.fromarray(np.zeros((9, 9), np.uint8)).save(root / "flat.png")
    summary = score(
        bundle, root, tmp_path / "out", masks=tmp_path / "masks", device="cpu", path_map=tmp_path / "map.csv"
    )
    table = pd.read_csv(tmp_path / "map.csv")
    places = {
        key: Path(path).relative_to(root).parts[0] for key, path in zip(table["path_id"], table["path"], strict=True)
    }
    rows = read(tmp_path / "out")
    told = sorted(zip(rows["path_id"].map(places), rows["reason"].fillna(""), strict=True))
    assert told == [
        ("cut", "truncated"),
        ("flat.png", "volume"),
        ("gap", "missing_slices"),
        ("good", ""),
        ("lost", "empty"),  # the series
        ("lost", "empty"),  # the file that is a slice of it, for all that is known
        ("mixed", "mixed_slices"),
        ("note.txt", "not_an_image"),
        ("twice", "duplicate_position"),
    ]
    assert (summary.rows, summary.scored, summary.masks) == (9, 1, 1)
    bad = rows[rows["status"] == "failed"]
    assert bad[["sick_probability", "mask", "mask_reason", "box_ml"]].isna().all(axis=None)
    assert bad.loc[[places[key] == "gap" for key in bad["path_id"]], "series_id"].notna().all()
    assert len(list((tmp_path / "masks").glob("*.nii.gz"))) == 1
    assert (table["path"].map(lambda path: Path(path).parent.name) == "good").sum() == 6
    again = score(bundle, root, tmp_path / "out", masks=tmp_path / "masks", device="cpu")
    assert (again.new_rows, again.rows, again.masks) == (0, 9, 1)


def test_a_series_is_one_input_whichever_of_its_folders_is_named(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    score(bundle, inbox / "two", tmp_path / "out", device="cpu")
    assert score(bundle, inbox, tmp_path / "out", device="cpu").new_rows == 4
    single = score(bundle, sorted((inbox / "oblique").iterdir()), tmp_path / "files", device="cpu")
    assert single.rows == 1


def test_an_interrupted_run_goes_on_to_the_same_rows_and_masks(
    bundle: Bundle, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score(bundle, inbox, tmp_path / "whole", masks=tmp_path / "masks", device="cpu")
    original, calls = VolumeSegmenter.probabilities, list[int]()

    def failing(self: VolumeSegmenter, pixels: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(self, pixels)

    with monkeypatch.context() as patch:
        patch.setattr(VolumeSegmenter, "probabilities", failing)
        with pytest.raises(KeyboardInterrupt):
            score(bundle, inbox, tmp_path / "parts", masks=tmp_path / "again", device="cpu")
    assert len(read(tmp_path / "parts")) == 2  # the third waits for its batch
    assert len(list((tmp_path / "again").glob("*.nii.gz"))) == 3
    assert score(bundle, inbox, tmp_path / "parts", masks=tmp_path / "again", device="cpu").new_rows == 4
    same_rows(tmp_path / "whole", tmp_path / "parts")
    same_files(tmp_path / "masks", tmp_path / "again")


KILLED = """
import os, signal, sys
from lepton_vision.inference.masks import VolumeSegmenter
from lepton_vision.scoring import score, sink
sink.SHARD_SECONDS = 0.0
original, calls = VolumeSegmenter.probabilities, []
def dying(self, pixels):
    calls.append(1)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, pixels)
VolumeSegmenter.probabilities = dying
score(*sys.argv[1:4], masks=sys.argv[4], device="cpu")
"""


def test_a_killed_run_goes_on(inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = volume_bundle(targets=())
    bundle.save(tmp_path / "bundle")
    parts = [str(tmp_path / name) for name in ("parts", "again")]
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "bundle"), str(inbox), *parts], check=False)
    assert done.returncode == -9
    assert len(read(tmp_path / "parts")) == 3
    (tmp_path / "again" / ".x.nii.gz.1.tmp").write_bytes(b"half")
    assert score(bundle, inbox, parts[0], masks=parts[1], device="cpu").new_rows == 3
    score(bundle, inbox, tmp_path / "whole", masks=tmp_path / "masks", device="cpu")
    same_rows(tmp_path / "whole", tmp_path / "parts")
    same_files(tmp_path / "masks", tmp_path / "again")
    assert not list((tmp_path / "again").glob(".*.tmp"))


def test_no_more_volumes_are_read_ahead_than_there_are_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted where a volume starts to be read and where its mask is done with."""
    for number in range(9):
        write_nifti(tmp_path / "in" / f"{number}.nii", np.full((6, 6, 6), number, np.float32), np.eye(4))
    started, finished, most, lock = list[Path](), list[int](), list[int](), threading.Lock()
    original = VolumeSegmenter.probabilities

    def reading(path: Path, **options: Any) -> Image:
        with lock:
            started.append(path)
            most.append(len(started) - len(finished))
        return read_image(path, **options)

    def predicting(self: VolumeSegmenter, pixels: Any) -> Any:
        found = original(self, pixels)
        with lock:
            finished.append(1)
        return found

    monkeypatch.setattr(inputs, "read_image", reading)
    monkeypatch.setattr(VolumeSegmenter, "probabilities", predicting)
    bundle = volume_bundle("train.batch_size=8")
    score(bundle, tmp_path / "in", tmp_path / "out", masks=tmp_path / "masks", workers=2, device="cpu")
    assert len(started) == 9
    assert 2 <= max(most) <= 3  # two ahead of the one that is predicted


def test_a_mask_that_cannot_be_predicted_leaves_the_probabilities(
    inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(self: VolumeSegmenter, pixels: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(VolumeSegmenter, "probabilities", greedy)
    summary = score(volume_bundle(), inbox, tmp_path / "out", masks=tmp_path / "masks", device="cpu")
    assert (summary.scored, summary.masks, summary.without_mask) == (6, 0, {"too_large": 6})
    assert read(tmp_path / "out")["sick_probability"].notna().all()
    alone = score(volume_bundle(targets=()), inbox, tmp_path / "b", masks=tmp_path / "alone", device="cpu")
    assert (alone.scored, alone.failed) == (0, {"too_large": 6})


def test_shards_are_written_by_time_too(
    bundle: Bundle, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink, "SHARD_SECONDS", 0.0)
    score(bundle, inbox, tmp_path / "out", device="cpu")
    assert len(list((tmp_path / "out").glob("part-*.parquet"))) == 3  # batches of two


def test_wrong_requests_write_nothing(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    out, masks = tmp_path / "out", tmp_path / "masks"
    alone = volume_bundle(targets=())
    auxiliary = volume_bundle("segmentation.mode=auxiliary")
    with pytest.raises(ConfigError, match="only helped to train"):
        score(auxiliary, inbox, out, masks=masks)
    with pytest.raises(ConfigError, match="A PNG holds one slice"):
        score(bundle, inbox, out, masks=masks, mask_format="png")
    with pytest.raises(ConfigError, match="Did you mean 'nifti'"):
        score(bundle, inbox, out, masks=masks, mask_format="nifty")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Expected a mask folder"):
        score(bundle, inbox, out, mask_format="dicom")
    with pytest.raises(ScoringError, match="masks are all that it gives"):
        score(alone, inbox, out)
    with pytest.raises(ScoringError, match="not within the output folder"):
        score(bundle, inbox, out, masks=out / "masks")
    long = volume_bundle("segmentation.structures={" + "x" * 65 + ": 1}")
    with pytest.raises(ScoringError, match="1 to 64 characters"):
        score(long, inbox, out, masks=masks, mask_format="dicom")
    assert not out.exists()
    assert not masks.exists()


def test_masks_of_another_job_are_not_mixed_in(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    out, masks = tmp_path / "out", tmp_path / "masks"
    source = inbox / "a.nii.gz"
    score(bundle, source, out, masks=masks, device="cpu")
    with pytest.raises(ScoringError, match=r"another job \(differs in: masks\)"):
        score(bundle, source, out, device="cpu")
    with pytest.raises(ScoringError, match=r"mask folder holds masks of another job \(differs in: masks\)"):
        score(bundle, source, tmp_path / "b", masks=masks, mask_format="dicom", device="cpu")
    with pytest.raises(ScoringError, match=r"differs in: bundle_id"):
        score(volume_bundle(targets=()), source, tmp_path / "c", masks=masks, device="cpu")
    assert score(bundle, source, out, masks=masks, resume=False, device="cpu").new_rows == 1


def test_a_full_disk_stops_the_run_and_keeps_the_rows(
    bundle: Bundle, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lepton_vision.scoring.masks import folder as mask_folder

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(mask_folder, "write_mask", full)
        with pytest.raises(ScoringError, match=r"Cannot write a mask: No space left on device.*resume"):
            score(bundle, inbox, tmp_path / "out", masks=tmp_path / "masks", device="cpu")
    assert score(bundle, inbox, tmp_path / "out", masks=tmp_path / "masks", device="cpu").masks == 6


def test_masks_within_the_input_are_not_scored(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    (root / "a.nii.gz").write_bytes((inbox / "a.nii.gz").read_bytes())
    for _ in range(2):
        assert score(bundle, root, root / "out", masks=root / "masks", device="cpu").rows == 1
