"""Random augmentation of training images: the doorway to albumentations."""

# ruff: noqa: E402

from __future__ import annotations

import math
import os
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import takewhile
from types import MappingProxyType
from typing import Any

# albumentations asks the package index for a newer version when it is imported; medical networks must not call out.
_asked = os.environ.get("NO_ALBUMENTATIONS_UPDATE")
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1" if _asked is None else _asked
import albumentations as A

if _asked is None:
    del os.environ["NO_ALBUMENTATIONS_UPDATE"]
import cv2
import numpy as np

from lepton_vision.config import SegmentationConfig
from lepton_vision.config.sections import AugmentConfig, PreprocessConfig
from lepton_vision.readers.mask import LabelMap
from lepton_vision.transforms import changes
from lepton_vision.transforms.changes import UNIT, Levels
from lepton_vision.transforms.preprocess import normalisation
from lepton_vision.transforms.presets import PRESETS, Preset, may_flip
from lepton_vision.transforms.resize import LEVELS, UInt16Pixels
from lepton_vision.types import Pixels, Target

Change = Callable[[Pixels, Mapping[str, Any], Pixels, Levels], Pixels]
"""Applies drawn values to one plane (H, W) float32, see ``changes``."""

_CHANGES: Mapping[type, Change] = MappingProxyType(
    {
        A.HorizontalFlip: changes.mirror,
        A.VerticalFlip: changes.flip_vertical,
        A.Affine: changes.warp,
        A.GaussianBlur: changes.blur,
        A.CoarseDropout: changes.cut_holes,
        A.RandomBrightnessContrast: changes.stretch,
        A.RandomGamma: changes.apply_gamma,
        A.GaussNoise: changes.add_noise,
    }
)
Drawn = Sequence[tuple[Change, dict[str, Any]]]
"""Changes in order, with their values."""

_POINTWISE = frozenset({changes.stretch, changes.apply_gamma, changes.add_noise})
"""What may put its result in the place of what it is given."""
_TURNS = frozenset({changes.mirror, changes.flip_vertical})
"""What takes 16 bits too, and may put its result in the place of those."""

_UINT16 = Levels(0.0, float(LEVELS))
_TABLE_SIZE = 1 << 20
# What moves pixels moves the mask too; nothing else touches it.
_MOVES: Mapping[Change, Callable[[LabelMap, Mapping[str, Any]], LabelMap]] = MappingProxyType(
    {
        changes.mirror: changes.mirror_mask,
        changes.flip_vertical: changes.flip_vertical_mask,
        changes.warp: changes.warp_mask,
    }
)


class Augment:
    """Applies one preset; the seed decides everything, whatever ran before and in whichever process.

    Attributes:
        flips: whether images are flipped left–right.

    Example:
        >>> augment = build_augment(AugmentConfig(preset="ct"), targets=())
        >>> pixels = np.zeros((1, 32, 32), np.float32)
        >>> bool((augment(pixels, 7) == augment(pixels, 7)).all())
        True
    """

    def __init__(self, preset: Preset, *, strength: float, flips: bool) -> None:
        self.flips = flips
        self._steps = _spatial_steps(preset, strength=strength, flips=flips) + _intensity_steps(preset, strength)

    def __call__(
        self, pixels: UInt16Pixels | Pixels, seed: int, *, out: Pixels | None = None, mask: LabelMap | None = None
    ) -> Pixels:
        """Change one image; every channel in the same way, noise included, so that a gray image stays gray.

        A mask is moved with its image; what is black outside is background there. Holes are punched into the image
        alone: what lies behind one is still there.

        Args:
            pixels: (C, H, W) float32 in [0, 1], not changed unless it is ``out`` too; or uint16, where 65535 is 1.
            seed: 0 or more.
            out: array of the same shape that takes the result; None makes one.
            mask: (H, W) uint8, moved in place.

        Returns:
            (C, H, W) float32 in [0, 1].
        """
        return self.apply(pixels, self.draw(pixels.shape[1:], seed), out=out, mask=mask)

    @staticmethod
    def apply(
        pixels: UInt16Pixels | Pixels,
        drawn_changes: Drawn,
        *,
        out: Pixels | None = None,
        mask: LabelMap | None = None,
        norm: PreprocessConfig | None = None,
    ) -> Pixels:
        """Change one image as ``draw`` has drawn it.

        Args:
            pixels, out, mask: as for a call.
            drawn_changes: of the image's H and W.
            norm: its mean and std are applied too, as ``to_input`` would do it in a further pass.

        Returns:
            (C, H, W) float32: in [0, 1], or normalised where ``norm`` is given.
        """
        result = np.empty(pixels.shape, np.float32) if out is None else out
        mean, std = ((0.0,), (1.0,)) if norm is None else (norm.mean, norm.std)
        figures = normalisation(mean, std, white=1)
        scales, shifts = (np.broadcast_to(one.ravel(), len(pixels)).tolist() for one in figures)
        # Channel by channel is faster than three channels at once, which OpenCV wants last.
        for plane, changed, scale, shift in zip(pixels, result, scales, shifts, strict=True):
            last, levels = _change_plane(changed if result is pixels else plane, drawn_changes, out=changed)
            factor = scale / levels.span
            cv2.addWeighted(last, factor, last, 0.0, -shift - levels.black * factor, dst=changed)
        if norm is None:
            result.clip(0.0, 1.0, out=result)
        if mask is not None:
            for apply, drawn in drawn_changes:
                if apply in _MOVES:
                    mask[...] = _MOVES[apply](mask, drawn)
        return result

    def draw(self, shape: tuple[int, ...], seed: int) -> list[tuple[Change, dict[str, Any]]]:
        """Changes that happen, in order, with their values, from the seed alone.

        The stream is that of albumentations' ``Compose``, whose first number decides whether anything happens at all.
        One generator serves all steps: ``Compose.set_random_seed`` would start every step from the same state, and
        steps that should be independent would then always happen together.
        """
        coins = random.Random(seed)
        coins.random()
        drawn: list[tuple[Change, dict[str, Any]]] = []
        for step in self._steps:
            if coins.random() < step.p:
                kind = type(step)
                drawn.append((_CHANGES[kind], _DRAWERS.get(kind, _ask)(step, shape, coins)))
        return drawn


