"""Grouping of rows into the slices of one volume."""

from __future__ import annotations

import pandas as pd

from lepton_vision.manifest import Manifest
from lepton_vision.pipeline.masks import volume_ids


def test_series_and_frames_are_volumes_and_lone_images_are_not() -> None:
    rows = [
        ("a", "p", "s1", None),  # two slices of a series
        ("b", "p", "s1", None),
        ("c", "p", "s2", None),  # the only one of its series here
        ("f-0", "q", None, 0),  # frames of a file
        ("f-12", "q", None, 12),
        ("m-0", "m-0", None, 0),  # a data set that is one array: each entry a patient
        ("m-1", "m-1", None, 1),
        ("x", "r", None, None),
        ("n1", "t", None, 0),  # entries of an npz file, named by what each of them holds
        ("n2", "t", None, 1),
    ]
    paths = ["a", "b", "c", "f", "f", "m", "m", "x", "n", "n"]
    columns = ["image_id", "patient_id", "series_id", "frame"]
    table = pd.DataFrame(rows, columns=columns).assign(path=paths, y=0)
    found = volume_ids(Manifest(table, root=".", label_columns=("y",)))
    assert found == ["s1", "s1", "", "f", "f", "", "", "", "n1", "n1"]
