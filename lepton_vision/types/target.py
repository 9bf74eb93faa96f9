"""Targets: the labels that a model predicts for a whole image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt

from lepton_vision.errors import InvalidValueError, describe_keys, nearest

TargetKind = Literal["binary", "multiclass", "multilabel", "ordinal"]
Uncertain = Literal["unknown", "positive", "negative"]
EXCLUSIVE: tuple[TargetKind, ...] = ("multiclass", "ordinal")
"""Kinds of which exactly one class is true: probabilities sum to one, and the largest wins."""
MEANS = ("macro", "micro", "weighted")


@dataclass(frozen=True, slots=True)
class Target:
    """A quantity that the model predicts: a name, a kind and the classes. One head per target.

    Attributes:
        name: letters, digits and underscores; also the label column unless ``column`` says otherwise.
        kind: "binary" (one probability, of ``classes[1]``), "multiclass" (probabilities sum to one), "ordinal" (the
            same, and the classes are in order, as grades are: trained as multiclass, judged by distance too) or
            "multilabel" (one independent probability per class).
        classes: binary: (negative, positive). multilabel: one label column per class, of that name.
        column: label column of a target that is not multilabel; None means ``name``.
        is_lateral: left and right mean something for this target, so images are never flipped left–right.
        mask_values: of a binary target that has no column of its own: an image is positive where its mask holds any of
            these values, negative where it holds none, unknown where it has no mask.
        mask_unknown: with ``mask_values``, the value of masks where nobody knows: an image whose mask holds it, and
            none of ``mask_values``, is unknown. "auto": 255, unless that is one of ``mask_values``; None: no value says
            so. Beside a segmentation head it is always ``segmentation.unknown``.
        uncertain: what a label counts as that looks uncertain (-1, as in CheXpert, or a word such as "equivocal"):
            "unknown", or of binary and multilabel targets "positive" or "negative"; None refuses such labels.

    Example:
        >>> Target("covid", "binary", ("NonCOVID", "COVID"), column="label").positive
        'COVID'
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    name: str
    kind: TargetKind
    classes: tuple[str, ...]
    column: str | None = None
    is_lateral: bool = False
    mask_values: tuple[int, ...] = ()
    mask_unknown: int | Literal["auto"] | None = "auto"
    uncertain: Uncertain | None = None

    def __post_init__(self) -> None:
        self._check_kind()
        smallest = {"binary": 2, "multiclass": 2, "multilabel": 1, "ordinal": 2}[self.kind]
        is_count_valid = len(self.classes) == 2 if self.kind == "binary" else len(self.classes) >= smallest
        if not is_count_valid:
            exactly = "exactly 2" if self.kind == "binary" else f"at least {smallest}"
            raise InvalidValueError(f"A {self.kind} target needs {exactly} classes. Received: {len(self.classes)}.")
        if len(set(self.classes)) != len(self.classes):
            raise InvalidValueError(f"Target {self.name!r} names a class twice: {list(self.classes)}.")
        if self.kind != "binary" and (means := [name for name in self.classes if name in MEANS]):
            raise InvalidValueError(
                f"Target {self.name!r}: {means[0]!r} is the name of a mean over classes. Rename the class."
            )
        if self.kind != "binary" and (taken := [name for name in self.classes if name.startswith("at_prevalence")]):
            raise InvalidValueError(f"Target {self.name!r}: {taken[0]!r} begins as a figure does. Rename the class.")
        if not (isinstance(self.name, str) and self.name.replace("_", "a").isalnum()):
            raise InvalidValueError(f"A target name is letters, digits and underscores. Received: {self.name!r}.")
        if self.mask_values and (self.kind != "binary" or self.column is not None or min(self.mask_values) < 1):
            raise InvalidValueError("mask_values, above 0, is for a binary target without a column.")
        if self.uncertain not in (None, "unknown") and self.is_exclusive:
            raise InvalidValueError(
                f"uncertain: {self.uncertain} is for binary and multilabel targets; others take unknown."
            )

    def _check_kind(self) -> None:
        if self.kind not in get_args(TargetKind):
            kinds = list(get_args(TargetKind))
            expected = f"Expected one of: {', '.join(kinds)}. Received: {self.kind!r}."
            near = nearest(str(self.kind), kinds)
            raise InvalidValueError(f"{expected} {near}" if near.startswith("Did") else expected, key="kind")
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
    def is_exclusive(self) -> bool:
        """Whether exactly one of K classes is true (multiclass and ordinal)."""
        return self.kind in EXCLUSIVE

    @property
    def outputs(self) -> int:
        """Number of logits of the head: 1 for binary, K otherwise."""
        return 1 if self.kind == "binary" else len(self.classes)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the manifest that this target reads."""
        if self.mask_values:
            return ("mask_values",)
        return self.classes if self.kind == "multilabel" else (self.column or self.name,)


def output_stems(target: Target) -> list[str]:
    """Start of the column names of each probability of a target, in the order of the network."""
    return [target.name] if target.kind == "binary" else [f"{target.name}_{name}" for name in target.classes]


def probability_names(target: Target) -> list[str]:
    """Columns of the probabilities of a target."""
    return [f"{stem}_probability" for stem in output_stems(target)]


def set_names(target: Target) -> list[str]:
    """Columns of the sets of a target, one for each of its rules."""
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
        owners = [f"the class {name!r} of {whole}" for name in target.classes] if target.kind != "binary" else [whole]
        endings = ("probability",) if target.is_exclusive else ("probability", "set", "positive", "threshold")
        for stem, owner in zip(output_stems(target), owners, strict=True):
            yield from ((f"{stem}_{ending}", owner) for ending in endings)
        if target.is_exclusive:
            yield from ((f"{target.name}_{ending}", whole) for ending in ("class", "set"))
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
