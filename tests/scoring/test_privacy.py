"""What a table of scores says of a patient: ids that change with the key, and are no hash of a guess."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lepton_vision.readers.identity import ENVIRONMENT_KEY
from lepton_vision.scoring import score

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
