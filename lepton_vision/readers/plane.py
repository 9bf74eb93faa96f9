"""Plane of one slice from its header: size, position and orientation, traits that may differ between slices."""

from __future__ import annotations

from dataclasses import dataclass

from lepton_vision.types import Geometry, Vector

_FARTHEST_MM, _FINEST_MM = 1e6, 1e-6  # nobody lies a kilometer away; what a header says beyond is damage


@dataclass(frozen=True, slots=True)
class Plane:
    """Header of one slice: a file, or one frame of it.

    Attributes:
        rows: H.
        columns: W.
        position_mm: (x, y, z) of the center of the first voxel, or None.
        orientation: unit vectors along which h and w grow (H first), or None.
        spacing_mm: distance of rows and of columns in the patient, or None.
        frame: number of the frame in its file, from 0.
        series_id: pseudonymous id, or None.
        patient_id: pseudonymous id, or None.
        modality: DICOM Modality, or None.
        photometric: photometric interpretation.
        kind: what the object is that is no usual image, see ``kinds.object_kind``, or None.
        rounding: angle [radian] that the normal may be off since the orientation has few decimals; 0 along the axes.
        instance: pseudonymous id of the SOP instance, or None.
        traits: values of ``traits.TRAITS``, "" where the header does not say.
        between_mm: Spacing Between Slices, centers of neighbours of one acquisition, or None.
        thickness_mm: Slice Thickness, or None.
    """

    rows: int
    columns: int
    position_mm: Vector | None = None
    orientation: tuple[Vector, Vector] | None = None
    spacing_mm: tuple[float, float] | None = None
    frame: int = 0
    series_id: str | None = None
    patient_id: str | None = None
    modality: str | None = None
    photometric: str = ""
    kind: str | None = None
    rounding: float = 0.0
    instance: str | None = None
    traits: tuple[str, ...] = ()
    between_mm: float | None = None
    thickness_mm: float | None = None

    @property
    def geometry(self) -> Geometry | None:
        """Place of this slice alone, or None where the header does not say all of it."""
        if self.position_mm is None or self.orientation is None or self.spacing_mm is None:
            return None
        if min(self.spacing_mm) < _FINEST_MM or max(map(abs, self.position_mm + self.spacing_mm)) > _FARTHEST_MM:
            return None
        try:
            return Geometry(self.position_mm, self.orientation, self.spacing_mm)
        except ValueError:  # directions that are not at right angles, and the like
            return None
