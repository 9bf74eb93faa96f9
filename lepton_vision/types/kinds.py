"""Kinds of targets: labels, outputs, loss, decision and columns of each; nothing else compares kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Literal, get_args

from lepton_vision.errors import InvalidValueError, nearest

TargetKind = Literal["binary", "multiclass", "multilabel", "ordinal", "regression"]
TargetLoss = Literal["binary_cross_entropy", "cross_entropy", "cumulative", "huber", "squared"]
MEANS = ("macro", "micro", "weighted")


class Kind:
    """What targets of one kind have in common.

    Attributes:
        name: in configurations, bundles and tables.
        is_exclusive: exactly one of K classes is true: probabilities sum to one, and the largest wins.
        is_yes_no: each probability answers yes or no by a threshold of its own.
        is_ordered: the classes are in order.
        is_value: a number is predicted, and there are no classes, probabilities or decisions.
        is_single: one output for an image, so that arrays of it are (N,); otherwise (N, K).
        has_label_by_class: a label column for each class; otherwise one column.
        summed_up_by: the figure that stands for all of them.
        losses: what it can be trained with, the default first.
    """

    name: ClassVar[TargetKind]
    is_exclusive: ClassVar[bool] = False
    is_yes_no: ClassVar[bool] = False
    is_ordered: ClassVar[bool] = False
    is_value: ClassVar[bool] = False
    is_single: ClassVar[bool] = False
    has_label_by_class: ClassVar[bool] = False
    summed_up_by: ClassVar[Literal["auroc", "r2"]] = "auroc"
    losses: ClassVar[tuple[TargetLoss, ...]]
    _fewest: ClassVar[int] = 2
    _most: ClassVar[float] = float("inf")

    @classmethod
    def check_classes(cls, classes: Sequence[str], *, target: str) -> None:
        """Refuse classes that a target of this kind, called ``target``, cannot have.

        Raises:
            InvalidValueError: another number of classes than the kind has, or a name that results use otherwise.
        """
        if not cls._fewest <= len(classes) <= cls._most:
            needs = f"exactly {cls._fewest}" if cls._most == cls._fewest else f"at least {cls._fewest}"
            raise InvalidValueError(f"A {cls.name} target needs {needs} classes. Received: {len(classes)}.")
        if cls.is_single:
            return
        if means := [name for name in classes if name in MEANS]:
            raise InvalidValueError(
                f"Target {target!r}: {means[0]!r} is the name of a mean over classes. Rename the class."
            )
        if taken := [name for name in classes if name.startswith("at_prevalence")]:
            raise InvalidValueError(f"Target {target!r}: {taken[0]!r} begins as a figure does. Rename the class.")

    @classmethod
    def is_among(cls, kinds: Sequence[TargetKind]) -> bool:
        """Whether it is one of them."""
        return cls.name in kinds

    @classmethod
    def outputs(cls, classes: Sequence[str]) -> int:
        """Number of logits of the head."""
        return 1 if cls.is_single else len(classes)

    @classmethod
    def answers(cls, classes: Sequence[str]) -> tuple[str, ...]:
        """Classes that a curve, a threshold or a calibration may be of: the positive one, or each."""
        return tuple(classes)

    @classmethod
    def set_answers(cls, classes: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """Answers among which each conformal set chooses."""
        return (tuple(classes),)

    @classmethod
    def stems(cls, name: str, classes: Sequence[str]) -> list[str]:
        """Start of the column names of each output of the target called ``name``."""
        return [name] if cls.is_single else [f"{name}_{one}" for one in classes]

    @classmethod
    def endings(cls) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Ends of the names of the columns of scores: those of each output, and those of the target."""
        return ("probability", "set", "positive", "threshold"), ()


class Binary(Kind):
    """One probability, that of the second class."""

    name = "binary"
    is_yes_no = is_single = True
    losses = ("binary_cross_entropy",)
    _most = 2

    @classmethod
    def answers(cls, classes: Sequence[str]) -> tuple[str, ...]:
        """Only the positive class."""
        return (classes[1],)


class Multilabel(Kind):
    """One independent probability for each class."""

    name = "multilabel"
    is_yes_no = has_label_by_class = True
    losses = ("binary_cross_entropy",)
    _fewest = 1

    @classmethod
    def set_answers(cls, classes: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """One set for each class."""
        return (("absent", "present"),) * len(classes)


class _Exclusive(Kind):
    is_exclusive = True

    @classmethod
    def endings(cls) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The largest probability decides."""
        return ("probability",), ("class", "set")


class Multiclass(_Exclusive):
    """One of several classes."""

    name = "multiclass"
    losses = ("cross_entropy",)


class Ordinal(_Exclusive):
    """One of several classes in order, as grades are: judged by distance too."""

    name = "ordinal"
    is_ordered = True
    losses = ("cross_entropy", "cumulative")


class Regression(Kind):
    """A number, such as an age or a volume."""

    name = "regression"
    is_value = is_single = True
    summed_up_by = "r2"
    losses = ("huber", "squared")
    _fewest = 0
    _most = 0

    @classmethod
    def check_classes(cls, classes: Sequence[str], *, target: str) -> None:
        """A number has no classes."""
        if classes:
            raise InvalidValueError(
                f"Target {target!r} is a number (regression), which has no classes. Received: {list(classes)}. Leave "
                "them out, or set another kind.",
                key="classes",
            )

    @classmethod
    def set_answers(cls, classes: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """An interval takes the place of a set."""
        return ((),)

    @classmethod
    def endings(cls) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The value, and the interval around it."""
        return ("value", "low", "high"), ()


KINDS: Mapping[str, type[Kind]] = MappingProxyType(
    {one.name: one for one in (Binary, Multiclass, Multilabel, Ordinal, Regression)}
)
CLASS_KINDS: tuple[TargetKind, ...] = tuple(name for name in get_args(TargetKind) if not KINDS[name].is_value)
"""Kinds of which classes are predicted."""
EXCLUSIVE: tuple[TargetKind, ...] = tuple(name for name in get_args(TargetKind) if KINDS[name].is_exclusive)
"""Kinds of which exactly one class is true: probabilities sum to one, and the largest wins."""
YES_NO: tuple[TargetKind, ...] = tuple(name for name in get_args(TargetKind) if KINDS[name].is_yes_no)
"""Kinds of which each probability has a threshold."""
ORDERED: tuple[TargetKind, ...] = tuple(name for name in get_args(TargetKind) if KINDS[name].is_ordered)
VALUES: tuple[TargetKind, ...] = tuple(name for name in get_args(TargetKind) if KINDS[name].is_value)


def kind_called(name: str) -> type[Kind]:
    """Return the kind of that name.

    Raises:
        InvalidValueError: there is none; the nearest is named.
    """
    if name in KINDS:
        return KINDS[name]
    expected = f"Expected one of: {', '.join(KINDS)}. Received: {name!r}."
    near = nearest(str(name), list(KINDS))
    raise InvalidValueError(f"{expected} {near}" if near.startswith("Did") else expected, key="kind")
