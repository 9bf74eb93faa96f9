"""Views: how an image or a volume becomes samples of a network, and how predicted masks go back to its voxels."""

# ruff: noqa: D102  the methods of all views are described in View

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from lepton_vision.config import Config
from lepton_vision.config.sections import VolumeConfig
from lepton_vision.readers.channels import agreed_channels
from lepton_vision.readers.frames import frames_of
from lepton_vision.readers.image import read_image, read_pixels
from lepton_vision.readers.mask import LabelMap
from lepton_vision.transforms.augment_choice import choose_augment
from lepton_vision.transforms.cache import ImageCache, SampleCache
from lepton_vision.transforms.grid import (
    Grid,
    choose_slices,
    grid_of,
    plane_grid,
    prepare_mask,
    preprocess_slices,
    preprocess_volume,
    restore_mask,
    restore_share,
)
from lepton_vision.transforms.masks import fit_plane
from lepton_vision.transforms.patches import choose_center, cut_patch, find_points, warp_patch
from lepton_vision.transforms.preprocess import Prepared, StoredMask, preprocess_image, to_input
from lepton_vision.transforms.resize import LEVELS, UInt16Pixels
from lepton_vision.transforms.rows import RowTable
from lepton_vision.transforms.slabs import label_of_slice, slab_slices, structure_numbers
from lepton_vision.transforms.store import VolumeCache
from lepton_vision.types import UNKNOWN, Image, Pixels, SampleAddress, Target

if TYPE_CHECKING:
    from lepton_vision.transforms.augment import Augment
    from lepton_vision.transforms.volume_augment import VolumeAugment

_Cut = tuple[UInt16Pixels | Pixels, StoredMask | None]
"""(C, D, H, W) uint16, or float32 in [0, 1], and the mask of it."""
_NO_LABELS: Mapping[str, float] = MappingProxyType({})


class View(Protocol):
    """One way to see what is read; ``view_of`` chooses it, and nobody else asks which it is.

    Attributes:
        config: preprocess, volume and segmentation sections count.
        is_volume: a sample is a volume: a DICOM series, a NIfTI file, or all frames of a file. Else it is an image.
        gives_wholes: samples of a data set are whole volumes, which differ in size: one at a time then.
        copies: samples of a data set from each row.
        shape: (C, H, W) or (C, D, H, W) of a sample of a data set; None for wholes.
    """

    is_volume: ClassVar[bool]

    @property
    def config(self) -> Config: ...
    @property
    def gives_wholes(self) -> bool: ...
    @property
    def copies(self) -> int: ...
    @property
    def shape(self) -> tuple[int, ...] | None: ...

    def read(self, address: SampleAddress) -> Image:
        """Read the pixels of a row; ids, and geometry that the view does not need, may be left out."""

    def parts(self, image: Image) -> list[Image]:
        """Images that are samples of their own."""

    def prepare(self, image: Image, *, is_last_use: bool = False) -> Prepared:
        """Preprocess an image; its pixels may be overwritten where this ``is_last_use``.

        Raises:
            ReadError: it has the wrong axes, channels, units or no spacing.
        """

    def with_mask(self, ready: Prepared, labels: LabelMap, *, image: Image) -> Prepared:
        """Add the mask of the image, (H, W) or (D, H, W) uint8 numbers of structures on its pixels.

        Raises:
            ReadError: it has another size than a volume, or a third axis.
        """

    def open_cache(self, folder: Path, rows: RowTable, *, masks: RowTable | None) -> SampleCache | None:
        """Open the cache of the rows of a data set, and of their masks where there are any."""

    def draw(self, seed: int) -> Any:
        """Draw what happens to a sample; None where nothing does."""

    def sample(self, ready: Prepared, drawn: Any, *, out: Pixels, mask: LabelMap | None) -> Mapping[str, float]:
        """Make one sample, normalised.

        Args:
            ready: what it is made of.
            drawn: from ``draw``; None leaves it as it is.
            out: (C, …) float32 of ``shape``, or as large as the whole or larger, that takes all of it.
            mask: as ``out`` without channels, uint8, filled with ``UNKNOWN``; None where no masks are asked for.

        Returns:
            By target, labels of the sample in place of those of its row.
        """

    def plain(self, pixels: UInt16Pixels) -> UInt16Pixels:
        """Cut from prepared pixels what a network sees of them for its targets, outside training."""

    def restore(self, prob: Pixels, image: Image) -> LabelMap:
        """Bring predicted masks (1 + M, …) float32 of prepared pixels to the pixels of the image, as uint8 labels."""

    def restore_share(self, share: Pixels, image: Image) -> Pixels:
        """Bring the probability of one structure there, float32 in [0, 1]."""


