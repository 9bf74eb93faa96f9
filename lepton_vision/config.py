"""One configuration for the whole path: frozen, complete, and refused at the first unknown key.

Read it with ``Config.from_yaml``, change single values with ``override``. Every run folder and every bundle
keeps the configuration that made it; ``fingerprint`` names it.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lepton_vision.errors import ConfigError
from lepton_vision.types import Target, Window

WindowName = Literal[
    "header",  # VOI of the file; raster files, which hold display values, use their full range
    "full",  # value_range of the file
    "percentile",  # 0.5th to 99.5th percentile of this image
    "lung",  # CT presets, only on pixels in HU
    "mediastinum",
    "soft_tissue",
    "brain",
    "subdural",
    "stroke",
    "bone",
    "liver",
]
Backbone = Literal[
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
]
AugmentPreset = Literal["none", "light", "xray", "ct", "mr", "ultrasound", "photo"]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
PositiveInt = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PreprocessConfig(_Section):
    """Deterministic steps from Image to (C, H, W) uint16; saved in the bundle, the same in training and scoring."""

    size: tuple[PositiveInt, PositiveInt] = (224, 224)
    """Height and width of the network's input, in pixels."""
    windows: tuple[WindowName | Window, ...] = Field(default=("header",), min_length=1)
    """One channel per window."""
    missing_window: Literal["refuse", "percentile", "full"] = "percentile"
    """What ``header`` means for a DICOM or NIfTI file that carries no window."""
    color: Literal["gray", "rgb"] = "gray"
    """gray: colour becomes luma (Rec. 601). rgb: three channels per window; a gray image is repeated."""
    fit: Literal["pad", "stretch", "crop"] = "pad"
    """pad keeps the aspect ratio and fills with black; crop keeps it and cuts the longer side; stretch does not."""
    mean: tuple[float, ...] = (0.5,)
    """Subtracted from pixels in [0, 1]: one figure, or one per channel."""
    std: tuple[float, ...] = (0.25,)
    """Divides after the mean: one figure, or one per channel; below 0 it turns black and white (mean 1, std -1)."""

    @property
    def channels(self) -> int:
        """Channels of the network's input."""
        return len(self.windows) * (3 if self.color == "rgb" else 1)

    @model_validator(mode="after")
    def _check_constants(self) -> PreprocessConfig:
        for key in ("mean", "std"):
            count = len(getattr(self, key))
            if count not in (1, self.channels):
                raise ValueError(f"{key} needs 1 or {self.channels} figures, received {count}")
        if 0 in self.std:
            raise ValueError("std must not be 0")
        return self


class AugmentConfig(_Section):
    """Random changes of training images."""

    preset: AugmentPreset = "light"
    strength: Annotated[float, Field(ge=0.0, le=3.0)] = 1.0
    """Multiplies every range of the preset; 0 turns it off."""
    flip: bool | None = None
    """Left–right flips; None leaves it to the preset. Never done where a target is lateral."""


class ModelConfig(_Section):
    """Which network, and what it starts from."""

    backbone: Backbone = "resnet18"
    weights: str = "none"
    """"none" (random), "imagenet" (torchvision's download or cache) or a local file (.pt, .pth, .safetensors, .npz)."""
    init_from: str | None = None
    """Folder of a bundle whose encoder is the start; excludes ``weights``."""
    keep_heads: bool = False
    """With init_from: heads of targets that both have start from the bundle too (a probe's, to be fine-tuned)."""
    stem: Literal["auto", "standard", "small"] = "auto"
    """small: 3x3 stride 1 without pooling; auto takes it for inputs up to 64 pixels."""
    dropout: Fraction = 0.0

    @model_validator(mode="after")
    def _check_start(self) -> ModelConfig:
        if self.init_from is not None and self.weights != "none":
            raise ValueError("init_from and weights exclude each other: set weights to 'none'")
        if self.keep_heads and self.init_from is None:
            raise ValueError("keep_heads needs init_from: name the bundle whose heads are kept")
        return self


