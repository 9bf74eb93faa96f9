"""Initial weights of an encoder: torchvision's ImageNet weights, a local file, or another model's encoder.

Every tensor of a ResNet is found, or the load fails: there is no silent random start.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from lepton_vision.errors import WeightsError
from lepton_vision.models.encoders import Encoder
from lepton_vision.models.resnet import DESIGNS, ResNet, meta_resnet, torchvision_name
from lepton_vision.models.weight_files import keeps_order, read_tensors
from lepton_vision.models.weight_matching import COPIES, adapt_stem, fill_by_names, first_names, torchvision_names

_LOG = logging.getLogger(__name__)
_STEM = "conv1.weight"
_MARK = "layer1.0.conv1.weight"  # every ResNet has it, and no other tensor's name ends with it
_NUMBERED = "4.0.conv1.weight"  # the same where a ResNet's parts are numbered, as of nn.Sequential(*resnet.children())
_PARTS = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def load_weights(encoder: Encoder, source: str) -> str:
    """Fill ``encoder`` in place from ``source``; return in words what was loaded, dropped and adapted.

    An encoder that is no ResNet of ours: see ``weight_matching.fill_by_names``. A ResNet needs every tensor. A stem of
    another shape is adapted, never discarded (see ``adapt_stem``). The classifier ``fc`` and whatever
    lies outside the encoder are dropped. Any float type becomes float32.

    Args:
        encoder: on the CPU.
        source: "imagenet", or the path of a file of torch, safetensors or NumPy with torchvision's names, with those of
            Hugging Face's transformers, or with the numbers that a Sequential of a ResNet's parts has; plain or inside
            a checkpoint ("state_dict", "model" …), with or without a prefix ("module.", "encoder." …). Files of
            MedicalNet (arXiv:1904.00625) are such files, for networks on volumes. Of a network and its slow copy (EMA,
            momentum) the network is taken, of student and teacher the teacher.

    Raises:
        WeightsError: no such file, no connection and no cached copy, a damaged file, one that holds more than tensors,
            or tensors that do not fit: the message counts them and names the first.

    Example:
        >>> load_weights(ResNet("resnet18", channels=1), "weights/chest.safetensors")  # doctest: +SKIP
        'file chest.safetensors: 120 tensors; stem 3 -> 1 channels; dropped fc.bias, fc.weight'
    """
    if not isinstance(encoder, ResNet):
        return _load_foreign(encoder, source)
    if source == "imagenet":
        if encoder.dims != 2 or encoder.backbone == "resnet10":
            raise WeightsError(
                f"There are no ImageNet weights for {encoder.backbone} in {encoder.dims} dimensions. Name a local file "
                "(for volumes, one of MedicalNet), or set model.weights to 'none'.",
                key="model.weights",
            )
        return _fill(encoder, imagenet_tensors(encoder.backbone), said=f"imagenet {encoder.backbone}", path=None)
    path = Path(source).expanduser()
    return _fill(encoder, read_tensors(path), said=f"file {path.name}", path=path)


def load_encoder_state(encoder: Encoder, state: Mapping[str, Tensor], *, said: str) -> str:
    """Fill ``encoder`` in place from the state of a whole network (a bundle's); the heads are dropped.

    Raises:
        WeightsError: tensors that do not fit.
    """
    if not isinstance(encoder, ResNet):
        return fill_by_names(encoder, {n: one for n, one in state.items() if n.startswith("encoder.")}, said=said)
    return _fill(encoder, state, said=said, path=None)


def _load_foreign(encoder: Encoder, source: str) -> str:
    if source == "imagenet":
        name = getattr(encoder, "imagenet", None)  # of a network of torchvision
        if name is not None:
            return fill_by_names(encoder, imagenet_tensors(name), said=f"imagenet {name}")
        pretrained: Callable[[], dict[str, Tensor]] | None = getattr(encoder, "pretrained", None)  # of timm
        if pretrained is not None:
            return fill_by_names(encoder, pretrained(), said="weights of timm")
        raise WeightsError(
            "There are no ImageNet weights for an encoder of MONAI or of your own. Name a local file, or set "
            "model.weights to 'none'.",
            key="model.weights",
        )
    path = Path(source).expanduser()
    tensors = read_tensors(path)
    return fill_by_names(encoder, tensors, said=f"file {path.name}", path=path, has_order=keeps_order(path))


def imagenet_tensors(backbone: str) -> dict[str, Tensor]:
    """Return torchvision's default ImageNet weights from its cache or by download.

    Raises:
        WeightsError: no connection and no cached copy; the message says where a copy is put.
    """
    from torchvision.models import get_model_weights  # costs one second, see encoder.py

    weights = get_model_weights(backbone).DEFAULT
    name = weights.url.rpartition("/")[2]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / name
    try:
        tensors: dict[str, Tensor] = weights.get_state_dict(
            progress=False, check_hash=True, map_location="cpu", weights_only=True
        )
    except Exception as error:  # URLError, timeouts, a wrong hash, a damaged copy: torch.hub lists none of them
        if cached.exists():
            what = f"The cached copy of {name} is damaged ({type(error).__name__}). Delete it and try again."
        else:
            what = (
                f"Cannot download the ImageNet weights of {backbone} ({type(error).__name__}). Get {weights.url} on a "
                "machine with a connection and put it into the folder hub/checkpoints of TORCH_HOME (by default "
                "~/.cache/torch), or set model.weights to a local file, or to 'none' for random weights."
            )
        raise WeightsError(what, path=cached, key="model.weights") from None
    return tensors


def _fill(encoder: ResNet, tensors: Mapping[str, Tensor], *, said: str, path: Path | None) -> str:
    found, dropped = _encoder_part(torchvision_names(tensors), path)
    words = [f"{said}: {len(found)} tensors"]
    wanted = encoder.state_dict()
    expected = {torchvision_name(name): name for name in wanted}
    if _STEM in found and found[_STEM].ndim == wanted["stem.conv1.weight"].ndim:
        before = found[_STEM]
        found[_STEM] = adapt_stem(before, like=wanted["stem.conv1.weight"])
        if before.shape != found[_STEM].shape:
            words.append(f"stem {_stem_words(before)} -> {_stem_words(found[_STEM])}")
    _check_fit(found, {name: wanted[own] for name, own in expected.items()}, encoder, path)
    state = {own: found.get(name, wanted[own]).to(wanted[own].dtype) for name, own in expected.items()}
    bad = [name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise WeightsError(
            f"Expected finite weights. Received NaN or infinity in {first_names(bad)}. Use another file.", path=path
        )
    encoder.load_state_dict(state)
    if dropped:
        words.append(f"dropped {first_names(sorted(dropped))}")
    _LOG.info("%s", "; ".join(words))
    return "; ".join(words)


def _encoder_part(tensors: Mapping[str, Tensor], path: Path | None) -> tuple[dict[str, Tensor], list[str]]:
    """Return the encoder's tensors under torchvision's names, and the names of what is left."""
    prefixes = [name.removesuffix(_MARK) for name in tensors if name.endswith(_MARK)]
    is_numbered = not prefixes
    if is_numbered:
        prefixes = [name.removesuffix(_NUMBERED) for name in tensors if f".{name}".endswith(f".{_NUMBERED}")]
    copies = [prefix for prefix in prefixes if COPIES.search(prefix)] if len(prefixes) > 1 else []
    prefixes = [prefix for prefix in prefixes if prefix not in copies] or prefixes
    if len(prefixes) != 1:
        found = (
            f"{len(prefixes)} of them ({', '.join(map(repr, prefixes))})"
            if prefixes
            else f"{first_names(list(tensors))}"
        )
        raise WeightsError(
            f"Expected the tensors of one ResNet under torchvision's names. Received: {found}. "
            "Save the encoder's state dict alone.",
            path=path,
            key="model.weights",
        )
    prefix = prefixes[0]
    inside = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if is_numbered:
        inside = {_named(name): tensor for name, tensor in inside.items()}
    kept = {torchvision_name(name): tensor for name, tensor in inside.items() if _is_encoder(torchvision_name(name))}
    dropped = [f"{copy}*" for copy in copies]
    dropped += [name for name in tensors if not name.startswith((prefix, *copies))]
    return kept, dropped + [name for name in inside if not _is_encoder(torchvision_name(name))]


def _named(name: str) -> str:
    """Return torchvision's name of a numbered part."""
    part, dot, rest = name.partition(".")
    return _PARTS.get(part, part) + dot + rest


def _is_encoder(name: str) -> bool:
    return name.partition(".")[0] in ("conv1", "bn1") or name.startswith("layer")


def _check_fit(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], encoder: ResNet, path: Path | None) -> None:
    """Refuse missing, surplus and wrongly shaped tensors; a counter of batches may be missing (old files lack it)."""
    missing = [name for name in wanted if name not in found and not name.endswith("num_batches_tracked")]
    surplus = [name for name in found if name not in wanted]  # a deeper network holds all tensors of a shallower one
    shaped = [name for name in found if name in wanted and found[name].shape != wanted[name].shape]
    if not (missing or surplus or shaped):
        return
    parts = [
        f"{len(names)} {word} ({first_names(names)})"
        for word, names in (("missing", missing), ("surplus", surplus))
        if names
    ]
    if shaped:
        name = shaped[0]
        shapes = f"{name} is {tuple(found[name].shape)}, not {tuple(wanted[name].shape)}"
        parts.append(f"{len(shaped)} of another shape ({shapes})")
    fitting = _fitting_backbone(found, dims=encoder.dims)
    advice = f"Set model.backbone to {fitting!r}." if fitting else "Use weights of this backbone."
    if _STEM in found and found[_STEM].ndim != encoder.dims + 2:
        advice = f"Use weights of a {encoder.dims}-D network, or another volume.view."
    raise WeightsError(
        f"Expected the {len(wanted)} tensors of {encoder.backbone}. Received: {', '.join(parts)}. {advice}",
        path=path,
        key="model.weights",
    )


def _fitting_backbone(found: Mapping[str, Tensor], *, dims: int) -> str | None:
    """Return the backbone that the tensors are of, or None."""

    def shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
        return {
            torchvision_name(name): tensor.shape
            for name, tensor in tensors.items()
            if not name.endswith(("num_batches_tracked", _STEM)) or (name.startswith("layer") and name.endswith(_STEM))
        }

    return next((name for name in DESIGNS if shapes(meta_resnet(name, dims=dims).state_dict()) == shapes(found)), None)


def _stem_words(weight: Tensor) -> str:
    return f"{weight.shape[1]} x {'x'.join(map(str, weight.shape[2:]))}"
