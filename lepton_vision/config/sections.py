"""Sections of the configuration."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from lepton_vision.errors import InvalidValueError, explain_validation
from lepton_vision.types import Window, WindowName

GapChoice = Literal["refuse", "fill"]
TiltChoice = Literal["refuse", "shear"]
AugmentPreset = Literal["none", "light", "xray", "ct", "mr", "ultrasound", "photo"]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0.0)]
Share = Annotated[float, Field(gt=0.0, le=1.0)]


class Section(BaseModel):
    """Frozen; an unknown key is an error. ``help`` and the JSON schema tell what every key means."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise explain_validation(error.errors(), type(self)) from None

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # sections inside are not checked one by one

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Check plain values, as the constructor does."""
        try:
            return super().model_validate(obj, **options)
        except ValidationError as error:
            raise explain_validation(error.errors(), cls) from None

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        keys = (f"    {name}: {' '.join((key.description or '').split())}" for name, key in cls.model_fields.items())
        cls.__doc__ = "\n".join([cls.__doc__ or "", "", "Attributes:", *keys])

    def __setattr__(self, name: str, value: Any) -> None:
        try:
            super().__setattr__(name, value)
        except ValidationError:
            raise InvalidValueError(
                f"A configuration is frozen. Make a changed copy: config.override('section.{name}=value').", key=name
            ) from None

    def __repr__(self) -> str:
        """What differs from the defaults."""
        defaults = {name: key.get_default(call_default_factory=True) for name, key in type(self).model_fields.items()}
        changed = (f"{name}={value!r}" for name, value in self if value != defaults[name])
        return f"{type(self).__name__}({', '.join(changed)})"

    __str__ = __repr__


class PreprocessConfig(Section):
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

    _components: int = PrivateAttr(default=1)

    @property
    def components(self) -> int:
        """Channels of a file, each seen through all windows: those of ``volume.channels``."""
        return self._components

    @property
    def channels(self) -> int:
        """Channels of the network's input."""
        return len(self.windows) * (3 if self.color == "rgb" else 1) * self._components

    def of_components(self, count: int) -> PreprocessConfig:
        """Return a copy for files of so many channels.

        Raises:
            ValueError: mean or std of another number of channels, or colour of several.
        """
        if count > 1 and self.color == "rgb":
            raise ValueError("color rgb is for files of one channel: with volume.channels set gray")
        copy = self.model_copy()
        copy._components = count
        for key in ("mean", "std"):
            figures = len(getattr(self, key))
            if figures not in (1, copy.channels):
                raise ValueError(f"{key} needs 1 or {copy.channels} figures, received {figures}")
        return copy

    @model_validator(mode="after")
    def _check_constants(self) -> PreprocessConfig:
        if 0 in self.std:
            raise ValueError("std must not be 0")
        return self


class AugmentConfig(Section):
    """Random changes of training images."""

    preset: AugmentPreset = "light"
    """Kind of changes: those of a modality (xray, ct, mr, ultrasound, photo), light ones that suit most, or none."""
    strength: Annotated[float, Field(ge=0.0, le=3.0)] = 1.0
    """Multiplies every range of the preset; 0 turns it off."""
    flip: bool | None = None
    """Left–right flips; None leaves it to the preset. Never done where a target is lateral."""
    pipeline: str | None = None
    """File of a pipeline for images, as ``albumentations.save`` writes it (JSON or YAML), in place of the preset."""

    @property
    def is_on(self) -> bool:
        """Whether images are changed at all."""
        return self.pipeline is not None or (self.preset != "none" and self.strength > 0)

    @model_validator(mode="after")
    def _check_pipeline(self) -> AugmentConfig:
        if self.pipeline is not None and self.flip is not None:
            raise ValueError("flip is of the presets, and a pipeline is given: leave it out")
        return self


