"""Masks predicted for whole volumes, each on the voxels of its own file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from lepton_vision.config import Config
from lepton_vision.config.sections import VolumeConfig
from lepton_vision.errors import ConfigError, EvaluationError, ReadError
from lepton_vision.inference.engine import runtime_name
from lepton_vision.inference.mask_prediction import MaskPrediction
from lepton_vision.inference.mirrors import LEFT_RIGHT
from lepton_vision.inference.samples import read_ahead, rejected_rows
from lepton_vision.inference.volume_samples import list_volumes
from lepton_vision.inference.whole_volumes import over_whole_volumes
from lepton_vision.manifest.table import Manifest
from lepton_vision.models.bundle import Bundle
from lepton_vision.models.device import autocast, choose_device, choose_precision, suited_format
from lepton_vision.predictions.cells import Failure
from lepton_vision.readers.identity import pseudonym
from lepton_vision.readers.image import read_image, require_image
from lepton_vision.readers.mask import LabelMap
from lepton_vision.transforms.grid import Grid, grid_of, preprocess_view, restore_mask, restore_share
from lepton_vision.transforms.laterality import has_side_words
from lepton_vision.transforms.preprocess import UInt16Pixels, to_input
from lepton_vision.transforms.rows import RowTable
from lepton_vision.transforms.slabs import restore_slice_mask, unfit_share
from lepton_vision.types import Image, Pixels, SampleAddress


@dataclass(frozen=True, slots=True, eq=False)
class _Ready:
    """A volume, ready for the network."""

    image_id: str
    address: SampleAddress
    image: Image
    pixels: UInt16Pixels
    grid: Grid
    row: int


class VolumeSegmenter:
    """The network of a bundle on volumes of any size.

    Args:
        bundle: with a segmentation head that is used in scoring, and ``volume.view`` "3d" or "2.5d".
        device: "auto", "cpu", "cuda" or "mps".
        precision: "auto", "fp32", "bf16" or "fp16".
        mirrored: axes that volumes are predicted mirrored along too, see ``over_whole_volumes``; None is what
            ``config.volume.mirrored`` says.

    Raises:
        ConfigError: another kind of bundle, a device or precision that is not there, or left and right are to be
            exchanged although structures tell them apart.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "auto",
        precision: str = "auto",
        mirrored: Sequence[int] | None = None,
    ) -> None:
        segmentation = bundle.require_masks()
        self.config: Config = bundle.config
        if mirrored is None:
            mirrored = (LEFT_RIGHT,) if self.config.volume is not None and self.config.volume.mirrored else ()
        if LEFT_RIGHT in mirrored and has_side_words(segmentation.names):
            raise ConfigError(
                f"Left and right must not be exchanged: structures tell them apart ({', '.join(segmentation.names)}). "
                "Turn volume.mirrored off.",
                key="volume.mirrored",
            )
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device)
        network = bundle.network()
        network = network.to(memory_format=suited_format(network.dims + 2))
        self._network = over_whole_volumes(network, bundle.config, mirrored=mirrored).to(self.device).eval()

    @property
    def name(self) -> str:
        """Name of the engine that made the masks, e.g. "torch 2.14.1 cpu bf16"."""
        return runtime_name(self.device, self.precision)

    def probabilities(self, pixels: UInt16Pixels) -> Pixels:
        """Predict one prepared volume.

        Args:
            pixels: (C, D, H, W) uint16 from ``preprocess_view``.

        Returns:
            (1 + M, D, H, W) float32, background first.

        Raises:
            EvaluationError: what the network gives are no numbers.
        """
        images = torch.from_numpy(to_input(pixels, self.config.preprocess, axes=3))[None].to(self.device)
        with torch.inference_mode(), autocast(self.device, self.precision):
            logits = self._network(images).mask_logits
        prob: Pixels = logits[0].float().softmax(dim=0).cpu().numpy()
        if not np.isfinite(prob).all():
            raise EvaluationError("The network gave masks that are not numbers. Use precision fp32, or train again.")
        return prob

    def mask(self, image: Image) -> LabelMap:
        """Predict the mask of one volume as it was read, (D, H, W) uint8 on its own voxels.

        Raises:
            ReadError: it cannot be prepared.
        """
        volume = self.config.volume or VolumeConfig()
        pixels = preprocess_view(image, self.config.preprocess, volume)
        return self.restore(self.probabilities(pixels), grid_of(image, volume))

    def restore(self, prob: Pixels, grid: Grid) -> LabelMap:
        """Bring what ``probabilities`` gave to the voxels of the file, (D, H, W) uint8."""
        if self.config.sees_slabs:
            return restore_slice_mask(prob, grid, config=self.config.preprocess)
        return restore_mask(prob, grid)

    def restore_share(self, prob: Pixels, grid: Grid, number: int) -> Pixels:
        """Bring the probability of the ``number``-th structure there, (D, H, W) float32 in [0, 1]."""
        share = prob[number]
        if self.config.sees_slabs:
            share = unfit_share(share, grid, config=self.config.preprocess)
        return restore_share(share, grid)