def view_of(config: Config, *, targets: Sequence[Target] = (), training: bool = False, augment: Any = None) -> View:
    """Choose the view that a configuration asks for.

    Args:
        config: preprocess, volume, segmentation and augment sections count.
        targets: whose labels are given; those that tell left from right forbid flips.
        training: samples are drawn at random and augmented.
        augment: a pipeline of albumentations (images) or monai.transforms (volumes) in place of the configuration's.
    """
    volume, found = config.volume, None
    if training and (augment is not None or config.augment.is_on):  # else albumentations and MONAI are never loaded
        found = choose_augment(config, targets, own=augment)
    kind: Any = ImageView if volume is None else _OF_VOLUMES[volume.view]
    view: View = kind(config, tuple(targets), training, found)
    return view


@dataclass(frozen=True, eq=False)
class ImageView:
    """2-D images."""

    config: Config
    targets: tuple[Target, ...] = ()
    is_training: bool = False
    augment: Augment | None = None
    is_volume: ClassVar[bool] = False
    gives_wholes: ClassVar[bool] = False
    copies: ClassVar[int] = 1

    @cached_property
    def shape(self) -> tuple[int, ...]:
        return (self.config.preprocess.channels, *self.config.preprocess.size)

    def read(self, address: SampleAddress) -> Image:
        return read_pixels(address.path, frame=address.frame, member=address.member)

    def parts(self, image: Image) -> list[Image]:
        return frames_of(image)

    def prepare(self, image: Image, *, is_last_use: bool = False) -> Prepared:
        return Prepared(preprocess_image(image, self.config.preprocess, is_last_use=is_last_use))

    def with_mask(self, ready: Prepared, labels: LabelMap, *, image: Image) -> Prepared:
        return ready._replace(mask=fit_plane(labels, self.config.preprocess))

    def open_cache(self, folder: Path, rows: RowTable, *, masks: RowTable | None) -> SampleCache | None:
        return ImageCache.open(folder, rows, self.config, masks=masks)

    def draw(self, seed: int) -> Any:
        return None if self.augment is None else self.augment.draw(self.shape[1:], seed)

    def sample(self, ready: Prepared, drawn: Any, *, out: Pixels, mask: LabelMap | None) -> Mapping[str, float]:
        if mask is not None and ready.mask is not None:
            mask[...] = ready.mask
        if drawn is None or self.augment is None:
            to_input(ready.pixels, self.config.preprocess, out=out)
            return _NO_LABELS
        moved = None if mask is None or mask.min() == UNKNOWN else mask
        self.augment.apply(ready.pixels, drawn, out=out, mask=moved, norm=self.config.preprocess)
        return _NO_LABELS

    def plain(self, pixels: UInt16Pixels) -> UInt16Pixels:
        return pixels

    def restore(self, prob: Pixels, image: Image) -> LabelMap:
        labels: LabelMap = restore_mask(prob[:, None], self._grid(image))[0]
        return labels

    def restore_share(self, share: Pixels, image: Image) -> Pixels:
        found: Pixels = restore_share(share[None], self._grid(image))[0]
        return found

    def _grid(self, image: Image) -> Grid:
        return plane_grid(image.pixels.shape[1:], self.config.preprocess)