def _change_plane(source: UInt16Pixels | Pixels, drawn_changes: Drawn, *, out: Pixels) -> tuple[Pixels, Levels]:
    """Apply changes to one plane (H, W), to and fro between ``out``, which may be the plane, and one further array.

    Returns:
        One of these two, or the plane itself; and its levels.
    """
    spare, levels = _scratch(source.shape, np.float32), UNIT
    plane: Any = source
    if source.dtype == np.uint16:
        turned = list(takewhile(lambda change: change[0] in _TURNS, drawn_changes))
        for apply, drawn in turned:  # before there are twice as many bytes
            plane = apply(plane, drawn, _scratch(source.shape, np.uint16), UNIT)
        np.copyto(spare, plane)
        plane, levels, drawn_changes = spare, _UINT16, drawn_changes[len(turned) :]
    for apply, drawn in drawn_changes:
        if apply is changes.stretch:
            levels = levels.stretched(drawn)
        plane = apply(plane, drawn, out if plane is not out or apply in _POINTWISE else spare, levels)
    return plane, levels


_memory = threading.local()


def _scratch(shape: tuple[int, ...], dtype: type[np.generic]) -> Any:
    """(H, W) of this thread, one of each type, for results on their way: fresh memory costs more than most changes."""
    plane = getattr(_memory, dtype.__name__, None)
    if plane is None or plane.shape != shape:
        plane = np.empty(shape, dtype)
        setattr(_memory, dtype.__name__, plane)
    return plane


def _ask(step: Any, shape: tuple[int, ...], coins: random.Random) -> dict[str, Any]:
    """What the step itself draws; it fails if it draws from numpy's generator too. No step looks at the pixels."""
    step.set_random_state(None, coins)
    drawn: dict[str, Any] = step.get_params_dependent_on_data({"shape": (*shape, 1)}, {"image": _blank(shape)})
    return drawn


def _draw_warp(step: A.Affine, shape: tuple[int, ...], coins: random.Random) -> dict[str, Any]:
    """What ``step.get_params_dependent_on_data`` draws, in the order it draws it, for a step without shear.

    The matrix is the product of shift, rotation and scale about the middle, written out: multiplying six matrices takes
    half as long as moving the image.
    """
    height, width = shape
    across = int(coins.uniform(*step.translate_percent["x"]) * width)
    down = int(coins.uniform(*step.translate_percent["y"]) * height)
    for axis in "xy":
        coins.uniform(*step.shear[axis])  # drawn, though always 0
    scale = coins.uniform(*step.scale["x"])
    coins.uniform(*step.scale["y"])  # drawn too, though the ratio is kept
    angle = math.radians(coins.uniform(*step.rotate))
    x, y = width / 2 - 0.5, height / 2 - 0.5
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    return {
        "matrix": np.array(
            [[cos, sin, x + across - cos * x - sin * y], [-sin, cos, y + down + sin * x - cos * y], [0.0, 0.0, 1.0]]
        )
    }


def _draw_holes(step: A.CoarseDropout, shape: tuple[int, ...], coins: random.Random) -> dict[str, Any]:
    """Number, sides and places of holes, distributed as ``step`` draws them with numpy's slower generator."""
    holes = []
    for _ in range(coins.randint(*step.num_holes_range)):
        tall = int(shape[0] * coins.uniform(*step.hole_height_range))
        wide = int(shape[1] * coins.uniform(*step.hole_width_range))
        top, left = coins.randint(0, shape[0] - tall), coins.randint(0, shape[1] - wide)
        holes.append((left, top, left + wide, top + tall))
    return {"holes": holes}


