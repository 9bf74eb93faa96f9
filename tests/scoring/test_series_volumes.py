"""Series of several volumes, files that are no slices, and repairs: the same rows from a folder and an archive."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydicom import dcmread

from lepton_vision.errors import ConfigError
from lepton_vision.inference import predict
from lepton_vision.manifest import Manifest
from lepton_vision.models import Bundle
from lepton_vision.readers import read_image
from lepton_vision.scoring import score
from lepton_vision.scoring.summary import check_failures

from .bundles import read, volume_bundle
from .dicom_series import header, save, write_series


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return volume_bundle()


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two echoes in one series, with a copy of a slice, a localizer and a picture of a screen beside them."""
    folder = tmp_path / "study"
    write_series(folder, [0.0, 2.0, 4.0, 6.0, 8.0, 10.0], Modality="MR")
    for number, path in enumerate(sorted(folder.iterdir(), key=lambda one: dcmread(one).ImagePositionPatient[2])):
        slice_ = dcmread(path)
        slice_.EchoTime, first = str(10 + 80 * (number % 2)), slice_
        slice_.save_as(path)
    shutil.copy(folder / "003.dcm", folder / "003 (1).dcm")
    own = {"SeriesInstanceUID": first.SeriesInstanceUID, "Modality": "MR"}
    save(header(np.zeros((9, 9)), **own), folder / "screen.dcm")
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "ImagePositionPatient": [0, 0, 0]}
    save(header(np.zeros((9, 9)), **own, **scout), folder / "scout.dcm")
    return folder


def pack(folder: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(folder.iterdir()):
            packed.write(path, path.name)
    return archive


def test_each_volume_of_a_series_has_a_row_and_what_is_no_slice_has_one_too(
    bundle: Bundle, study: Path, tmp_path: Path
) -> None:
    tables = []
    for named in (study, pack(study, tmp_path / "study.zip")):
        summary = score(bundle, named, tmp_path / f"out-{named.suffix}", device="cpu")
        assert (summary.rows, summary.scored, summary.failed) == (5, 2, {})
        assert summary.left_out == {"copy": 1, "localizer": 1, "no_position": 1}
        check_failures(summary, 0.0)
        tables.append(read(tmp_path / f"out-{named.suffix}"))
    names = ["image_id", "series_id", "status", "reason", "sick_probability"]
    ok = [table.loc[table["status"] == "ok", names].sort_values("image_id", ignore_index=True) for table in tables]
    pd.testing.assert_frame_equal(*ok, check_exact=True)
    assert [name.rpartition("-")[2] for name in ok[0]["image_id"]] == ["echo1", "echo2"]
    assert ok[0]["series_id"].nunique() == 1
    assert sorted(tables[0].loc[tables[0]["status"] == "left_out", "reason"]) == ["copy", "localizer", "no_position"]
    predicted = predict(bundle, study, device="cpu")
    assert sorted(predicted.image_id) == list(ok[0]["image_id"])
    assert sorted(one.reason for one in predicted.failures) == ["copy", "localizer", "no_position"]
    manifest = Manifest.scan(study, volumes=True, workers=1)
    assert sorted(manifest.ok.frame["image_id"]) == list(ok[0]["image_id"])
    assert sorted(manifest.frame["reason"].dropna()) == ["copy", "localizer", "no_position"]
    again = score(bundle, study, tmp_path / "out-", device="cpu")
    assert (again.new_rows, again.left_out) == (0, {"copy": 1, "localizer": 1, "no_position": 1})


def test_a_localizer_among_the_slices_is_taken_in_by_itself_where_that_is_asked_for(
    bundle: Bundle, study: Path, tmp_path: Path
) -> None:
    own = bundle.with_include(["localizer"])
    for named in (study, pack(study, tmp_path / "study.zip")):
        summary = score(own, named, tmp_path / f"out-{named.suffix}", device="cpu")
        assert (summary.rows, summary.scored, summary.failed) == (5, 2, {"volume": 1})  # it is no volume by itself
        assert summary.left_out == {"copy": 1, "no_position": 1}
    manifest = Manifest.scan(study, volumes=True, workers=1, include=["localizer"])
    assert manifest.rejected == {"copy": 1, "no_position": 1}
    frame = manifest.ok.frame
    assert frame.loc[frame["object_kind"] == "localizer", "path"].tolist() == ["scout.dcm"]
    reasons = [one.reason for one in predict(own, study, device="cpu").failures]
    assert reasons.count("localizer") == 0


def test_tilt_and_gaps_are_repaired_where_asked_for_and_the_row_says_so(bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    write_series(folder / "tilted", [0.0, 2.0, 4.0, 6.0], drift=0.4)
    write_series(folder / "gap", [0.0, 2.0, 6.0, 8.0])
    write_series(folder / "plain", [0.0, 2.0, 4.0])
    summary = score(bundle, folder, tmp_path / "out", device="cpu")
    assert summary.failed == {"missing_slices": 1, "tilt": 1}
    archive = tmp_path / "tilted.zip"
    pack(folder / "tilted", archive)
    score(bundle, [folder, archive], tmp_path / "repaired", device="cpu", tilt="shear", gaps="fill")
    rows = read(tmp_path / "repaired")
    assert sorted(rows["repair"].fillna("")) == ["", "gaps", "tilt"]
    with pytest.raises(ConfigError, match="refuse, fill"):
        score(bundle, folder, tmp_path / "other", device="cpu", gaps="yes")  # type: ignore[arg-type]

    manifest = Manifest.scan(folder, volumes=True, workers=1, tilt="shear", gaps="fill")
    assert dict(zip(manifest.frame["path"], manifest.frame["repair"].fillna(""), strict=True)) == {
        "tilted": "tilt", "gap": "gaps", "plain": "",
    }  # fmt: skip
    by_rows = score(bundle, manifest.save(tmp_path / "m.parquet"), tmp_path / "rows", device="cpu")
    assert (by_rows.scored, by_rows.failed) == (3, {})
    by_manifest = predict(bundle, Manifest.load(tmp_path / "m.parquet"), device="cpu")
    wanted = rows.set_index("image_id").loc[list(by_manifest.image_id), "sick_probability"]
    np.testing.assert_array_equal(by_manifest.y_prob["sick"], wanted.to_numpy(np.float32))
    for row in range(3):
        address = manifest.locate(row)
        assert read_image(address.path, member=address.member, **address.repairs).is_volume
