"""Batches of a loader, and the output of a network for one batch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lepton_vision.types.result import Displayed

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Batch(Displayed):
    """One batch of a loader.

    Attributes:
        images: (B, C, H, W) or (B, C, D, H, W) float32, normalised for the network.
        labels: by target name, (B,) float32 (multiclass: class index) or (B, K) (multilabel); NaN is unknown.
        index: (B,) int64 row positions in the manifest that the loader was made from.
        image_ids: B pseudonymous ids.
        masks: (B, H, W) or (B, D, H, W) uint8, 0 background, k the k-th structure, ``UNKNOWN`` where not known; None
            where no structure is asked for.
    """

    images: torch.Tensor
    labels: dict[str, torch.Tensor]
    index: torch.Tensor
    image_ids: tuple[str, ...]
    masks: torch.Tensor | None = None

    def to(self, device: torch.device | str, *, memory_format: torch.memory_format | None = None) -> Batch:
        """Move images (to ``memory_format``), labels and masks to ``device``; ids and index stay where they are."""
        images = self.images.to(device, non_blocking=True)
        if memory_format is not None:
            images = images.to(memory_format=memory_format)
        labels = {name: label.to(device, non_blocking=True) for name, label in self.labels.items()}
        masks = None if self.masks is None else self.masks.to(device, non_blocking=True)
        return replace(self, images=images, labels=labels, masks=masks)

    def pin_memory(self) -> Batch:
        """Pin images, labels and masks (called by the DataLoader on CUDA machines)."""
        labels = {name: label.pin_memory() for name, label in self.labels.items()}
        masks = None if self.masks is None else self.masks.pin_memory()
        return replace(self, images=self.images.pin_memory(), labels=labels, masks=masks)


@dataclass(frozen=True, slots=True)
class ModelOutput(Displayed):
    """Output of ``forward`` of every network, in training and in scoring.

    Attributes:
        logits: by target name, (B, 1) for binary, (B, K) otherwise; before sigmoid or softmax.
        mask_logits: (B, 1 + M, H, W) or (B, 1 + M, D, H, W), background first, before the softmax; None where the
            network has no segmentation head.
        features: (B, F) float32 pooled features that the heads saw; None where there are no heads, or they are not
            known (another runtime). Of an ensemble, those of its members side by side, (B, K F).
        members: what each member of an ensemble says, in training, where each has its own loss; () otherwise.
    """

    logits: dict[str, torch.Tensor]
    mask_logits: torch.Tensor | None = None
    features: torch.Tensor | None = None
    members: tuple[ModelOutput, ...] = ()