class VolumeConfig(Section):
    """Whole volumes as samples: NIfTI files, DICOM series and enhanced multi-frame files."""

    view: Literal["3d", "2.5d", "slices"] = "3d"
    """3d: a 3-D ResNet on patches; targets are predicted from the patch in the middle. 2.5d: a 2-D network on a slice
    with its neighbours as channels, whose mask is that of the slice (arXiv:1704.07239); in training a slice has the
    label of its volume, see ``aggregate``, or its own where the mask gives it (a target with ``mask_values`` beside
    ``segmentation``). slices: a 2-D encoder on every slice, pooled by attention (multiple-instance learning,
    arXiv:1802.04712)."""
    channels: tuple[str, ...] = ()
    """Several channels of a NIfTI volume, each windowed by itself: names of the components of a file of 4 axes in their
    order ([flair, t1w, t1gd, t2w]), or endings of the files of a case ([_0000, _0001], or {flair: _0000, t1w: _0001}).
    (): one channel."""
    context: Annotated[int, Field(ge=0, le=15)] = 1
    """With 2.5d: neighbours on each side: 1 makes three slices. At the border the last slice is repeated."""
    context_step: PositiveInt = 1
    """With 2.5d: distance of neighbours, in slices."""
    aggregate: Literal["mean", "max"] = "mean"
    """With 2.5d: what the slices of a volume say together, for each logit: their mean, or the largest (both as in
    arXiv:1802.04712, section 2). mean: for what is seen in many slices. max: for what a few show; it rises with the
    number of slices, which calibration must make good."""
    spacing_mm: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    """(D, H, W) that volumes are resampled to; None keeps that of each file."""
    patch: tuple[PositiveInt, PositiveInt, PositiveInt] = (64, 128, 128)
    """(D, H, W) voxels that a 3-D network sees at once; smaller volumes are padded. With slices D is the most that a
    volume gives, spread evenly, and H and W do not count: see ``preprocess.size``. With 2.5d it does not count."""
    patches: PositiveInt = 1
    """Patches, or slices with 2.5d, drawn from each volume in an epoch."""
    foreground: Fraction = 0.33
    """Share of the patches that are centred on a voxel of a structure, or of the slices that hold one."""
    window: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    """(D, H, W) voxels that are seen at once where a mask is predicted, at least as many as in a patch; None is the
    patch. A volume that fits is seen whole, without black around it."""
    overlap: Fraction = 0.5
    """Of neighbouring windows, as a part of the window."""
    mirrored: bool = False
    """Predict masks with left and right exchanged too, and average both: twice the time. For models that were trained
    with flips."""
    tilt: TiltChoice = "refuse"
    """A DICOM series of a tilted gantry: refused, or sheared straight in ``run``, ``predict`` and ``score``."""
    gaps: GapChoice = "refuse"
    """A DICOM series with missing slices or single uneven steps: refused, or interpolated at even distances."""

    @field_validator("channels", mode="before")
    @classmethod
    def _as_endings(cls, value: Any) -> Any:
        return tuple(f"{name}={ending}" for name, ending in value.items()) if isinstance(value, dict) else value

    @field_validator("channels")
    @classmethod
    def _check_channels(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        is_file = ["=" in name or name.startswith(("_", "-", ".")) for name in value]
        if len(set(value)) < len(value) or any(not name or "," in name or "/" in name for name in value):
            raise ValueError("channels: each has a name of its own, without commas")
        if len(set(is_file)) > 1 or len(value) == 1:
            raise ValueError("channels are two or more, all components of a file, or all files (_0000, t1=_0001)")
        return value

    @model_validator(mode="after")
    def _check_window(self) -> VolumeConfig:
        if self.window is not None and any(a < b for a, b in zip(self.window, self.patch, strict=True)):
            raise ValueError("window must not be smaller than patch along any axis")
        if self.window is not None and self.view == "2.5d":
            raise ValueError("window counts with view 3d: with 2.5d every slice is seen whole, leave it out")
        return self

    @model_validator(mode="after")
    def _check_neighbours(self) -> VolumeConfig:
        for key in ("context", "context_step", "aggregate"):
            if self.view != "2.5d" and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} counts with view 2.5d, and view is {self.view}: set view, or leave it out")
        return self

    @property
    def slab(self) -> int:
        """Slices that a sample of a 2-D network is made of: 1 but with 2.5d."""
        return 1 + 2 * self.context if self.view == "2.5d" else 1


