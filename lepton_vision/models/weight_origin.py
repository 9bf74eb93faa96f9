"""Source and licence of the weights that a training starts from, as far as somebody states them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lepton_vision.config import Config
from lepton_vision.models.bundle import Bundle
from lepton_vision.models.resnet import ResNet
from lepton_vision.models.weight_files import read_texts

_STATED = {"license": "licence", "licence": "licence", "source": "source", "url": "source", "author": "author"}
_LONGEST = 200  # characters of a statement


def origin_of_weights(config: Config, encoder: Any) -> dict[str, str]:
    """Return what is known of the weights under ``file`` or ``bundle``, ``source``, ``licence`` and ``author``.

    What nobody states is left out: torchvision names a file, timm a licence too, a file of safetensors may have both
    in its metadata, and a checkpoint of torch as texts beside its tensors. A bundle hands on what it knows.

    Args:
        config: of the training; its weights could be loaded.
        encoder: of the network that they went into.
    """
    model = config.model
    if model.init_from is not None:
        bundle = Bundle.load(model.init_from)
        return {"bundle": bundle.bundle_id, **bundle.provenance.get("initial_weights", {})}
    if model.weights == "none":
        return {}
    if model.weights == "imagenet":
        return dict(_of_source(encoder))
    path = Path(model.weights).expanduser()
    return {"file": path.name, **_stated(read_texts(path))}


def _of_source(encoder: Any) -> Iterator[tuple[str, str]]:
    if hasattr(encoder, "pretrained"):  # of timm
        facts = encoder.net.pretrained_cfg
        yield from {"source": facts.get("hf_hub_id") or facts["url"]}.items()
        yield from _stated({"license": facts.get("license")}).items()
    else:
        from torchvision.models import get_model_weights  # costs one second, see resnet.py

        name = encoder.backbone if isinstance(encoder, ResNet) else encoder.imagenet
        yield "source", get_model_weights(name).DEFAULT.url


def _stated(texts: Mapping[str, str | None]) -> dict[str, str]:
    said = {_STATED[name.lower()]: text for name, text in texts.items() if name.lower() in _STATED}
    return {name: text[:_LONGEST] for name, text in said.items() if text}
