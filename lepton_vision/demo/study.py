"""Writer of a synthetic CT study with planted findings, for the demo, the tests and the notebooks.

The slices look like axial chest CT to a small network: a body, two lungs with vessels, ribs and a spine, in HU.
A finding is a soft nodule or patch inside a lung, and its mask is where it is at least half as dense as in its
middle. Some findings are faint and readers overlook some, so that no model is right everywhere; the shares are the
same in every part of the study, so that each seed is about as hard as the others. Four made-up vendors store the
same kind of slice as four real ones would (slopes, signed and unsigned, 12 and 16 bits, MONOCHROME1, compressed and
not), so a reader that ignores the header cannot learn from it. No pixel and no name comes from a person.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lepton_vision.types import Pixels

if TYPE_CHECKING:
    from pydicom import Dataset

SIZE = 128
SPACING_MM = 2.8
SLICE_MM = 5.0
ILL, FAINT, OVERLOOKED = 0.45, 0.08, 0.05  # shares of the patients, and of the findings
FINDING_HU, FAINT_HU = (350.0, 700.0), (30.0, 100.0)  # noise is 15 to 45
Mask = npt.NDArray[np.uint8]
_UID_ROOT = "1.2.826.0.1.3680043.10.1447"
PATIENTS = 180


@dataclass(frozen=True, slots=True)
class Vendor:
    """How one made-up manufacturer writes a CT slice."""

    name: str
    site: str
    bits_stored: int
    is_signed: bool
    slope: float
    intercept: float
    photometric: str
    transfer_syntax: str
    window: tuple[float, float] | None


VENDORS = (
    Vendor("Alpha Imaging", "North Clinic", 12, False, 1.0, -1024.0, "MONOCHROME2", "explicit", (-600.0, 1500.0)),
    Vendor("Beta Medical", "South Hospital", 16, True, 1.0, 0.0, "MONOCHROME2", "jpeg-ls", (40.0, 400.0)),
    Vendor("Gamma Systems", "North Clinic", 16, False, 0.5, -1024.0, "MONOCHROME1", "jpeg2000", (-500.0, 1400.0)),
    Vendor("Delta Scan", "Harbour Institute", 12, False, 2.0, -2048.0, "MONOCHROME2", "rle", None),
)
_SYNTAXES = {
    "explicit": "1.2.840.10008.1.2.1",
    "rle": "1.2.840.10008.1.2.5",
    "jpeg-ls": "1.2.840.10008.1.2.4.80",
    "jpeg2000": "1.2.840.10008.1.2.4.90",
}


@dataclass(frozen=True, slots=True)
class DemoStudy:
    """Where ``write_demo_study`` put what.

    Attributes:
        study: folder of DICOM files, a folder per patient.
        labels: CSV with SOPInstanceUID, finding (0, 1 or blank for unknown) and mask (a PNG of the folder ``masks``
            beside it, 0 or 1 the finding, or blank where nobody drew one).
        inbox: folder of held-back slices of other patients, with broken files among them.
        images: number of DICOM files in ``study``.
        series: folder of one CT series that is a volume, of a patient who is not in the study.
    """

    study: Path
    labels: Path
    inbox: Path
    images: int
    series: Path


def write_demo_study(
    folder: str | Path,
    *,
    patients: int = PATIENTS,
    seed: int = 0,
    shuffle_labels: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> DemoStudy:
    """Write the study, its label table and masks, a series, and an inbox with broken files.

    Args:
        folder: where ``study/``, ``masks/``, ``labels.csv``, ``series/`` and ``inbox/`` go; made if missing.
        patients: patients in the study, each with two to five slices; 45 % have a finding.
        seed: the same seed gives the same pixels and the same identifiers.
        shuffle_labels: permute the labels, so that nothing can be learnt of them (for tests of honesty); masks stay.
        progress: called with (patients written, all patients).

    Returns:
        The paths and the number of slices.

    Example:
        >>> study = write_demo_study("demo", patients=20)  # doctest: +SKIP
    """
    folder = Path(folder)
    rng = np.random.default_rng(seed)
    study, inbox = folder / "study", folder / "inbox"
    inbox.mkdir(parents=True, exist_ok=True)
    labels: list[tuple[str, int | None]] = []
    masks: dict[str, str] = {}
    draws, inbox_patients = _Draws.start(rng), max(4, patients // 15)
    for number in range(patients + inbox_patients):
        is_inbox = number >= patients
        place = inbox if is_inbox else study / f"patient-{number:03d}"
        place.mkdir(parents=True, exist_ok=True)
        for name, dataset, mask in _patient_slices(number, rng, seed=seed, draws=draws):
            target = place / (f"{number:03d}-{name}" if is_inbox else name)
            dataset.save_as(target, enforce_file_format=True)
            if not is_inbox:
                uid, label = str(dataset.SOPInstanceUID), _read_by_a_person(bool(mask.any()), rng, draws=draws)
                labels.append((uid, label))
                masks[uid] = "" if label is None else f"masks/{place.name}/{Path(name).stem}.png"
                if label is not None:
                    _write_png(mask, folder / masks[uid])
        if progress is not None:
            progress(number + 1, patients + inbox_patients)
    if shuffle_labels:
        order = rng.permutation(len(labels))
        labels = [(uid, labels[int(k)][1]) for (uid, _), k in zip(labels, order, strict=True)]
    _break_files(inbox, rng)
    write_demo_series(folder / "series", number=patients + inbox_patients, seed=seed)
    path = folder / "labels.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["SOPInstanceUID", "finding", "mask"])
        writer.writerows((uid, "" if label is None else label, masks[uid]) for uid, label in labels)
    return DemoStudy(study, path, inbox, len(labels), folder / "series")


def write_demo_series(
    folder: str | Path, *, number: int = 0, seed: int = 0, slices: int = 12, has_finding: bool = True
) -> Mask:
    """Write one CT series that is a volume: slices 5 mm apart, from the lung's base upwards, uncompressed.

    Args:
        folder: of its own; made if missing.
        number: of the patient; no other one of the same seed should have it.
        seed: with the number decides pixels and identifiers.
        slices: D.
        has_finding: whether a ball-like finding goes through some slices in the middle.

    Returns:
        (D, SIZE, SIZE) uint8 mask of the finding, the slice at the feet first, as ``read_image(folder)`` has them.

    Example:
        >>> mask = write_demo_series("demo/series", number=500)  # doctest: +SKIP
    """
    folder, rng = Path(folder), np.random.default_rng((seed, number))
    folder.mkdir(parents=True, exist_ok=True)
    anatomy = _Anatomy.draw(rng)
    finding, middle = anatomy.draw_finding(rng, scale=0.7), (slices - 1) / 2.0
    masks = []
    for position in range(slices):
        away_mm = SLICE_MM * (position - middle)
        part = math.exp(-(away_mm**2) / (2.0 * (finding.sigma * SPACING_MM) ** 2))
        pixels, mask = anatomy.slice(position, rng, finding=finding.fading(part) if has_finding else None)
        dataset = _dataset(pixels, VENDORS[0], (seed, number, position))
        dataset.save_as(folder / f"IM{position:04d}.dcm", enforce_file_format=True)
        masks.append(mask)
    return np.stack(masks)


def _write_png(mask: Mask, path: Path) -> None:
    from PIL import Image as PngImage

    path.parent.mkdir(parents=True, exist_ok=True)
    PngImage.fromarray(mask).save(path)


@dataclass(slots=True)
class _Evenly:
    """Yes and no by turns, yes in ``share`` of any stretch of them: systematic sampling from a random start."""

    share: float
    level: float

    def draw(self) -> bool:
        self.level += self.share
        is_hit = self.level >= 1.0
        self.level -= is_hit
        return is_hit


@dataclass(frozen=True, slots=True)
class _Draws:
    """What makes a study hard: which patients are ill, which findings are faint, which are overlooked."""

    ill: _Evenly
    faint: _Evenly
    overlooked: _Evenly

    @classmethod
    def start(cls, rng: np.random.Generator) -> _Draws:
        return cls(*(_Evenly(share, rng.random()) for share in (ILL, FAINT, OVERLOOKED)))


def _read_by_a_person(has_finding: bool, rng: np.random.Generator, *, draws: _Draws) -> int | None:
    """What the label table says: unknown in 2 %, else the truth, but where a reader overlooked the finding."""
    is_seen = has_finding and not draws.overlooked.draw()
    return None if rng.random() < 0.02 else int(is_seen)


def _patient_slices(
    number: int, rng: np.random.Generator, *, seed: int, draws: _Draws
) -> Iterator[tuple[str, Dataset, Mask]]:
    """Yield (file name, dataset, mask of the finding) of one patient's slices."""
    vendor = VENDORS[int(rng.integers(len(VENDORS)))]
    is_ill, anatomy = draws.ill.draw(), _Anatomy.draw(rng)
    for position in range(int(rng.integers(2, 6))):
        finding = None
        if is_ill and rng.random() < 0.8:
            hu = FAINT_HU if draws.faint.draw() else FINDING_HU
            finding = anatomy.draw_finding(rng, scale=anatomy.scale(position), hu=hu)
        pixels, mask = anatomy.slice(position, rng, finding=finding)
        yield f"IM{position:04d}.dcm", _dataset(pixels, vendor, (seed, number, position)), mask


