"""Volumes for prediction: NIfTI and multi-frame files, and DICOM series found below the named folders."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from lepton_vision.config import Config
from lepton_vision.config.sections import VolumeConfig
from lepton_vision.errors import ReadError
from lepton_vision.inference.samples import Outcome, Sample, list_files
from lepton_vision.predictions.cells import Failure
from lepton_vision.readers.channels import first_files, named_channels
from lepton_vision.readers.content import is_folder
from lepton_vision.readers.identity import pseudonym
from lepton_vision.readers.image import read_image, require_image
from lepton_vision.readers.series_list import group_series
from lepton_vision.transforms.grid import preprocess_view
from lepton_vision.transforms.volume_dataset import plain_sample
from lepton_vision.types import SampleAddress


def list_volumes(
    named: str | Path | Sequence[str | Path], *, volume: VolumeConfig | None = None, include: Collection[str] = ()
) -> list[SampleAddress | Failure]:
    """Return where the volumes lie: DICOM series first (the folder and the id of the series), then all other files.

    A file that is no volume is in the list: it ends as a failure. What lies in a series and is no slice of it is a
    failure at once.

    Args:
        named: a file, a folder, or several of both.
        volume: says which series are repaired, and the channels of NIfTI files; None: none.
        include: kinds of objects that are read by themselves where they are no slices, see ``config.ScanConfig``.
    """
    series, others = group_series(list_files(named, include=include))
    choices = {} if volume is None else {"tilt": volume.tilt, "gaps": volume.gaps}
    repair = ",".join(name for name, choice in choices.items() if choice != "refuse")
    channels = () if volume is None else volume.channels
    strays = [stray for one in series for stray in one.left_out]
    files = [*first_files(others, channels), *(path for path, reason in strays if reason in include)]
    return [
        *(SampleAddress(one.folder, one.member, repair=repair) for one in series),
        *(SampleAddress(path, named_channels(path, channels)) for path in files),
        *(Failure(pseudonym("image", path.as_posix()), reason) for path, reason in strays if reason not in include),
    ]


def read_volume(address: SampleAddress | Failure, config: Config) -> Outcome:
    """Read one volume, ready for a network that gives one prediction for all of it."""
    if isinstance(address, Failure):
        return address
    volume = config.volume or VolumeConfig()
    is_series = address.member is not None and is_folder(address.path)
    series, dash, suffix = (address.member or "").partition("-") if is_series else ("", "", "")
    failed = pseudonym("image", series or address.path.as_posix()) + dash + suffix
    try:
        image = read_image(address.path, member=address.member, frame=address.frame, **address.repairs)
        require_image(image, include=config.scan.include)
        pixels = plain_sample(preprocess_view(image, config.preprocess, volume), volume)
    except ReadError as error:
        return Failure(failed, error.reason)
    except MemoryError:
        return Failure(failed, "too_large")
    return (
        Sample(
            image.image_id,
            image.patient_id or "",
            image.series_id or "",
            address,
            pixels,
            study_id=image.study_id or "",
        ),
    )