def predict_volume_masks(
    segmenter: VolumeSegmenter,
    images: Manifest | str | Path | Sequence[str | Path],
    *,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[MaskPrediction | Failure]:
    """Yield the mask of every volume, in the order given; memory holds one, and those that are read ahead.

    Args:
        segmenter: the model.
        images: rows of a manifest, or files and folders (each DICOM series is a volume).
        workers: threads that read ahead; 0 reads in between.
        progress: called with (done, total).

    Yields:
        A mask, or a Failure with a reason code; rejected rows of a manifest come first.
    """
    jobs: list[tuple[SampleAddress | Failure, str, int]]
    if isinstance(images, Manifest):
        yield from rejected_rows(images)
        table = RowTable.of(images)
        jobs = [(table.locate(row), table.image_id(row), int(table.index[row])) for row in range(len(table))]
    else:
        config = segmenter.config
        jobs = [(one, "", -1) for one in list_volumes(images, volume=config.volume, include=config.scan.include)]
    outcomes = read_ahead(jobs, lambda job: _read(*job, segmenter.config), workers=workers, depth=2)
    for done, outcome in enumerate(outcomes, start=1):
        if isinstance(outcome, Failure):
            yield outcome
        elif (prob := _probabilities(segmenter, outcome)) is None:
            yield Failure(outcome.image_id, "too_large")
        else:
            labels, share = segmenter.restore(prob, outcome.grid), partial(segmenter.restore_share, prob, outcome.grid)
            yield MaskPrediction(outcome.image_id, outcome.address, outcome.image, labels, share, outcome.row)
        if progress is not None:
            progress(done, len(jobs))


def _probabilities(segmenter: VolumeSegmenter, ready: _Ready) -> Pixels | None:
    """Probabilities of the network, or None where one volume is too large for the device: the next may fit."""
    try:
        return segmenter.probabilities(ready.pixels)
    except (MemoryError, torch.OutOfMemoryError):
        return None


def _read(address: SampleAddress | Failure, image_id: str, row: int, config: Config) -> _Ready | Failure:
    if isinstance(address, Failure):
        return address
    volume = config.volume or VolumeConfig()
    try:
        image = read_image(address.path, member=address.member, frame=address.frame, **address.repairs)
        require_image(image, include=config.scan.include)
        grid = grid_of(image, volume)
        pixels = preprocess_view(image, config.preprocess, volume)
    except ReadError as error:
        return Failure(image_id or pseudonym("image", address.path.as_posix()), error.reason)
    except MemoryError:
        return Failure(image_id or pseudonym("image", address.path.as_posix()), "too_large")
    return _Ready(image_id or image.image_id, address, image, pixels, grid, row)
