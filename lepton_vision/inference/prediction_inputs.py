"""Inputs of ``predict`` as samples: table rows, files and folders, or images in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError, ManifestError, ReadError, nearest
from lepton_vision.inference.samples import Outcome, Sample, frames_of, list_files, read_ahead, read_file
from lepton_vision.inference.volume_samples import list_volumes, read_volume
from lepton_vision.manifest.table import Manifest
from lepton_vision.predictions.cells import Failure
from lepton_vision.readers.identity import key_check, pseudonym
from lepton_vision.transforms.grid import preprocess_view
from lepton_vision.transforms.preprocess import preprocess_image
from lepton_vision.transforms.volume_dataset import plain_sample
from lepton_vision.types import Image, SampleAddress

Given = Manifest | pd.DataFrame | Image | str | Path | Sequence[str | Path | Image]
"""What ``predict`` takes."""


def open_images(
    images: Image | str | Path | Sequence[str | Path | Image], config: Config, *, workers: int, depth: int
) -> tuple[Iterator[Outcome], int]:
    """Return what can be read of files, folders or images, in their order, and how many there are.

    Raises:
        ConfigError: neither, or images and files in one list.
    """
    if isinstance(images, Image):
        images = [images]
    if not isinstance(images, str | Path | Sequence):
        raise ConfigError(
            "Expected a Manifest, a DataFrame, an Image, a path, or a list of paths or Images. Received: "
            f"{type(images).__name__}.",
            key="images",
        )
    several: Sequence[object] = () if isinstance(images, str | Path) else images
    held = [one for one in several if isinstance(one, Image)]
    if held:
        if len(held) < len(several):
            raise ConfigError("Expected paths or Images. Received: both in one list. Predict each by themselves.")
        return (outcome for one in held for outcome in [_see(one, config)]), len(held)
    paths: str | Path | list[str | Path] = images if isinstance(images, str | Path) else list(images)  # type: ignore[arg-type]
    if config.volume is not None:
        places = list_volumes(paths, volume=config.volume, include=config.scan.include)
        return read_ahead(places, lambda at: read_volume(at, config), workers=workers, depth=depth), len(places)
    files = list_files(paths, include=config.scan.include)
    return read_ahead(files, lambda path: read_file(path, config), workers=workers, depth=depth), len(files)


def _see(image: Image, config: Config) -> Outcome:
    """One image in memory; each frame is a sample, but for a network of volumes."""
    try:
        if config.volume is not None:
            pixels = [plain_sample(preprocess_view(image, config.preprocess, config.volume), config.volume)]
            parts = [image]
        else:
            parts = frames_of(image)
            pixels = [preprocess_image(one, config.preprocess) for one in parts]
    except ReadError as error:
        return Failure(image.image_id, error.reason)
    return tuple(
        Sample(
            one.image_id,
            one.patient_id or "",
            one.series_id or "",
            SampleAddress(Path()),
            ready,
            study_id=one.study_id or "",
        )
        for one, ready in zip(parts, pixels, strict=True)
    )


def table_rows(table: pd.DataFrame) -> Manifest:
    """Take a table for the rows of a manifest.

    Args:
        table: a row for each image, with the column ``path`` (of the file, absolute or from the working folder);
            ``image_id`` (one for each row; else made of the path), ``patient_id``, ``frame``, ``member``, ``split`` and
            the columns of labels may be there, as ``Manifest.frame`` has them.

    Raises:
        ManifestError: no column ``path``, or a row without one.
    """
    if "path" not in table.columns:
        raise ManifestError(
            f"Expected a column 'path'. {nearest('path', [str(name) for name in table.columns])}", key="path"
        )
    if table["path"].isna().any():
        raise ManifestError("Expected a path in each row. Received: rows without one.", key="path")
    frame = table.assign(path=[Path(str(path)).expanduser().absolute().as_posix() for path in table["path"]])
    id_key = ""
    if "image_id" not in frame.columns:
        id_key = key_check()
        keys = [f"{path} {row}" for path, row in zip(frame["path"], _places(frame), strict=True)]
        frame = frame.assign(image_id=[pseudonym("image", key) for key in keys])
    return Manifest(frame, root=Path("/"), id_key=id_key)


def _places(frame: pd.DataFrame) -> list[str]:
    """Which part of its file a row is."""
    names = [name for name in ("member", "frame") if name in frame.columns]
    return ["" for _ in range(len(frame))] if not names else frame[names].astype(str).agg(" ".join, axis=1).tolist()
