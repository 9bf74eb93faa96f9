"""Linear classification heads on the pooled features, one per target."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lepton_vision.models.device import full_precision
from lepton_vision.models.norms import RunningNorm
from lepton_vision.types import Target

# Keeps a target called "keys" or "type" away from the attributes of ModuleDict.
_PREFIX = "target_"


class Heads(nn.Module):
    """Dropout, then a linear layer for each target.

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
        self.linear = nn.ModuleDict({_PREFIX + t.name: nn.Linear(features, t.outputs) for t in self.targets})
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

    def path(self, name: str) -> str:
        """Return where the head of the target called ``name`` stands in the state dict of a network."""
        return f"heads.linear.{_PREFIX}{name}"

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return logits by target name.

        Computed in float32 under autocast too: a bf16 logit has 8 bits, which would put many patients on one score.

        Args:
            features: (B, F) of any float type.

        Returns:
            (B, 1) float32 for binary targets, (B, K) float32 otherwise.
        """
        with full_precision(features.device):
            features = self.norm(features.float())
            return {t.name: self._logits(self.head(t.name), self.dropout(features)) for t in self.targets}

    def _logits(self, layer: nn.Module, features: Tensor) -> Tensor:
        """(B, K): outside training each row by the same sum, wherever it stands in its batch; BLAS does not promise it.

        A graph for another runtime keeps the layer, which that runtime knows.
        """
        is_traced = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        if self.training or is_traced or not isinstance(layer, nn.Linear):
            logits: Tensor = layer(features)
            return logits
        return (features[:, None] * layer.weight).sum(dim=2) + layer.bias
