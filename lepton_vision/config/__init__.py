"""Configuration of a study: one frozen object and its sections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_vision._lazy import resolver

if TYPE_CHECKING:
    from lepton_vision.config.config import AuditConfig as AuditConfig
    from lepton_vision.config.config import CacheConfig as CacheConfig
    from lepton_vision.config.config import Config as Config
    from lepton_vision.config.config import MaskValue as MaskValue
    from lepton_vision.config.config import ScanConfig as ScanConfig
    from lepton_vision.config.config import SegmentationConfig as SegmentationConfig
    from lepton_vision.config.config import fingerprint as fingerprint
    from lepton_vision.config.model import ENCODERS as ENCODERS
    from lepton_vision.config.model import ModelConfig as ModelConfig
    from lepton_vision.config.sections import AugmentConfig as AugmentConfig
    from lepton_vision.config.sections import AugmentPreset as AugmentPreset
    from lepton_vision.config.sections import EvaluationConfig as EvaluationConfig
    from lepton_vision.config.sections import Fraction as Fraction
    from lepton_vision.config.sections import GapChoice as GapChoice
    from lepton_vision.config.sections import PositiveFloat as PositiveFloat
    from lepton_vision.config.sections import PositiveInt as PositiveInt
    from lepton_vision.config.sections import PreprocessConfig as PreprocessConfig
    from lepton_vision.config.sections import Section as Section
    from lepton_vision.config.sections import Share as Share
    from lepton_vision.config.sections import SplitConfig as SplitConfig
    from lepton_vision.config.sections import TiltChoice as TiltChoice
    from lepton_vision.config.sections import TrainConfig as TrainConfig
    from lepton_vision.config.sections import VolumeConfig as VolumeConfig

__getattr__ = resolver(__name__, __file__)
