"""Class counts of splits, and the warnings about missing classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lepton_vision.config import Config
from lepton_vision.errors import LabelError, TrainingError
from lepton_vision.manifest.class_counts import count_classes, warn_of_classes
from lepton_vision.manifest.labels import require_labels
from lepton_vision.manifest.mask_values import check_monitor
from lepton_vision.manifest.table import Manifest
from lepton_vision.types import Target

SICK = Target("sick", "binary", ("no", "yes"))
GRADE = Target("grade", "ordinal", ("a", "b", "c"))
SIGNS = Target("signs", "multilabel", ("edema", "mass", "air"))
MASKED = Target("masked", "binary", ("no", "yes"), mask_values=(2, 3))


@pytest.fixture
def part() -> Manifest:
    """Six samples; None is unknown."""
    columns = {
        "image_id": list("abcdef"),
        "path": [f"{name}.png" for name in "abcdef"],
        "sick": ["yes", "no", "no", "no", None, "no"],
        "grade": ["a", "a", "b", "b", "b", None],
        "edema": [1, 1, 1, 0, 0, 0],
        "mass": [0, 0, 0, 0, None, None],
        "air": [None] * 6,
        "mask_values": ["0", "0,2", "0,1", None, "3", "0"],
        "status": ["ok"] * 6,
    }
    return Manifest(pd.DataFrame(columns), Path())


def test_classes_are_counted_by_hand(part: Manifest) -> None:
    def counts(target: Target) -> list[tuple[str, int, int]]:
        return [(one.name, one.positives, one.negatives) for one in count_classes(part, target)]

    assert counts(SICK) == [("yes", 1, 4)]
    assert counts(GRADE) == [("a", 2, 3), ("b", 3, 2), ("c", 0, 5)]
    assert counts(SIGNS) == [("edema", 3, 3), ("mass", 0, 4), ("air", 0, 0)]
    assert counts(MASKED) == [("yes", 2, 3)]


def test_what_a_split_lacks_is_said_with_its_counts(part: Manifest, caplog: pytest.LogCaptureFixture) -> None:
    numbers = np.tile(np.arange(6), 3) % 3
    frame = pd.concat([part.frame] * 3, ignore_index=True).assign(image_id=[f"i{k}" for k in range(18)])
    frame = frame.assign(sick=np.where(numbers, "no", "yes"), grade=np.array(["a", "b", "c"])[numbers])
    full = Manifest(frame.assign(edema=numbers == 0, mass=numbers == 1, air=numbers == 2), Path())
    assert warn_of_classes(full, part, (SICK, GRADE, SIGNS)) == ("grade/c", "signs/mass", "signs/air")
    few, grade, two, signs = caplog.messages
    assert "'sick', val split" in few
    assert "yes (1 positive, 4 negative)" in few
    assert "c (0 positive, 5 negative)" in grade
    assert "operating point" not in grade
    assert "a (2 positive, 3 negative), b (3 positive, 2 negative)" in two
    assert "mass (0 positive, 4 negative), air (0 positive, 0 negative)" in signs
    assert "no operating point: scores hold its probability without a decision" in signs
    caplog.clear()
    assert warn_of_classes(part, None, (SIGNS,)) == ()
    assert "It is not learnt: its probability means nothing." in caplog.messages[0]


def test_one_target_that_can_be_judged_is_enough_but_for_training(part: Manifest) -> None:
    alone = Manifest(part.frame.assign(sick="no"), Path())
    assert require_labels(alone, (SICK, GRADE), split="val") is alone
    for targets, split in (((SICK, GRADE), "train"), ((SICK,), "val")):
        with pytest.raises(LabelError, match=rf"'sick' has one class only in the {split} split \(6 labelled"):
            require_labels(alone, targets, split=split)
    empty = Manifest(part.frame.assign(edema=np.nan), Path())
    with pytest.raises(LabelError, match="no class with both positive and negative samples in the train"):
        require_labels(empty, (SIGNS,), split="train")
    unknown = Target("air", "binary", ("0", "1"))
    with pytest.raises(LabelError, match="no known label in the val split"):
        require_labels(part, (unknown,), split="val")


def test_a_dice_that_no_mask_of_validation_can_give_is_refused(part: Manifest) -> None:
    config = Config().override("segmentation.structures={liver: 2, tumour: [7, 8]}", "train.monitor=val_dice")
    check_monitor(part, config)
    with pytest.raises(TrainingError, match=r"val_dice_tumour.*holds tumour"):
        check_monitor(part, config.override("train.monitor=val_dice_tumour"))
    without = Manifest(part.frame.assign(mask_values=["0", "0,1", None, None, None, None]), Path())
    with pytest.raises(TrainingError, match="holds liver or tumour"):
        check_monitor(without, config)
    check_monitor(without, config.override("train.keep=last"))
    check_monitor(without, config.override("train.monitor=val_dice_spleen"))  # which training names with the nearest
