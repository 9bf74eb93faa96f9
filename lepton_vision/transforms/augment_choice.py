"""Choice of what changes samples in training: a preset of ours, or a pipeline that a team brings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError
from lepton_vision.transforms.presets import are_sides_told
from lepton_vision.types import Target


def choose_augment(config: Config, targets: Sequence[Target], *, own: Any) -> Any:
    """Make what changes samples in training: the pipeline that was given, that of a file, or the preset.

    Raises:
        ConfigError: a pipeline that cannot be used.
    """
    how: dict[str, Any] = {"targets": targets, "segmentation": config.segmentation}
    is_lateral = are_sides_told(targets, config.segmentation)
    if config.is_volume:
        from lepton_vision.transforms.volume_augment import VolumePipeline, build_volume_augment

        if own is not None:
            return VolumePipeline(own, has_masks=config.segmentation is not None, is_lateral=is_lateral)
        return build_volume_augment(config.augment, **how)
    own = find_pipeline(config, None) if own is None else own
    if own is None:
        from lepton_vision.transforms.augment import build_augment

        return build_augment(config.augment, **how)
    from lepton_vision.transforms.own_augment import ImagePipeline

    return ImagePipeline(own, config=config, is_lateral=is_lateral)


def find_pipeline(config: Config, given: Any) -> Any:
    """Return the own pipeline of a training, the one given or that of ``augment.pipeline``, or None for the preset.

    Raises:
        ConfigError: two pipelines, a file for volumes, or a file that holds none.
    """
    if config.augment.pipeline is None:
        return given
    if given is not None or config.is_volume:
        what = "another was given (augment=)" if given is not None else "it is for images, and volumes are trained on"
        raise ConfigError(f"augment.pipeline names a file, and {what}. Leave it out.", key="augment.pipeline")
    from lepton_vision.transforms.own_augment import load_pipeline

    return load_pipeline(config.augment.pipeline)


def describe_augment(config: Config, own: Any) -> Any:
    """Return plain values that say what an own pipeline does, see ``find_pipeline``; None where there is none."""
    if own is None:
        return None
    if config.is_volume:
        from lepton_vision.transforms.volume_augment import describe_steps

        return describe_steps(own)
    from lepton_vision.transforms.own_augment import describe_pipeline

    return describe_pipeline(own)
