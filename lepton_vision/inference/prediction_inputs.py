"""Inputs of ``predict`` as samples: table rows, files and folders, or images in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError, ManifestError, nearest
from lepton_vision.inference.samples import Outcome, attempt, list_samples, read_ahead, read_place, samples_of
from lepton_vision.manifest.table import Manifest
from lepton_vision.readers.identity import key_check, pseudonym
from lepton_vision.transforms.views import view_of
from lepton_vision.types import Image, SampleAddress

Given = Manifest | pd.DataFrame | Image | str | Path | Sequence[str | Path | Image]
"""What ``predict`` takes."""


def open_images(
    images: Image | str | Path | Sequence[str | Path | Image], config: Config, *, workers: int, depth: int
) -> tuple[Iterator[Outcome], int]:
    """Return what can be read of files, folders or images, in their order, and how many there are.

    Images in memory without an id get one of their place, from ``image_0``.

    Raises:
        ConfigError: neither, or images and files in one list.
    """
    view = view_of(config)
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
        held = [one if one.image_id else replace(one, image_id=f"image_{k}") for k, one in enumerate(held)]
        outcomes = (attempt(partial(samples_of, one, view, at=SampleAddress(Path())), one.image_id) for one in held)
        return outcomes, len(held)
    paths: str | Path | list[str | Path] = images if isinstance(images, str | Path) else list(images)  # type: ignore[arg-type]
    places = list_samples(paths, view)
    return read_ahead(places, lambda place: read_place(place, view), workers=workers, depth=depth), len(places)


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
