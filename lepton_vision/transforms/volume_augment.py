"""Random augmentation of training volumes: the doorway to monai.transforms, imported when needed only.

Values are changed by MONAI. Places are not: its affine counts in voxels, so that turning a stack of thick slices would
shear it, and works on a patch that was cut already, whose corners then turn black although the volume goes on there.
``motion`` turns in mm, and ``patches.warp_patch`` samples the whole volume once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from monai.transforms.compose import Compose
from monai.transforms.intensity.array import (
    RandAdjustContrast,
    RandGaussianNoise,
    RandGaussianSmooth,
    RandScaleIntensity,
    RandShiftIntensity,
)
from monai.transforms.transform import MapTransform, Transform
from monai.utils.misc import ensure_tuple

from lepton_vision.config import SegmentationConfig
from lepton_vision.config.sections import AugmentConfig
from lepton_vision.errors import ConfigError
from lepton_vision.transforms.presets import PRESETS, Preset, may_flip
from lepton_vision.transforms.side_probe import keeps_sides, refuse_exchange
from lepton_vision.types import FloatArray, Pixels, Target

# Share of the patches that are turned, scaled and shifted. That of nnU-Net (doi:10.1038/s41592-020-01008-z: one fifth
# are turned, one fifth scaled): interpolation blurs edges, and a small structure is mostly edge.
_MOVED = 0.36
_PIERCED = 0.15  # share of the patches that get holes, as of images
_KEY = "augment.pipeline"
_SEEN = (1, 8, 24, 24)  # of the volume that a step is tried on
_HOLES = 0x686F6C65  # keeps the generator of the holes apart from that of the motion, which has the same seed


class VolumeAugment:
    """Changes of one preset; the seed or generator that is given decides everything.

    Args:
        preset: ranges at strength 1; upside-down flips are along H, as in images.
        strength: multiplies the ranges.
        flips: whether volumes are mirrored left–right (along W).

    Example:
        >>> augment = VolumeAugment(Preset(flip=True, noise=0.1), strength=1.0, flips=True)
        >>> pixels = np.full((1, 4, 4, 4), 0.5, np.float32)
        >>> bool((augment.change(pixels, 3) == augment.change(pixels, 3)).all())
        True
    """

    def __init__(self, preset: Preset, *, strength: float, flips: bool) -> None:
        self.preset, self.strength, self.flips = preset, strength, flips
        self._changes = Compose(_value_steps(preset, strength))

    def motion(
        self,
        rng: np.random.Generator,
        *,
        patch: tuple[int, int, int],
        spacing_mm: tuple[float, ...] | None,
        in_plane: bool = False,
    ) -> tuple[FloatArray, FloatArray]:
        """Draw how a patch is moved: mirrored, turned over, turned around each axis, scaled and shifted.

        Args:
            rng: decides.
            patch: size in voxels, which shifts are a part of.
            spacing_mm: distance of the voxels; None takes them for cubes.
            in_plane: slices stay slices: they are turned around D alone, scaled and shifted along H and W.

        Returns:
            (3, 3) from voxels of the patch to voxels of the volume, and (3,) shift of its middle in voxels.
        """
        drawn, is_moved, is_mirrored = rng.uniform(-1.0, 1.0, 7), rng.random() < _MOVED, rng.random() < 0.5
        is_turned_over = rng.random() < 0.5 and self.preset.flip_vertical and self.strength > 0
        matrix, shift = np.eye(3), np.zeros(3)
        if is_moved:
            step = np.diag(np.ones(3) if spacing_mm is None else np.asarray(spacing_mm, np.float64))
            is_free = np.array([1.0, 0.0, 0.0]) if in_plane else np.ones(3)
            moves = np.array([0.0, 1.0, 1.0]) if in_plane else np.ones(3)
            scale = 1.0 + moves * min(0.5, self.preset.scale * self.strength) * drawn[3]
            angles = np.deg2rad(self.preset.rotate * self.strength * drawn[:3]) * is_free
            matrix = np.linalg.inv(step) @ _turned(angles) @ step / scale
            shift = self.preset.shift * self.strength * drawn[4:] * np.asarray(patch) * moves
        if self.flips and is_mirrored:
            matrix = matrix @ np.diag([1.0, 1.0, -1.0])
        if is_turned_over:
            matrix = matrix @ np.diag([1.0, -1.0, 1.0])
        return matrix, shift

    def change(self, pixels: Pixels, seed: int) -> Pixels:
        """Change blur, brightness, contrast, gamma and noise, then punch holes; channels alike but for the noise.

        Masks stay as they are: what lies behind a hole is still there.

        Args:
            pixels: (C, D, H, W) float32 in [0, 1]; not changed.
            seed: 0 or more.

        Returns:
            (C, D, H, W) float32 in [0, 1].
        """
        self._changes.set_random_state(seed=seed % 2**32)
        changed: Any = self._changes(pixels)
        found: Pixels = np.clip(np.asarray(changed, dtype=np.float32), 0.0, 1.0)
        side = min(0.5, self.preset.hole * self.strength)
        for hole in draw_holes(pixels.shape[1:], side=side, rng=np.random.default_rng((seed, _HOLES))):
            found[(slice(None), *hole)] = 0.0
        return found

    def change_both(self, pixels: Pixels, mask: Any, seed: int) -> tuple[Pixels, Any]:
        """``change``, with the mask (D, H, W) as it is."""
        return self.change(pixels, seed), mask


class VolumePipeline:
    """Applies a pipeline of monai.transforms that a team brings; the seed decides everything.

    Args:
        pipeline: for arrays (C, D, H, W) float32 in [0, 1], or for dictionaries with ``image`` and, where there are
            masks, ``mask`` (1, D, H, W) uint8. Both keep their size. A copy is used.
        has_masks: masks are moved along.
        is_lateral: left and right mean something, so that nothing may exchange them.

    Raises:
        ConfigError: it is none, exchanges sides that mean something, or moves images without their masks.
    """

    def __init__(self, pipeline: Any, *, has_masks: bool, is_lateral: bool) -> None:
        if not isinstance(pipeline, Transform | Compose):
            raise ConfigError(
                f"Expected a pipeline of monai.transforms for volumes. Received: {type(pipeline).__name__}.",
                key=_KEY,
            )
        pipeline = copy.deepcopy(pipeline)
        self._pipeline: Any = pipeline if isinstance(pipeline, Compose) else Compose([pipeline])
        steps = list(_steps(self._pipeline))
        self._is_mapping = any(isinstance(step, MapTransform) for step in steps)
        for step in steps:
            _check_step(step, has_masks=has_masks, is_lateral=is_lateral)

    @staticmethod
    def motion(rng: np.random.Generator, **_: Any) -> tuple[FloatArray, FloatArray]:
        """Return no motion: the pipeline moves what it is given."""
        del rng
        return np.eye(3), np.zeros(3)

    def change_both(self, pixels: Pixels, mask: Any, seed: int) -> tuple[Pixels, Any]:
        """Change a patch (C, D, H, W) float32 and its mask (D, H, W) uint8 or None; as ``VolumeAugment.change_both``.

        Raises:
            ConfigError: the pipeline fails, changes the size, or gives a mask of other values than labels.
        """
        self._pipeline.set_random_state(seed=seed % 2**32)
        given: Any = pixels.copy()
        if self._is_mapping:
            given = {"image": given} | ({} if mask is None else {"mask": mask[None].copy()})
        try:
            made: Any = self._pipeline(given)
            image = np.asarray(made["image"] if self._is_mapping else made, np.float32)
            moved = np.asarray(made["mask"])[0] if self._is_mapping and mask is not None else mask
        except Exception as error:
            raise ConfigError(
                f"The pipeline fails on a patch {pixels.shape} float32 in [0, 1] ({type(error).__name__}: {error}).",
                key=_KEY,
            ) from error
        if image.shape != pixels.shape or (mask is not None and moved.shape != mask.shape):
            raise ConfigError(
                f"The pipeline gives {image.shape}. Expected {pixels.shape}: patches keep size.", key=_KEY
            )
        labels = None if moved is None else np.asarray(moved).astype(np.uint8)
        if labels is not None and not np.array_equal(labels, moved):
            raise ConfigError(
                "The pipeline gives masks with values between labels. Interpolate them by mode nearest: "
                'mode=("bilinear", "nearest").',
                key=_KEY,
            )
        return np.clip(image, 0.0, 1.0), labels


def describe_steps(pipeline: Any) -> list[dict[str, Any]]:
    """Return plain values that say what a pipeline of monai.transforms does, for a bundle."""
    plain = (int, float, str, bool, tuple, list, type(None))
    return [
        {"transform": type(step).__name__}
        | {name: repr(value) for name, value in sorted(vars(step).items()) if isinstance(value, plain)}
        for step in _steps(pipeline)
    ]


def _steps(pipeline: Any) -> Iterator[Any]:
    """Transforms of a pipeline, those inside others too."""
    if not isinstance(pipeline, Compose):
        yield pipeline
        return
    for step in pipeline.transforms:
        yield from _steps(step)


def _check_step(step: Any, *, has_masks: bool, is_lateral: bool) -> None:
    name, is_mapping = type(step).__name__, isinstance(step, MapTransform)
    is_moving = type(step).__module__.startswith(("monai.transforms.spatial", "monai.transforms.croppad"))
    if has_masks and is_moving and not (is_mapping and {"image", "mask"} <= set(step.keys)):
        raise ConfigError(
            f'{name} moves images without their masks. Use its form for dictionaries, with keys=["image", "mask"].',
            key=_KEY,
        )
    if is_lateral and _may_exchange_sides(step):
        refuse_exchange(name)


def _may_exchange_sides(step: Any) -> bool:
    """Whether a step turns W by a right angle and more, however seldom, or exchanges its ends when it is tried."""
    if type(step).__module__.startswith("monai.transforms.intensity"):
        return False
    alone = Compose([copy.deepcopy(step)])
    for one in _inside(alone.transforms[0]):
        turns = [getattr(one, name) for name in ("range_x", "range_y") if hasattr(one, name)]
        turns += ensure_tuple(getattr(one, "rotate_range", None))[:2]  # radians around D, H, W
        if any(turn is not None and np.abs(turn).max() >= np.pi / 2 for turn in turns):
            return True
        if hasattr(one, "prob"):
            one.prob = 1.0

    def change(pixels: Pixels, seed: int) -> Any:
        alone.set_random_state(seed=seed)
        if not isinstance(step, MapTransform):
            return alone(pixels)
        changed: Any = alone({"image": pixels, "mask": np.zeros(pixels.shape, np.uint8)})
        return changed["image"]

    return not keeps_sides(change, _SEEN)


def _inside(step: Any) -> Iterator[Any]:
    """A transform, and those that it is made of."""
    yield step
    for one in vars(step).values():
        if isinstance(one, Transform):
            yield from _inside(one)


def build_volume_augment(
    config: AugmentConfig, *, targets: Sequence[Target], segmentation: SegmentationConfig | None = None
) -> VolumeAugment:
    """Make the preset's changes of volumes; arguments as for ``build_augment``."""
    flips = may_flip(config, targets=targets, segmentation=segmentation)
    return VolumeAugment(PRESETS[config.preset], strength=config.strength, flips=flips)


