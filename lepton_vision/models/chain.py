"""Encoders out of the parts of another package's network: applied one after another, a stage for each size of map."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lepton_vision.models.norms import fold_batch_norms
from lepton_vision.models.resnet import global_average

_NORM = "pooled_norm"
_PROBE = 64  # pixels along each axis: every network here halves it at most six times


class Stage(nn.Sequential):
    """Parts of one stage; a norm of the pooled features may belong to it."""

    def forward(self, maps: Tensor) -> Tensor:
        """(B, …) to (B, F, …)."""
        for name, part in self.named_children():
            if name != _NORM:
                maps = part(maps)
        return maps


class Chain(nn.Module):
    """Parts of a network as an ``Encoder``.

    Args:
        parts: by the name that each has in its source (with dots), input first.
        channels: C of the input, as the first part takes them.
        dims: 2 or 3.
        pooled_norm: name and module of a norm that the source applies to pooled features, (B, F, 1, 1), or None.
        imagenet: torchvision's name of its weights, or None.

    Attributes:
        stage1, stage2 …: each begins where the maps become smaller.
    """

    def __init__(
        self,
        parts: Mapping[str, nn.Module],
        *,
        channels: int,
        dims: int,
        pooled_norm: tuple[str, nn.Module] | None = None,
        imagenet: str | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.dims, self.imagenet = channels, dims, imagenet
        self._sources: dict[str, str] = {}
        shapes = _shapes(list(parts.values()), channels=channels, dims=dims)
        depths, strides = list[int](), list[int]()
        for (name, part), (depth, side) in zip(parts.items(), shapes, strict=True):
            if not strides or _PROBE // side != strides[-1]:
                strides.append(_PROBE // side)
                depths.append(depth)
                self.add_module(f"stage{len(strides)}", Stage())
            depths[-1] = depth
            self._add(f"stage{len(strides)}", name.replace(".", "_"), part, source=name)
        if pooled_norm is not None:
            self._add(f"stage{len(strides)}", _NORM, pooled_norm[1], source=pooled_norm[0])
        self.width, self.depths, self.strides = depths[-1], tuple(depths), tuple(strides)

    def _add(self, stage: str, name: str, part: nn.Module, *, source: str) -> None:
        self.get_submodule(stage).add_module(name, part)
        self._sources[f"{stage}.{name}"] = source

    def source_name(self, name: str) -> str:
        """Return what the source calls a tensor."""
        stage, part, rest = name.split(".", 2)
        return f"{self._sources[f'{stage}.{part}']}.{rest}"

    def stages(self) -> dict[str, nn.Module]:
        """Return the stages by name, input first."""
        return dict(self.named_children())

    def skips(self, images: Tensor) -> list[Tensor]:
        """Return the map of each stage, finest first."""
        maps = [images]
        for stage in self.children():
            maps.append(stage(maps[-1]))
        return maps[1:]

    def features(self, images: Tensor) -> Tensor:
        """Return pooled features (B, F) float32."""
        return self.pool(self.skips(images)[-1])

    def pool(self, maps: Tensor) -> Tensor:
        """Return the features (B, F) float32 of the last map."""
        mean, norm = global_average(maps), self._modules[f"stage{len(self.strides)}"]._modules.get(_NORM)  # type: ignore[union-attr]
        if norm is None:
            return mean
        normed: Tensor = norm(mean[..., None, None])
        return normed.flatten(1)

    def fold(self) -> None:
        """Put batch norms that follow a convolution by their names into it; only outside training."""
        fold_batch_norms(self)


def _shapes(parts: Sequence[nn.Module], *, channels: int, dims: int) -> list[tuple[int, int]]:
    """Channels and side of what each part gives for an image of ``_PROBE`` pixels; nothing is computed."""
    maps, found = torch.zeros(1, channels, *[_PROBE] * dims, device="meta"), []
    for part in parts:
        with torch.no_grad():
            maps = copy.deepcopy(part).to("meta").eval()(maps)
        found.append((maps.shape[1], maps.shape[-1]))
    return found


def with_channels(network: nn.Module, channels: int) -> nn.Module:
    """Give the first convolution of a network another number of input channels, with random weights."""
    name, first = next((name, one) for name, one in network.named_modules() if isinstance(one, nn.Conv2d))
    if first.in_channels != channels:
        shape: Any = {key: getattr(first, key) for key in ("kernel_size", "stride", "padding", "dilation")}
        other = nn.Conv2d(channels, first.out_channels, bias=first.bias is not None, **shape)
        nn.init.kaiming_normal_(other.weight, mode="fan_out", nonlinearity="relu")
        if other.bias is not None:
            nn.init.zeros_(other.bias)
        parent, _, last = name.rpartition(".")
        setattr(network.get_submodule(parent), last, other)
    return network
