"""Ids made with different keys, never compared: manifests, bundles, predictions, scores and ledgers."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image as Picture

from lepton_vision.config import Config
from lepton_vision.errors import EvaluationError, LeptonError, ManifestError
from lepton_vision.evaluation import compare
from lepton_vision.evaluation.classes.external import compare_external
from lepton_vision.inference import predict
from lepton_vision.manifest import Manifest
from lepton_vision.manifest.id_keys import origin_of, warn_of_key
from lepton_vision.models import Bundle
from lepton_vision.models.assemble import make_network
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.ledger import LedgerEntry, record_look
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.predictions.paired_cases import load_pair
from lepton_vision.readers import read_image
from lepton_vision.readers.identity import key_check
from lepton_vision.scoring import score
from lepton_vision.transforms.rows import RowTable
from tests.manifest.dicom_series import write_series

POINT = OperatingPoint({"sick": (0.5,)}, "stated")
ANOTHER = "key of another container"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    config = Config.from_dict(
        {
            "targets": [{"name": "sick", "kind": "binary", "classes": ["no", "yes"]}],
            "preprocess": {"size": [24, 24], "windows": ["full"]},
            "model": {"backbone": "resnet10", "width": 8, "stem": "small"},
            "train": {"batch_size": 4, "precision": "fp32"},
        }
    )
    state = make_network(config).state_dict()
    return Bundle(config=config, targets=config.targets, state=state, operating_point=POINT)


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder, rng = tmp_path / "inbox", np.random.default_rng(0)
    (folder / "pat1").mkdir(parents=True)
    for number in range(4):
        Picture.fromarray(rng.integers(0, 256, (20, 20), dtype=np.uint8)).save(folder / "pat1" / f"{number}.png")
    return folder


def scanned(folder: Path, monkeypatch: pytest.MonkeyPatch, key: str | None = None) -> Manifest:
    with monkeypatch.context() as patch:
        if key is not None:
            patch.setenv("LEPTON_VISION_ID_KEY", key)
        manifest = Manifest.scan(folder, workers=0)
    return replace(manifest, frame=manifest.frame.assign(split="test", sick=[0, 1, 0, 1]), label_columns=("sick",))


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_manifest_keeps_the_check_value_of_its_key(
    inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    ours, theirs = scanned(inbox, monkeypatch), scanned(inbox, monkeypatch, ANOTHER)
    assert ours.id_key == key_check() != theirs.id_key
    assert not set(ours.frame["image_id"]) & set(theirs.frame["image_id"])
    loaded = Manifest.load(theirs.save(tmp_path / f"m{suffix}"))
    assert (loaded.id_key, loaded.subset("test").id_key) == (theirs.id_key, theirs.id_key)
    assert Manifest(ours.frame, inbox).id_key == ""  # nobody knows where a table has its ids from


def test_patients_are_not_named_under_another_key(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert scanned(inbox, monkeypatch).with_patients("pat[0-9]").frame["patient_id"].nunique() == 1
    with pytest.raises(ManifestError, match=r"made with another key.*LEPTON_VISION_ID_KEY.*scan again"):
        scanned(inbox, monkeypatch, ANOTHER).with_patients("pat[0-9]")
    unknown = replace(scanned(inbox, monkeypatch, ANOTHER), id_key="")
    assert unknown.with_patients("pat[0-9]").frame["patient_id"].nunique() == 1


def test_rows_of_a_manifest_of_another_key_are_not_scored(
    bundle: Bundle, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, key in (("ours", None), ("theirs", ANOTHER)):
        scanned(inbox, monkeypatch, key).save(tmp_path / f"{name}.parquet")
    assert score(bundle, tmp_path / "ours.parquet", tmp_path / "out").scored == 4
    with pytest.raises(ManifestError, match=r"made with another key.*LEPTON_VISION_ID_KEY"):
        score(bundle, tmp_path / "theirs.parquet", tmp_path / "more")
    assert not list((tmp_path / "more").glob("part-*"))


def test_series_of_another_key_are_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "in", np.zeros((3, 8, 8)), patient="p", series="s")
    with monkeypatch.context() as patch:
        patch.setenv("LEPTON_VISION_ID_KEY", ANOTHER)
        manifest = Manifest.scan(tmp_path / "in", volumes=True, workers=0)
        assert len(RowTable.of(manifest)) == 1
    with pytest.raises(ManifestError, match=r"made with another key.*series cannot be found"):
        RowTable.of(manifest)


def test_a_bundle_keeps_the_key_of_its_training_and_another_is_told(
    inbox: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = scanned(inbox, monkeypatch), scanned(inbox, monkeypatch, ANOTHER)
    trained_on = origin_of(ours)
    assert trained_on == {"data_fingerprint": ours.fingerprint, "id_key": key_check()}
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        warn_of_key(ours, trained_on)
        warn_of_key(ours, {})
        warn_of_key(replace(theirs, id_key=""), trained_on)
        assert not caplog.records
        warn_of_key(theirs, trained_on)
    assert "made with another key" in caplog.text
    assert "LEPTON_VISION_ID_KEY" in caplog.text
    assert "--external" in caplog.text


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_predictions_of_two_keys_are_not_compared(
    bundle: Bundle, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    ours, theirs = (predict(bundle, scanned(inbox, monkeypatch, key)) for key in (None, ANOTHER))
    paths = ours.save(tmp_path / f"a{suffix}"), theirs.save(tmp_path / f"b{suffix}")
    tables = load_pair(paths)
    assert [one.id_key for one in tables] == [ours.id_key, theirs.id_key]
    with pytest.raises(EvaluationError, match=r"tables of two keys.*LEPTON_VISION_ID_KEY"):
        compare(*tables, operating_point=POINT)
    assert compare(tables[0], tables[0], operating_point=POINT).n == 4
    with pytest.raises(EvaluationError, match="images only in the first"):  # where nobody knows, as before
        compare(tables[0], replace(tables[1], id_key=""), operating_point=POINT)
    with pytest.raises(EvaluationError, match=r"made with different keys.*LEPTON_VISION_ID_KEY"):
        Predictions.concat([ours, theirs])
    assert Predictions.concat([ours.select([0, 1]), replace(ours.select([2, 3]), id_key="")]).id_key == ours.id_key


def test_ids_that_are_made_here_are_of_this_key_and_given_ones_of_nobodys(bundle: Bundle, inbox: Path) -> None:
    table = pd.DataFrame({"path": [str(path) for path in sorted(inbox.rglob("*.png"))]})
    assert predict(bundle, inbox).id_key == predict(bundle, table).id_key == key_check()
    assert predict(bundle, table.assign(image_id=list("abcd"))).id_key == ""
    assert predict(bundle, read_image(table["path"][0])).id_key == ""


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
def test_scores_know_their_key_by_the_record_beside_them(
    bundle: Bundle, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_format: str
) -> None:
    score(bundle, inbox, tmp_path / "out", file_format=file_format)  # type: ignore[arg-type]
    (shard,) = (tmp_path / "out").glob("part-*")
    same, other = (predict(bundle, scanned(inbox, monkeypatch, key)) for key in (None, ANOTHER))
    assert compare(*load_pair((same.save(tmp_path / "a.csv"), shard)), operating_point=POINT).n == 4
    with pytest.raises(EvaluationError, match="tables of two keys"):
        compare(*load_pair((other.save(tmp_path / "b.csv"), shard)), operating_point=POINT)


def test_a_reference_of_another_key_is_told_where_the_same_images_might_stand_in_both(
    bundle: Bundle, inbox: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = (predict(bundle, scanned(inbox, monkeypatch, key)) for key in (None, ANOTHER))
    with pytest.raises(EvaluationError, match="stand in the reference and at the new site"):
        compare_external(ours, operating_point=POINT, reference=ours)
    compare_external(theirs, operating_point=POINT, reference=ours)
    assert "reference were made with another key" in caplog.text


def test_looks_at_one_test_split_under_two_keys_add_up(tmp_path: Path) -> None:
    look = LedgerEntry("0123", "m1", "test", "evaluate", {}, cases="c1", id_key="k1")
    other = replace(look, manifest="m2", cases="c2", id_key="k2")
    assert [record_look(tmp_path, one).count for one in (look, other, look)] == [1, 2, 3]
    assert record_look(tmp_path, replace(other, manifest="m3", cases="c3")).count == 3  # both of the first key
    assert record_look(tmp_path, replace(other, cases="c4", id_key="")).count == 1
    site = replace(look, command="evaluate --external", cases="c5")
    assert [record_look(tmp_path, one).count for one in (site, replace(site, cases="c6", id_key="k2"))] == [1, 1]


def test_labels_by_ids_of_another_key_are_refused(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = scanned(inbox, monkeypatch, ANOTHER).frame
    table = pd.DataFrame({"image_id": theirs["image_id"], "sick": [0, 1, 0, 1]})
    with pytest.raises(LeptonError, match=r"made with the same key \(LEPTON_VISION_ID_KEY\)"):
        Manifest.scan(inbox, labels=table, workers=0)
