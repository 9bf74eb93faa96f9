"""Mask values against the configured structures: refusals and warnings."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lepton_vision.config import Config, SegmentationConfig
from lepton_vision.errors import LabelError, ManifestError
from lepton_vision.manifest import Manifest, audit_manifest
from lepton_vision.manifest.mask_values import check_masks, check_truth, count_values, mask_faults, warn_of_masks

WHITE = ["0,255", "0,255", "0", "0,255", None]
SPLIT = ["train", "train", "train", "val", "train"]


def manifest_of(values: list[str | None], splits: list[str | None] | None = None) -> Manifest:
    count = len(values)
    names = [f"{k}.png" for k in range(count)]
    table = pd.DataFrame({"image_id": names, "path": names, "mask_values": values, "patient_id": names})
    table = table.assign(split=[None] * count if splits is None else splits)
    return Manifest(table, root=Path("nowhere"))


def stated(**settings: object) -> SegmentationConfig:
    return SegmentationConfig.model_validate(settings)


def test_masks_are_counted_by_value() -> None:
    assert count_values(manifest_of(["0,1", "0,1,2", "0", None, "255"])) == {0: 3, 1: 2, 2: 1, 255: 1}


def test_white_that_would_count_as_unknown_stops_with_the_setting_to_write() -> None:
    with pytest.raises(LabelError) as caught:
        check_masks(manifest_of(WHITE, SPLIT), stated(structures={"lesion": 1}))
    text = str(caught.value)
    assert "No mask of the train split holds 'lesion'. Found: 0 in 3 masks, 255 in 2 masks." in text
    assert "Expected: 1 lesion, 0 background, 255 unknown." in text
    assert "255 counts as unknown: write segmentation.structures: {lesion: 255} if it is 'lesion'." in text
    check_masks(manifest_of(WHITE, SPLIT), stated(structures={"lesion": 255}))
    check_masks(manifest_of(["0,1,255", "0,1"], ["train", "val"]), stated(structures={"lesion": 1}))  # partly unknown


def test_values_of_which_nothing_is_stated_stop_wherever_they_stand() -> None:
    masks = manifest_of(["0,1", "0,1,2", "0,3"], ["train", "train", "test"])
    with pytest.raises(LabelError, match=r"the first 2\. Found: 0 in 3 masks, 1 in 2 masks, 2 in") as caught:
        check_masks(masks, stated(structures={"anterior": 1}))
    assert caught.value.row == 1
    assert "segmentation.background: [2, 3] makes them background" in str(caught.value)
    check_masks(masks, stated(structures={"anterior": 1}, background=[2, 3]))


def test_a_lossy_copy_is_named_as_what_it_is() -> None:
    masks = manifest_of([",".join(map(str, [*range(8), *range(247, 256)]))], ["train"])
    with pytest.raises(LabelError, match="lossy or interpolated copy"):
        check_masks(masks, stated(structures={"lesion": 255}))


def test_a_structure_that_val_or_test_lack_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    masks = manifest_of(["0,1", "0,2", "0,1", "0,1,2"], ["train", "train", "val", "test"])
    with caplog.at_level(logging.WARNING):
        check_masks(masks, stated(structures={"a": 1, "b": 2}))
    assert [record.message.split(".")[0] for record in caplog.records] == ["No mask of the val split holds 'b'"]
    with pytest.raises(LabelError, match="No mask of the train split holds 'c'"):
        check_masks(masks, stated(structures={"a": 1, "b": 2, "c": 3}))


def test_before_there_are_splits_the_masks_are_looked_at_together(caplog: pytest.LogCaptureFixture) -> None:
    assert list(mask_faults(manifest_of(WHITE), stated(structures={"lesion": 1}))) == [""]
    assert mask_faults(manifest_of(WHITE), stated(structures={"lesion": 255})) == {}
    assert mask_faults(manifest_of([None, None]), stated(structures={"lesion": 1})) == {}
    warn_of_masks(manifest_of(WHITE), stated(structures={"lesion": 1}))
    warn_of_masks(manifest_of(WHITE), None)
    assert len(caplog.records) == 1


def test_the_audit_tells_values_and_faults() -> None:
    masks = manifest_of(WHITE, SPLIT)
    plain = [one for one in audit_manifest(masks).findings if one.kind == "masks"]
    assert [(one.severity, one.message) for one in plain] == [
        ("note", "Values of the masks. Found: 0 in 4 masks, 255 in 3 masks.")
    ]
    config = Config(segmentation=stated(structures={"lesion": 1}))
    found = [one for one in audit_manifest(masks, config).findings if one.kind == "masks"]
    assert [one.severity for one in found] == ["error", "warning", "note"]
    assert not [one for one in audit_manifest(manifest_of([None]), config).findings if one.kind == "masks"]


def test_true_masks_that_show_nothing_cannot_judge(caplog: pytest.LogCaptureFixture) -> None:
    parts = [manifest_of(["0,255"]), manifest_of(["0"])]
    with pytest.raises(LabelError, match="255 counts as unknown"):
        check_truth(parts, stated(structures={"lesion": 1}))
    check_truth(parts, stated(structures={"lesion": 1}, background=[255]))
    check_truth([manifest_of(["0,1"])], stated(structures={"a": 1, "b": 2}))
    assert np.array([record.levelno for record in caplog.records]).tolist() == [logging.WARNING] * 2


def test_masks_that_are_not_divided_yet_lack_a_split_and_no_mask() -> None:
    with pytest.raises(ManifestError, match=r"rows in the train split\. Received: none\. Run `split`") as caught:
        check_masks(manifest_of(["0,1", "0,1"]), stated(structures={"lesion": 1}))
    assert caught.value.key == "split"
    with pytest.raises(LabelError, match="a manifest without any"):
        check_masks(manifest_of([None, None]), stated(structures={"lesion": 1}))
