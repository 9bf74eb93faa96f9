"""Header-only scan: files per second of one core, from a warm page cache.

    python scripts/bench/scan.py [--files 2000] [--rounds 5]

"slices of series" are CT slices of which 100 share a series, "single images" one of each patient, whose headers have
less in common. "pydicom" is ``dcmread(stop_before_pixels=True)`` and the four ids alone. Processor time of this process
counts, so that other work on the machine does not.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pydicom
from loader import write_slice

from lepton_vision.readers.image import probe


def write_files(folder: Path, count: int) -> tuple[list[Path], list[Path]]:
    """Headers of a CT scanner before a small image: slices of series, and single images."""
    write_slice(folder / "source.dcm", 0)
    dataset = pydicom.dcmread(folder / "source.dcm")
    dataset.Rows = dataset.Columns = 64
    dataset.PixelData = bytes(2 * 64 * 64)
    slices, singles = [], []
    for number in range(count):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
        dataset.InstanceNumber, dataset.SliceLocation = number % 100, float(number)
        dataset.ImagePositionPatient = [-180, -180, float(number)]
        for paths, series in ((slices, number // 100), (singles, 10**6 + number)):
            dataset.SeriesInstanceUID, dataset.StudyInstanceUID = f"1.2.4.{series}", f"1.2.5.{series}"
            dataset.PatientID, dataset.PatientBirthDate = f"P{series}", f"19{series % 90 + 10}0101"
            paths.append(folder / f"{series}-{number}.dcm")
            dataset.save_as(paths[-1], enforce_file_format=True)
    return slices, singles


def by_pydicom(path: Path) -> None:
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID"):
        str(dataset[name].value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        slices, singles = write_files(Path(folder), args.files)
        ways: dict[str, tuple[Callable[[Path], object], list[Path]]] = {
            "slices of series": (probe, slices),
            "single images": (probe, singles),
            "pydicom": (by_pydicom, slices),
        }
        speeds: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(args.rounds + 1):
            for name, (read, paths) in ways.items():
                started = time.process_time()
                for path in paths:
                    read(path)
                if number:
                    speeds[name].append(len(paths) / (time.process_time() - started))
    print(f"{args.files} files, {args.rounds} rounds, target 5,000 files/s of one core")
    for name, values in speeds.items():
        print(f"{name:20}{statistics.median(values):>10,.0f} files/s   {min(values):,.0f} … {max(values):,.0f}")


if __name__ == "__main__":
    main()
