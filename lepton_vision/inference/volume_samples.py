"""Volumes to predict: NIfTI and multi-frame files, and DICOM series below the folders that are named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lepton_vision.inference.samples import list_files
from lepton_vision.readers.series_list import group_series
from lepton_vision.types import SampleAddress


def list_volumes(named: str | Path | Sequence[str | Path]) -> list[SampleAddress]:
    """Return where the volumes lie: DICOM series first (the folder and the id of the series), then all other files.

    A file that is no volume is in the list: it ends as a failure.

    Args:
        named: a file, a folder, or several of both.
    """
    series, others = group_series(list_files(named))
    return [SampleAddress(one.folder, one.series_id) for one in series] + [SampleAddress(path) for path in others]