class TrainConfig(Section):
    """The training loop."""

    epochs: PositiveInt = 20
    """Times that training goes over the train split."""
    batch_size: PositiveInt = 32
    """Images, or patches of volumes, that a network sees at once."""
    lr: Annotated[float, Field(gt=0.0)] = 1e-3
    """Peak rate of AdamW for the heads (and for the encoder times ``encoder_lr_scale``)."""
    encoder_lr_scale: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    """Learning rate of the encoder, as a part of ``lr``."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.05
    """Not applied to norms and biases."""
    warmup_epochs: Annotated[float, Field(ge=0.0)] = 1.0
    """Epochs in which the learning rate rises from 0 to its peak, before the cosine."""
    min_lr_scale: Fraction = 0.01
    """The cosine ends at this share of the peak."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.0
    """Probability taken from the true class and spread over all classes in the loss."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: rare classes count more in the loss, by the inverse of how often they stand in the train split."""
    sampling: Literal["shuffle", "balanced", "patients"] = "shuffle"
    """shuffle: every image once. balanced: drawn so that each class of the first target comes equally often. patients:
    drawn so that each patient comes equally often, whatever the number of images, as where volumes of 40 slices and of
    400 are taken apart."""
    epoch_samples: Annotated[int, Field(ge=0)] = 0
    """Images, or volumes, in an epoch; 0 is as many as there are. A stated number gives every fold the same number of
    steps, however large its patients are."""
    target_weights: dict[str, Annotated[float, Field(gt=0.0)]] = Field(default_factory=dict)
    """Weight of each target's loss; 1 where not named. A name that is no target is refused."""
    mask_prior: Annotated[float, Field(gt=0.0, le=0.5)] = 0.5
    """Share of the voxels that each structure is taken to cover at the start. 0.01 for small lesions spares the hundred
    steps in which a mask from random weights learns their rarity alone (arXiv:1708.02002, section 4.1)."""
    balance: Literal["fixed", "uncertainty"] = "fixed"
    """fixed: the losses are added with their weights. uncertainty: each is also scaled by a learnt variance of its task
    (arXiv:1705.07115)."""
    accumulate_steps: PositiveInt = 1
    """Batches whose gradients are added up before each step of the optimiser."""
    clip_norm: Annotated[float, Field(ge=0.0)] = 1.0
    """Largest gradient norm; 0 turns clipping off."""
    ema_decay: Fraction = 0.0
    """Decay of the averaged weights, which are validated and kept; 0 turns averaging off."""
    freeze_stages: Annotated[int, Field(ge=0)] = 0
    """Stages of the encoder that stay fixed, norm layers too. Of a ResNet 1 is the stem, 2 … 5 are layer1 … layer4 (5:
    linear probe); another encoder has as many as its ``stages()`` gives."""
    freeze_norms: bool = False
    """Norm layers of the whole encoder keep their pretrained figures and weights, also in stages that train."""
    unfreeze_every: Annotated[int, Field(ge=0)] = 0
    """Gradual unfreezing: one more stage is freed, from the top, after each so many epochs; 0 never."""
    cache_features: bool = False
    """Run the fixed stages (see freeze_stages) once for each image, without augmentation, and train on the result."""
    monitor: str = "val_auroc"
    """Validation figure that picks the best epoch: val_auroc, val_average_precision, val_loss, or val_dice of masks,
    or val_<name> of a figure given to ``fit``; of numbers val_r2 or val_mae. Where it is not set and all targets are
    numbers, it is val_r2."""
    keep: Literal["best", "last"] = "best"
    """Which epoch's weights are kept. best: that of ``monitor``. last: the end of the schedule whatever the figures of
    validation, as nnU-Net has it (Isensee et al., Nat Methods 18:203, 2021): for a validation part of a few patients,
    on which the figure of an epoch is chance; ``monitor`` does not count then. Calibration and operating point come
    from validation all the same, where there is one: see ``split.val``."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Stop after so many epochs without a better figure; 0 never stops early. One that is undefined does not count."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Numbers that the network computes in; auto: bf16 where the device is fast at it, fp16 on old GPUs, else fp32."""
    channels_last: bool = True
    """Keep images as (B, H, W, C) in memory, which is faster for convolutions; figures stay the same."""
    compile: bool = False
    """Compile the network with ``torch.compile``: minutes at the start, faster steps afterwards."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Loader processes; 0 loads in the training process."""
    checkpoint_seconds: Annotated[float, Field(ge=0.0)] = 60.0
    """At most so long between two checkpoints inside an epoch; 0 writes one after every step."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the weights at the start, the order of the images and their random changes."""

    @model_validator(mode="after")
    def _check_keep(self) -> TrainConfig:
        if self.keep == "last" and self.patience:
            raise ValueError("patience stops where validation is best, and keep is last: set patience 0, or keep best")
        return self


