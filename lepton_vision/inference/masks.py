"""Mask prediction with a bundle: one mask per image, on the pixels of that image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from lepton_vision.config.sections import PreprocessConfig
from lepton_vision.errors import EvaluationError, ReadError
from lepton_vision.inference.engine import Engine
from lepton_vision.inference.mask_prediction import MaskPrediction
from lepton_vision.inference.samples import frames_of, list_files, read_ahead, rejected_rows
from lepton_vision.manifest.table import Manifest
from lepton_vision.models.bundle import Bundle
from lepton_vision.predictions.cells import Failure
from lepton_vision.readers.identity import pseudonym
from lepton_vision.readers.image import read_image
from lepton_vision.transforms.masks import restore_mask, restore_share
from lepton_vision.transforms.preprocess import UInt16Pixels, preprocess_image, to_input
from lepton_vision.transforms.rows import RowTable
from lepton_vision.types import Image, Pixels, SampleAddress


@dataclass(frozen=True, slots=True, eq=False)
class _Ready:
    """One image, ready for the network."""

    image_id: str
    address: SampleAddress
    image: Image
    pixels: UInt16Pixels
    row: int


def predict_masks(
    bundle: Bundle,
    images: Manifest | str | Path | Sequence[str | Path],
    *,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[MaskPrediction | Failure]:
    """Yield the mask of every image, in the order given; memory holds those of one batch.

    Args:
        bundle: a model with a segmentation head that is used in scoring.
        images: rows of a manifest, or files and folders; each frame of a file that holds several is an image, but for
            a bundle of volumes, where it is a volume, as each DICOM series is.
        device: "auto", "cpu", "cuda" or "mps".
        precision: "auto", "fp32", "bf16" or "fp16".
        batch_size: images at once; None is that of the training. Volumes are predicted one at a time.
        workers: threads that read ahead.
        progress: called with (done, total), in rows or files.

    Yields:
        A mask, or a Failure with a reason code for what cannot be read; rejected rows of a manifest come first.

    Raises:
        ConfigError: the bundle predicts no masks, or an argument is out of range.
        EvaluationError: probabilities that are not numbers.

    Example:
        >>> for found in predict_masks(bundle, "inbox"):  # doctest: +SKIP
        ...     print(found.image_id)
    """
    bundle.require_masks()
    if bundle.config.volume is not None:
        from lepton_vision.inference.volume_masks import VolumeSegmenter, predict_volume_masks

        segmenter = VolumeSegmenter(bundle, device=device, precision=precision)
        yield from predict_volume_masks(segmenter, images, workers=workers, progress=progress)
        return
    size = bundle.config.train.batch_size if batch_size is None else batch_size
    engine = Engine(bundle, device=device, precision=precision, batch_size=size)
    preprocess = bundle.config.preprocess
    if isinstance(images, Manifest):
        yield from rejected_rows(images)
        table = RowTable.of(images)
        total = len(table)
        outcomes = read_ahead(range(total), lambda k: _read_row(table, k, preprocess), workers=workers, depth=size)
    else:
        files = list_files(images, include=bundle.config.scan.include)
        total = len(files)
        outcomes = read_ahead(files, lambda path: _read_file(Path(path), preprocess), workers=workers, depth=size)
    yield from _examine(outcomes, engine, total=total, progress=progress)


_Outcome = tuple[_Ready, ...] | Failure


def _read_row(table: RowTable, row: int, config: PreprocessConfig) -> _Outcome:
    address = table.locate(row)
    try:
        image = read_image(address.path, member=address.member, frame=address.frame, **address.repairs)
        pixels = preprocess_image(image, config)
    except ReadError as error:
        return Failure(table.image_id(row), error.reason)
    except MemoryError:
        return Failure(table.image_id(row), "too_large")
    return (_Ready(table.image_id(row), address, image, pixels, int(table.index[row])),)


def _read_file(path: Path, config: PreprocessConfig) -> _Outcome:
    try:
        images = frames_of(read_image(path))
        several = len(images) > 1
        return tuple(
            _Ready(
                image.image_id,
                SampleAddress(path, None, frame if several else None),
                image,
                preprocess_image(image, config),
                -1,
            )
            for frame, image in enumerate(images)
        )
    except ReadError as error:
        return Failure(pseudonym("image", path.as_posix()), error.reason)
    except MemoryError:
        return Failure(pseudonym("image", path.as_posix()), "too_large")


def _examine(
    outcomes: Iterator[_Outcome], engine: Engine, *, total: int, progress: Callable[[int, int], None] | None
) -> Iterator[MaskPrediction | Failure]:
    """Take as many files as fill a batch, then give their masks in order."""
    done = 0
    while group := list(islice(outcomes, engine.batch_size)):
        ready = [one for outcome in group if not isinstance(outcome, Failure) for one in outcome]
        masks = _masks(ready, engine)
        for outcome in group:
            if isinstance(outcome, Failure):
                yield outcome
            else:
                yield from (next(masks) for _ in outcome)
        done += len(group)
        if progress is not None:
            progress(done, total)


def _masks(ready: Sequence[_Ready], engine: Engine) -> Iterator[MaskPrediction]:
    config = engine.bundle.config.preprocess
    for start in range(0, len(ready), engine.batch_size):
        part = ready[start : start + engine.batch_size]
        found = engine.examine(to_input(np.stack([one.pixels for one in part]), config))
        prob = found.masks
        if prob is None or not np.isfinite(prob).all():
            raise EvaluationError("The network gave masks that are not numbers. Use precision fp32, or train again.")
        for place, (one, own) in enumerate(zip(part, prob, strict=True)):
            shape: tuple[int, int] = one.image.pixels.shape[1:]
            labels, share = restore_mask(own, shape, config=config), partial(_share, own, shape, config)
            probabilities = {name: values[place] for name, values in found.probabilities.items()}
            yield MaskPrediction(one.image_id, one.address, one.image, labels, share, one.row, probabilities)


def _share(prob: Pixels, shape: tuple[int, int], config: PreprocessConfig, number: int) -> Pixels:
    return restore_share(prob[number], shape, config=config)
