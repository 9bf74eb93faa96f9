"""Mask prediction with a bundle: one mask per image or volume, on the pixels of that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from lepton_vision.errors import ConfigError, EvaluationError
from lepton_vision.inference.engine import Engine, EngineOutput, runtime_name
from lepton_vision.inference.mirrors import LEFT_RIGHT
from lepton_vision.inference.samples import (
    Outcome,
    Sample,
    attempt,
    list_samples,
    read_ahead,
    read_place,
    rejected_rows,
)
from lepton_vision.inference.whole_volumes import over_whole_volumes
from lepton_vision.manifest.table import Manifest
from lepton_vision.models.bundle import Bundle
from lepton_vision.models.device import autocast, choose_device, choose_precision, suited_format
from lepton_vision.predictions.cells import Failure
from lepton_vision.readers.image import read_image
from lepton_vision.readers.mask import LabelMap
from lepton_vision.transforms.laterality import has_side_words
from lepton_vision.transforms.preprocess import to_input
from lepton_vision.transforms.resize import UInt16Pixels
from lepton_vision.transforms.rows import RowTable
from lepton_vision.transforms.views import View, view_of
from lepton_vision.types import Displayed, Image, Pixels, SampleAddress

_NO_NUMBERS = "The network gave masks that are not numbers. Use precision fp32, or train again."
_See = Callable[[UInt16Pixels], EngineOutput]


@dataclass(frozen=True, slots=True, eq=False)
class MaskPrediction(Displayed):
    """One predicted mask.

    Attributes:
        image_id: pseudonymous id, that of the manifest where there is one.
        address: where the image lies.
        image: the image as it was read, with its geometry.
        labels: (H, W) or (D, H, W) uint8 on the pixels of ``image``: 0 background, k the k-th structure.
        share: gives the probability of the k-th structure (0: background) on the same pixels, float32 in [0, 1].
        row: row of the manifest; -1 for a plain file.
        probabilities: by target, what the same pass gave: () for a binary one, (K,) otherwise; empty for volumes.
    """

    image_id: str
    address: SampleAddress
    image: Image
    labels: LabelMap
    share: Callable[[int], Pixels]
    row: int = -1
    probabilities: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)


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
    view, size = view_of(bundle.config), bundle.config.train.batch_size if batch_size is None else batch_size
    see, depth = _network(bundle, view, device=device, precision=precision, size=size)
    outcomes: Iterator[Outcome]
    if isinstance(images, Manifest):
        yield from rejected_rows(images)
        table = RowTable.of(images)
        total = len(table)
        outcomes = read_ahead(range(total), lambda row: _read_row(table, row, view), workers=workers, depth=depth)
    else:
        places = list_samples(images, view)
        total = len(places)
        read = partial(read_place, view=view, masks=True)
        outcomes = read_ahead(places, read, workers=workers, depth=depth)
    at_once, done = 1 if view.is_volume else size, 0
    while group := list(islice(outcomes, at_once)):
        ready = [sample for outcome in group if not isinstance(outcome, Failure) for sample in outcome]
        masks = _masks(ready, see, view=view, at_once=at_once)
        for outcome in group:
            if isinstance(outcome, Failure):
                yield outcome
            else:
                yield from (next(masks) for _ in outcome)
        done += len(group)
        if progress is not None:
            progress(done, total)


def _network(bundle: Bundle, view: View, *, device: str, precision: str, size: int) -> tuple[_See, int]:
    """What gives masks and probabilities of pixels, and how many samples may be read ahead."""
    if view.is_volume:
        return VolumeSegmenter(bundle, device=device, precision=precision).examine, 2
    return Engine(bundle, device=device, precision=precision, batch_size=size).examine_pixels, size


def _read_row(table: RowTable, row: int, view: View) -> Outcome:
    at, image_id = table.locate(row), table.image_id(row)

    def read() -> tuple[Sample, ...]:
        image = read_image(at.path, member=at.member, frame=at.frame, **at.repairs)
        return (Sample(image_id, at, view.prepare(image).pixels, int(table.index[row]), image=image),)

    return attempt(read, image_id)


def _masks(ready: Sequence[Sample], see: _See, *, view: View, at_once: int) -> Iterator[MaskPrediction | Failure]:
    for start in range(0, len(ready), at_once):
        part = ready[start : start + at_once]
        try:
            found = see(part[0].pixels[None] if len(part) == 1 else np.stack([one.pixels for one in part]))
        except (MemoryError, torch.OutOfMemoryError):  # what is too large for the device: the next may fit
            yield from (Failure(one.image_id, "too_large") for one in part)
            continue
        if found.masks is None or not np.isfinite(found.masks).all():
            raise EvaluationError(_NO_NUMBERS)
        images = [one.image for one in part if one.image is not None]
        for place, (one, image, prob) in enumerate(zip(part, images, found.masks, strict=True)):
            share, labels = partial(_share, prob, view, image), view.restore(prob, image)
            probabilities = {name: values[place] for name, values in found.probabilities.items()}
            yield MaskPrediction(one.image_id, one.address, image, labels, share, one.row, probabilities)


def _share(prob: Pixels, view: View, image: Image, number: int) -> Pixels:
    return view.restore_share(prob[number], image)


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
        self.config, self.view = bundle.config, view_of(bundle.config)
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
            pixels: (C, D, H, W) uint16 from ``View.prepare``.

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
            raise EvaluationError(_NO_NUMBERS)
        return prob

    def examine(self, pixels: UInt16Pixels) -> EngineOutput:
        """Predict the mask of one prepared volume, (1, C, D, H, W) uint16; there are no probabilities of targets."""
        return EngineOutput({}, self.probabilities(pixels[0])[None])

    def mask(self, image: Image) -> LabelMap:
        """Predict the mask of one volume as it was read, (D, H, W) uint8 on its own voxels.

        Raises:
            ReadError: it cannot be prepared.
        """
        return self.view.restore(self.probabilities(self.view.prepare(image).pixels), image)
