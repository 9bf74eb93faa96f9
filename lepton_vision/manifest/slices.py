"""Grouping of a manifest's rows into the slices of one volume."""

from __future__ import annotations

from lepton_vision.manifest.schema import objects
from lepton_vision.manifest.table import Manifest


def volume_ids(manifest: Manifest) -> list[str]:
    """Name the volume of each row: its series, or the file that it is a frame of.

    Returns:
        (N,) pseudonymous ids; "" for a row that is alone (also the only one of its series here), is a volume itself, or
        stands in a file whose frames are of several patients, as in a data set that is one array.
    """
    keys = ("series_id", "image_id", "frame", "patient_id", "path", "member")
    names: list[str] = []
    files: dict[
        tuple[object, object], str
    ] = {}  # by place, named after the first frame: entries of an npz have own ids
    rows: dict[str, int] = {}
    patients: dict[str, set[str]] = {}
    columns = (objects(manifest.frame[name]) for name in keys)
    for series, image, frame, patient, path, member in zip(*columns, strict=True):
        name = "" if series is None else str(series)
        if series is None and frame is not None:
            name = files.setdefault((path, member), str(image).removesuffix(f"-{frame}"))
        names.append(name)
        rows[name] = rows.get(name, 0) + 1
        patients.setdefault(name, set()).add(str(patient))
    return [name if rows[name] > 1 and len(patients[name]) == 1 else "" for name in names]