def _draw_noise(step: A.GaussNoise, shape: tuple[int, ...], coins: random.Random) -> dict[str, Any]:
    """A stretch of a table of normal numbers, and the standard deviation with a random sign.

    Drawing every number anew costs more time than all other changes of an image together. A table of a million numbers
    has so many stretches that no two images of a run look alike; larger images than half of it are drawn anew.
    """
    count = shape[0] * shape[1]
    deviation = coins.uniform(*step.std_range)
    sign = coins.choice((-1.0, 1.0))
    if count > _TABLE_SIZE // 2:
        noise = np.random.default_rng(coins.getrandbits(64)).standard_normal(shape, dtype=np.float32)
    else:
        start = coins.randrange(_TABLE_SIZE - count + 1)
        noise = _normal_table()[start : start + count].reshape(shape)
    return {"noise": noise, "scale": sign * deviation}


@lru_cache(maxsize=1)
def _normal_table() -> Pixels:
    """(2 ** 20,) float32 of mean 0 and deviation 1, the same in every process."""
    return np.random.default_rng(0).standard_normal(_TABLE_SIZE, dtype=np.float32)


_DRAWERS: Mapping[type, Callable[[Any, tuple[int, ...], random.Random], dict[str, Any]]] = MappingProxyType(
    {A.Affine: _draw_warp, A.CoarseDropout: _draw_holes, A.GaussNoise: _draw_noise}
)


@lru_cache(maxsize=8)
def _blank(shape: tuple[int, ...]) -> Pixels:
    """(H, W, 1) float32 that takes no memory."""
    return np.broadcast_to(np.float32(0.0), (*shape, 1))


def build_augment(
    config: AugmentConfig, *, targets: Sequence[Target], segmentation: SegmentationConfig | None = None
) -> Augment:
    """Make the preset's changes, without left–right flips where a target or structure tells left from right.

    Args:
        config: preset, strength, and flip (None leaves it to the preset).
        targets: a target is lateral where ``is_lateral`` says so, or its name or a class holds "left" or "right".
        segmentation: its structures are lateral where their names hold such a word.

    Returns:
        A callable (pixels, seed) → pixels.
    """
    flips = may_flip(config, targets=targets, segmentation=segmentation)
    return Augment(PRESETS[config.preset], strength=config.strength, flips=flips)


def _spatial_steps(preset: Preset, *, strength: float, flips: bool) -> list[Any]:
    """Steps that move pixels; one single warp, so that the image is interpolated once."""
    steps: list[Any] = []
    if flips:
        steps.append(A.HorizontalFlip(p=0.5))
    if preset.flip_vertical and strength > 0:
        steps.append(A.VerticalFlip(p=0.5))
    angle, scale, shift = preset.rotate * strength, min(0.5, preset.scale * strength), preset.shift * strength
    if max(angle, scale, shift) > 0:
        steps.append(
            A.Affine(
                rotate=(-angle, angle),
                scale=(1 - scale, 1 + scale),
                keep_ratio=True,
                translate_percent=(-shift, shift),
                interpolation=cv2.INTER_LINEAR,
                border_mode=cv2.BORDER_CONSTANT,
                fill=0.0,
                p=0.9,
            )
        )
    if preset.blur * strength > 0:
        largest = preset.blur * strength
        steps.append(A.GaussianBlur(sigma_limit=(0.3 * largest, largest), p=0.15))
    if preset.hole * strength > 0:
        side = min(0.5, preset.hole * strength)
        steps.append(
            A.CoarseDropout(
                num_holes_range=(1, 3),
                hole_height_range=(side / 2, side),
                hole_width_range=(side / 2, side),
                fill=0.0,
                p=0.15,
            )
        )
    return steps


def _intensity_steps(preset: Preset, strength: float) -> list[Any]:
    """Steps that change each value alone."""
    steps: list[Any] = []
    contrast, brightness = min(0.9, preset.contrast * strength), min(0.9, preset.brightness * strength)
    if max(contrast, brightness) > 0:
        steps.append(
            A.RandomBrightnessContrast(
                brightness_limit=(-brightness, brightness), contrast_limit=(-contrast, contrast), p=0.5
            )
        )
    gamma = min(0.9, preset.gamma * strength)
    if gamma > 0:
        steps.append(A.RandomGamma(gamma_limit=(100 * (1 - gamma), 100 * (1 + gamma)), p=0.3))
    noise = min(0.5, preset.noise * strength)
    if noise > 0:
        steps.append(A.GaussNoise(std_range=(0.2 * noise, noise), p=0.3))
    return steps