@dataclass(frozen=True, slots=True)
class _Finding:
    """A soft nodule: a Gaussian of ``height`` HU, in pixels; ``peak`` is its height in the slice of its middle."""

    center: tuple[float, float]
    sigma: float
    height: float
    peak: float

    def fading(self, part: float) -> _Finding:
        """What a slice shows of it that ``part`` of its height reaches."""
        return replace(self, height=part * self.height)


@dataclass(frozen=True, slots=True)
class _Anatomy:
    """Shape of one patient's chest, in pixels of a SIZE x SIZE slice."""

    center: tuple[float, float]
    body: tuple[float, float]
    lung: tuple[float, float]
    gap: float
    lung_hu: float
    noise_hu: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> _Anatomy:
        return cls(
            center=(SIZE / 2 + rng.normal(0, 2), SIZE / 2 + rng.normal(0, 2)),
            body=(rng.uniform(44, 50), rng.uniform(54, 60)),
            lung=(rng.uniform(27, 32), rng.uniform(17, 21)),
            gap=rng.uniform(24, 27),
            lung_hu=rng.uniform(-880, -800),
            noise_hu=rng.uniform(15, 45),
        )

    @staticmethod
    def scale(position: int) -> float:
        """Size of the lungs in a slice as a share of their largest."""
        return max(0.7, 1.0 - 0.04 * abs(position - 2))

    def slice(self, position: int, rng: np.random.Generator, *, finding: _Finding | None) -> tuple[Pixels, Mask]:
        """Draw (SIZE, SIZE) float32 HU of a slice and the uint8 mask of its finding."""
        y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
        (cy, cx), scale = self.center, self.scale(position)
        pixels = np.full((SIZE, SIZE), -1000.0, np.float32)
        pixels[_ellipse(y, x, cy, cx, self.body[0], self.body[1])] = 40.0
        lungs = np.zeros((SIZE, SIZE), bool)
        for side in (-1, 1):
            lung = _ellipse(y, x, cy, cx + side * self.gap, self.lung[0] * scale, self.lung[1] * scale)
            lungs |= lung
        pixels[lungs] = self.lung_hu
        self._draw_bones(pixels, y, x)
        ys, xs = np.nonzero(lungs)
        for _ in range(18):  # vessels: small and bright, so brightness alone does not give the finding away
            k = int(rng.integers(len(ys)))
            _add_blob(pixels, y, x, (float(ys[k]), float(xs[k])), rng.uniform(0.8, 1.5), rng.uniform(300, 700))
        mask = np.zeros((SIZE, SIZE), np.uint8)
        if finding is not None:
            before = pixels.copy()
            _add_blob(pixels, y, x, finding.center, finding.sigma, finding.height)
            mask[pixels - before >= 0.5 * finding.peak] = 1
        return np.asarray(pixels + rng.normal(0, self.noise_hu, pixels.shape), np.float32), mask

    def _draw_bones(self, pixels: Pixels, y: Pixels, x: Pixels) -> None:
        cy, cx = self.center
        pixels[_ellipse(y, x, cy + 0.72 * self.body[0], cx, 6, 7)] = 600.0
        for angle in np.linspace(0, 2 * np.pi, 14, endpoint=False):
            rib = (cy + 0.9 * self.body[0] * np.sin(angle), cx + 0.92 * self.body[1] * np.cos(angle))
            pixels[_ellipse(y, x, rib[0], rib[1], 2.5, 2.5)] = 500.0

    def draw_finding(self, rng: np.random.Generator, *, scale: float, hu: tuple[float, float] = FINDING_HU) -> _Finding:
        """Draw a finding inside a lung whose size is ``scale`` of its largest; its height is within ``hu``."""
        side = 1 if rng.random() < 0.5 else -1
        angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.6)
        cy = self.center[0] + radius * scale * self.lung[0] * np.sin(angle)
        cx = self.center[1] + side * self.gap + radius * scale * self.lung[1] * np.cos(angle)
        sigma, height = rng.uniform(3.0, 5.5), rng.uniform(*hu)
        return _Finding((cy, cx), sigma, height, peak=height)


