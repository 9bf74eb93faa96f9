"""Volume-level evaluation of masks that were predicted slice by slice.

By slice, a slice with one stray voxel and no lesion counts as much as one through the middle of the largest lesion. By
volume, the voxels of all slices of a volume are counted together, as if the slices had been stacked before they were
compared; surfaces in three dimensions are not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.masks.case import (
    CASE_FIGURES,
    CaseFigures,
    MaskFigures,
    VoxelCounts,
    make_figures,
    overlap_of,
)

_NOT_STACKED = "counted on slices, not on a volume with spacing"


def pool_slices(rows: Sequence[CaseFigures]) -> tuple[CaseFigures, ...]:
    """Return one row for each volume and structure, ``image_id`` being the volume's; none where no row has a volume.

    A case without a volume stands for itself, with the counts it has. A slice that could not be read is missing from
    its volume.

    Args:
        rows: of slices, one for each structure.

    Raises:
        EvaluationError: slices of one volume that belong to several patients.

    Example:
        >>> from lepton_vision.evaluation.masks.case import compare_masks
        >>> slices = [
        ...     CaseFigures(name, "p", "liver", compare_masks(np.eye(2) > 0, np.ones((2, 2)) > 0), "v") for name in "ab"
        ... ]
        >>> [(row.image_id, row.figures.voxels.prediction) for row in pool_slices(slices)]
        [('v', 8)]
    """
    if not any(row.volume_id for row in rows):
        return ()
    sums: dict[tuple[str, str], np.ndarray] = {}
    patients: dict[str, str] = {}
    for row in rows:
        volume = row.volume_id or row.image_id
        if patients.setdefault(volume, row.patient_id) != row.patient_id:
            raise EvaluationError(
                "Expected one patient for the slices of a volume. Received: several. Correct the patient or the "
                "volume of the cases.",
                key="volume_id",
            )
        place = (volume, row.structure)
        sums[place] = sums.get(place, np.zeros(3, np.int64)) + np.array(row.figures.voxels)
    return tuple(
        CaseFigures(volume, patients[volume], structure, _from_counts(VoxelCounts(*map(int, counts))), volume)
        for (volume, structure), counts in sums.items()
    )


def _from_counts(voxels: VoxelCounts) -> MaskFigures:
    status, values = overlap_of(voxels)
    return make_figures(status, dict.fromkeys(CASE_FIGURES, _NOT_STACKED) | values, voxels=voxels)
