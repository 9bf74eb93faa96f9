"""Inputs of every kind: each file a row once, known by the same pseudonym in every run; hostile archives are rows."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError, ScoringError
from lepton_vision.inference import predict
from lepton_vision.manifest import Manifest
from lepton_vision.models import Bundle, build_model
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.readers.limits import DEFAULT_LIMITS
from lepton_vision.scoring.batch import score
from lepton_vision.scoring.inputs import inputs
from lepton_vision.scoring.inputs.inputs import list_inputs, read_names
from lepton_vision.types import Target

SICK = Target("sick", "binary", ("no", "yes"))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    config = Config(targets=(SICK,)).override("preprocess.size=[32, 32]", "model.stem=standard")
    state = build_model(config).state_dict()
    point = OperatingPoint({"sick": (0.5,)}, "stated")
    return Bundle(config=config, targets=config.targets, state=state, operating_point=point)


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    (folder / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(5):
        place = folder / "deep" if number > 2 else folder
        cv2.imwrite(str(place / f"Doe_{number}.png"), rng.integers(0, 255, (40, 30), dtype=np.uint8))
    return folder


def pack(inbox: Path, target: Path) -> Path:
    files = sorted(path for path in inbox.rglob("*.png"))
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in files:
                archive.write(path, path.relative_to(inbox))
            archive.writestr("__MACOSX/._Doe_0.png", b"x")
    else:
        with tarfile.open(target, "w:gz" if target.name.endswith("gz") else "w") as archive:
            for path in files:
                archive.add(path, path.relative_to(inbox))
    return target


def reasons(rows: pd.DataFrame) -> list[str]:
    return sorted(rows["reason"].fillna("ok"))


def rows_of(bundle: Bundle, inputs: object, output: Path, **changes: object) -> pd.DataFrame:
    score(bundle, inputs, output, batch_size=4, **changes)  # type: ignore[arg-type]
    rows = pd.read_parquet(output)
    assert rows["path_id"].is_unique or rows["frame"].notna().all()
    assert not any("Doe" in str(value) or "inbox" in str(value) for value in rows.to_numpy().ravel())
    return rows


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tgz"])
def test_members_of_an_archive_score_as_their_files_do(bundle: Bundle, inbox: Path, tmp_path: Path, name: str) -> None:
    archive = pack(inbox, tmp_path / name)
    plain = rows_of(bundle, inbox, tmp_path / "plain")
    packed = rows_of(bundle, archive, tmp_path / "packed", path_map=tmp_path / "map.csv")
    assert sorted(packed["sick_probability"]) == sorted(plain["sick_probability"])
    assert packed["image_id"].nunique() == 5
    table = pd.read_csv(tmp_path / "map.csv", keep_default_na=False)
    assert stat.S_IMODE((tmp_path / "map.csv").stat().st_mode) == 0o600
    assert set(table["path_id"]) == set(packed["path_id"])
    assert set(table["path"]) == {str(archive)}
    assert set(table["member"]) == {path.relative_to(inbox).as_posix() for path in inbox.rglob("*.png")}
    assert score(bundle, archive, tmp_path / "packed", batch_size=4).new_rows == 0


def test_patterns_and_lists_give_the_ids_of_the_folder(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    whole = [one.path_id for one in list_inputs(inbox, volumes=False)]
    assert {one.path_id for one in list_inputs(str(inbox / "**" / "*.png"), volumes=False)} == set(whole)
    lines = [os.fsencode(path) + b"\r\n" for path in sorted(inbox.rglob("*.png"))]
    named = read_names(["-", str(inbox)], [*lines, b"\n"])
    assert {one.path_id for one in list_inputs(named, volumes=False)} == set(whole)
    assert len(whole) == len(set(whole)) == 5
    assert reasons(rows_of(bundle, [str(inbox / "*.dcm")], tmp_path / "none")) == ["missing"]


def test_names_that_differ_by_a_blank_are_two_inputs(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    data = (inbox / "Doe_0.png").read_bytes()
    for name in ("a.png", "a.png ", "a.png  "):
        (tmp_path / name).write_bytes(data)
    named = [str(tmp_path / "a.png"), str(tmp_path / "a.png "), str(tmp_path / "a.png")]
    assert len(rows_of(bundle, named, tmp_path / "out")) == 2
    assert score(bundle, [*named, str(tmp_path / "a.png  ")], tmp_path / "out", batch_size=4).new_rows == 1


def test_inputs_whose_ids_collide_are_refused_not_lost(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "path_id", lambda place: f"{len(place) % 2:016x}")
    with pytest.raises(ScoringError, match="path ids of their own"):
        list_inputs(inbox, volumes=False)
    only = inbox / "Doe_0.png"
    assert len(list_inputs([only, only, only], volumes=False)) == 1


def test_an_input_that_is_gone_keeps_its_row(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    rows = rows_of(bundle, inbox, tmp_path / "out")
    (inbox / "new.png").write_bytes((inbox / "Doe_0.png").read_bytes())
    (inbox / "Doe_2.png").unlink()  # moved away once it was scored: no doubt about its row
    summary = score(bundle, inbox, tmp_path / "out", batch_size=4)
    assert (summary.new_rows, summary.rows, summary.replaced) == (1, len(rows) + 1, 0)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_manifest_gives_its_usable_rows_with_its_ids(
    bundle: Bundle, inbox: Path, tmp_path: Path, suffix: str
) -> None:
    rng = np.random.default_rng(1)
    np.savez(inbox / "set.npz", train_images=rng.integers(0, 255, (3, 28, 28), dtype=np.uint8))
    (inbox / "note.txt").write_text("no image")
    manifest = Manifest.scan(inbox, workers=0)
    table = manifest.save(tmp_path / f"table{suffix}")
    rows = rows_of(bundle, table, tmp_path / "out").set_index("image_id")
    known = manifest.ok.frame.set_index("image_id")
    assert reasons(rows) == ["ok"] * 8
    assert set(rows.index) == set(known.index)
    assert rows["frame"].notna().sum() == 3
    assert (rows["patient_id"] == known.loc[rows.index, "patient_id"]).all()
    assert rows["path_id"].is_unique


def test_hostile_members_are_rows_and_write_nowhere(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    good = (inbox / "Doe_0.png").read_bytes()
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        for name, kind in (("link.png", tarfile.SYMTYPE), ("hard.png", tarfile.LNKTYPE), ("dev.png", tarfile.CHRTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
        for name in ("../out.png", "/abs.png", "fine.png"):
            entry = tarfile.TarInfo(name)
            entry.size = len(good)
            archive.addfile(entry, io.BytesIO(good))
    before = sorted(tmp_path.rglob("*"))
    rows = rows_of(bundle, tmp_path / "bad.tar", tmp_path / "out")
    assert reasons(rows) == ["ok", *["unsafe_member"] * 5]
    after = {path for path in tmp_path.rglob("*") if "out" not in path.relative_to(tmp_path).parts}
    assert after == set(before)


def test_bombs_and_giants_are_rows(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(2_000_000))
        archive.write(inbox / "Doe_0.png", "b.png")
    with tarfile.open(tmp_path / "bomb.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("a.png")
        entry.size = 2_000_000
        archive.addfile(entry, io.BytesIO(bytes(entry.size)))
    giant = tmp_path / "giant.png"
    giant.write_bytes((inbox / "Doe_0.png").read_bytes())
    os.truncate(giant, 2**31 + 2)
    paths = [tmp_path / "bomb.zip", tmp_path / "bomb.tar.gz", giant]
    small = replace(DEFAULT_LIMITS, max_bytes=1_000_000)
    assert reasons(rows_of(bundle, paths, tmp_path / "a", limits=small)) == ["ok", *["too_large"] * 3]
    small = replace(DEFAULT_LIMITS, max_archive_bytes=1_000_000)
    assert reasons(rows_of(bundle, paths, tmp_path / "b", limits=small)) == ["too_large"] * 3


def test_a_damaged_or_encrypted_archive_is_one_row(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    whole = pack(inbox, tmp_path / "a.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    secret = bytearray(whole)
    place = 0
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # general purpose bit flag, bit 0 (APPNOTE 4.4.4)
        place = secret.find(mark)
        while place >= 0:
            secret[place + offset] |= 1
            place = secret.find(mark, place + 4)
    (tmp_path / "secret.zip").write_bytes(secret)
    plain = pack(inbox, tmp_path / "a.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(plain[:-12_000])
    (tmp_path / "cut.tgz").write_bytes(pack(inbox, tmp_path / "a.tgz").read_bytes()[:-40])
    spoilt = bytearray(plain)
    with tarfile.open(tmp_path / "a.tar") as archive:
        spoilt[archive.getmembers()[2].offset + 150] ^= 0xFF  # within the checksum of a header
    (tmp_path / "spoilt.tar").write_bytes(spoilt)
    (tmp_path / "zero.zip").write_bytes(b"")
    names = ["cut.zip", "secret.zip", "cut.tar", "cut.tgz", "spoilt.tar", "zero.zip"]
    rows = rows_of(bundle, [tmp_path / name for name in names], tmp_path / "out")
    assert reasons(rows) == ["corrupt", "corrupt", "empty", "encrypted", "truncated", "truncated"]


def test_objects_of_a_store_score_as_files_do(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    for path in inbox.rglob("*.png"):
        store.pipe(f"/inbox-test/{path.relative_to(inbox).as_posix()}", path.read_bytes())
    urls = ["memory://inbox-test", "memory://inbox-test/gone.png"]
    rows = rows_of(bundle, urls, tmp_path / "out", path_map=tmp_path / "map.csv")
    plain = rows_of(bundle, inbox, tmp_path / "plain")
    assert reasons(rows) == ["missing", *["ok"] * 5]
    assert sorted(rows["sick_probability"].dropna()) == sorted(plain["sick_probability"])
    assert set(pd.read_csv(tmp_path / "map.csv")["path_id"]) == set(rows["path_id"])
    assert score(bundle, urls, tmp_path / "out", batch_size=4).new_rows == 0
    with pytest.raises(ConfigError, match="no object store"):
        list_inputs("nosuch://a/b", volumes=False)


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_a_dicomdir_gives_the_files_it_refers_to(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import Dataset, FileMetaDataset

    records = []
    for parts in (["IMAGES", "A1"], ["IMAGES", "B2"], ["..", "OUT"]):
        record = Dataset()
        record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", parts
        records.append(record)
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    header.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    header.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    header.DirectoryRecordSequence = records
    pydicom.dcmwrite(tmp_path / "DICOMDIR", header, enforce_file_format=True)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a1").write_bytes(b"x")
    found = [one.path for one in list_inputs(tmp_path / "DICOMDIR", volumes=False)]
    assert found == [tmp_path / "images" / "a1", tmp_path / "IMAGES" / "B2"]
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "B2").write_bytes(b"x")
    (tmp_path / "images" / "a1").unlink()
    (tmp_path / "images" / "a1").symlink_to(outside / "B2")
    (tmp_path / "IMAGES").symlink_to(outside, target_is_directory=True)
    locations = [one.location for one in list_inputs(tmp_path / "DICOMDIR", volumes=False)]
    assert [one.reason for one in locations if one is not None] == ["empty"]  # both ids lead out by a link
    (tmp_path / "DICOMDIR").write_bytes(b"damaged")
    locations = [one.location for one in list_inputs(tmp_path / "DICOMDIR", volumes=False)]
    assert [one.reason for one in locations if one is not None] == ["not_an_image"]


def test_a_table_that_is_no_manifest_is_one_failed_row(bundle: Bundle, tmp_path: Path) -> None:
    table = tmp_path / "notes.csv"
    table.write_text("some,notes\n1,2\n")
    rows = rows_of(bundle, table, tmp_path / "out")
    assert list(rows["status"]) == ["failed"]
    assert list(rows["reason"]) == ["not_an_image"]


def test_masks_beside_images_are_left_out_of_a_folder_and_taken_in_where_asked_for(
    bundle: Bundle, inbox: Path, tmp_path: Path
) -> None:
    """The layout of BUSI: `Doe_0.png` and `Doe_0_mask.png`."""
    mask = inbox / "Doe_0_mask.png"
    cv2.imwrite(str(mask), np.zeros((40, 30), np.uint8))
    summary = score(bundle, inbox, tmp_path / "out", device="cpu", engine="torch")
    assert (summary.scored, dict(summary.left_out), dict(summary.failed)) == (5, {"mask_file": 1}, {})
    rows = pd.read_parquet(tmp_path / "out")
    assert rows.loc[rows["status"] == "left_out", "sick_probability"].isna().all()
    asked = score(bundle, inbox, tmp_path / "all", device="cpu", engine="torch", include=("mask_file",))
    assert (asked.scored, dict(asked.left_out)) == (6, {})
    assert score(bundle, mask, tmp_path / "named", device="cpu", engine="torch").scored == 1
    assert len(predict(bundle, inbox, device="cpu")) == 5
    assert len(predict(bundle.with_include(["mask_file"]), inbox, device="cpu")) == 6


@pytest.mark.parametrize("form", ["zip", "gztar", "memory"])
def test_masks_in_archives_and_stores_are_left_out_too(bundle: Bundle, inbox: Path, tmp_path: Path, form: str) -> None:
    cv2.imwrite(str(inbox / "Doe_0_mask.png"), np.zeros((40, 30), np.uint8))
    if form == "memory":
        store = pytest.importorskip("fsspec").filesystem("memory")
        for path in inbox.rglob("*.png"):
            store.pipe(f"/inbox-masks/{path.relative_to(inbox).as_posix()}", path.read_bytes())
        named, alone = "memory://inbox-masks", "memory://inbox-masks/Doe_0_mask.png"
    else:
        named, alone = shutil.make_archive(str(tmp_path / "packed"), form, tmp_path, inbox.name), ""
    summary = score(bundle, named, tmp_path / "out", device="cpu", engine="torch")
    assert (summary.scored, dict(summary.left_out), dict(summary.failed)) == (5, {"mask_file": 1}, {})
    asked = score(bundle, named, tmp_path / "all", device="cpu", engine="torch", include=("mask_file",))
    assert (asked.scored, dict(asked.left_out)) == (6, {})
    assert not alone or score(bundle, alone, tmp_path / "named", device="cpu", engine="torch").scored == 1
