"""Configuration of a study: frozen, complete, with unknown keys refused.

Read it with ``Config.from_yaml``, change single values with ``override``. Every run folder and every bundle
keeps the configuration that made it; ``fingerprint`` names it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from lepton_vision.config.model import ModelConfig
from lepton_vision.config.sections import (
    AugmentConfig,
    EvaluationConfig,
    PositiveInt,
    PreprocessConfig,
    Section,
    SplitConfig,
    TrainConfig,
    VolumeConfig,
)
from lepton_vision.errors import ConfigError, UnknownKeyError, nearest, unknown_key, valid_keys
from lepton_vision.files import write_atomic
from lepton_vision.types import UNKNOWN, ObjectKind, Target
from lepton_vision.types.target import check_names

_RESNET_STAGES = 5  # stem, layer1 … layer4
MaskValue = Annotated[int, Field(ge=1, le=255)]


class ScanConfig(Section):
    """Which files become samples."""

    include: tuple[ObjectKind, ...] = ()
    """What else than images a scan takes for samples: DICOM segmentations, localizers (scouts), secondary captures
    (screens, reports of dose, converted pictures), parametric maps, grids of dose; files that are masks by their names.
    Scoring takes in what training did. Secondary captures are taken in without being named where a scan finds no other
    DICOM image."""


class AuditConfig(Section):
    """What is searched for before training, and what leakage leads to."""

    on_leakage: Literal["stop", "drop_train", "allow"] = "stop"
    """drop_train removes the training (then validation) copy of a duplicate; patients in two splits always stop."""
    near_duplicates: bool = True
    """Look for images that are almost the same in two splits, beside identical ones."""
    near_distance: Annotated[int, Field(ge=0, le=16)] = 4
    """Largest Hamming distance of the 64-bit perceptual hash of a candidate pair, then compared pixel by pixel."""


class CacheConfig(Section):
    """Preprocessed images kept in one memory-mapped file, shared by all workers."""

    folder: str | None = None
    """None: a folder beside the run."""
    max_gb: Annotated[float, Field(ge=0.0)] = 8.0
    """Rows above the bound are decoded each time; 0 turns the cache off."""


class SegmentationConfig(Section):
    """A segmentation head on the encoder's feature maps, beside the heads of the targets or alone."""

    structures: dict[str, tuple[MaskValue, ...]] = Field(min_length=1, max_length=254)
    """By name of the structure, the value or values that it has in mask files; 0 is background. One voxel has one."""
    unknown: MaskValue | Literal["auto"] | None = "auto"
    """Value of mask files where nobody knows what is there: such voxels count neither in training nor in figures. auto:
    255, unless that is a value of a structure or of ``background``. null: no value says so."""
    background: tuple[MaskValue, ...] = ()
    """Values of mask files, beside 0, that are background: what is drawn in the files and shall not be learnt."""
    decoder: Literal["unet", "fpn"] = "unet"
    """unet: arXiv:1505.04597, every resolution of the encoder; fpn: arXiv:1612.03144, up to a quarter, lighter."""
    channels: PositiveInt = 32
    """Feature maps of the unet at its finest resolution, twice as many at each coarser one; the fpn has four times as
    many at all of them."""
    mode: Literal["joint", "detached", "auxiliary", "roi", "evidence"] = "joint"
    """joint: both losses shape the encoder. detached: the mask's loss does not, so that the classifier is what it would
    be alone. auxiliary: as joint, but masks are not computed in scoring. roi: as joint, and the classifier sees the
    image cropped to the predicted mask. evidence: the classifier sees the predicted mask alone
    (``models.regions``) and its loss does not reach the mask, which is bit for bit what it would be alone: for a label
    that says whether a structure is there. Images without a mask teach the classifier's few weights only."""
    loss: Literal["dice_ce", "dice", "ce"] = "dice_ce"
    """Of the masks: soft Dice, cross-entropy (ce), or their sum."""
    weight: Annotated[float, Field(gt=0.0)] = 1.0
    """Factor of the mask's loss; the targets' are ``train.target_weights``."""
    roi_margin: Annotated[float, Field(ge=0.0)] = 0.1
    """With mode roi: margin around the predicted mask, as a part of its box."""
    lesions: tuple[str, ...] = ()
    """Structures that come as separate lesions: their evaluation counts found and false ones, and draws an FROC."""
    explains: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """By name of a binary target, the structures that an image with a positive label should show. A target with
    ``mask_values`` is explained by the structures of these values without being named here."""

    @field_validator("structures", mode="before")
    @classmethod
    def _as_groups(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: [codes] if isinstance(codes, int) else codes for name, codes in value.items()}

    @model_validator(mode="after")
    def _check_structures(self) -> SegmentationConfig:
        codes = [code for group in (*self.structures.values(), self.background) for code in group]
        if len(set(codes)) != len(codes) or not all(self.structures.values()):
            raise ValueError("structures: every structure needs values of its own, none may stand twice")
        if self.unknown in codes:
            raise ValueError(
                f"unknown: {self.unknown} is also a value of structures or background: set unknown to null, or to "
                "another value"
            )
        named = dict.fromkeys(self.lesions, "lesions")
        named |= {name: "explains" for group in self.explains.values() for name in group}
        for name, key in named.items():
            if name not in self.structures:
                raise ValueError(f"{key}: {name!r} is none of the structures {', '.join(self.structures)}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Structures in the order of the mask's values 1 … M."""
        return tuple(self.structures)

    @property
    def unknown_value(self) -> int | None:
        """Value of mask files that says that nobody knows, or None."""
        if self.unknown != "auto":
            return self.unknown
        codes = {code for group in (*self.structures.values(), self.background) for code in group}
        return None if UNKNOWN in codes else UNKNOWN

    @property
    def numbers(self) -> dict[int, int]:
        """What each value of mask files is: 0 background, k the k-th structure, ``UNKNOWN``; the only such table."""
        groups = enumerate(self.structures.values(), start=1)
        known = dict.fromkeys((0, *self.background), 0) | {code: number for number, group in groups for code in group}
        return known if self.unknown_value is None else known | {self.unknown_value: UNKNOWN}

    def explaining(self, target: Target) -> tuple[int, ...]:
        """Numbers, from 1, of the structures that explain a positive label of a target; () where none does."""
        stated = self.explains.get(target.name)
        if stated is None:
            return self.holding(target.mask_values)
        return tuple(sorted(self.names.index(name) + 1 for name in stated))

    def holding(self, values: tuple[int, ...]) -> tuple[int, ...]:
        """Numbers, from 1, of the structures that have any of these values in mask files."""
        groups = enumerate(self.structures.values(), start=1)
        return tuple(number for number, codes in groups if set(codes) & set(values))


class Config(Section):
    """Everything that a run depends on beside the data.

    Example:
        >>> Config().override("train.epochs=3").train.epochs
        3
    """

    targets: tuple[Target, ...] = ()
    """What is predicted for a whole image; empty: taken from the manifest where it leaves no doubt."""
    scan: ScanConfig = ScanConfig()
    """Which files become samples."""
    preprocess: PreprocessConfig = PreprocessConfig()
    """From an image to the network's input."""
    augment: AugmentConfig = AugmentConfig()
    """Random changes of training images."""
    model: ModelConfig = ModelConfig()
    """The network, and what it starts from."""
    segmentation: SegmentationConfig | None = None
    """A head that predicts masks; None: there is none."""
    volume: VolumeConfig | None = None
    """Whole volumes as samples; None: every image is a 2-D sample."""
    train: TrainConfig = TrainConfig()
    """The training loop."""
    split: SplitConfig = SplitConfig()
    """How patients are divided."""
    audit: AuditConfig = AuditConfig()
    """What is searched for before training."""
    cache: CacheConfig = CacheConfig()
    """Where prepared images are kept."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Choices on validation, and figures of the test."""

    @model_validator(mode="after")
    def _check_targets(self) -> Config:
        self._check_names()
        if self.segmentation is not None and self.train.cache_features:
            raise ValueError("train.cache_features keeps one feature map, a segmentation head needs all: turn it off")
        if self.joins_slices and self.segmentation is not None:
            raise ValueError(
                "segmentation of volumes needs volume.view 3d or 2.5d: slices have one prediction together"
            )
        if self.is_volume and self.train.cache_features:
            raise ValueError("train.cache_features keeps features of images, not of volumes: turn it off")
        if self.model.mirrored and (self.volume or self.segmentation or self.train.cache_features):
            raise ValueError(
                "model.mirrored is for classes of images: turn it off with volume, segmentation or train.cache_features"
            )
        if self.model.is_resnet and self.train.freeze_stages > _RESNET_STAGES:
            raise ValueError(
                f"train.freeze_stages is at most {_RESNET_STAGES} for a ResNet, received {self.train.freeze_stages}"
            )
        return self

    def _check_names(self) -> None:
        """Names must be told apart, and mappings must name what is there; targets that are not stated are not known."""
        names, head = [target.name for target in self.targets], self.segmentation
        if len(set(names)) != len(names):
            raise ValueError(f"targets: a name stands twice: {names}")
        if "masks" in names and head is not None:
            raise ValueError("targets: 'masks' is the name of the segmentation head, give the target another")
        check_names(self.targets, () if head is None else head.names)
        if not names and head is None:
            return
        if "masks" in self.train.target_weights and "masks" not in names:
            raise ValueError("train.target_weights: the weight of the masks is segmentation.weight")
        binary = [target.name for target in self.targets if target.is_binary]
        for key, given, valid in (
            ("train.target_weights", self.train.target_weights, names),
            ("segmentation.explains", {} if head is None else head.explains, binary),
        ):
            for name in sorted(set(given) - set(valid)):
                what = "binary target" if valid is binary else "target"
                raise ValueError(f"{key}: {name!r} is no {what}. {nearest(name, valid) if valid else 'There is none.'}")

    def with_targets(self, targets: Sequence[Target]) -> Config:
        """Return a copy that predicts ``targets``; what names them is checked.

        Raises:
            ConfigError: names that clash, or a mapping that names none of them.
        """
        return Config.from_dict({**self.to_dict(), "targets": list(targets)})

    @model_validator(mode="after")
    def _share_unknown(self) -> Config:
        if self.segmentation is not None:
            known = self.segmentation.unknown_value
            targets = (replace(one, mask_unknown=known) if one.mask_values else one for one in self.targets)
            object.__setattr__(self, "targets", tuple(targets))  # frozen, and not yet out
        return self

    @model_validator(mode="after")
    def _watch_values(self) -> Config:
        has_classes = any(not target.is_value for target in self.targets)
        if self.targets and not has_classes and "monitor" not in self.train.model_fields_set:
            watching = self.train.model_copy(update={"monitor": "val_r2"})
            object.__setattr__(self, "train", watching)  # frozen, and not yet out
        return self

    @model_validator(mode="after")
    def _count_components(self) -> Config:
        count = 1 if self.volume is None else max(1, len(self.volume.channels))
        object.__setattr__(self, "preprocess", self.preprocess.of_components(count))  # frozen, and not yet out
        return self

    @property
    def channels(self) -> int:
        """C of the network's input: those of an image, with ``volume.view`` 2.5d of each slice seen at once."""
        return self.preprocess.channels * (1 if self.volume is None else self.volume.slab)

    @property
    def is_volume(self) -> bool:
        """Whether samples are volumes, rather than images."""
        return self.volume is not None

    @property
    def dims(self) -> int:
        """3 where the network takes patches of volumes (``volume.view`` 3d), else 2."""
        return 3 if self.volume is not None and self.volume.view == "3d" else 2

    @property
    def sees_slabs(self) -> bool:
        """Whether the network takes slices of volumes with their neighbours (``volume.view`` 2.5d)."""
        return self.volume is not None and self.volume.view == "2.5d"

    @property
    def joins_slices(self) -> bool:
        """Whether the slices of a volume have one prediction together (``volume.view`` slices)."""
        return self.volume is not None and self.volume.view == "slices"

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Config:
        """Check plain values; raise one ConfigError that names the key, the nearest valid one and what was expected."""
        return cls.model_validate(values)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Config:
        """Read a complete or partial YAML file; what it leaves out has the default.

        Raises:
            ConfigError: no such file, no YAML mapping, an unknown key or a value of the wrong kind.
        """
        path = Path(path)
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(
                f"Cannot read the configuration {path.name}: {error.strerror}. Give the path of a YAML file.", path=path
            ) from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            where = getattr(error, "problem_mark", None)
            line = f" in line {where.line + 1}" if where is not None else ""
            raise ConfigError(f"{path.name} is not valid YAML{line}. Correct it there.", path=path) from None
        if not isinstance(values, dict | None):
            raise ConfigError(
                f"{path.name} must hold a mapping of sections. Received: {type(values).__name__}.", path=path
            )
        return cls.from_dict(values or {})

    def to_yaml(self, path: str | Path) -> None:
        """Write every value, defaults included."""
        text = yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)
        write_atomic(path, text)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: what YAML and JSON hold."""
        plain: dict[str, Any] = json.loads(self.model_dump_json())
        return plain

    def override(self, *assignments: str) -> Config:
        """Return a copy with single values changed, each given as ``section.key=value`` (the value is YAML).

        Raises:
            ConfigError: no ``=``, an unknown key or a value of the wrong kind.
        """
        values = self.to_dict()
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            if not equals:
                raise ConfigError(f"Expected section.key=value. Received: {assignment!r}.", key=key)
            *sections, last = key.strip().split(".")
            place = values
            for depth, section in enumerate(sections):
                names = valid_keys(Config, sections[:depth])
                is_absent = section not in place and section in names  # of a section that has just come to life
                if is_absent or (section in place and place[section] is None and valid_keys(Config, [section])):
                    place[section] = {}  # an optional section comes to life with its first key
                inner = place.get(section)
                if not isinstance(inner, dict):
                    raise UnknownKeyError(unknown_key(section, names or list(place)), key=key)
                place = inner
            known = valid_keys(Config, sections)  # none where names are free, as in train.target_weights
            if known and last not in known:
                raise UnknownKeyError(unknown_key(last, known if sections else _homes(last) or known), key=key)
            place[last] = yaml.safe_load(text)
        return Config.from_dict(values)

    @property
    def fingerprint(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of all values."""
        order = None if self.segmentation is None else list(self.segmentation.names)
        return fingerprint(self.to_dict() if order is None else [self.to_dict(), order])


def _homes(key: str) -> list[str]:
    """The key with each section that knows it."""
    return [f"{section}.{key}" for section in Config.model_fields if key in valid_keys(Config, [section])]


def fingerprint(values: Any) -> str:
    """First 16 hexadecimal digits of the SHA-256 of plain values as canonical JSON."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
