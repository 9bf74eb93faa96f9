"""Augmentation presets by kind of image, and the rule for left–right flips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from lepton_vision.config import SegmentationConfig
from lepton_vision.config.sections import AugmentConfig, AugmentPreset
from lepton_vision.transforms.laterality import has_side_words, is_lateral_target
from lepton_vision.types import Target


@dataclass(frozen=True, slots=True)
class Preset:
    """Ranges of one kind of image at strength 1; 0 leaves a change out.

    Attributes:
        flip: left–right flips, where the configuration does not say.
        flip_vertical: upside-down flips too.
        rotate: largest angle in degrees, both ways.
        scale: largest relative change of size.
        shift: largest shift as a part of the image's side; what comes in is black.
        contrast: largest relative change of contrast.
        brightness: largest change of brightness, of the full range.
        gamma: largest relative change of gamma.
        noise: largest standard deviation of Gaussian noise, of the full range.
        blur: largest sigma of a Gaussian blur in pixels.
        hole: largest side of a black hole as a part of the image's side.
    """

    flip: bool
    flip_vertical: bool = False
    rotate: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    gamma: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    hole: float = 0.0


# Flips: a mirrored chest or abdomen is situs inversus (heart and stomach right, liver left), which hardly any patient
# has and which the network will not meet, so chest films and CT are not flipped. "light" knows nothing of the organ
# and keeps out of it too. Head, knee, prostate and breast look alike from both sides, and the side that an ultrasound
# probe is held on is a habit: flipped. A skin or histology photograph has no up or down either.
# Intensity: CT is calibrated (HU), so that a window means the same in every image, and changes least; films and
# ultrasound depend on exposure and gain.
PRESETS: Mapping[AugmentPreset, Preset] = MappingProxyType(
    {
        "none": Preset(flip=False),
        "light": Preset(False, rotate=5, scale=0.05, shift=0.03, contrast=0.1, brightness=0.05),
        "xray": Preset(
            False, rotate=7, scale=0.1, shift=0.05, contrast=0.2, brightness=0.1, gamma=0.2, noise=0.02, hole=0.1
        ),
        "ct": Preset(
            False, rotate=10, scale=0.1, shift=0.05, contrast=0.1, brightness=0.05, noise=0.03, blur=0.8, hole=0.1
        ),
        "mr": Preset(
            True,
            rotate=10,
            scale=0.1,
            shift=0.05,
            contrast=0.2,
            brightness=0.1,
            gamma=0.25,
            noise=0.03,
            blur=0.8,
            hole=0.1,
        ),
        "ultrasound": Preset(
            True, rotate=7, scale=0.1, shift=0.05, contrast=0.2, brightness=0.1, gamma=0.25, noise=0.03, hole=0.1
        ),
        "photo": Preset(
            True,
            flip_vertical=True,
            rotate=30,
            scale=0.2,
            shift=0.05,
            contrast=0.2,
            brightness=0.15,
            gamma=0.2,
            noise=0.02,
            blur=1.0,
            hole=0.15,
        ),
    }
)


def may_flip(
    config: AugmentConfig, *, targets: Sequence[Target], segmentation: SegmentationConfig | None = None
) -> bool:
    """Whether training images are flipped left–right: the preset or ``config.flip`` wants it, and nothing tells sides.

    Args:
        config: preset, strength, and flip (None leaves it to the preset).
        targets: a target is lateral where ``is_lateral`` says so, or its name or a class tells a side (see ``sides``).
        segmentation: its structures are lateral where their names hold such a word.

    Example:
        >>> may_flip(AugmentConfig(preset="mr"), targets=[Target("left_knee", "binary", ("no", "yes"))])
        False
    """
    wants_flip = PRESETS[config.preset].flip if config.flip is None else config.flip
    is_on = config.preset != "none" and config.strength > 0
    return is_on and wants_flip and not are_sides_told(targets, segmentation)


def are_sides_told(targets: Sequence[Target], segmentation: SegmentationConfig | None = None) -> bool:
    """Whether a target or a structure tells left from right, so that nothing may exchange them."""
    sides = [is_lateral_target(target) for target in targets]
    return any(sides) or (segmentation is not None and has_side_words(segmentation.names))