@dataclass(frozen=True, eq=False)
class _VolumeView:
    """Volumes, each one file or series; what differs is how samples are cut from them."""

    config: Config
    targets: tuple[Target, ...] = ()
    is_training: bool = False
    augment: VolumeAugment | None = None
    is_volume: ClassVar[bool] = True
    sees_planes: ClassVar[bool] = True

    @cached_property
    def volume(self) -> VolumeConfig:
        return self.config.volume or VolumeConfig()

    @property
    def gives_wholes(self) -> bool:
        return False

    @property
    def copies(self) -> int:
        return self.volume.patches if self.is_training else 1

    def read(self, address: SampleAddress) -> Image:
        member = agreed_channels(address.path, self.volume.channels, row=address.member)
        return read_image(address.path, frame=address.frame, member=member, **address.repairs)

    def parts(self, image: Image) -> list[Image]:
        return [image]

    def _grid(self, image: Image) -> Grid:
        return grid_of(image, self.volume, planes=self.config.preprocess if self.sees_planes else None)

    def prepare(self, image: Image, *, is_last_use: bool = False) -> Prepared:
        preprocess = preprocess_slices if self.sees_planes else preprocess_volume
        pixels = preprocess(image, self.config.preprocess, self.volume)
        return Prepared(pixels, spacing_mm=self._grid(image).spacing_mm)

    def with_mask(self, ready: Prepared, labels: LabelMap, *, image: Image) -> Prepared:
        mask = prepare_mask(labels, self._grid(image))
        structures = 0 if self.config.segmentation is None else len(self.config.segmentation.structures)
        return ready._replace(mask=mask, points=find_points(mask, structures=structures))

    def open_cache(self, folder: Path, rows: RowTable, *, masks: RowTable | None) -> SampleCache | None:
        return VolumeCache(folder / "volumes", rows, self.config, masks=masks)

    def draw(self, seed: int) -> Any:
        return seed if self.is_training else None

    def sample(self, ready: Prepared, drawn: Any, *, out: Pixels, mask: LabelMap | None) -> Mapping[str, float]:
        pixels, labels = (ready.pixels, ready.mask) if self.gives_wholes else self._cut(ready, drawn)
        self._write(pixels, out=out)
        if mask is not None and labels is not None:
            d, h, w = labels.shape
            mask[:d, :h, :w] = labels
        return _NO_LABELS

    def _cut(self, ready: Prepared, drawn: int | None) -> _Cut:
        """Cut a sample out of a volume, as its seed decides; without a seed, in the middle and as it is."""
        raise NotImplementedError

    def restore(self, prob: Pixels, image: Image) -> LabelMap:
        return restore_mask(prob, self._grid(image))

    def restore_share(self, share: Pixels, image: Image) -> Pixels:
        return restore_share(share, self._grid(image))

    def _write(self, pixels: UInt16Pixels | Pixels, *, out: Pixels) -> None:
        """Normalise (C, D, H, W) uint16 or float32 in [0, 1] into ``out``, with black behind."""
        d, h, w = pixels.shape[1:]
        if out.shape != pixels.shape:
            out[...] = 0.0
        white = np.float32(1.0 / LEVELS if pixels.dtype == np.uint16 else 1.0)
        np.multiply(pixels, white, out=out[:, :d, :h, :w], dtype=np.float32)
        to_input(out, self.config.preprocess, out=out, axes=3)

    def _moved_slices(
        self, pixels: UInt16Pixels, labels: StoredMask | None, *, seed: int, rng: np.random.Generator
    ) -> _Cut:
        """Slices (C, S, H, W) and their masks, moved within their plane and changed, all alike."""
        if self.augment is None:
            return pixels, labels
        size: tuple[int, int, int] = pixels.shape[1:]
        matrix, shift = self.augment.motion(rng, patch=size, spacing_mm=None, in_plane=True)
        middle = _middle(size) + shift
        moved, found = warp_patch(pixels, labels, middle=middle, matrix=matrix, patch=size)
        return self.augment.change_both(moved, found, seed)


class PatchView(_VolumeView):
    """Patches of volumes for a 3-D network (``volume.view`` 3d).

    In training the seed of a sample decides where its patch lies and what happens to it. Otherwise a sample is the
    whole volume where masks are asked for, and else the patch in its middle.
    """

    sees_planes = False

    @property
    def gives_wholes(self) -> bool:
        return self.config.segmentation is not None and not self.is_training

    @property
    def shape(self) -> tuple[int, ...] | None:
        return None if self.gives_wholes else (self.config.preprocess.channels, *self.volume.patch)

    def _cut(self, ready: Prepared, drawn: int | None) -> _Cut:
        patch, size = self.volume.patch, ready.pixels.shape[1:]
        if drawn is None:
            return cut_patch(ready.pixels, ready.mask, middle=_middle(size), patch=patch)
        rng, foreground = np.random.default_rng(drawn), self.volume.foreground
        middle = choose_center(size, patch, points=ready.points, foreground=foreground, rng=rng)
        if self.augment is None:
            return cut_patch(ready.pixels, ready.mask, middle=middle, patch=patch)
        matrix, shift = self.augment.motion(rng, patch=patch, spacing_mm=ready.spacing_mm)
        moved, labels = warp_patch(ready.pixels, ready.mask, middle=middle + shift, matrix=matrix, patch=patch)
        return self.augment.change_both(moved, labels, drawn)

    def plain(self, pixels: UInt16Pixels) -> UInt16Pixels:
        return cut_patch(pixels, None, middle=_middle(pixels.shape[1:]), patch=self.volume.patch)[0]


