"""Privacy of score tables: ids that depend on the key and cannot be guessed from a number."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lepton_vision.manifest import Manifest
from lepton_vision.readers.identity import pseudonym
from lepton_vision.scoring import score
from lepton_vision.scoring.inputs.locations import is_keyed
from lepton_vision.transforms.rows import TextColumn
from lepton_vision.types.id_key import ENVIRONMENT_KEY

from .bundles import image_bundle
from .dicom_series import PATIENT, header, save

IDS = ["image_id", "path_id", "series_id", "study_id", "patient_id"]


def test_ids_of_rows_are_keyed_and_no_hash_of_a_guess(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, bundle = header(np.arange(48).reshape(6, 8)), image_bundle("segmentation=null")
    path = save(dataset, tmp_path / "inbox" / "Zzyzx.dcm")

    def ids(key: str) -> dict[str, str]:
        monkeypatch.setenv(ENVIRONMENT_KEY, key)
        score(bundle, tmp_path / "inbox", tmp_path / key, device="cpu", batch_size=1)
        (row,) = pd.read_parquet(tmp_path / key)[IDS].to_dict("records")
        return {name: str(value) for name, value in row.items()}

    one, other, again = ids("one"), ids("other"), ids("one")
    assert again == one
    assert all(one[name] != other[name] for name in IDS)
    known = (PATIENT["PatientID"], PATIENT["PatientName"], str(path), path.name)
    known += (dataset.SOPInstanceUID, dataset.SeriesInstanceUID, dataset.StudyInstanceUID)
    guesses = [f"{before}{text}" for text in known for before in ("", *(f"{name[:-3]}\0" for name in IDS))]
    for name in hashlib.algorithms_guaranteed:
        if name.startswith("shake"):
            continue
        for guess in guesses:
            digest = hashlib.new(name, guess.encode(), usedforsecurity=False).hexdigest()
            assert not any(value in digest for value in one.values())
    table = "".join(str(value) for value in one.values())
    assert not any(text in table for text in known)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_ids_that_somebody_wrote_into_a_manifest_stay_out_of_rows_and_names(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "data").mkdir()
    for name in "ab":
        Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save(tmp_path / "data" / f"{name}.png")
    given = {"image_id": ["Zzyzx-1", "Zzyzx-2"], "patient_id": ["1951020312345678"] * 2, "path": ["a.png", "b.png"]}
    table = Manifest(pd.DataFrame(given), root=tmp_path / "data").save(tmp_path / f"table{suffix}")
    score(
        image_bundle(),
        table,
        tmp_path / "out",
        masks=tmp_path / "masks",
        path_map=tmp_path / "map.csv",
        device="cpu",
        batch_size=2,
    )
    rows = pd.read_parquet(tmp_path / "out").set_index("image_id")
    assert set(rows["patient_id"]) == {pseudonym("patient", "1951020312345678")}
    assert set(rows.index) == {pseudonym("image", one) for one in given["image_id"]}
    assert set(rows["mask"]) == {path.name for path in (tmp_path / "masks").glob("*.png")}
    said = rows.to_csv() + " ".join(str(path) for path in (tmp_path / "masks").iterdir())
    assert not any(text in said for text in ("Zzyzx", "195102031234"))
    for path in (tmp_path / "out").rglob("*.parquet"):
        assert b"Zzyzx" not in path.read_bytes()
    known = pd.read_csv(tmp_path / "map.csv", dtype=str).set_index("path_id")
    assert stat.S_IMODE((tmp_path / "map.csv").stat().st_mode) == 0o600
    for row in rows.reset_index().to_dict("records"):  # who asked for the map finds the way back
        assert row["image_id"] == pseudonym("image", known.loc[row["path_id"], "image_id"])
        assert known.loc[row["path_id"], "patient_id"] == "1951020312345678"


@pytest.mark.parametrize(
    ("ids", "keyed"),
    [
        (["4db1a9c07e5f2a66", "1234567890123456", ""], [True, True, True]),  # one of ours may lack a letter
        (["4db1a9c07e5f2a66-0", "4db1a9c07e5f2a66-12-4db1a9c07e5f2a66"], [True, True]),
        (["1234567890123456", "1234567890123457"], [False, False]),  # numbers of a registry
        (["4db1a9c07e5f2a66", "MRN 12"], [True, False]),
        (["4DB1A9C07E5F2A66", "4db1a9c07e5f2a6", "4db1a9c07e5f2a66-x"], [False, False, False]),
    ],
)
def test_what_counts_as_a_pseudonym(ids: list[str], keyed: list[bool]) -> None:
    tell = is_keyed(TextColumn.of(ids))
    assert [tell(one) for one in ids] == keyed
    assert is_keyed(TextColumn.of([*ids, "MRN 12"]))("1234567890123456") is False


def test_every_id_that_scan_writes_is_known_for_a_pseudonym(tmp_path: Path) -> None:
    for number in range(3):
        save(header(np.arange(48).reshape(6, 8) + number), tmp_path / "inbox" / f"{number}.dcm")
        Image.fromarray(np.full((6, 8), 40 * number, np.uint8)).save(tmp_path / "inbox" / f"{number}.png")
    np.savez(tmp_path / "images.npz", train_images=np.arange(96, dtype=np.uint8).reshape(2, 6, 8))
    for folder in ("inbox", "images.npz"):
        frame = Manifest.scan(tmp_path / folder, workers=0).frame
        for name in ("image_id", "patient_id"):
            column = TextColumn.of(frame[name].fillna("").tolist())
            assert all(map(is_keyed(column), frame[name].fillna("")))
            assert frame[name].notna().any()
