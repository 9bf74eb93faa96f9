"""Splits and folds: by patient, stratified, reproducible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lepton_vision.config import Config
from lepton_vision.config.sections import SplitConfig
from lepton_vision.errors import LabelError, LeakageError, ManifestError
from lepton_vision.manifest.allocation import allocate, part_sizes
from lepton_vision.manifest.audit import audit_manifest, drop_leaks
from lepton_vision.manifest.split import fold_split, split_manifest
from lepton_vision.manifest.table import Manifest
from lepton_vision.types import Target

Make = Callable[..., Manifest]
Y = Target("y", "binary", ("0", "1"))


def cohort(patients: list[int], labels: list[int], sites: list[int] | None = None) -> Manifest:
    table = pd.DataFrame(
        {
            "image_id": [f"i{k}" for k in range(len(patients))],
            "path": [f"{k}.png" for k in range(len(patients))],
            "patient_id": [f"p{p}" for p in patients],
            "site": [f"s{s}" for s in (sites or [0] * len(patients))],
            "y": labels,
        }
    )
    return Manifest(table, root=Path("nowhere"), label_columns=("y",))


def big(seed: int = 0, *, rows: int = 900, patients: int = 200) -> Manifest:
    rng = np.random.default_rng(seed)
    owner = np.concatenate([np.arange(patients), rng.integers(0, patients, rows - patients)])
    sick = rng.permutation(patients) < 0.2 * patients
    site = rng.integers(0, 3, patients)
    return cohort(owner.tolist(), sick[owner].astype(int).tolist(), site[owner].tolist())


cohorts = st.integers(0, 10_000).map(lambda seed: big(seed, rows=90, patients=40))


@settings(max_examples=12, deadline=None)
@given(cohorts, st.integers(0, 5), st.sampled_from([0, 2, 5]))
def test_no_patient_stands_in_two_splits_or_folds(manifest: Manifest, seed: int, folds: int) -> None:
    frame = split_manifest(manifest, SplitConfig(seed=seed, folds=folds, val=0.2, test=0.2)).frame
    assert frame["split"].notna().all()
    assert frame.groupby("patient_id")["split"].nunique().max() == 1
    if folds:
        assert sorted(frame["fold"].unique()) == list(range(folds))  # every row has one of the folds
        assert frame.groupby("patient_id")["fold"].nunique().max() == 1


@settings(max_examples=8, deadline=None)
@given(cohorts, st.randoms(use_true_random=False))
def test_the_split_does_not_depend_on_the_order_of_rows(manifest: Manifest, random: Any) -> None:
    config = SplitConfig(seed=3, folds=3, val=0.2, test=0.2)
    order = list(range(len(manifest)))
    random.shuffle(order)
    there = split_manifest(manifest, config).frame.set_index("image_id")[["split", "fold"]].sort_index()
    back = split_manifest(manifest.select(order), config).frame.set_index("image_id")[["split", "fold"]].sort_index()
    pd.testing.assert_frame_equal(there, back)


def test_sites_of_equal_size_do_not_bring_the_order_of_rows_back() -> None:
    manifest = cohort(list(range(60)), [k % 2 for k in range(60)], [k % 12 for k in range(60)])
    expected = split_manifest(manifest).frame.set_index("image_id")["split"]
    for seed in range(5):
        shuffled = manifest.select(np.random.default_rng(seed).permutation(60))
        got = split_manifest(shuffled).frame.set_index("image_id")["split"]
        assert got.loc[expected.index].tolist() == expected.tolist()


def test_another_seed_or_another_key_of_the_ids(make_manifest: Make) -> None:
    manifest = big()
    first = split_manifest(manifest, SplitConfig(seed=0)).frame["split"].tolist()
    assert split_manifest(manifest, SplitConfig(seed=0)).frame["split"].tolist() == first
    assert split_manifest(manifest, SplitConfig(seed=1)).frame["split"].tolist() != first
    renamed = manifest.frame.assign(
        patient_id="x" + manifest.frame["patient_id"].str[::-1], site=manifest.frame["site"] + "z"
    )
    other = Manifest(renamed, root=manifest.root, label_columns=("y",))
    assert split_manifest(other, SplitConfig(seed=0)).frame["split"].tolist() == first


def test_sizes_classes_and_sites_are_as_asked() -> None:
    frame = split_manifest(big(), SplitConfig(val=0.15, test=0.25)).frame.drop_duplicates("patient_id")
    assert frame["split"].value_counts().to_dict() == {"train": 120, "test": 50, "val": 30}
    share = {"train": 0.6, "val": 0.15, "test": 0.25}
    for column in ("y", "site"):
        for value, total in Counter(frame[column]).items():
            for split, part in share.items():
                got = ((frame[column] == value) & (frame["split"] == split)).sum()
                assert abs(got - part * total) <= 1.5, (column, value, split)


def test_a_rare_class_reaches_every_split_where_it_can() -> None:
    frame = split_manifest(cohort(list(range(40)), [1] * 3 + [0] * 37)).frame
    assert frame.loc[frame["y"] == 1, "split"].nunique() == 3


def test_multilabel_classes_are_spread() -> None:
    rng = np.random.default_rng(1)
    table = big().frame.drop(columns="y").assign(a=rng.random(900) < 0.02, b=rng.random(900) < 0.5)
    targets = [Target("f", "multilabel", ("a", "b"))]
    manifest = Manifest(table, root=Path(), label_columns=("a", "b"))
    frame = split_manifest(manifest, targets=targets).frame
    carriers = frame[frame["a"]].drop_duplicates("patient_id")
    counts = carriers["split"].value_counts()
    assert counts["val"] >= 0.15 * len(carriers) - 1
    assert counts["test"] >= 0.15 * len(carriers) - 1


def test_rejected_rows_get_nothing(make_manifest: Make) -> None:
    manifest = make_manifest(y=[0, 1] * 6, status=["rejected", "rejected"] + ["ok"] * 10)
    frame = split_manifest(manifest, SplitConfig(val=0.2, test=0.2, folds=2)).frame
    assert frame["split"].isna().tolist() == [True, True] + [False] * 10
    assert frame["fold"].isna().tolist() == [True, True] + [False] * 10


def test_identical_pixels_stay_together(make_manifest: Make) -> None:
    manifest = make_manifest(
        y=[0, 1] * 20, pixel_hash=[str(k // 4) for k in range(40)], phash=[f"{2**64 - 1 - k:016x}" for k in range(40)]
    )
    frame = split_manifest(manifest, SplitConfig(val=0.3, test=0.3)).frame
    assert frame.groupby("pixel_hash")["split"].nunique().max() == 1
    constant = Manifest(manifest.frame.assign(pixel_hash="same", phash=None), root=Path(), label_columns=("y",))
    assert split_manifest(constant, SplitConfig(val=0.3, test=0.3)).frame["split"].nunique() == 3


def test_given_splits_are_kept() -> None:
    given_splits = (["train"] * 6 + ["val"] * 2 + ["test"] * 2) * 2
    manifest = cohort(list(range(20)), [0] * 10 + [1] * 10)
    manifest = Manifest(manifest.frame.assign(split=given_splits), root=Path(), label_columns=("y",))
    result = split_manifest(manifest, SplitConfig(seed=9, folds=2)).frame
    assert result["split"].tolist() == given_splits
    assert (result["fold"].isna() == (result["split"] == "test")).all()


def test_given_splits_are_drawn_anew_where_that_is_asked_for() -> None:
    plain = big(rows=90, patients=40)
    both = Manifest(plain.frame.assign(split=["train", "test"] * 45), root=plain.root, label_columns=("y",))
    with pytest.raises(LeakageError):
        split_manifest(both, SplitConfig(seed=3))
    again = split_manifest(both, SplitConfig(seed=3), redraw=True).frame["split"]
    assert again.tolist() == split_manifest(plain, SplitConfig(seed=3)).frame["split"].tolist()
    assert both.frame["split"].tolist() == ["train", "test"] * 45


def test_val_is_cut_out_of_a_given_train() -> None:
    base = cohort([k // 2 for k in range(80)], [(k // 2) % 2 for k in range(80)])
    manifest = Manifest(base.frame.assign(split=["train"] * 60 + ["test"] * 20), root=Path(), label_columns=("y",))
    frame = split_manifest(manifest, SplitConfig(val=0.2)).frame
    assert frame["split"].tolist()[60:] == ["test"] * 20
    assert frame.drop_duplicates("patient_id")["split"].value_counts().to_dict() == {"train": 24, "test": 10, "val": 6}
    assert frame.groupby("patient_id")["split"].nunique().max() == 1


def test_splits_for_some_labelled_rows_only_are_refused(make_manifest: Make) -> None:
    with pytest.raises(ManifestError, match="2 of 6"):
        split_manifest(make_manifest(y=[0, 1] * 3, split=["train", "train", "test", "test", None, None]))
    kept = split_manifest(
        make_manifest(y=[0, 1, 0, 1, None], split=["train", "train", "test", "test", None]), SplitConfig(val=0)
    )
    assert kept.frame["split"].isna().tolist() == [False] * 4 + [True]


def test_given_splits_that_share_a_patient_are_leakage() -> None:
    base = cohort([0, 1, 2, 3, 3, 4], [0, 1, 0, 1, 1, 0])
    frame = base.frame.assign(split=["train", "train", "train", "train", "test", "test"])
    with pytest.raises(
        LeakageError, match=r"1 patients stand in more than one split \(test, train\).*\[3, 4\]"
    ) as caught:
        split_manifest(Manifest(frame, root=Path(), label_columns=("y",)))
    assert caught.value.exit_code == 1
    assert "p3" not in str(caught.value)


def test_one_class_only_in_a_split_is_refused(make_manifest: Make) -> None:
    split = ["train", "train", "test", "test"]
    with pytest.raises(LabelError, match=r"'train' .* only class '1'"):
        split_manifest(make_manifest(y=[1, 1, 0, 1], split=split), SplitConfig(val=0), targets=[Y])
    with pytest.raises(LabelError, match="no label for target"):
        split_manifest(make_manifest(y=[None, None, 0, 1], split=split), SplitConfig(val=0), targets=[Y])
    with pytest.raises(LabelError, match=r"'val' .* only class '1'"):  # drawn, so that another seed may help
        split_manifest(
            make_manifest(y=[0, 1, 1, 1, 0, 1], split=["train"] * 4 + ["test"] * 2, patient_id=list("aabcde")),
            SplitConfig(val=0.3), targets=[Y],
        )  # fmt: skip


@pytest.mark.parametrize("part", ["val", "test"])
@pytest.mark.parametrize(("labels", "words"), [((1, 1), "only class '1'"), ((None, None), "no label")])
def test_a_given_part_of_one_class_is_kept_and_said(
    make_manifest: Make, caplog: pytest.LogCaptureFixture, part: str, labels: tuple[int | None, ...], words: str
) -> None:
    split = ["train"] * 4 + [part] * 2
    manifest = make_manifest(y=[0, 1, 0, 1, *labels], split=split, patient_id=list("abcdef"))
    assert split_manifest(manifest, SplitConfig(val=0), targets=[Y]).frame["split"].tolist() == split
    assert f"The given {part} split (2 images) has {words} for target 'y': it can be predicted, not" in caplog.text
    assert split_manifest(manifest, Config(targets=(Y,), split=SplitConfig(val=0))).frame["split"].tolist() == split


def test_a_given_val_part_is_kept_where_a_target_cannot_be_judged(make_manifest: Make) -> None:
    split, other = ["train"] * 4 + ["val"] * 2, Target("z", "binary", ("0", "1"))
    one = make_manifest(y=[0, 1, 0, 1, 0, 1], z=[0, 1, 0, 1, None, None], split=split, patient_id=list("abcdef"))
    assert split_manifest(one, SplitConfig(), targets=[Y, other]).frame["split"].tolist() == split
    none = make_manifest(y=[0, 1, 0, 1, 0, 0], z=[0, 1, 0, 1, None, None], split=split, patient_id=list("abcdef"))
    assert split_manifest(none, SplitConfig(), targets=[Y, other]).frame["split"].tolist() == split


def test_a_fold_of_one_patient_holds_one_class(make_manifest: Make) -> None:
    manifest = make_manifest(y=[0, 0, 1, 1, 0, 0, 1, 1], patient_id=list("aabbccdd"))
    held_out = [fold_split(manifest, k, folds=4, config=SplitConfig(val=0)).subset("test") for k in range(4)]
    assert [set(part.frame["y"]) for part in held_out].count({0}) == 2
    few = make_manifest(y=[0, 0, 1], patient_id=list("abc"))
    with pytest.raises(LabelError, match="Split 'train'"):  # where the only one of its class is held out
        _ = [fold_split(few, k, folds=3, config=SplitConfig(val=0)) for k in range(3)]


def test_too_few_patients_or_no_image_are_refused(make_manifest: Make) -> None:
    with pytest.raises(ManifestError, match="at least 3 patients"):
        split_manifest(make_manifest(y=[0, 1, 1], patient_id=["a", "a", "b"]))
    with pytest.raises(ManifestError, match="all rejected"):
        split_manifest(make_manifest(y=[0], status=["rejected"], reason=["empty"]))
    alone = split_manifest(make_manifest(y=[0, 1], patient_id=["a", "a"]), SplitConfig(val=0, test=0))
    assert alone.frame["split"].tolist() == ["train", "train"]


def test_each_round_of_cross_validation_tests_its_fold() -> None:
    manifest = big()
    tested: list[str] = []
    for fold in range(4):
        frame = fold_split(manifest, fold, folds=4, config=SplitConfig(val=0.2)).frame
        assert frame.groupby("patient_id")["split"].nunique().max() == 1
        assert set(frame["split"]) == {"train", "val", "test"}
        tested += frame.loc[frame["split"] == "test", "image_id"].tolist()
    assert sorted(tested) == sorted(manifest.frame["image_id"])  # each image once
    with pytest.raises(ManifestError, match=r"folds \[0, 1, 2, 3\]"):
        fold_split(manifest, 4, folds=4)
    with pytest.raises(ManifestError, match="Make folds"):
        fold_split(manifest, 0)


def test_folds_that_are_there_are_used_and_checked(make_manifest: Make) -> None:
    manifest = make_manifest(y=[0, 1] * 6, fold=[k // 4 for k in range(12)])
    frame = fold_split(manifest, 1, config=SplitConfig(val=0.25)).frame
    assert frame["split"].tolist()[4:8] == ["test"] * 4
    shared = Manifest(manifest.frame.assign(patient_id=["p"] * 12), root=Path(), label_columns=("y",))
    with pytest.raises(LeakageError, match="more than one fold"):
        fold_split(shared, 1)


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 400), st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_part_sizes_are_rounded_shares(groups: int, weights: list[int]) -> None:
    shares = np.array(weights) / sum(weights)
    sizes = part_sizes(groups, shares.tolist())
    assert sizes.sum() == groups
    if groups >= 20 * len(weights):
        assert (abs(sizes - shares * groups) < 1).all()
    if groups >= len(weights):
        assert (sizes > 0).all()


def test_allocation_fills_each_part_exactly() -> None:
    rng = np.random.default_rng(0)
    traits = rng.random((101, 7)) < 0.3
    parts = allocate(traits, is_class=np.ones(7, dtype=bool), shares=[0.5, 0.3, 0.2], order=rng.permutation(101))
    assert np.bincount(parts).tolist() == [51, 30, 20]


@pytest.mark.parametrize("form", ["files", "npz"])
def test_copies_between_official_splits_are_identical_images_and_no_patient(tmp_path: Path, form: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 16, 16), dtype=np.uint8)
    pixels[8] = pixels[0]
    parts = {"train": [0, 1, 2, 3], "val": [4, 5], "test": [6, 7, 8]}
    classes = np.arange(9) % 2
    for split, rows in parts.items():
        for row in rows if form == "files" else ():
            place = tmp_path / "set" / split / str(classes[row]) / f"{row}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[row]).save(place)
    arrays = {f"{split}_images": pixels[rows] for split, rows in parts.items()}
    arrays |= {f"{split}_labels": classes[rows, None] for split, rows in parts.items()}
    np.savez(tmp_path / "set.npz", **arrays)
    manifest = split_manifest(Manifest.scan(tmp_path / ("set" if form == "files" else "set.npz"), workers=1))
    assert manifest.frame["split"].value_counts().to_dict() == {"train": 4, "test": 3, "val": 2}
    audit = audit_manifest(manifest)
    assert [finding.cause for finding in audit.leaks] == ["identical"]
    assert drop_leaks(manifest, audit).rejected == {"leakage": 1}


def test_covid_ct_keeps_its_official_split_and_folds_by_patient(shared: Path) -> None:
    index = shared / "data" / "covid-ct" / "index.csv"
    table = pd.read_csv(index)
    frame = pd.DataFrame(
        {
            "image_id": table["file"],
            "path": table["file"],
            "patient_id": table["patient_id"],
            "split": table["split"],
            "label": table["label"],
        }
    )
    manifest = Manifest(frame, root=index.parent, label_columns=("label",))
    result = split_manifest(manifest, SplitConfig(folds=5)).frame
    assert result["split"].tolist() == table["split"].tolist()
    assert result.groupby("patient_id")["fold"].nunique().max() == 1
    assert set(result.groupby("fold")["patient_id"].nunique()) <= {57, 58}  # 289 patients
    assert result.groupby("fold")["label"].apply(lambda part: (part == "COVID").mean()).between(0.36, 0.56).all()


def test_near_identical_brain_slices_do_not_cross_a_fresh_split(shared: Path) -> None:
    from lepton_vision.manifest.audit import audit_manifest

    manifest = Manifest.scan(shared / "data" / "brain-mri-yesno", workers=1)
    divided = split_manifest(manifest, SplitConfig(seed=0))
    assert audit_manifest(divided).leaks == ()
