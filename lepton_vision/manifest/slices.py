"""Which rows of a manifest are slices of one volume."""

from __future__ import annotations

from lepton_vision.manifest.schema import objects
from lepton_vision.manifest.table import Manifest


def volume_ids(manifest: Manifest) -> list[str]:
    """Name the volume of each row: its series, or the file that it is a frame of.

    Returns:
        (N,) pseudonymous ids; "" for a row that is alone (also the only one of its series here), is a volume itself, or
        stands in a file whose frames are of several patients, as in a data set that is one array.
    """
    columns = (objects(manifest.frame[name]) for name in ("series_id", "image_id", "frame", "patient_id"))
    names: list[str] = []
    rows: dict[str, int] = {}
    patients: dict[str, set[str]] = {}
    for series, image, frame, patient in zip(*columns, strict=True):
        name = series if series is not None else "" if frame is None else image.removesuffix(f"-{frame}")
        names.append(str(name))
        rows[str(name)] = rows.get(str(name), 0) + 1
        patients.setdefault(str(name), set()).add(str(patient))
    return [name if rows[name] > 1 and len(patients[name]) == 1 else "" for name in names]
