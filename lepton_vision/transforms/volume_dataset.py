"""Dataset of volumes: patches in training, whole volumes or their centre otherwise."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from lepton_vision.config import Config
from lepton_vision.config.sections import VolumeConfig
from lepton_vision.errors import LeptonError, ReadError
from lepton_vision.manifest.table import Manifest
from lepton_vision.readers.channels import agreed_channels, channel_files
from lepton_vision.readers.image import read_image
from lepton_vision.readers.mask import mask_files
from lepton_vision.transforms.grid import choose_slices, grid_of, prepare_mask, preprocess_view
from lepton_vision.transforms.mask_rows import MaskRows
from lepton_vision.transforms.masks import read_structures
from lepton_vision.transforms.patches import StoredMask, choose_center, cut_patch, find_points, warp_patch
from lepton_vision.transforms.preprocess import LEVELS, UInt16Pixels, to_input
from lepton_vision.transforms.presets import PRESETS, may_flip
from lepton_vision.transforms.rows import usable_rows
from lepton_vision.transforms.slabs import (
    fold_slabs,
    labels_of_slices,
    prepare_slice_mask,
    slab_slices,
    structure_numbers,
)
from lepton_vision.transforms.store import Prepared, VolumeCache, source_version
from lepton_vision.types import UNKNOWN, Batch, Pixels, SampleAddress, Target

if TYPE_CHECKING:
    from lepton_vision.transforms.volume_augment import VolumeAugment

Key = int | tuple[int, int]
_Slices = TypeVar("_Slices", UInt16Pixels, Pixels)


class _Sample(NamedTuple):
    """Pixels, uint16 or (augmented) float32 in [0, 1], and mask of one sample."""

    pixels: UInt16Pixels | Pixels
    mask: StoredMask | None = None
    is_known: bool = False  # whether the mask of the slice in the middle is known all over


class VolumeDataset(Dataset[Batch]):
    """The usable rows of a manifest as volumes, each one file or series.

    In training a sample is a patch of ``config.volume.patch`` voxels, and each row is there ``config.volume.patches``
    times in a row of samples k, k + N, k + 2 N …: the seed of a sample decides where its patch lies and what happens to
    it. Otherwise a sample is the whole volume where masks are asked for, and else the patch in its middle. With view
    "slices" a sample is a bag of ``config.volume.patch[0]`` slices of ``config.preprocess.size``. With view "2.5d" it
    is a slice with its neighbours as channels (B, S * C, H, W) in training, and the whole volume otherwise. A target
    that the mask gives (``Target.mask_values``) then has the label of the slice.

    Args:
        manifest: rows whose status is not "ok" are left out; ``Batch.index`` counts rows of this manifest.
        config: preprocess, volume and segmentation sections.
        targets: whose labels are given.
        augment: applied to samples that are asked for with a seed; None for none.
        training: see above.
        cache: prepared volumes are kept there; None prepares them each time.

    Raises:
        ManifestError: no usable row.
        LabelError: the column of a target is missing, a label is none of its classes, or a mask holds a value that
            stands for no structure.
    """

    def __init__(
        self,
        manifest: Manifest,
        config: Config,
        *,
        targets: Sequence[Target] = (),
        augment: VolumeAugment | None = None,
        training: bool = False,
        cache: VolumeCache | None = None,
    ) -> None:
        self.rows = usable_rows(manifest, what="volume")
        self.config, self.augment, self.cache, self.training = config, augment, cache, training
        self.volume = config.volume or VolumeConfig()
        self.targets = tuple(targets)
        segmentation = config.segmentation
        self.masks = None if segmentation is None else MaskRows(manifest, config.preprocess, segmentation=segmentation)
        self._names: dict[int, str] = {}  # in the cache, by row
        self._labels = {target.name: manifest.labels(target)[self.rows.index] for target in self.targets}
        shown_by = {target.name: structure_numbers(target, segmentation) for target in self.targets}
        self._shown_by = {name: numbers for name, numbers in shown_by.items() if numbers}

    @property
    def gives_wholes(self) -> bool:
        """Whether samples are whole volumes, which differ in size: one at a time then."""
        return (self.masks is not None or self.volume.view == "2.5d") and not self.training

    @property
    def copies(self) -> int:
        """Number of samples from each row."""
        return self.volume.patches if self.training else 1

    def __len__(self) -> int:
        return len(self.rows) * self.copies

    def __getitem__(self, key: Key) -> Batch:
        return self.batch([key])

    def __getitems__(self, keys: Sequence[Key]) -> Batch | LeptonError:
        """What a DataLoader calls; an error comes as a value, see ``ImageDataset``."""
        try:
            return self.batch(keys)
        except LeptonError as error:
            return error

    def batch(self, keys: Sequence[Key]) -> Batch:
        """One Batch of all samples asked for; whole volumes are padded to the largest of them.

        Raises:
            ReadError: a file that could be read when the folder was scanned cannot be read now.
            IndexError: no such sample.
        """
        pairs = [key if isinstance(key, tuple) else (int(key), None) for key in keys]
        if pairs and not 0 <= min(place for place, _ in pairs) <= max(place for place, _ in pairs) < len(self):
            raise IndexError(f"Expected samples from 0 to {len(self) - 1}. Received others.")
        rows = np.asarray([place % len(self.rows) for place, _ in pairs], np.int64)
        samples = [self._sample(int(row), seed) for row, (_, seed) in zip(rows, pairs, strict=True)]
        images, masks = self._stack(samples)
        if self.volume.view == "2.5d" and self.training:
            images, masks = fold_slabs(images), None if masks is None else masks[:, self.volume.context]
        labels = {name: torch.from_numpy(values[rows]) for name, values in self._labels.items()}
        if masks is not None and self.volume.view == "2.5d" and self.training:
            is_known = torch.tensor([sample.is_known for sample in samples])
            labels |= {
                name: labels_of_slices(masks, numbers, is_known=is_known) for name, numbers in self._shown_by.items()
            }
        ids = tuple(self.rows.image_id(int(row)) for row in rows)
        return Batch(images, labels, torch.from_numpy(self.rows.index[rows]), ids, masks)

    def load_volume(self, row: int) -> Prepared:
        """One row's prepared volume and mask, from the cache where they are there.

        Raises:
            ReadError: a file cannot become a volume, or its mask does not fit; ``path`` names it.
        """
        if self.cache is None:
            return self._prepare(row)
        name = self._names.get(row) or self._names.setdefault(row, self.cache.name(*self._sources(row)))
        kept = self.cache.get(name)
        if kept is None:
            kept = self._prepare(row)
            self.cache.put(name, kept)
        return kept

    def _prepare(self, row: int) -> Prepared:
        address = self.locate(row)
        try:
            member = agreed_channels(address.path, self.volume.channels, row=address.member)
            image = read_image(address.path, frame=address.frame, member=member, **address.repairs)
            grid = grid_of(image, self.volume)
            pixels = preprocess_view(image, self.config.preprocess, self.volume)
        except ReadError as error:
            raise self.rows.unreadable(row, error) from error
        mask = None
        place = None if self.masks is None else self.masks.locate(row)
        if place is not None and self.config.segmentation is not None:
            try:
                labels = read_structures(place, self.config.segmentation, on=image)
                if self.volume.view == "3d":
                    mask = prepare_mask(labels, grid)
                else:
                    mask = prepare_slice_mask(labels, grid, config=self.config.preprocess)
            except ReadError as error:
                error.path = error.path or place.path
                what = "" if error.path == address.path else ", its mask"
                raise self.rows.unreadable(row, error, what=what) from error
        structures = 0 if self.config.segmentation is None else len(self.config.segmentation.structures)
        points = find_points(np.zeros((0, 0, 0), np.uint8) if mask is None else mask, structures=structures)
        return Prepared(pixels, mask, points, grid.spacing_mm)

    def load_row(self, row: int) -> UInt16Pixels:
        """Input of a network without masks from one row's volume, see ``plain_sample``."""
        return plain_sample(self.load_volume(row).pixels, self.volume)

    def locate(self, row: int) -> SampleAddress:
        """Location of the voxels of one row."""
        return self.rows.locate(row)

    def source_key(self, row: int) -> str:
        """Name the voxels of one sample's row and their version, 32 hexadecimal digits."""
        text = "\n".join(self._sources(row % len(self.rows)))
        return hashlib.sha256(os.fsencode(text)).hexdigest()[:32]

    def labels(self, target: str) -> npt.NDArray[np.float32]:
        """(N,) or (N, K) labels of the samples, NaN where unknown."""
        values = self._labels[target]
        return np.concatenate([values] * self.copies)

    def _sources(self, row: int) -> list[str]:
        places = [self.locate(row), None if self.masks is None else self.masks.locate(row)]
        return [
            f"{place.path.absolute()} {place.member} {place.frame} {place.repair} {source_version(path)}"
            for place in places
            if place is not None
            for path in channel_files(place.path, (place.member or "").split(","))
            or mask_files(place.path, place.member)
        ]

    def _sample(self, row: int, seed: int | None) -> _Sample:
        volume, patch = self.load_volume(row), self.volume.patch
        if self.gives_wholes:
            return _Sample(volume.pixels, volume.mask)
        if self.volume.view == "2.5d":
            return self._slab(volume, seed=seed)
        d, h, w = volume.pixels.shape[1:]
        if seed is None or not self.training:
            if self.masks is None:
                return _Sample(plain_sample(volume.pixels, self.volume))
            middle = np.array([d - 1.0, h - 1.0, w - 1.0]) / 2.0
            return _Sample(*cut_patch(volume.pixels, volume.mask, middle=middle, patch=patch))
        rng = np.random.default_rng(seed)
        if self.volume.view == "slices":
            return _Sample(self._bag(volume.pixels, seed=seed, rng=rng))
        middle = choose_center((d, h, w), patch, points=volume.points, foreground=self.volume.foreground, rng=rng)
        if self.augment is None:
            return _Sample(*cut_patch(volume.pixels, volume.mask, middle=middle, patch=patch))
        matrix, shift = self.augment.motion(rng, patch=patch, spacing_mm=volume.spacing_mm)
        pixels, mask = warp_patch(volume.pixels, volume.mask, middle=middle + shift, matrix=matrix, patch=patch)
        return _Sample(self.augment.change(pixels, seed), mask)

    def _slab(self, volume: Prepared, *, seed: int | None) -> _Sample:
        """A slice (C, S, H, W) with its neighbours, moved and changed alike, and their masks."""
        d, h, w = volume.pixels.shape[1:]
        place, rng = (d - 1) // 2, np.random.default_rng(seed)
        if seed is not None:
            chosen = choose_center(
                (d, h, w), (1, h, w), points=volume.points, foreground=self.volume.foreground, rng=rng
            )
            place = int(chosen[0])
        places = slab_slices(place, d, volume=self.volume)
        pixels, mask = volume.pixels[:, places], None if volume.mask is None else volume.mask[places]
        is_known = volume.mask is not None and not bool((volume.mask[place] == UNKNOWN).any())
        if seed is None or self.augment is None:
            return _Sample(pixels, mask, is_known)
        size = (len(places), h, w)
        matrix, shift = self.augment.motion(rng, patch=size, spacing_mm=None, in_plane=True)
        middle = (np.asarray(size) - 1.0) / 2.0 + shift
        moved, labels = warp_patch(pixels, mask, middle=middle, matrix=matrix, patch=size)
        return _Sample(self.augment.change(moved, seed), labels, is_known)

    def _bag(self, pixels: UInt16Pixels, *, seed: int, rng: np.random.Generator) -> UInt16Pixels | Pixels:
        """Slices of a volume, moved and changed alike; padded with black ones."""
        count = self.volume.patch[0]
        chosen = pixels[:, choose_slices(pixels.shape[1], count, rng=rng)]
        if self.augment is None:
            return fill_bag(chosen, count)
        size: tuple[int, int, int] = chosen.shape[1:]
        matrix, shift = self.augment.motion(rng, patch=size, spacing_mm=None, in_plane=True)
        middle = (np.asarray(size) - 1.0) / 2.0 + shift
        moved, _ = warp_patch(chosen, None, middle=middle, matrix=matrix, patch=size)
        return fill_bag(self.augment.change(moved, seed), count)

    def _stack(self, samples: Sequence[_Sample]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, C, D, H, W) float32, normalised, and (B, D, H, W) uint8."""
        size = np.max([sample.pixels.shape[1:] for sample in samples], axis=0)
        images = np.zeros((len(samples), self.config.preprocess.channels, *size), np.float32)
        masks = None if self.masks is None else np.full((len(samples), *size), UNKNOWN, np.uint8)
        for place, (pixels, mask, _) in enumerate(samples):
            d, h, w = pixels.shape[1:]
            white = np.float32(1.0 / LEVELS if pixels.dtype == np.uint16 else 1.0)
            np.multiply(pixels, white, out=images[place, :, :d, :h, :w], dtype=np.float32)
            if masks is not None and mask is not None:
                masks[place, :d, :h, :w] = mask
        images = to_input(images, self.config.preprocess, out=images, axes=3)
        return torch.from_numpy(images), None if masks is None else torch.from_numpy(masks)


def plain_sample(pixels: UInt16Pixels, volume: VolumeConfig) -> UInt16Pixels:
    """Input of a network without masks from a prepared volume, outside training.

    Args:
        pixels: (C, D, H, W) uint16 from ``preprocess_volume`` or ``preprocess_slices``.
        volume: view and patch.

    Returns:
        (C, *patch) uint16, the middle of the volume, black where it does not reach; for slices (C, patch[0], height,
        width), all of them or so many spread evenly, black ones behind; for 2.5d the whole volume.
    """
    if volume.view == "2.5d":
        return pixels
    if volume.view == "slices":
        return fill_bag(pixels[:, choose_slices(pixels.shape[1], volume.patch[0])], volume.patch[0])
    middle = (np.asarray(pixels.shape[1:]) - 1.0) / 2.0
    return cut_patch(pixels, None, middle=middle, patch=volume.patch)[0]


def fill_bag(slices: _Slices, count: int) -> _Slices:
    """Add black slices behind (C, D, H, W) until there are ``count``."""
    return np.pad(slices, ((0, 0), (0, count - slices.shape[1]), (0, 0), (0, 0)))


def make_volume_dataset(
    manifest: Manifest, config: Config, *, training: bool, targets: Sequence[Target], cache_dir: str | Path | None
) -> VolumeDataset:
    """Make the data set that ``make_loader`` loads from where ``config.volume`` is set; arguments as there."""
    augment = None
    if training and config.augment.preset != "none" and config.augment.strength > 0:
        from lepton_vision.transforms.volume_augment import VolumeAugment  # scoring and validation never load MONAI

        flips = may_flip(config.augment, targets=targets, segmentation=config.segmentation)
        augment = VolumeAugment(PRESETS[config.augment.preset], strength=config.augment.strength, flips=flips)
    folder = cache_dir if cache_dir is not None else config.cache.folder
    cache = None
    if folder is not None and config.cache.max_gb > 0:
        cache = VolumeCache(Path(folder) / "volumes", config, max_gb=config.cache.max_gb)
    return VolumeDataset(manifest, config, targets=targets, augment=augment, training=training, cache=cache)
