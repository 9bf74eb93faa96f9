"""Encoders of timm by name, with maps of several sizes where the network has them."""

from __future__ import annotations

import copy
import sys
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lepton_vision.errors import ConfigError, MissingExtraError, WeightsError, nearest

try:
    import timm
    from timm.models._manipulate import group_with_matcher
except ImportError:
    raise MissingExtraError("timm", extra="timm", key="model.backbone") from None


class TimmEncoder(nn.Module):
    """A network of timm without its classifier, as an ``Encoder``.

    Features are what stands before the classifier. Maps are those of ``features_only``, but for the last one, which is
    the map that timm pools. A network whose maps all have one size (ViT, Mixer …) has pooled features alone.

    Args:
        name: as ``timm.list_models`` has it; a tag of weights may follow a dot.
        channels: C of the input.
        options: for ``timm.create_model``, as ``img_size`` for a network that is for images of one size.

    Raises:
        ConfigError: unknown name.
    """

    dims = 2

    def __init__(self, name: str, *, channels: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        if not timm.is_model(name):
            told = nearest(name.partition(".")[0], timm.list_models())
            raise ConfigError(f"Unknown network {name!r} of timm {timm.__version__}. {told}", key="model.backbone")
        self.name, self.channels, self._options = name, channels, dict(options)
        self.net: Any = timm.create_model(name, pretrained=False, num_classes=0, in_chans=channels, **options)
        self.last_map = nn.Identity()
        self._is_channels_last = getattr(self.net, "output_fmt", "NCHW") == "NHWC"
        facts: Any = self.net.pretrained_cfg
        called = self._measure(options.get("img_size") or facts["input_size"][-1])
        self._stages = (_stages(self.net, called),)  # in a tuple: ``net`` alone owns these modules

    @torch.no_grad()
    def _measure(self, size: int | list[int]) -> list[str]:
        """Find shapes without computing anything; return the names of the modules that made the last map, in order."""
        called, other = list[str](), copy.deepcopy(self).to("meta").eval()
        images = torch.zeros(1, self.channels, *(size if isinstance(size, list) else (size, size)), device="meta")
        for name, module in other.net.named_modules():
            module.register_forward_hook(lambda *_, name=name: called.append(name))
        last = other.net.forward_features(images)
        made = list(called)
        self.width = int(other.net.forward_head(last, pre_logits=True).shape[1])
        maps = other.net.forward_intermediates(images, norm=False, output_fmt="NCHW")[1]
        strides = [round(images.shape[-1] / one.shape[-1]) for one in maps]
        is_pyramid = isinstance(last, Tensor) and last.ndim == 4 and len(maps) > 1 and strides == sorted(set(strides))
        is_pyramid = is_pyramid and other._turned(last).shape[2:] == maps[-1].shape[2:]
        self.strides = tuple(strides) if is_pyramid else ()
        self.depths = (*(one.shape[1] for one in maps[:-1]), other._turned(last).shape[1]) if is_pyramid else ()
        return made

    def stages(self) -> dict[str, nn.Module]:
        """Return the layers in timm's groups for rates by layer, input first."""
        return dict(self._stages[0])

    def source_name(self, name: str) -> str:
        """Return what timm calls a tensor."""
        return name.removeprefix("net.")

    def features(self, images: Tensor) -> Tensor:
        """Return features (B, F) float32."""
        last = self.net.forward_features(images)
        return self.pool(self.last_map(self._turned(last)) if self.strides else last)

    def skips(self, images: Tensor) -> list[Tensor]:
        """Return the maps, finest first; the last one is what timm pools."""
        last, maps = self.net.forward_intermediates(images, norm=False, output_fmt="NCHW")
        return [*maps[:-1], self.last_map(self._turned(last))]

    def pool(self, last: Tensor) -> Tensor:
        """Return the features (B, F) float32 of the last map, or of tokens."""
        is_turned = self._is_channels_last and bool(self.strides)
        features: Tensor = self.net.forward_head(last.permute(0, 2, 3, 1) if is_turned else last, pre_logits=True)
        return features.float()

    def _turned(self, last: Tensor) -> Tensor:
        return last.permute(0, 3, 1, 2) if self._is_channels_last else last

    def renamed(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors of a file by timm's rules for files of this family (those of its authors, older ones)."""
        rules = getattr(sys.modules[type(self.net).__module__], "checkpoint_filter_fn", None)
        return dict(tensors) if rules is None else dict(rules(dict(tensors), self.net))

    def pretrained(self) -> dict[str, Tensor]:
        """Return timm's own weights, from its cache or by download.

        Raises:
            WeightsError: timm has none of this name, or there is no connection and no copy.
        """
        facts = self.net.pretrained_cfg
        where = facts.get("hf_hub_id") or facts.get("url")
        if not where:
            raise WeightsError(
                f"There are no ImageNet weights for {self.name} in timm. Name a local file, or set model.weights to "
                "'none'.",
                key="model.weights",
            )
        try:
            theirs: nn.Module = timm.create_model(self.name, pretrained=True, num_classes=0, **self._options)
        except Exception as error:  # of the connection, of the cache, of a damaged copy: timm lists none of them
            raise WeightsError(
                f"Cannot get the weights {where} of timm ({type(error).__name__}). Get them on a machine with a "
                "connection and put them into its cache (HF_HOME, by default ~/.cache/huggingface), or set "
                "model.weights to a local file, or to 'none' for random weights.",
                key="model.weights",
            ) from None
        return theirs.state_dict()


def _stages(net: Any, called: Collection[str]) -> dict[str, nn.Module]:
    """Modules of a network in timm's groups; each tensor is in one.

    Args:
        net: of timm.
        called: names of the modules that make the last map, in the order of their calls.
    """
    if hasattr(net, "group_matcher"):
        groups: dict[str, int] = group_with_matcher(
            net.named_parameters(), net.group_matcher(coarse=True), reverse=True
        )
    else:
        children = [name for name, _ in net.named_children()]
        groups = {name: children.index(name.partition(".")[0]) for name, _ in net.named_parameters()}
    stages = {f"stage{place + 1}": _Stage() for place in sorted(set(groups.values()))}

    def share(module: nn.Module, prefix: str, last: int) -> int:
        inside = {groups[name] for name in groups if name.startswith(prefix)} or {last}
        if len(inside) == 1 and prefix:
            last = inside.pop()
            stages[f"stage{last + 1}"].take(prefix.removesuffix("."), module, is_called=prefix[:-1] in called)
            return last
        for name, one in module.named_parameters(recurse=False):
            stages[f"stage{groups[prefix + name] + 1}"].register_parameter(_flat(prefix + name), one)
        for name, buffer in module.named_buffers(recurse=False):
            stages[f"stage{last + 1}"].register_buffer(_flat(prefix + name), buffer)
        for name, child in module.named_children():
            last = share(child, f"{prefix}{name}.", last)
        return last

    share(net, "", 0)
    if sum(len(list(stage.parameters())) for stage in stages.values()) != len(groups):  # modules in several places
        whole = _Stage()
        whole.take("net", net, is_called=False)
        return {"stage1": whole}
    return dict(stages)


def _groups(net: Any) -> dict[str, int]:
    """Number of the group by name of each parameter; the parts of the network where timm has no groups."""
    if hasattr(net, "group_matcher"):
        matcher = net.group_matcher(coarse=True)
        return dict(group_with_matcher(net.named_parameters(), matcher, reverse=True))
    parts = [name for name, _ in net.named_children()]
    return {name: parts.index(name.partition(".")[0]) for name, _ in net.named_parameters()}


def _flat(name: str) -> str:
    return name.replace(".", "_")


class _Stage(nn.Module):
    """Modules of one group; applied one after another, those alone that make the last map."""

    def __init__(self) -> None:
        super().__init__()
        self._called: list[str] = []

    def take(self, name: str, module: nn.Module, *, is_called: bool) -> None:
        """Add a module of the network."""
        self.add_module(_flat(name), module)
        self._called += [_flat(name)] if is_called else []

    def forward(self, maps: Tensor) -> Tensor:
        """(B, …) to (B, F, …)."""
        for name in self._called:
            maps = self.get_submodule(name)(maps)
        return maps
