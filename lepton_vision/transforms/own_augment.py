"""Augmentation of images by a pipeline of albumentations that a team brings."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError
from lepton_vision.readers.mask import LabelMap
from lepton_vision.transforms import augment
from lepton_vision.transforms.preprocess import to_input
from lepton_vision.transforms.resize import LEVELS, UInt16Pixels
from lepton_vision.transforms.side_probe import keeps_sides, refuse_exchange
from lepton_vision.types import Pixels

A: Any = vars(augment)["A"]  # albumentations, through its doorway
_KEY = "augment.pipeline"
_RIGHT_ANGLE = 90.0
_SEEN = (32, 32)  # pixels of the image that a step is tried on
_OURS = {"Normalize": "normalises", "ToFloat": "scales", "FromFloat": "scales", "ToTensorV2": "makes tensors"}


class ImagePipeline:
    """Applies a pipeline; the seed decides everything, whatever ran before and in whichever process.

    Args:
        pipeline: of albumentations, for an image (H, W, C) float32 in [0, 1] and its mask (H, W) uint8; both keep their
            size, and what is moved into the image is background of the mask. A copy is used.
        config: size and channels of images; whether there are masks.
        is_lateral: left and right mean something, so that nothing may exchange them.

    Raises:
        ConfigError: it is none, exchanges sides that mean something, does what the configuration does (Normalize …), or
            does not give an image of the same kind.
    """

    def __init__(self, pipeline: Any, *, config: Config, is_lateral: bool) -> None:
        if not isinstance(pipeline, A.BaseCompose | A.BasicTransform):
            raise ConfigError(
                "Expected a pipeline of albumentations, as A.Compose([...]). Received: "
                f"{type(pipeline).__name__}. Volumes take one of monai.transforms, with a volume section.",
                key=_KEY,
            )
        pipeline = copy.deepcopy(pipeline)
        self._pipeline = pipeline if isinstance(pipeline, A.Compose) else A.Compose([pipeline])
        for step in _steps(self._pipeline):
            _check_step(step)
            if is_lateral and _may_exchange_sides(step, config):
                refuse_exchange(type(step).__name__)
        self._try(config)

    def _try(self, config: Config) -> None:
        """Run it once, so that it fails before the training where it fails at all."""
        size = config.preprocess.size
        mask = None if config.segmentation is None else np.zeros(size, np.uint8)
        pixels = np.zeros((config.preprocess.channels, *size), np.uint16)
        self.apply(pixels, 0, out=np.empty(pixels.shape, np.float32), mask=mask, norm=config.preprocess)

    @staticmethod
    def draw(shape: tuple[int, ...], seed: int) -> int:
        """What happens to an image is its seed."""
        del shape
        return seed

    def apply(
        self, pixels: UInt16Pixels, drawn: int, *, out: Pixels, norm: Any, mask: LabelMap | None = None
    ) -> Pixels:
        """Change one image and its mask, and normalise it; as ``Augment.apply``.

        Raises:
            ConfigError: the pipeline fails, or gives another size or kind of image.
        """
        image = np.ascontiguousarray(pixels.transpose(1, 2, 0), np.float32)
        image *= np.float32(1.0 / LEVELS)
        given: dict[str, Any] = {"image": image} | ({} if mask is None else {"mask": mask.copy()})
        self._pipeline.set_random_state(np.random.default_rng(drawn), random.Random(drawn))
        try:
            made = self._pipeline(**given)
        except Exception as error:
            raise ConfigError(
                f"The pipeline fails on an image {image.shape} float32 in [0, 1] ({type(error).__name__}: {error}). "
                "Choose transforms that take such images.",
                key=_KEY,
            ) from error
        found = np.asarray(made["image"])
        if found.shape != image.shape or found.dtype != np.float32 or not np.isfinite(found).all():
            raise ConfigError(
                f"The pipeline gives {found.shape} {found.dtype}. Expected {image.shape} float32 in [0, 1]: images "
                "keep size and kind, and preprocess.size and mean say the rest.",
                key=_KEY,
            )
        if mask is not None:
            moved = np.asarray(made["mask"])
            if moved.shape != mask.shape:
                raise ConfigError(f"The pipeline gives masks {moved.shape}. Expected {mask.shape}.", key=_KEY)
            mask[...] = moved
        np.clip(found.transpose(2, 0, 1), 0.0, 1.0, out=out)
        return to_input(out, norm, out=out)


def load_pipeline(path: str | Path) -> Any:
    """Read a pipeline from what ``albumentations.save`` wrote, JSON or YAML; it names transforms, and runs no code.

    Raises:
        ConfigError: no such file, damaged, of transforms that albumentations does not know, or of functions.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ConfigError("The file of the pipeline cannot be read. Correct augment.pipeline.", key=_KEY) from None
    try:
        made = A.from_dict(yaml.safe_load(text))  # JSON is YAML
    except Exception as error:  # of a parser, of the registry, of the transforms themselves
        raise ConfigError(
            f"The file holds no pipeline of albumentations {A.__version__} ({type(error).__name__}: {error}). Write it "
            "with albumentations.save(pipeline, path).",
            key=_KEY,
        ) from None
    return made


def describe_pipeline(pipeline: Any) -> Any:
    """Return plain values that say what a pipeline of albumentations does, for a bundle."""
    return json.loads(json.dumps(A.to_dict(pipeline, on_not_implemented_error="warn"), default=repr))


def _steps(pipeline: Any) -> Iterator[Any]:
    for step in pipeline.transforms:
        if isinstance(step, A.BaseCompose):
            yield from _steps(step)
        else:
            yield step


def _check_step(step: Any) -> None:
    name = type(step).__name__
    if name in _OURS:
        raise ConfigError(f"{name}: the configuration {_OURS[name]}. Leave it out of the pipeline.", key=_KEY)


def _may_exchange_sides(step: Any, config: Config) -> bool:
    """Whether a step turns by a right angle and more, however seldom, or exchanges left and right when it is tried."""
    if isinstance(step, A.ImageOnlyTransform) and type(step).__module__.startswith("albumentations."):
        return False
    angles = [getattr(step, "limit", 0.0), getattr(step, "rotate", 0.0)]
    if isinstance(step, A.Rotate | A.Affine) and max(np.abs(angle).max() for angle in angles) >= _RIGHT_ANGLE:
        return True
    one = copy.deepcopy(step)
    one.p = 1.0
    alone = A.Compose([one])

    def change(pixels: Pixels, seed: int) -> Any:
        alone.set_random_state(np.random.default_rng(seed), random.Random(seed))
        return alone(image=np.ascontiguousarray(pixels.transpose(1, 2, 0)))["image"].transpose(2, 0, 1)

    return not keeps_sides(change, (config.preprocess.channels, *_SEEN))
