"""Deep ensembles: several networks trained side by side and averaged in use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from lepton_vision.errors import ConfigError
from lepton_vision.types import ModelOutput

if TYPE_CHECKING:
    from lepton_vision.models.network import Network
from lepton_vision.models.network import list_parts


class Ensemble(nn.Module):
    """Independent networks of one design that see the same images (Lakshminarayanan et al., arXiv:1612.01474).

    It has what callers use of a ``Network``, and one state dict, in which ``members.0.`` … come before a network's own
    names. In training ``ModelOutput.members`` holds what each member says, since each learns by its own loss: the loss
    of the mean would train one wide network, whose members need not be any good by themselves.

    Outside training it gives the mean of the members' logits, where the paper takes the mean of their probabilities.
    The logits' mean is linear, hence the same in every runtime and whatever temperature comes after it, whose fit on
    validation answers for the probabilities as it does for a single network.

    Args:
        members: at least one, all from the same configuration.

    Attributes:
        members: the networks.
        targets: what is predicted, in the order of the heads.
        segmentation: of the segmentation heads, or None.
        start: in words, what the encoders' weights are from.

    Raises:
        ConfigError: no member.

    Example:
        >>> from lepton_vision import Config, Target, build_model
        >>> config = Config(targets=(Target("finding", "binary", ("no", "yes")),)).override("model.members=3")
        >>> model = build_model(config)
        >>> output = model(torch.zeros(2, 1, 224, 224))
        >>> output.logits["finding"].shape, len(output.members), output.features.shape
        (torch.Size([2, 1]), 3, torch.Size([2, 1536]))
    """

    __repr__ = list_parts

    def __init__(self, members: Sequence[Network]) -> None:
        super().__init__()
        if not members:
            raise ConfigError("Expected at least 1 member. Received: 0.", key="model.members")
        self.members = cast("Sequence[Network]", nn.ModuleList(members))
        self.targets, self.segmentation = members[0].targets, members[0].segmentation
        self.start = "random"

    @property
    def channels(self) -> int:
        """C of the input."""
        return self.members[0].channels

    @property
    def dims(self) -> int:
        """Axes that the encoders see, 2 or 3."""
        return self.members[0].dims

    @property
    def strides(self) -> tuple[int, ...]:
        """How many voxels of the input one of each stage covers along an axis."""
        return self.members[0].strides

    @property
    def width(self) -> int:
        """Length of the feature vector: K F of K members."""
        return sum(member.width for member in self.members)

    @property
    def gives_masks(self) -> bool:
        """Whether ``forward`` computes masks; setting it sets it for every member."""
        return self.members[0].gives_masks

    @gives_masks.setter
    def gives_masks(self, value: bool) -> None:
        for member in self.members:
            member.gives_masks = value

    @property
    def log_variance(self) -> Tensor | None:
        """(K, T), or (K, T + 1) with masks, float32: learnt log variances of each member's losses, or None."""
        found = [one for member in self.members if (one := member.log_variance) is not None]
        return torch.stack(found) if found else None

    def features(self, images: Tensor) -> Tensor:
        """Return the members' pooled features side by side, (B, K F) float32, of images as ``forward`` takes them."""
        return torch.cat([member.features(images) for member in self.members], dim=1)

    def lower(self, images: Tensor, count: int) -> Tensor:
        """Return what the lowest ``count`` stages of each member make of ``images``, side by side along axis 1."""
        return torch.cat([member.lower(images, count) for member in self.members], dim=1)

    def upper(self, maps: Tensor, *, below: int) -> ModelOutput:
        """Finish from what ``lower`` gave for ``below`` stages. No masks."""
        parts = maps.chunk(len(self.members), dim=1)
        pairs = zip(self.members, parts, strict=True)
        return self._joined([member.upper(part, below=below) for member, part in pairs])

    def forward(self, images: Tensor) -> ModelOutput:
        """Return the mean of the members' logits before sigmoid or softmax; see ``Network.forward``.

        Args:
            images: (B, C, H, W) float32, normalised; (B, C, D, H, W) for 3-D encoders, or for slices that attention
                joins.

        Returns:
            ``logits`` by target: (B, 1) float32 for binary, (B, K) float32 otherwise; ``mask_logits``
            (B, 1 + M, H, W) float32 where there are segmentation heads; ``features`` as of ``features``; in training
            ``members``, one output of each.

        Raises:
            ConfigError: another number of channels or axes.
        """
        return self._joined([member(images) for member in self.members])

    def _joined(self, outputs: list[ModelOutput]) -> ModelOutput:
        logits = {target.name: _mean([one.logits[target.name] for one in outputs]) for target in self.targets}
        masks = [one.mask_logits for one in outputs if one.mask_logits is not None]
        features = [one.features for one in outputs if one.features is not None]
        return ModelOutput(
            logits,
            _mean(masks) if masks else None,
            torch.cat(features, dim=1) if features else None,
            tuple(outputs) if self.training else (),
        )

    def encoder_stages(self) -> dict[str, nn.Module]:
        """Return the stages of all members' encoders by name, input first."""
        stages = [member.encoder_stages() for member in self.members]
        return {name: nn.ModuleList([of_one[name] for of_one in stages]) for name in stages[0]}

    def parameter_stages(self) -> dict[str, nn.Module]:
        """Return the parts of all members by name, input first; see ``Network.parameter_stages``."""
        stages = [member.parameter_stages() for member in self.members]
        return {name: nn.ModuleList([of_one[name] for of_one in stages]) for name in stages[0]}


def member_states(state: Mapping[str, Tensor], *, count: int) -> tuple[dict[str, Tensor], ...]:
    """Return the state dict of each ``Network`` in that of ``count`` members; of a single one it is its own.

    Example:
        >>> member_states({"members.0.bias": torch.zeros(1), "members.1.bias": torch.ones(1)}, count=2)
        ({'bias': tensor([0.])}, {'bias': tensor([1.])})
    """
    if count == 1:
        return (dict(state),)
    prefixes = [f"members.{place}." for place in range(count)]
    return tuple(
        {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        for prefix in prefixes
    )


def _mean(parts: Sequence[Tensor]) -> Tensor:
    """Mean of tensors of one shape, added in the same order in every row, which ``Tensor.mean`` does not promise."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total / len(parts)
