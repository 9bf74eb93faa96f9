"""What a model predicts for a whole image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

TargetKind = Literal["binary", "multiclass", "multilabel", "ordinal"]
EXCLUSIVE: tuple[TargetKind, ...] = ("multiclass", "ordinal")
"""Kinds of which exactly one class is true: probabilities sum to one, and the largest wins."""
MEANS = ("macro", "micro", "weighted")


@dataclass(frozen=True, slots=True)
class Target:
    """What the model predicts: a name, a kind and the classes. One head per target.

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

    def __post_init__(self) -> None:
        smallest = {"binary": 2, "multiclass": 2, "multilabel": 1, "ordinal": 2}[self.kind]
        is_count_valid = len(self.classes) == 2 if self.kind == "binary" else len(self.classes) >= smallest
        if not is_count_valid:
            exactly = "exactly 2" if self.kind == "binary" else f"at least {smallest}"
            raise ValueError(f"A {self.kind} target needs {exactly} classes. Received: {len(self.classes)}.")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"Target {self.name!r} names a class twice: {list(self.classes)}.")
        if self.kind != "binary" and (means := [name for name in self.classes if name in MEANS]):
            raise ValueError(
                f"Target {self.name!r}: {means[0]!r} is the name of a mean over classes. Rename the class."
            )
        if not self.name.replace("_", "a").isalnum():
            raise ValueError(f"A target name is letters, digits and underscores. Received: {self.name!r}.")
        if self.mask_values and (self.kind != "binary" or self.column is not None or min(self.mask_values) < 1):
            raise ValueError("mask_values, above 0, is for a binary target without a column.")

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