class TrainConfig(_Section):
    """The training loop."""

    epochs: PositiveInt = 20
    batch_size: PositiveInt = 32
    lr: Annotated[float, Field(gt=0.0)] = 1e-3
    """Peak rate of AdamW for the heads (and for the encoder times ``encoder_lr_scale``)."""
    encoder_lr_scale: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.05
    """Not applied to norms and biases."""
    warmup_epochs: Annotated[float, Field(ge=0.0)] = 1.0
    min_lr_scale: Fraction = 0.01
    """The cosine ends at this share of the peak."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    sampling: Literal["shuffle", "balanced"] = "shuffle"
    target_weights: dict[str, Annotated[float, Field(gt=0.0)]] = Field(default_factory=dict)
    """Weight of each target's loss; 1 where not named."""
    accumulate_steps: PositiveInt = 1
    clip_norm: Annotated[float, Field(ge=0.0)] = 1.0
    """Largest gradient norm; 0 turns clipping off."""
    ema_decay: Fraction = 0.0
    """Decay of the averaged weights, which are validated and kept; 0 turns averaging off."""
    freeze_stages: Annotated[int, Field(ge=0, le=5)] = 0
    """Parts of the encoder that stay fixed, norm layers too: 1 stem, 2 … 5 layer1 … layer4 (5: linear probe)."""
    freeze_norms: bool = False
    """Norm layers of the whole encoder keep their pretrained figures and weights, also in stages that train."""
    unfreeze_every: Annotated[int, Field(ge=0)] = 0
    """Gradual unfreezing: one more stage is freed, from the top, after each so many epochs; 0 never."""
    cache_features: bool = False
    """Run the fixed stages (see freeze_stages) once for each image, without augmentation, and train on the result."""
    monitor: str = "val_auroc"
    """Validation figure that picks the best epoch: val_auroc, val_average_precision or val_loss."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Stop after so many epochs without a better figure; 0 never stops early."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    channels_last: bool = True
    compile: bool = False
    workers: Annotated[int, Field(ge=0)] = 0
    """Loader processes; 0 loads in the training process."""
    checkpoint_seconds: Annotated[float, Field(ge=0.0)] = 60.0
    """At most so long between two checkpoints inside an epoch; 0 writes one after every step."""
    seed: Annotated[int, Field(ge=0)] = 0


class SplitConfig(_Section):
    """How patients are divided."""

    val: Fraction = 0.15
    test: Fraction = 0.15
    folds: Annotated[int, Field(ge=0)] = 0
    """Above 1: also write k patient-grouped folds."""
    balance_by: tuple[str, ...] = ("site",)
    """Columns whose distribution is kept alike between the parts, beside the labels; absent ones are ignored."""
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _check_fractions(self) -> SplitConfig:
        if self.val + self.test >= 1.0:
            raise ValueError("val + test must stay below 1")
        if self.folds == 1:
            raise ValueError("folds is 0 (none) or at least 2")
        return self


class AuditConfig(_Section):
    """What is searched for before training, and what leakage leads to."""

    on_leakage: Literal["stop", "drop_train", "allow"] = "stop"
    """drop_train removes the training (then validation) copy of a duplicate; patients in two splits always stop."""
    near_duplicates: bool = True
    near_distance: Annotated[int, Field(ge=0, le=16)] = 4
    """Largest Hamming distance of the 64-bit perceptual hash of a candidate pair, then compared pixel by pixel."""


class CacheConfig(_Section):
    """Preprocessed images kept in one memory-mapped file, shared by all workers."""

    folder: str | None = None
    """None: a folder beside the run."""
    max_gb: Annotated[float, Field(ge=0.0)] = 8.0
    """Rows above the bound are decoded each time; 0 turns the cache off."""


class EvaluationConfig(_Section):
    """Validation choices and test figures."""

    min_sensitivity: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    calibrate: bool = True
    """Fit one temperature per target on validation."""
    replicates: Annotated[int, Field(ge=100)] = 1000
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    seed: Annotated[int, Field(ge=0)] = 0


class Config(_Section):
    """Everything that a run depends on beside the data.

    Example:
        >>> Config().override("train.epochs=3").train.epochs
        3
    """

    targets: tuple[Target, ...] = ()
    """Empty: taken from the manifest where it leaves no doubt."""
    preprocess: PreprocessConfig = PreprocessConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    split: SplitConfig = SplitConfig()
    audit: AuditConfig = AuditConfig()
    cache: CacheConfig = CacheConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _check_targets(self) -> Config:
        names = [target.name for target in self.targets]
        if len(set(names)) != len(names):
            raise ValueError(f"targets: a name stands twice: {names}")
        return self

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Config:
        """Check plain values; raise one ConfigError that names the key, the nearest valid one and what was expected."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise _explain(error) from None

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
        Path(path).write_text(text, encoding="utf-8")

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
            for section in sections:
                inner = place.get(section)
                if not isinstance(inner, dict):
                    raise ConfigError(_unknown_key(section, list(place)), key=key)
                place = inner
            if last not in place and place is not values.get("train", {}).get("target_weights"):
                raise ConfigError(_unknown_key(last, list(place)), key=key)
            place[last] = yaml.safe_load(text)
        return Config.from_dict(values)

    @property
    def fingerprint(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of all values."""
        return fingerprint(self.to_dict())


def fingerprint(values: Any) -> str:
    """First 16 hexadecimal digits of the SHA-256 of plain values as canonical JSON."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def nearest(name: str, valid: list[str]) -> str:
    """End of a message that names the nearest valid name, or all of them where none is near."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    return f"Did you mean {close[0]!r}?" if close else f"Expected one of: {', '.join(sorted(valid))}."


def _unknown_key(key: str, valid: list[str]) -> str:
    return f"Unknown configuration key {key!r}. {nearest(key, valid)}"


_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


def _explain(error: ValidationError) -> ConfigError:
    """Turn the first pydantic error into one sentence; the others are counted."""
    problems = error.errors()
    first = min(problems, key=lambda problem: problem["type"] not in _UNKNOWN)  # a misspelt key explains a missing one
    place = [str(part) for part in first["loc"]]
    key = ".".join(place)
    if first["type"] in _UNKNOWN:
        message = (
            f"In {'.'.join(place[:-1]) or 'the configuration'}: {_unknown_key(place[-1], _valid_keys(place[:-1]))}"
        )
    else:
        received = first.get("input")
        shown = "" if isinstance(received, dict | BaseModel) else f" Received: {received!r}."
        if isinstance(received, bool):
            shown += " YAML reads no, yes, on and off as booleans: put quotes around the word."
        message = f"Configuration key {key or 'as a whole'}: {first['msg'].removeprefix('Value error, ')}.{shown}"
    more = f" ({len(problems) - 1} more problems.)" if len(problems) > 1 else ""
    return ConfigError(message + more, key=key)


def _valid_keys(place: list[str]) -> list[str]:
    """Keys that the section at ``place`` knows."""
    model: Any = Config
    for part in place:
        if part.isdigit() or not hasattr(model, "model_fields"):
            continue
        annotation = model.model_fields[part].annotation
        model = next((a for a in get_args(annotation) if isinstance(a, type)), annotation)
    if hasattr(model, "model_fields"):
        return list(model.model_fields)
    return list(getattr(model, "__dataclass_fields__", {}))