def draw_holes(size: tuple[int, ...], *, side: float, rng: np.random.Generator) -> list[tuple[slice, ...]]:
    """Draw up to three boxes that are blacked out, or none: of an image's holes (``augment``) in all its axes.

    Args:
        size: of the patch in voxels.
        side: longest side as a part of the patch's; the shortest is half of it, and one voxel at least. 0 is none.
        rng: decides.

    Returns:
        Boxes inside the patch, each with one slice for every axis.

    Example:
        >>> draw_holes((8, 8, 8), side=0.0, rng=np.random.default_rng(0))
        []
    """
    if side <= 0 or rng.random() >= _PIERCED:
        return []
    holes = []
    for _ in range(int(rng.integers(1, 4))):
        lengths = [
            min(n, max(1, round(n * share)))
            for n, share in zip(size, rng.uniform(side / 2, side, len(size)), strict=True)
        ]
        starts = [int(rng.integers(0, n - length + 1)) for n, length in zip(size, lengths, strict=True)]
        holes.append(tuple(slice(a, a + length) for a, length in zip(starts, lengths, strict=True)))
    return holes


def _turned(angles: FloatArray) -> FloatArray:
    """(3, 3) rotation around D, then H, then W."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        one, other = (k for k in range(3) if k != axis)
        turn = np.eye(3)
        turn[one, one] = turn[other, other] = np.cos(angle)
        turn[one, other], turn[other, one] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def _value_steps(preset: Preset, strength: float) -> list[Any]:
    """Steps with the shares of ``augment``'s for images."""
    steps: list[Any] = []
    if preset.blur * strength > 0:
        limits = (0.3 * preset.blur * strength, preset.blur * strength)
        steps.append(RandGaussianSmooth(sigma_x=limits, sigma_y=limits, sigma_z=limits, prob=0.15))
    contrast, brightness = min(0.9, preset.contrast * strength), min(0.9, preset.brightness * strength)
    if contrast > 0:
        steps.append(RandScaleIntensity(factors=contrast, prob=0.5))
    if brightness > 0:
        steps.append(RandShiftIntensity(offsets=brightness, prob=0.5))
    gamma = min(0.9, preset.gamma * strength)
    if gamma > 0:
        steps.append(RandAdjustContrast(gamma=(1.0 - gamma, 1.0 + gamma), prob=0.3))
    noise = min(0.5, preset.noise * strength)
    if noise > 0:
        steps.append(RandGaussianNoise(std=noise, prob=0.3))
    return steps
