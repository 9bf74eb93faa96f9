"""Audit findings on made-up and on real data sets, and absence of false findings."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from lepton_vision.cli.app import app
from lepton_vision.config import AuditConfig, Config
from lepton_vision.errors import LabelError, LeakageError, ManifestError
from lepton_vision.manifest.audit import audit_manifest, drop_leaks
from lepton_vision.manifest.table import Manifest
from lepton_vision.types import Target

Make = Callable[..., Manifest]
HASHES = [f"{0x0123456789ABCDEF * (k + 1) % 2**64:016x}" for k in range(12)]


def with_splits(manifest: Manifest, splits: list[str]) -> Manifest:
    return Manifest(manifest.frame.assign(split=splits), root=manifest.root, label_columns=manifest.label_columns)


@pytest.fixture
def divided(study: Path) -> Manifest:
    """24 images of 12 patients on disk, cleanly divided: rows 0-15 train, 16-19 val, 20-23 test."""
    manifest = Manifest.scan(study, labels=study.parent / "labels.csv")
    return with_splits(manifest, ["train"] * 16 + ["val"] * 4 + ["test"] * 4)


def rescan(manifest: Manifest) -> Manifest:
    """Read the changed files again; splits as before, new files in train."""
    fresh = Manifest.scan(manifest.root, labels=manifest.root.parent / "labels.csv")
    before = dict(zip(manifest.frame["path"], manifest.frame["split"], strict=True))
    return with_splits(fresh, [before.get(path, "train") for path in fresh.frame["path"]])


def test_a_clean_study_has_no_errors(divided: Manifest) -> None:
    audit = audit_manifest(divided)
    assert audit.counts == {"prevalence": 1}
    audit.raise_on({"leakage", "duplicate", "conflict"})


def test_a_planted_copy_across_splits_is_found(divided: Manifest) -> None:
    shutil.copy(divided.root / "p10/0.png", divided.root / "p00/copy.png")  # a test image into train
    audit = audit_manifest(rescan(divided))
    (leak,) = audit.leaks
    assert (leak.cause, leak.severity) == ("identical", "error")
    fresh = rescan(divided).frame
    assert {fresh["path"][row] for row in leak.rows} == {"p00/copy.png", "p10/0.png"}
    with pytest.raises(LeakageError, match="groups of identical images in two splits: 1") as caught:
        audit.raise_on({"leakage"})
    assert caught.value.exit_code == 1
    assert str(leak.rows[0]) in str(caught.value)
    assert "drop_train" in str(caught.value)


@pytest.mark.parametrize("kind", ["jpeg", "smaller", "brighter"])
def test_a_planted_near_copy_across_splits_is_found(divided: Manifest, kind: str) -> None:
    image = cv2.imread(str(divided.root / "p10/0.png"), cv2.IMREAD_GRAYSCALE)
    if kind == "jpeg":
        cv2.imwrite(str(divided.root / "p00/copy.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 60])
    elif kind == "smaller":
        small = cv2.resize(image, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(divided.root / "p00/copy.png"), small)
    else:
        cv2.imwrite(str(divided.root / "p00/copy.png"), (image * 0.7 + 30).astype(np.uint8))
    tampered = rescan(divided)
    (leak,) = audit_manifest(tampered).leaks
    assert leak.cause == "near"
    assert {Path(tampered.frame["path"][row]).stem for row in leak.rows} == {"copy", "0"}
    assert audit_manifest(tampered, AuditConfig(near_duplicates=False)).leaks == ()
    cleaned = drop_leaks(tampered, audit_manifest(tampered))
    assert cleaned.rejected == {"leakage": 1}
    assert audit_manifest(cleaned).leaks == ()


def test_a_patient_in_two_splits_is_found_and_never_dropped(divided: Manifest) -> None:
    splits = divided.frame["split"].tolist()
    shared_patient = with_splits(divided, ["test", *splits[1:]])  # the first of two images of patient 0
    audit = audit_manifest(shared_patient)
    (leak,) = audit.leaks
    assert (leak.cause, leak.rows) == ("patient", (0, 1))
    with pytest.raises(LeakageError, match="patients in two splits: 1"):
        drop_leaks(shared_patient, audit)


def test_no_message_names_a_patient_or_a_file(divided: Manifest) -> None:
    shutil.copy(divided.root / "p10/0.png", divided.root / "p00/copy.png")
    tampered = rescan(divided)
    audit = audit_manifest(tampered)
    text = json.dumps(audit.to_dict()) + audit._repr_html_()
    with pytest.raises(LeakageError) as caught:
        audit.raise_on({"leakage"})
    text += str(caught.value)
    assert "Doe" not in text
    assert ".png" not in text
    assert not any(str(patient) in text for patient in tampered.frame["patient_id"])


def near_copies(
    divided: Manifest, *, into: str, labels: tuple[int, int], splits: tuple[str | None, str | None]
) -> Manifest:
    """A JPEG copy of row 20's image in the folder ``into``, both labelled and placed as told, as a manifest."""
    image = cv2.imread(str(divided.root / "p10/0.png"), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(divided.root / into / "copy.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 60])
    table = pd.read_csv(divided.root.parent / "labels.csv")
    table.loc[table["path"] == "p10/0.png", "finding"] = labels[0]
    table.loc[len(table)] = [f"{into}/copy.jpg", f"Doe^{int(into[1:])}", labels[1]]
    fresh = Manifest.scan(divided.root, labels=table)
    own = {"p10/0.png": splits[0], f"{into}/copy.jpg": splits[1]}
    rest = None if splits == (None, None) else "train"
    return with_splits(fresh, [own.get(path, rest) for path in fresh.frame["path"]])


@pytest.mark.parametrize("splits", [(None, None), ("train", "train"), ("test", "train")])
def test_near_identical_images_with_different_labels_are_a_conflict(
    divided: Manifest, splits: tuple[str | None, str | None]
) -> None:
    manifest = near_copies(divided, into="p00", labels=(0, 1), splits=splits)
    audit = audit_manifest(manifest)
    (conflict,) = [finding for finding in audit.findings if finding.kind == "conflict"]
    assert (conflict.cause, conflict.severity) == ("near", "warning")
    assert {manifest.frame["path"][row] for row in conflict.rows} == {"p00/copy.jpg", "p10/0.png"}
    assert sum(leak.cause == "near" for leak in audit.leaks) == (splits[0] != splits[1])
    with pytest.raises(LeakageError, match="near-identical images with different labels: 1"):
        audit.raise_on({"conflict"})


def test_near_identical_images_with_one_label_inside_a_split_are_nothing(divided: Manifest) -> None:
    manifest = near_copies(divided, into="p00", labels=(1, 1), splits=("train", "train"))
    assert audit_manifest(manifest).counts == {"prevalence": 1}


def test_near_identical_images_of_one_patient_with_different_labels_are_a_note(divided: Manifest) -> None:
    audit = audit_manifest(near_copies(divided, into="p10", labels=(0, 1), splits=("train", "train")))
    (conflict,) = [finding for finding in audit.findings if finding.kind == "conflict"]
    assert (conflict.severity, "of one patient" in conflict.message) == ("note", True)
    audit.raise_on({"conflict"})


@pytest.fixture
def leaking(make_manifest: Make) -> Manifest:
    """30 pairs of identical images in train and test, and one of contradicting labels in train."""
    ids = [f"{k:03}" for k in range(62)]
    return make_manifest(
        y=[0, 1] * 15 + [0, 1] * 15 + [0, 1],
        split=["train"] * 30 + ["test"] * 30 + ["train"] * 2,
        pixel_hash=ids[:30] * 2 + ["same"] * 2,
        phash=[HASHES[k % 12] for k in range(62)],
        patient_id=ids,
        path=[f"=danger/{name}.png" for name in ids],
    )


def test_equal_findings_are_one_line_that_names_rows_and_paths(leaking: Manifest) -> None:
    audit = audit_manifest(leaking, AuditConfig(near_duplicates=False))
    assert audit.counts == {"leakage": 30, "duplicate": 1, "conflict": 1, "prevalence": 1}
    plain = audit.to_dict(with_paths=True)["findings"]
    assert [(one["kind"], one["count"]) for one in plain] == [
        ("leakage", 30),
        ("duplicate", 1),
        ("conflict", 1),
        ("prevalence", 1),
    ]
    assert plain[0]["groups"][:2] == [[0, 30], [1, 31]]
    assert sorted(plain[0]["rows"]) == list(range(60))
    assert plain[0]["paths"][:2] == ["=danger/000.png", "=danger/030.png"]
    assert plain[0]["message"] == "30 groups of identical images in two splits (train and test), 60 images in all."
    shown = audit.summary()["findings"][0]
    assert shown["examples"].startswith("rows 0, 30 (=danger/000.png, =danger/030.png); rows 1, 31")
    assert audit._repr_html_().count("<tr>") == 5


def test_every_finding_is_written_as_a_table_that_no_spreadsheet_computes(leaking: Manifest, tmp_path: Path) -> None:
    audit = audit_manifest(leaking, AuditConfig(near_duplicates=False))
    table = pd.read_csv(audit.save(tmp_path / "new" / "findings.csv"))
    assert len(table) == 30 * 2 + 2 + 2 + 1
    first = table.iloc[1]
    assert (first["group"], first["finding"], first["kind"], first["cause"]) == (0, 0, "leakage", "identical")
    assert (first["row"], first["path"], first["split"], first["label_y"]) == (30, "'=danger/030.png", "test", 0)
    assert table["row"].isna().tolist() == [False] * 64 + [True]
    whole = pd.read_parquet(audit.save(tmp_path / "findings.parquet"))
    assert whole["path"].iloc[1] == "=danger/030.png"
    with pytest.raises(ManifestError, match="csv or"):
        audit.save(tmp_path / "findings.txt")


def test_the_command_line_groups_findings_and_fails_on_any_kind(leaking: Manifest, tmp_path: Path) -> None:
    place, out = str(leaking.save(tmp_path / "m.parquet")), str(tmp_path / "findings.csv")
    shown = CliRunner().invoke(app, ["audit", place, "--out", out, "--fail-on", "none"])
    assert shown.exit_code == 0
    assert len(shown.stdout.splitlines()) < 15
    assert "rows 0, 30 (=danger/000.png" in shown.stdout
    assert len(pd.read_csv(out)) >= 65
    assert CliRunner().invoke(app, ["audit", place, "--fail-on", "unknown_patient"]).exit_code == 0
    assert isinstance(CliRunner().invoke(app, ["audit", place, "--fail-on", "duplicate"]).exception, LeakageError)
    wrong = CliRunner().invoke(app, ["audit", place, "--fail-on", "leak"])
    assert "leakage" in str(wrong.exception)


def test_the_command_takes_a_configuration(make_manifest: Make, tmp_path: Path) -> None:
    place = str(make_manifest(y=["0", "1", "-1", "-1"], patient_id=list("pqrs")).save(tmp_path / "m.parquet"))
    alone = CliRunner().invoke(app, ["audit", place])
    assert "looks like an uncertain label" in alone.stdout
    (tmp_path / "c.yaml").write_text(
        "targets: [{name: y, kind: binary, classes: ['0', '1'], uncertain: unknown}]\n", encoding="utf-8"
    )
    told = CliRunner().invoke(app, ["audit", place, "--config", str(tmp_path / "c.yaml")])
    assert "uncertain label" not in told.stdout
    assert "Target y: all 0: 1, 1: 1, unknown: 2." in told.stdout
    with_config = ["audit", place, "--config", str(tmp_path / "c.yaml"), "--set", "split.seed=1"]
    wrong = CliRunner().invoke(app, [*with_config, "--set", "audit.nearduplicates=false"])
    assert "near_duplicates" in str(wrong.exception)


def test_images_without_a_patient_can_fail_an_audit(make_manifest: Make) -> None:
    audit = audit_manifest(make_manifest(y=[0, 1], path=["sub-01/a.png", "sub-02/b.png"]))
    with pytest.raises(LeakageError, match="--patient-from"):
        audit.raise_on({"unknown_patient"})


def test_copies_inside_a_split_and_contradicting_labels(make_manifest: Make) -> None:
    manifest = make_manifest(
        y=[0, 1, 0, 1, 0],
        split=["train"] * 4 + ["test"],
        pixel_hash=["a", "a", "b", "c", "d"],
        phash=HASHES[:5],
        patient_id=list("pqrst"),
    )
    audit = audit_manifest(manifest, AuditConfig(near_duplicates=False))
    assert {finding.kind: finding.rows for finding in audit.findings if finding.rows} == {
        "duplicate": (0, 1),
        "conflict": (0, 1),
    }
    with pytest.raises(LeakageError, match="identical images with different labels: 1"):
        audit.raise_on(["conflict"])
    with pytest.raises(ManifestError, match="Did you mean 'duplicate'"):
        audit.raise_on(["duplicates"])


def test_constant_images_are_no_copies(make_manifest: Make) -> None:
    manifest = make_manifest(
        y=[0, 1, 0, 1], split=["train", "train", "test", "test"], pixel_hash=["black"] * 4, phash=[None] * 4
    )
    assert audit_manifest(manifest).counts.keys() <= {"prevalence", "unknown_patient"}


def test_the_training_copy_goes_then_that_of_validation(make_manifest: Make) -> None:
    manifest = make_manifest(
        y=[0, 1] * 4,
        split=["train", "val", "test", "train", "val", "train", "val", "test"],
        pixel_hash=["a", "a", "a", "b", "b", "c", "d", "e"],
        phash=HASHES[:8],
        patient_id=list("abcdefgh"),
    )
    audit = audit_manifest(manifest, AuditConfig(near_duplicates=False))
    cleaned = drop_leaks(manifest, audit)
    assert cleaned.frame.index[cleaned.frame["reason"] == "leakage"].tolist() == [0, 1, 3]
    assert cleaned.frame["split"].isna().tolist() == [True, True, False, True, False, False, False, False]
    with pytest.raises(ManifestError, match="another manifest"):
        drop_leaks(cleaned, audit)


def test_images_that_cannot_be_read_again_are_counted_not_assumed(make_manifest: Make) -> None:
    manifest = make_manifest(y=[0, 1], split=["train", "test"], pixel_hash=["a", "b"], phash=[HASHES[0]] * 2)
    audit = audit_manifest(manifest)
    assert audit.leaks == ()
    assert audit.counts["unverified"] == 1


def test_notes_tell_prevalence_rejects_and_unknown_patients(make_manifest: Make) -> None:
    manifest = make_manifest(
        y=[0, 1, 0, 0, None],
        split=["train", "train", "test", "test", None],
        status=["ok"] * 4 + ["rejected"],
        reason=[None] * 4 + ["truncated"],
    )
    findings = {finding.kind: finding for finding in audit_manifest(manifest).findings}
    assert findings["rejected"].rows == (4,)
    assert "truncated: 1" in findings["rejected"].message
    assert findings["unknown_patient"].severity == "warning"
    assert "train 0: 1, 1: 1; test 0: 2, 1: 0" in findings["prevalence"].message
    assert "Split test has no 1." in findings["prevalence"].message


def test_targets_of_the_configuration_are_checked(make_manifest: Make) -> None:
    config = Config(targets=(Target("y", "binary", ("no", "yes")),))
    with pytest.raises(LabelError, match="maybe"):
        audit_manifest(make_manifest(y=["no", "maybe"]), config)


def test_breast_mnist_has_one_identical_pair_in_train_and_test(shared: Path) -> None:
    manifest = Manifest.scan(shared / "data" / "medmnist28" / "breastmnist.npz")
    audit = audit_manifest(manifest)
    causes = Counter(finding.cause for finding in audit.leaks)
    assert causes["identical"] == 1
    assert causes["near"] == 74  # looked at: BUSI holds many images twice, shifted or recompressed
    (pair,) = [finding for finding in audit.leaks if finding.cause == "identical"]
    assert manifest.frame["split"].iloc[list(pair.rows)].tolist() == ["train", "test"]
    assert audit_manifest(drop_leaks(manifest, audit)).leaks == ()


@pytest.mark.slow
def test_pneumonia_mnist_has_eight_identical_images_in_train_and_val(shared: Path) -> None:
    """The count of distinct images by plain numpy is the oracle; similar X-rays of others must not be flagged."""
    path = shared / "data" / "medmnist28" / "pneumoniamnist.npz"
    with np.load(path) as arrays:
        kept = {split: {image.tobytes() for image in arrays[f"{split}_images"]} for split in ("train", "val", "test")}
    assert (len(kept["train"] & kept["val"]), len(kept["train"] & kept["test"]), len(kept["val"] & kept["test"])) == (
        8,
        0,
        0,
    )
    audit = audit_manifest(Manifest.scan(path))
    assert Counter(finding.cause for finding in audit.leaks) == {"identical": 8}


def test_brain_mri_has_22_groups_of_identical_files(shared: Path) -> None:
    folder = shared / "data" / "brain-mri-yesno"
    content = Counter(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    audit = audit_manifest(Manifest.scan(folder, workers=1))
    groups = [finding for finding in audit.findings if finding.kind == "duplicate"]
    assert len(groups) == sum(count > 1 for count in content.values()) == 22


@pytest.mark.slow
def test_covid_ct_official_parts_have_no_leak(shared: Path) -> None:
    folder = shared / "data" / "covid-ct"
    manifest = Manifest.scan(folder, labels=folder / "index.csv", workers=1)
    assert (len(manifest), manifest.rejected, manifest.unmatched_labels) == (543, {}, 0)
    assert audit_manifest(manifest).leaks == ()


def test_text_in_the_pixels_is_told(make_manifest: Callable[..., Manifest]) -> None:
    manifest = make_manifest(
        y=[0, 1, 0, 1, 0, 1],
        modality=["CT", "US", "US", "XC", "CT", "OT"],
        burned_in_annotation=["YES", None, "NO", None, None, "YES"],
        object_kind=[None, None, None, None, "secondary_capture", None],
    )
    stated, usual = (one for one in audit_manifest(manifest).findings if one.kind == "burned_in")
    assert (stated.severity, stated.rows) == ("warning", (0, 5))
    assert stated.message.startswith("2 images say that they have text in their pixels")
    assert (usual.severity, usual.rows) == ("note", (1, 3, 4))
    plain = make_manifest(y=[0, 1], modality=["CT", "US"], burned_in_annotation=["NO", "NO"])
    assert "burned_in" not in {one.kind for one in audit_manifest(plain).findings}


@pytest.mark.parametrize("name", ["findings.csv", "findings.parquet"])
def test_findings_are_for_their_owner_alone(make_manifest: Callable[..., Manifest], tmp_path: Path, name: str) -> None:
    path = audit_manifest(make_manifest(y=[0, 1])).save(tmp_path / name)
    assert path.stat().st_mode & 0o777 == 0o600
