"""Loader speed on one core: MONAI, ours from files and from the decoded cache, and with an own pipeline, in turns.

    python scripts/bench/loader.py [--images 64] [--rounds 7] [--preset ct]

The own pipeline is an ``albumentations.Compose`` of the same transforms as the preset, given as ``augment=``.

Every path ends in a (1, 224, 224) float32 tensor, augmented, from synthetic 512x512 16-bit uncompressed CT slices.
CPU time of the one process is shown (files lie in the page cache), as wall time wanders on a shared machine. Freed
memory is kept, for MONAI too.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from lepton_vision.config import Config
from lepton_vision.manifest import Manifest
from lepton_vision.models.allocator import keep_freed_memory
from lepton_vision.transforms import make_loader
from lepton_vision.transforms.augment import A, build_augment

BATCH = 16


def write_slice(path: Path, number: int) -> None:
    """A body-like disc with texture and the header elements that a CT scanner writes."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[-1:1:512j, -1:1:512j]
    body = (x / 0.85) ** 2 + (y / 0.65) ** 2 < 1
    pixels = np.where(body, 40 + 300 * rng.random() * np.sin(9 * x) * np.cos(7 * y), -1000) + rng.normal(0, 15, x.shape)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    ds = Dataset()
    ds.file_meta = meta
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = (generate_uid() for _ in range(3))
    ds.PatientName, ds.PatientID, ds.PatientSex, ds.PatientAge = "Bench^Mark", f"B{number}", "O", "050Y"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20240101"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "120000.000000"
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = "CT", "Synthetic", "Bench 1"
    ds.InstitutionName, ds.StationName, ds.StudyDescription = "Nowhere", "CT01", "Chest"
    ds.SeriesDescription, ds.BodyPartExamined, ds.PatientPosition = "Axial 1.0", "CHEST", "HFS"
    ds.ImageType, ds.KVP, ds.XRayTubeCurrent, ds.ExposureTime = ["ORIGINAL", "PRIMARY", "AXIAL"], 120, 200, 500
    ds.ConvolutionKernel, ds.SliceThickness, ds.ReconstructionDiameter = "B30f", 1.0, 360
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [-180, -180, float(number)], [1, 0, 0, 0, 1, 0]
    ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber, ds.SliceLocation = 1, 1, number, float(number)
    ds.Rows, ds.Columns, ds.PixelSpacing = 512, 512, [0.7, 0.7]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = -1024, 1, "HU"
    ds.WindowCenter, ds.WindowWidth = 40, 400
    ds.PixelData = np.clip(pixels + 1024, 0, 4095).astype("<u2").tobytes()
    ds.save_as(path, enforce_file_format=True)


def monai_epoch(paths: list[Path]) -> Callable[[], None]:
    """The pipeline that the target names, with MONAI's defaults, one image after the other and batched."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.transforms import Compose, LoadImage, RandFlip, RandRotate, RandZoom, Resize, ScaleIntensityRange

    pipeline = Compose(
        [
            LoadImage(image_only=True, ensure_channel_first=True),
            ScaleIntensityRange(-160, 240, 0, 1, clip=True),
            RandRotate(np.pi / 18, prob=0.9),
            RandFlip(0.5, spatial_axis=0),
            RandZoom(0.9, min_zoom=0.9, max_zoom=1.1),
            Resize((224, 224)),
        ]
    )

    def shape(image: torch.Tensor) -> torch.Tensor:
        return image.as_tensor() if hasattr(image, "as_tensor") else image

    def run() -> None:
        for start in range(0, len(paths), BATCH):
            batch = []
            for path in paths[start : start + BATCH]:
                image = shape(pipeline(path))
                batch.append(image.reshape(1, 224, 224))
            torch.stack(batch)

    return run


def our_epoch(
    manifest: Manifest, config: Config, *, cache: Path | None, augment: A.Compose | None = None
) -> Callable[[], None]:
    """Our training loader in this process."""
    how = {"cache_dir": cache, "workers": 0, "batch_size": BATCH, "augment": augment}
    loader = make_loader(manifest, config, training=True, **how)
    epoch = iter(range(10**9))

    def run() -> None:
        loader.sampler.set_epoch(next(epoch))
        for _ in loader:
            pass

    return run


def measure(paths: dict[str, Callable[[], None]], *, rounds: int, images: int) -> dict[str, list[float]]:
    """CPU milliseconds per image of every round, the paths in turn; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in paths}
    for number in range(rounds + 1):
        for name, run in paths.items():
            start = time.process_time()
            run()
            if number:
                times[name].append((time.process_time() - start) / images * 1000)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--preset", default="ct")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    keep_freed_memory()  # for all ways, as ``fit`` does it: else glibc maps some batches anew, and not others
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        names = [f"{number:04d}.dcm" for number in range(args.images)]
        for number, name in enumerate(names):
            write_slice(root / name, number)
        table = pd.DataFrame(
            {"image_id": names, "path": names, "status": "ok", "label": [i % 2 for i in range(len(names))]}
        )
        manifest = Manifest(table, root=root, label_columns=("label",))
        config = Config().override(f"augment.preset={args.preset}", "augment.flip=true")
        same = A.Compose(build_augment(config.augment, targets=())._steps)
        paths = {
            "MONAI": monai_epoch([root / name for name in names]),
            "ours, from files": our_epoch(manifest, config, cache=None),
            "ours, from cache": our_epoch(manifest, config, cache=root / "cache"),
            "own pipeline, cache": our_epoch(manifest, config, cache=root / "cache", augment=same),
        }
        times = measure(paths, rounds=args.rounds, images=args.images)
    notes = {
        "MONAI": "",
        "ours, from files": f"{ratio(times, 'MONAI', 'ours, from files'):.1f} x MONAI (target 5)",
        "ours, from cache": f"{ratio(times, 'ours, from files', 'ours, from cache'):.1f} x from files (target 4)",
        "own pipeline, cache": f"preset {ratio(times, 'own pipeline, cache', 'ours, from cache'):.1f} x as fast",
    }
    print(f"{args.images} images, 512x512 16-bit -> 224x224, preset {args.preset}, one thread, {args.rounds} rounds")
    print(f"{'':20}{'CPU ms / image':>16}{'min … max':>18}   ratio (median of rounds)")
    for name, values in times.items():
        spread = f"{min(values):.2f} … {max(values):.2f}"
        print(f"{name:20}{statistics.median(values):16.2f}{spread:>18}   {notes[name]}")


def ratio(times: dict[str, list[float]], slow: str, fast: str) -> float:
    """Median over the rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(times[slow], times[fast], strict=True))


if __name__ == "__main__":
    main()
