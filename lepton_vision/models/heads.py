"""Linear heads on the pooled features, one per target."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from lepton_vision.models.device import full_precision
from lepton_vision.models.norms import RunningNorm
from lepton_vision.types import Target

# Keeps a target called "keys" or "type" away from the attributes of ModuleDict.
_PREFIX = "target_"


class ValueScale(nn.Module):
    """A standardised number to one in its unit.

    Attributes:
        mean: () float32 of the training labels; 0 until it is set.
        deviation: () float32, their standard deviation; 1 until it is set.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(()))

    @property
    def is_set(self) -> bool:
        """Whether there are figures of labels."""
        return (float(self.mean), float(self.deviation)) != (0.0, 1.0)

    def set_from(self, labels: Tensor) -> None:
        """Take over the figures of (N,) labels, NaN unknown; the deviation of labels that are all one stays 1."""
        known = labels[~torch.isnan(labels)].double()
        deviation = known.std(correction=0) if len(known) else torch.ones(())
        self.mean.fill_(known.mean() if len(known) else 0.0)
        self.deviation.fill_(deviation if deviation > 0 else 1.0)

    def forward(self, standardised: Tensor) -> Tensor:
        """(B, 1) float32 to the same."""
        return self.mean + self.deviation * standardised


class CutPoints(nn.Module):
    """Proportional odds: one score and cut points in order to log probabilities of classes in order.

    The probability of a class up to k is sigmoid(cut_k - score) (McCullagh, J R Stat Soc B 42:109, 1980), so that the
    cross entropy of what comes out is the negative log likelihood of this model.

    Args:
        classes: K, two or more.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        # Logits of equal shares: without a score every class starts at 1 / K.
        even = torch.logit(torch.arange(1, classes, dtype=torch.float64) / classes).float()
        self.first = nn.Parameter(even[:1].clone())
        self.gaps = nn.Parameter(torch.log(torch.expm1(even.diff())))  # softplus makes the steps again, above 0

    def forward(self, score: Tensor) -> Tensor:
        """(B, 1) float32 to (B, K), whose softmax are the probabilities."""
        widths = functional.softplus(self.gaps)
        cuts = torch.cat([self.first, self.first + widths.cumsum(0)])
        below, above = functional.logsigmoid(cuts - score), functional.logsigmoid(score - cuts)
        # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)): no difference of two that are almost alike.
        steps = torch.log(-torch.expm1(-widths))
        return torch.cat([below[:, :1], below[:, 1:] + above[:, :-1] + steps, above[:, -1:]], dim=1)


class Heads(nn.Module):
    """Dropout, then a linear layer for each target; what a number, or classes by cut points, need comes after it.

    Args:
        features: F, length of the feature vector.
        targets: at least one.
        dropout: share of features that training drops, independently for each target.
    """

    def __init__(self, features: int, targets: Sequence[Target], *, dropout: float = 0.0) -> None:
        super().__init__()
        self.targets = tuple(targets)
        self.features = features
        self.norm: nn.Module = nn.Identity()
        self.dropout = nn.Dropout(dropout)
        by_cuts = {t.name: CutPoints(t.outputs) for t in self.targets if t.trained_with == "cumulative"}
        self.after = nn.ModuleDict({_PREFIX + t.name: ValueScale() for t in self.targets if t.is_value})
        self.after.update({_PREFIX + name: cuts for name, cuts in by_cuts.items()})
        widths = {t.name: 1 if t.name in by_cuts else t.outputs for t in self.targets}
        self.linear = nn.ModuleDict({_PREFIX + name: nn.Linear(features, width) for name, width in widths.items()})
        for module in self.linear.values():
            if isinstance(module, nn.Linear) and not module.weight.is_meta:
                # Small weights and no bias: every class starts near equal probability whatever the features are.
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def standardise(self) -> None:
        """Let the layers see each feature around 0 while they learn; ``fold_running_norms`` takes it back.

        Where the features are far from 0, a class that is rare is first told by the weights instead of the bias, since
        their gradients all point the same way: with the wrong sign for what raises a feature, for hundreds of steps.
        """
        self.norm = RunningNorm(self.features)

    def head(self, name: str) -> nn.Module:
        """Return the linear layer of the target called ``name``."""
        return self.linear[_PREFIX + name]

    def parts(self, name: str) -> dict[str, nn.Module]:
        """Return the layers of the target called ``name``, by where each stands in the state dict of a network."""
        key = _PREFIX + name
        return {f"heads.{group}.{key}": layers[key] for group, layers in self._groups if key in layers}

    @property
    def _groups(self) -> tuple[tuple[str, nn.ModuleDict], ...]:
        return ("linear", self.linear), ("after", self.after)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return logits by target name.

        Computed in float32 under autocast too: a bf16 logit has 8 bits, which would put many patients on one score.

        Args:
            features: (B, F) of any float type.

        Returns:
            (B, 1) float32 for binary targets and for numbers, whose value it is, (B, K) float32 otherwise.
        """
        with full_precision(features.device):
            features = self.norm(features.float())
            return {t.name: self._logits(t.name, self.dropout(features)) for t in self.targets}

    def _logits(self, name: str, features: Tensor) -> Tensor:
        logits, key = self._linear(self.head(name), features), _PREFIX + name
        shaped: Tensor = self.after[key](logits) if key in self.after else logits
        return shaped

    def _linear(self, layer: nn.Module, features: Tensor) -> Tensor:
        """(B, K): outside training each row by the same sum, wherever it stands in its batch; BLAS does not promise it.

        A graph for another runtime keeps the layer, which that runtime knows.
        """
        is_traced = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        if self.training or is_traced or not isinstance(layer, nn.Linear):
            logits: Tensor = layer(features)
            return logits
        return (features[:, None] * layer.weight).sum(dim=2) + layer.bias


def value_scales(network: nn.Module) -> list[tuple[str, ValueScale]]:
    """Return target and scale of each head of a number, of all members."""
    found = [(path.rpartition(".")[2], one) for path, one in network.named_modules() if isinstance(one, ValueScale)]
    return [(key.removeprefix(_PREFIX), scale) for key, scale in found]
