"""Private table from the ``path_id`` of a row back to its file, for the person who ran the scoring only."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from lepton_vision.errors import ScoringError, explain_os_error
from lepton_vision.files import guarded
from lepton_vision.scoring.inputs.inputs import Inputs
from lepton_vision.scoring.inputs.packed_series import PackedSeries

_COLUMNS = ("path_id", "path", "member", "frame", "image_id", "patient_id")


def write_path_map(inputs: Inputs, target: str | Path) -> None:
    """Write a CSV, readable by its owner alone (mode 0600), since paths and ids may name patients.

    Columns: path_id, path, member, frame, and the image_id and patient_id of a manifest as they stand there; rows of
    scores have pseudonyms in their place.

    Args:
        inputs: as ``list_inputs`` found them; a series has a line for each of its files, a member of an archive the
            path of the archive and its own name, an object its URL.
        target: file to write.

    Raises:
        ScoringError: the file cannot be written.
    """
    target = Path(target)
    with explain_os_error("write the path map", error=ScoringError, advice="Name another file.", path=target):
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            target.chmod(0o600)
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            for one in inputs:
                location = one.location
                if isinstance(one.series, PackedSeries):
                    rows = [(one.path_id, each.path, each.member, "", "", "") for each in one.series.locations]
                elif location is None:
                    rows = [(one.path_id, path.as_posix(), "", "", "", "") for path in one.files]
                else:
                    frame = "" if location.frame is None else str(location.frame)
                    rows = [
                        (one.path_id, location.path, location.member, frame, location.image_id, location.patient_id)
                    ]
                writer.writerows([guarded("" if cell is None else str(cell)) for cell in row] for row in rows)
