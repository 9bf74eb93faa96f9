"""Targets: the labels that a model predicts for a whole image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt

from lepton_vision.errors import InvalidValueError, describe_keys
from lepton_vision.types.kinds import Kind, TargetKind, TargetLoss, kind_called

Uncertain = Literal["unknown", "positive", "negative"]


@dataclass(frozen=True, slots=True)
class Target:
    """A quantity that the model predicts: a name, a kind and the classes. One head per target.

    Attributes:
        name: letters, digits and underscores; also the label column unless ``column`` says otherwise.
        kind: "binary" (one probability, of ``classes[1]``), "multiclass" (probabilities sum to one), "ordinal" (the
            same, and the classes are in order, as grades are: judged by distance too), "multilabel" (one independent
            probability per class) or "regression" (a number, such as an age).
        classes: binary: (negative, positive). multilabel: one label column per class, of that name. regression: none.
        column: label column of a target that is not multilabel; None means ``name``.
        is_lateral: left and right mean something for this target, so images are never flipped left–right.
        mask_values: of a binary target that has no column of its own: an image is positive where its mask holds any of
            these values, negative where it holds none, unknown where it has no mask.
        mask_unknown: with ``mask_values``, the value of masks where nobody knows: an image whose mask holds it, and
            none of ``mask_values``, is unknown. "auto": 255, unless that is one of ``mask_values``; None: no value says
            so. Beside a segmentation head it is always ``segmentation.unknown``.
        uncertain: what a label counts as that looks uncertain (-1, as in CheXpert, or a word such as "equivocal"):
            "unknown", or of binary and multilabel targets "positive" or "negative"; None refuses such labels.
        unit: of a number, such as "years" or "ml"; "" where it has none.
        loss: what it is trained with. binary and multilabel: "binary_cross_entropy". multiclass: "cross_entropy".
            ordinal: "cross_entropy", or "cumulative" (proportional odds: one score, and cut points in order between the
            classes; McCullagh, J R Stat Soc B 42:109, 1980). regression: "huber" (absolute beyond one standard
            deviation of the training labels, so that a few far-off labels count less) or "squared". None: the first.

    Example:
        >>> Target("covid", "binary", ("NonCOVID", "COVID"), column="label").positive
        'COVID'
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    name: str
    kind: TargetKind
    classes: tuple[str, ...] = ()
    column: str | None = None
    is_lateral: bool = False
    mask_values: tuple[int, ...] = ()
    mask_unknown: int | Literal["auto"] | None = "auto"
    uncertain: Uncertain | None = None
    unit: str = ""
    loss: TargetLoss | None = None

    def __post_init__(self) -> None:
        kind = kind_called(self.kind)
        self._check_texts()
        kind.check_classes(self.classes, target=self.name)
        if len(set(self.classes)) != len(self.classes):
            raise InvalidValueError(f"Target {self.name!r} names a class twice: {list(self.classes)}.")
        if not (isinstance(self.name, str) and self.name.replace("_", "a").isalnum()):
            raise InvalidValueError(f"A target name is letters, digits and underscores. Received: {self.name!r}.")
        if self.mask_values and (not self.is_binary or self.column is not None or min(self.mask_values) < 1):
            raise InvalidValueError("mask_values, above 0, is for a binary target without a column.")
        if self.uncertain not in (None, "unknown") and not kind.is_yes_no:
            raise InvalidValueError(
                f"uncertain: {self.uncertain} is for binary and multilabel targets; others take unknown."
            )
        if self.loss is not None and self.loss not in kind.losses:
            raise InvalidValueError(
                f"A {self.kind} target is trained with {' or '.join(kind.losses)}. Received: loss {self.loss!r}.",
                key="loss",
            )
        if self.unit and not kind.is_value:
            raise InvalidValueError(
                f"A unit is for a number (kind regression). Received: {self.unit!r} of a {self.kind} target.",
                key="unit",
            )

    def _check_texts(self) -> None:
        is_group = isinstance(self.classes, Sequence) and not isinstance(self.classes, str)
        if not is_group or not all(isinstance(name, str) for name in self.classes):
            raise InvalidValueError(
                f"The classes of a target are texts, such as ('no', 'yes'). Received: {self.classes!r}.", key="classes"
            )
        object.__setattr__(self, "classes", tuple(self.classes))
        if self.uncertain not in (None, *get_args(Uncertain)):
            allowed = ", ".join(get_args(Uncertain))
            raise InvalidValueError(f"uncertain is one of: {allowed}. Received: {self.uncertain!r}.", key="uncertain")

    __get_pydantic_json_schema__: ClassVar[Any] = classmethod(describe_keys)

    @property
    def positive(self) -> str:
        """Positive class of a binary target."""
        return self.classes[1]

    @property
    def _kind(self) -> type[Kind]:
        return kind_called(self.kind)

    def is_among(self, kinds: Sequence[TargetKind]) -> bool:
        """Whether it is of one of these kinds."""
        return self._kind.is_among(kinds)

    @property
    def is_exclusive(self) -> bool:
        """Whether exactly one of K classes is true (multiclass and ordinal)."""
        return self._kind.is_exclusive

    @property
    def is_yes_no(self) -> bool:
        """Whether each probability has a threshold (binary and multilabel)."""
        return self._kind.is_yes_no

    @property
    def is_ordered(self) -> bool:
        """Whether the classes are in order (ordinal)."""
        return self._kind.is_ordered

    @property
    def is_value(self) -> bool:
        """Whether a number is predicted (regression)."""
        return self._kind.is_value

    @property
    def is_single(self) -> bool:
        """Whether an image has one output, so that arrays of it are (N,) (binary and regression)."""
        return self._kind.is_single

    @property
    def is_binary(self) -> bool:
        """Whether one question is answered with yes or no."""
        return self.is_single and self.is_yes_no

    @property
    def has_label_by_class(self) -> bool:
        """Whether each class has a label column of its own (multilabel)."""
        return self._kind.has_label_by_class

    @property
    def outputs(self) -> int:
        """Number of logits of the head: 1 for binary and regression, K otherwise."""
        return self._kind.outputs(self.classes)

    @property
    def answers(self) -> tuple[str, ...]:
        """Classes that a curve, a threshold or a calibration may be of: the positive one, or each; () of a number."""
        return self._kind.answers(self.classes)

    @property
    def set_answers(self) -> tuple[tuple[str, ...], ...]:
        """Answers among which each of its conformal sets chooses; of a number, which has an interval, ()."""
        return self._kind.set_answers(self.classes)

    @property
    def thresholds(self) -> int:
        """How many thresholds decide: one for each probability of a yes-or-no question, none otherwise."""
        return self.outputs if self.is_yes_no else 0

    @property
    def described(self) -> str:
        """Name, kind and classes, or the unit, as text."""
        rest = ", ".join(self.classes) or self.unit
        return f"{self.name} ({self.kind}{f': {rest}' if rest else ''})"

    @property
    def summed_up_by(self) -> Literal["auroc", "r2"]:
        """Name of the figure that stands for all of them."""
        return self._kind.summed_up_by

    @property
    def trained_with(self) -> TargetLoss:
        """Its loss: ``loss``, or what its kind takes."""
        return self._kind.losses[0] if self.loss is None else self.loss

    @property
    def endings(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Ends of the names of the columns of scores: those of each output, and those of the target."""
        return self._kind.endings()

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the manifest that this target reads."""
        if self.mask_values:
            return ("mask_values",)
        return self.classes if self.has_label_by_class else (self.column or self.name,)

    def output_shape(self, n: int) -> tuple[int, ...]:
        """Shape of the probabilities, or values, of ``n`` samples: (n,), or (n, K)."""
        return (n,) if self.is_single else (n, self.outputs)

    def label_shape(self, n: int) -> tuple[int, ...]:
        """Shape of the labels of ``n`` samples: (n,), or (n, K) where each class has its own."""
        return (n, self.outputs) if self.has_label_by_class else (n,)


def output_stems(target: Target) -> list[str]:
    """Start of the column names of each probability of a target, in the order of the network."""
    return kind_called(target.kind).stems(target.name, target.classes)


def probability_names(target: Target) -> list[str]:
    """Columns of the probabilities of a target, or of its value."""
    return [f"{stem}_{target.endings[0][0]}" for stem in output_stems(target)]


def set_names(target: Target) -> list[str]:
    """Columns of the sets of a target, one for each of its rules; of a number the ends of its interval."""
    if target.is_value:
        return [f"{target.name}_{end}" for end in ("low", "high")]
    return [f"{target.name}_set"] if target.is_exclusive else [f"{stem}_set" for stem in output_stems(target)]


def check_names(targets: Sequence[Target], structures: Sequence[str] = ()) -> None:
    """Refuse names of which two would make one: of columns of scores, or of outputs of an exported file.

    Names that differ in case alone are one for databases and file systems.

    Raises:
        ValueError: with both names.
    """
    for what, named in (("columns of scores", _columns(targets, structures)), ("outputs of a file", _outputs(targets))):
        seen: dict[str, str] = {}
        for name, owner in named:
            before = seen.setdefault(name.casefold(), owner)
            if before != owner:
                raise InvalidValueError(
                    f"two {what} would be called {name!r}: those of {before} and {owner}. Rename one"
                )


def _columns(targets: Sequence[Target], structures: Sequence[str]) -> Iterator[tuple[str, str]]:
    for target in targets:
        whole = f"the target {target.name!r}"
        owners = [whole] if target.is_single else [f"the class {name!r} of {whole}" for name in target.classes]
        of_outputs, of_target = target.endings
        for stem, owner in zip(output_stems(target), owners, strict=True):
            yield from ((f"{stem}_{ending}", owner) for ending in of_outputs)
        yield from ((f"{target.name}_{ending}", whole) for ending in of_target)
    for name in structures:
        yield from ((f"{name}_{unit}", f"the structure {name!r}") for unit in ("ml", "mm2"))


def _outputs(targets: Sequence[Target]) -> Iterator[tuple[str, str]]:
    yield from ((name, f"the network's {name}") for name in ("images", "features"))
    for target in targets:
        yield from ((name, f"the target {target.name!r}") for name in (target.name, f"{target.name}_logits"))


def are_called(prob: npt.NDArray[np.floating[Any]] | float, threshold: npt.NDArray[np.float64] | float) -> Any:
    """Tell which probabilities are called positive, bool of their shape: the one place where decisions are made.

    Both are compared as float64: a threshold that is rounded to the float32 of a score may come to lie on its other
    side. NaN, as probability or as threshold, is never called.

    Example:
        >>> bool(are_called(np.float32(0.4), 0.4)), bool(np.float32(0.4) >= 0.40000001)
        (True, True)
        >>> bool(are_called(np.float32(0.4), 0.40000001))
        False
    """
    return np.asarray(prob, dtype=np.float64) >= np.asarray(threshold, dtype=np.float64)