def _ellipse(y: Pixels, x: Pixels, cy: float, cx: float, ry: float, rx: float) -> npt.NDArray[np.bool_]:
    return np.asarray(((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1.0)


def _add_blob(pixels: Pixels, y: Pixels, x: Pixels, center: tuple[float, float], sigma: float, height: float) -> None:
    pixels += height * np.exp(-((y - center[0]) ** 2 + (x - center[1]) ** 2) / (2 * sigma**2))


def _dataset(pixels: Pixels, vendor: Vendor, key: tuple[int, int, int]) -> Dataset:
    """Store ``pixels`` as ``vendor`` would: a CT Image Storage dataset with planted, made-up patient data."""
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

    seed, number, position = key
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    uid = f"{_UID_ROOT}.{seed}.{number}"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = UID(f"{uid}.2.{position + 1}")
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{uid}.1", f"{uid}.2"
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = f"{uid}.3", ""
    dataset.PatientID, dataset.PatientName = f"DEMO-{seed}-{number:04d}", f"Demo^Patient {number}"
    person = np.random.default_rng(key[:2])
    dataset.PatientSex, dataset.PatientAge = "FM"[int(person.integers(2))], f"{int(person.integers(25, 90)):03d}Y"
    dataset.Modality, dataset.Manufacturer, dataset.InstitutionName = "CT", vendor.name, vendor.site
    dataset.KVP, dataset.SliceThickness, dataset.InstanceNumber = 120, SLICE_MM, position + 1
    dataset.PixelSpacing = [SPACING_MM, SPACING_MM]
    dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, SLICE_MM * position]
    if vendor.window is not None:
        dataset.WindowCenter, dataset.WindowWidth = vendor.window
    _store_pixels(dataset, pixels, vendor)
    syntax = UID(_SYNTAXES[vendor.transfer_syntax])
    if syntax != ExplicitVRLittleEndian:
        dataset.compress(syntax, generate_instance_uid=False)
    return dataset


def _store_pixels(dataset: Dataset, pixels: Pixels, vendor: Vendor) -> None:
    """Set the pixel module; MONOCHROME1 turns the display, never the HU (PS3.3 C.7.6.3.1.2)."""
    bits = vendor.bits_stored
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if vendor.is_signed else (0, (1 << bits) - 1)
    stored = np.clip(np.rint((pixels - vendor.intercept) / vendor.slope), low, high)
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = vendor.slope, vendor.intercept, "HU"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, vendor.photometric
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits, bits - 1
    dataset.PixelRepresentation = int(vendor.is_signed)
    dataset.PixelData = stored.astype("<i2" if vendor.is_signed else "<u2").tobytes()
    dataset["PixelData"].VR = "OW"


def _break_files(inbox: Path, rng: np.random.Generator) -> None:
    """Add what a real inbox holds beside good files: cut, empty, foreign and contradictory ones."""
    good = sorted(inbox.glob("*.dcm"))[0].read_bytes()
    (inbox / "broken-cut.dcm").write_bytes(good[: len(good) // 2])
    (inbox / "broken-empty.dcm").write_bytes(b"")
    (inbox / "broken-text.dcm").write_text("This is a letter, not an image.\n" * 20, encoding="utf-8")
    noise = bytearray(good[:200]) + bytearray(rng.bytes(4000))
    (inbox / "broken-noise.dcm").write_bytes(bytes(noise))
    page = io.StringIO()
    csv.writer(page).writerow(["a table", "beside the images"])
    (inbox / "notes.csv").write_text(page.getvalue(), encoding="utf-8")