class SplitConfig(Section):
    """How patients are divided."""

    val: Fraction = 0.15
    """0 sets nobody apart, for folds of a few patients with ``train.keep`` last: nothing is chosen or calibrated."""
    test: Fraction = 0.15
    """Share of the patients whose images are the test split, seen once at the end."""
    folds: Annotated[int, Field(ge=0)] = 0
    """Above 1: also write k patient-grouped folds."""
    balance_by: tuple[str, ...] = ("site",)
    """Columns whose distribution is kept alike between the parts, beside the labels; absent ones are ignored."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the draw of patients."""

    @model_validator(mode="after")
    def _check_fractions(self) -> SplitConfig:
        if self.val + self.test >= 1.0:
            raise ValueError("val + test must stay below 1")
        if self.folds == 1:
            raise ValueError("folds is 0 (none) or at least 2")
        return self


class EvaluationConfig(Section):
    """Validation choices and test figures."""

    criterion: Literal["sensitivity", "specificity", "youden", "cost", "ppv"] = "sensitivity"
    """What the operating point is chosen by, see ``evaluation.choices.operating_point.Criterion``."""
    min_sensitivity: Share = 0.95
    """With criterion sensitivity: smallest sensitivity that the threshold has on validation."""
    min_specificity: Share = 0.95
    """With criterion specificity: smallest specificity that the threshold has on validation."""
    min_ppv: Share = 0.5
    """With criterion ppv: smallest positive predictive value that the threshold has on validation."""
    cost_ratio: PositiveFloat = 1.0
    """With criterion cost: what a missed positive costs, in false alarms."""
    calibrate: bool = True
    """Fit a calibration for each target on validation."""
    calibration: Literal["temperature", "platt", "isotonic"] = "temperature"
    """temperature: one number per target, the ranking stays. platt: slope and intercept for each class. isotonic: a
    step-free rising line for each class, for some hundred validation samples of both classes and more."""
    conformal_coverage: Annotated[float, Field(gt=0.0, lt=1.0)] | None = 0.9
    """Share of the samples of each class whose set of answers is to hold it, fitted on validation; None fits none."""
    novelty_neighbours: Annotated[int, Field(ge=0, le=1000)] = 10
    """Which nearest training image tells how far a new one is from them (arXiv:2204.06507); 0 leaves it out."""
    subgroups: tuple[str, ...] = ()
    """Columns of the manifest by which figures are given too, e.g. [sex, age_band, site]."""
    subgroup_min_patients: PositiveInt = 20
    """A subgroup with fewer patients is marked as small and takes no part in the tests for gaps; one with fewer than
    half as many positive, or negative, patients is marked too."""
    replicates: Annotated[int, Field(ge=100)] = 1000
    """Bootstrap samples of the patients behind each interval."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Of the intervals: 0.95 gives 95 % intervals."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the bootstrap."""
    interval: Literal["percentile", "bca"] = "bca"
    """Of the bootstrap over patients; bca corrects bias and skewness (Efron, JASA 82:171, 1987) and for few
    patients; percentile does neither, and holds the truth too seldom below some hundred patients."""
    surface_area: bool = False
    """Of masks: beside the surface Dice of voxels the one that weighs by area, as DeepMind's; three times the work."""
    max_fpr: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    """Largest false positive rate of the partial AUROC."""
    prevalence: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Share of positives where the model will be used: PPV and NPV are given at it once more, and the criteria cost and
    ppv hold at it. None leaves these figures out, and takes that of validation for the criteria."""
    unit: Literal["image", "series", "study", "patient"] = "image"
    """What is one case: the images of a larger unit are joined before thresholds are chosen and figures computed."""
    aggregation: Literal["max", "mean", "noisy_or", "learnt"] = "mean"
    """How probabilities of one unit are joined; learnt weights them by a fit on validation."""
