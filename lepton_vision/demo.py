"""A synthetic CT study with planted findings, for the demo, the tests and the notebooks.

The slices look like axial chest CT to a small network: a body, two lungs with vessels, ribs and a spine, in HU.
A finding is a soft nodule or patch inside a lung. Four made-up vendors store the same kind of slice as four real
ones would (slopes, signed and unsigned, 12 and 16 bits, MONOCHROME1, compressed and not), so a reader that
ignores the header cannot learn from it. No pixel and no name comes from a person.
"""

from __future__ import annotations

import contextlib
import csv
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError
from lepton_vision.types import Pixels

if TYPE_CHECKING:
    from pydicom import Dataset

    from lepton_vision.types import Progress

SIZE = 128
SPACING_MM = 2.8
_UID_ROOT = "1.2.826.0.1.3680043.10.1447"


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
        labels: CSV with SOPInstanceUID and finding (0, 1 or blank for unknown).
        inbox: folder of held-back slices of other patients, with broken files among them.
        images: number of DICOM files in ``study``.
    """

    study: Path
    labels: Path
    inbox: Path
    images: int


def demo_config(*, epochs: int = 12, seed: int = 0) -> Config:
    """Configuration that learns the demo study from random weights in about a minute on two cores."""
    return Config.from_dict(
        {
            "targets": [{"name": "finding", "kind": "binary", "classes": ["absent", "present"]}],
            "preprocess": {"size": [SIZE, SIZE], "windows": ["lung"]},
            "augment": {"preset": "ct"},
            "model": {"backbone": "resnet18"},
            "train": {"epochs": epochs, "batch_size": 16, "lr": 1e-3, "ema_decay": 0.9, "seed": seed},
            "split": {"val": 0.2, "test": 0.25, "seed": seed},
        }
    )


def write_demo_study(
    folder: str | Path,
    *,
    patients: int = 120,
    seed: int = 0,
    shuffle_labels: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> DemoStudy:
    """Write the study, its label table and an inbox with broken files.

    Args:
        folder: where ``study/``, ``labels.csv`` and ``inbox/`` go; made if missing.
        patients: patients in the study, each with two to five slices; about 45 % have a finding.
        seed: the same seed gives the same pixels and the same identifiers.
        shuffle_labels: permute the labels, so that nothing can be learnt (for tests of honesty).
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
    inbox_patients = max(4, patients // 15)
    for number in range(patients + inbox_patients):
        is_inbox = number >= patients
        place = inbox if is_inbox else study / f"patient-{number:03d}"
        place.mkdir(parents=True, exist_ok=True)
        for name, dataset, label in _patient_slices(number, rng, seed=seed):
            target = place / (f"{number:03d}-{name}" if is_inbox else name)
            dataset.save_as(target, enforce_file_format=True)
            if not is_inbox:
                labels.append((str(dataset.SOPInstanceUID), _read_by_a_person(label, rng)))
        if progress is not None:
            progress(number + 1, patients + inbox_patients)
    if shuffle_labels:
        order = rng.permutation(len(labels))
        labels = [(uid, labels[int(k)][1]) for (uid, _), k in zip(labels, order, strict=True)]
    _break_files(inbox, rng)
    path = folder / "labels.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["SOPInstanceUID", "finding"])
        writer.writerows((uid, "" if label is None else label) for uid, label in labels)
    return DemoStudy(study, path, inbox, len(labels))


def _read_by_a_person(label: int, rng: np.random.Generator) -> int | None:
    """What the label table says: the truth in 96 %, unknown in 2 %, wrong in 2 %, since readers err."""
    draw = rng.random()
    return None if draw < 0.02 else 1 - label if draw < 0.04 else label


def _patient_slices(number: int, rng: np.random.Generator, *, seed: int) -> Iterator[tuple[str, Dataset, int]]:
    """Yield (file name, dataset, label) of one patient's slices."""
    vendor = VENDORS[int(rng.integers(len(VENDORS)))]
    is_ill = rng.random() < 0.45
    anatomy = _Anatomy.draw(rng)
    for position in range(int(rng.integers(2, 6))):
        has_finding = is_ill and rng.random() < 0.8
        pixels = anatomy.slice(position, rng, has_finding=has_finding)
        yield f"IM{position:04d}.dcm", _dataset(pixels, vendor, (seed, number, position)), int(has_finding)


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

    def slice(self, position: int, rng: np.random.Generator, *, has_finding: bool) -> Pixels:
        """Draw (SIZE, SIZE) float32 HU of the slice at ``position``."""
        y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
        cy, cx = self.center
        scale = 1.0 - 0.04 * abs(position - 2)
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
        if has_finding:
            self._draw_finding(pixels, y, x, rng, scale)
        return np.asarray(pixels + rng.normal(0, self.noise_hu, pixels.shape), np.float32)

    def _draw_bones(self, pixels: Pixels, y: Pixels, x: Pixels) -> None:
        cy, cx = self.center
        pixels[_ellipse(y, x, cy + 0.72 * self.body[0], cx, 6, 7)] = 600.0
        for angle in np.linspace(0, 2 * np.pi, 14, endpoint=False):
            rib = (cy + 0.9 * self.body[0] * np.sin(angle), cx + 0.92 * self.body[1] * np.cos(angle))
            pixels[_ellipse(y, x, rib[0], rib[1], 2.5, 2.5)] = 500.0

    def _draw_finding(self, pixels: Pixels, y: Pixels, x: Pixels, rng: np.random.Generator, scale: float) -> None:
        side = 1 if rng.random() < 0.5 else -1
        angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.6)
        cy = self.center[0] + radius * scale * self.lung[0] * np.sin(angle)
        cx = self.center[1] + side * self.gap + radius * scale * self.lung[1] * np.cos(angle)
        _add_blob(pixels, y, x, (cy, cx), rng.uniform(3.0, 5.5), rng.uniform(350, 700))


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
    dataset.PatientID, dataset.PatientName = f"DEMO-{seed}-{number:04d}", f"Demo^Patient {number}"
    person = np.random.default_rng(key[:2])
    dataset.PatientSex, dataset.PatientAge = "FM"[int(person.integers(2))], f"{int(person.integers(25, 90)):03d}Y"
    dataset.Modality, dataset.Manufacturer, dataset.InstitutionName = "CT", vendor.name, vendor.site
    dataset.KVP, dataset.SliceThickness, dataset.InstanceNumber = 120, 5.0, position + 1
    dataset.PixelSpacing = [SPACING_MM, SPACING_MM]
    dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 5.0 * position]
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


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute in one thread.

    Images this small gain little from more, and threads that wait for each other on a busy machine made the demo four
    times slower. The figures are then the same on every number of cores, too.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def run_demo(
    out: str | Path, *, patients: int = 120, seed: int = 0, epochs: int = 12, progress: Progress | None = None
) -> dict[str, Any]:
    """Write the study, go the whole way with it, and score the inbox; return what the command prints.

    Raises:
        ConfigError: ``out`` holds the demo of an earlier run.
    """
    from lepton_vision.pipeline import run_study
    from lepton_vision.scoring import score

    started, out = time.perf_counter(), Path(out)
    if (out / "run").exists() or (out / "study").exists():
        raise ConfigError(
            "Expected an empty folder for the demo. Received: one that holds a demo. Name another.", key="out"
        )
    told = None if progress is None else lambda done, total: progress("write", done, total, "")
    study = write_demo_study(out, patients=patients, seed=seed, progress=told)
    config = demo_config(epochs=epochs, seed=seed)
    scored = (
        None if progress is None else lambda done, total, failed: progress("score", done, total, f"{failed} failed")
    )
    with _one_thread():
        result = run_study(
            config,
            study.study,
            labels=study.labels,
            run_dir=out / "run",
            title="Demo: findings in synthetic CT",
            progress=progress,
        )
        summary = score(result.bundle, study.inbox, out / "scores", progress=scored)
    figures = {} if result.test.evaluation is None else result.test.evaluation.figures["finding"]
    figure = figures["auroc"]
    return {
        "test_auroc": figure.value,
        "low": figure.low,
        "high": figure.high,
        "n": figure.n,
        "report": str(result.test.report),
        "bundle": str(result.folder),
        "scores": str(summary.output),
        "scored": summary.scored,
        "failed": summary.failed,
        "seconds": round(time.perf_counter() - started, 1),
    }