class SlabView(_VolumeView):
    """Slices of volumes with their neighbours as channels of a 2-D network (``volume.view`` 2.5d).

    In training a sample is a slice (S * C, H, W), and a target that the mask gives (``Target.mask_values``) has the
    label of the slice. Otherwise it is the whole volume.
    """

    @property
    def gives_wholes(self) -> bool:
        return not self.is_training

    @property
    def shape(self) -> tuple[int, ...] | None:
        return None if self.gives_wholes else (self.config.channels, *self.config.preprocess.size)

    @cached_property
    def _shown_by(self) -> dict[str, tuple[int, ...]]:
        """By target, the structures that make a slice positive."""
        found = {one.name: structure_numbers(one, self.config.segmentation) for one in self.targets}
        return {name: numbers for name, numbers in found.items() if numbers}

    def sample(self, ready: Prepared, drawn: Any, *, out: Pixels, mask: LabelMap | None) -> Mapping[str, float]:
        if self.gives_wholes:
            return super().sample(ready, drawn, out=out, mask=mask)
        (d, h, w), rng = ready.pixels.shape[1:], np.random.default_rng(drawn)
        place, foreground = (d - 1) // 2, self.volume.foreground
        if drawn is not None:
            place = int(choose_center((d, h, w), (1, h, w), points=ready.points, foreground=foreground, rng=rng)[0])
        places = slab_slices(place, d, volume=self.volume)
        near = ready.pixels[:, places], None if ready.mask is None else ready.mask[places]
        is_known = ready.mask is not None and not bool((ready.mask[place] == UNKNOWN).any())
        pixels, labels = near if drawn is None else self._moved_slices(*near, seed=drawn, rng=rng)
        # All channels of the first slice, then all of the second, as ``fold_slabs`` has them.
        self._write(pixels, out=out.reshape(len(places), -1, h, w).swapaxes(0, 1))
        if mask is None:
            return _NO_LABELS
        if labels is not None:
            mask[...] = labels[self.volume.context]
        return {name: label_of_slice(mask, numbers, is_known=is_known) for name, numbers in self._shown_by.items()}

    def plain(self, pixels: UInt16Pixels) -> UInt16Pixels:
        return pixels


class BagView(_VolumeView):
    """Bags of slices of volumes, one prediction for all of them (``volume.view`` slices)."""

    @property
    def shape(self) -> tuple[int, ...] | None:
        return (self.config.preprocess.channels, self.volume.patch[0], *self.config.preprocess.size)

    def _cut(self, ready: Prepared, drawn: int | None) -> _Cut:
        if drawn is None:
            return self.plain(ready.pixels), None
        rng = np.random.default_rng(drawn)
        chosen = ready.pixels[:, choose_slices(ready.pixels.shape[1], self.volume.patch[0], rng=rng)]
        return self._moved_slices(chosen, None, seed=drawn, rng=rng)

    def plain(self, pixels: UInt16Pixels) -> UInt16Pixels:
        """All slices, or so many spread evenly as a bag holds; black ones behind."""
        count = self.volume.patch[0]
        chosen = pixels[:, choose_slices(pixels.shape[1], count)]
        return np.pad(chosen, ((0, 0), (0, count - chosen.shape[1]), (0, 0), (0, 0)))


def _middle(size: Sequence[int]) -> Any:
    """(3,) float64 middle of a volume in voxels."""
    return (np.asarray(size) - 1.0) / 2.0


_OF_VOLUMES: Mapping[str, type[PatchView | SlabView | BagView]] = MappingProxyType(
    {"3d": PatchView, "2.5d": SlabView, "slices": BagView}
)
