"""Weights for any encoder: tensors matched by name, or by order, and a first convolution adapted to its channels."""

from __future__ import annotations

import contextlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lepton_vision.errors import WeightsError
from lepton_vision.models.encoders import Encoder

_LOGGER = logging.getLogger(__name__)
_LEAST = 0.9  # share of the encoder's tensors that a file must give
_OLD_DENSENET = re.compile(
    r"(denselayer\d+\.(?:layers\.)?(?:norm|conv))\.([12]\.)"
)  # torchvision's files: norm.1, conv.1
_WRAPPERS = ("state_dict", "model", "module", "backbone", "encoder", "model_state_dict", "timm_model", "net", "network")
_COUNTER = "num_batches_tracked"  # old files lack it, and nothing depends on it here
_HUGGING_FACE = re.compile(  # names of a ResNet in the library transformers
    r"(?:embedder\.embedder|encoder\.stages\.(?P<stage>\d+)\.layers\.(?P<block>\d+)\.(?:shortcut|layer\.(?P<place>\d+)))"
    r"\.(?P<kind>convolution|normalization)\."
)
# Not taken where another network is beside them: slow copies (MoCo, EMA, SWA), and students, whose teachers are used.
COPIES = re.compile(r"(^|[._])(encoder_k|ema|swa|averaged|momentum|target|student)([._]|$)")


def fill_by_names(
    encoder: Encoder, tensors: Mapping[str, Tensor], *, said: str, path: Path | None = None, has_order: bool = False
) -> str:
    """Fill ``encoder`` in place with the tensors that are its own; return in words what was loaded, and what was not.

    Names are those of the encoder, or of the source that it wraps (``source_name``), or become these by the source's
    own rules for older files and those of a network's authors (``renamed``), below any prefix ("module.",
    "backbone.", "state_dict." …) that the file or the encoder has. Where hardly any name is the same, tensors of the
    same kinds and shapes in the same order are taken instead. The first convolution is adapted to the channels.

    Args:
        encoder: on the CPU.
        tensors: by name.
        said: what they are from, in words.
        path: of the file, for the error.
        has_order: the order of ``tensors`` is that of the network that they were saved from.

    Raises:
        WeightsError: fewer than 90 % of the encoder's tensors are there in their shape, or some are not finite.
    """
    state = encoder.state_dict()
    own_name: Callable[[str], str] = getattr(encoder, "source_name", str)
    wanted = {own_name(name): tensor for name, tensor in state.items() if not name.endswith(_COUNTER)}
    tensors, pairs = _best_names(wanted, tensors, getattr(encoder, "renamed", None))
    if has_order and len(pairs) < _LEAST * len(wanted):
        pairs = _pair_in_order(wanted, tensors) or pairs
    words, found = [], {name: tensors[source] for name, source in pairs.items()}
    stem = _first_convolution(wanted, dims=encoder.dims)
    if stem in found and found[stem].ndim == wanted[stem].ndim and found[stem].shape != wanted[stem].shape:
        words = [f"first convolution {_shape_words(found[stem])} -> {_shape_words(wanted[stem])}"]
        if (found[stem].shape[0], *found[stem].shape[2:]) == (wanted[stem].shape[0], *wanted[stem].shape[2:]):
            found[stem] = adapt_stem(found[stem], like=wanted[stem])
    fitting = {name: tensor for name, tensor in found.items() if tensor.shape == wanted[name].shape}
    lost = [name for name in wanted if name not in fitting]
    _check(fitting, wanted, lost=lost, found=found, path=path)
    dropped = sorted(set(tensors) - {pairs[name] for name in fitting})
    dropped = [name for name in dropped if not name.endswith(_COUNTER)]
    new = {name: fitting[own_name(name)].to(old.dtype) for name, old in state.items() if own_name(name) in fitting}
    encoder.load_state_dict({**state, **new})
    words = [f"{said}: {len(fitting)} of {len(wanted)} tensors", *words]
    words += [f"not in it: {first_names(lost)}"] if lost else []
    words += [f"dropped {first_names(dropped)}"] if dropped else []
    text = "; ".join(words)
    _LOGGER.log(logging.WARNING if lost else logging.INFO, "%s", text)
    return text


def _best_names(
    wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], renamed: Callable[[Mapping[str, Tensor]], Any] | None
) -> tuple[Mapping[str, Tensor], dict[str, str]]:
    """The file's tensors under the names that fit best, and which is which: as they are, or by the source's rules."""
    tensors = torchvision_names(tensors)
    ways = [{_OLD_DENSENET.sub(r"\1\2", name): tensor for name, tensor in tensors.items()}]
    if renamed is not None:
        for given in (tensors, _without_prefix(tensors)):
            # A rule meets files of any kind here; what it cannot take is no file of its family.
            with contextlib.suppress(KeyError, IndexError, ValueError, RuntimeError, AttributeError, TypeError):
                ways.append({name: one for name, one in renamed(given).items() if isinstance(one, Tensor)})
    paired = [(way, _pair_names(wanted, way)) for way in ways]

    def fitting(pair: tuple[Mapping[str, Tensor], dict[str, str]]) -> int:
        return sum(pair[0][source].shape == wanted[name].shape for name, source in pair[1].items())

    return max(paired, key=fitting)


def _without_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the part of a checkpoint that has most of them ("state_dict.module.…"), without what is before it."""
    prefix = ""
    while True:
        counts = Counter(name.removeprefix(prefix).partition(".")[0] for name in tensors if name.startswith(prefix))
        (part, count), *_ = counts.most_common(1)
        if count < _LEAST * counts.total() or part not in _WRAPPERS:
            return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}
        prefix += f"{part}."


def torchvision_names(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the tensors of a ResNet under torchvision's names where they have those of Hugging Face's transformers."""
    return {_HUGGING_FACE.sub(_torchvision_part, name): tensor for name, tensor in tensors.items()}


def _torchvision_part(found: re.Match[str]) -> str:
    kind = "conv" if found["kind"] == "convolution" else "bn"
    if found["stage"] is None:
        return f"{kind}1."
    inner = f"downsample.{int(kind == 'bn')}" if found["place"] is None else f"{kind}{int(found['place']) + 1}"
    return f"layer{int(found['stage']) + 1}.{found['block']}.{inner}."


def first_names(names: list[str]) -> str:
    """Three of the names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more if names else "none"


def _pair_names(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Name in the file by name of the encoder, below the two prefixes under which most names agree."""
    parts = [name.split(".") for name in wanted]
    depth = 0
    while all(len(one) > depth + 1 for one in parts) and len({one[depth] for one in parts}) == 1:
        depth += 1
    ways = []
    for cut in range(depth + 1):
        short = {".".join(one[cut:]): name for one, name in zip(parts, wanted, strict=True)}
        counts = Counter(prefix for name in tensors for prefix, rest in _cuts(name) if rest in short)
        for prefix, count in counts.items():
            ways.append((count, not COPIES.search(prefix), -len(prefix), prefix, short))
    if not ways:
        return {}
    most = max(count for count, *_ in ways)
    _, _, _, prefix, short = max((way for way in ways if way[0] >= _LEAST * most), key=lambda way: (way[1], *way[:3]))
    return {name: prefix + rest for rest, name in short.items() if prefix + rest in tensors}


def _cuts(name: str) -> list[tuple[str, str]]:
    """Each way to part a name after a dot, the whole name first."""
    places = [0, *(match.end() for match in re.finditer(r"\.", name))]
    return [(name[:place], name[place:]) for place in places]


def _pair_in_order(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Pair the first tensors of the file, each of the same kind and shape; {} where a single one differs."""
    given = [name for name in tensors if not name.endswith(_COUNTER)]
    if len(given) < len(wanted):
        return {}
    for place, (own, name) in enumerate(zip(wanted, given, strict=False)):
        one, other = tuple(wanted[own].shape), tuple(tensors[name].shape)
        if place == 0 and len(one) > 2:  # other channels of the input
            one, other = (one[0], *one[2:]), (*other[:1], *other[2:])
        if one != other or own.rpartition(".")[2] != name.rpartition(".")[2]:
            return {}
    return dict(zip(wanted, given, strict=False))


def _first_convolution(wanted: Mapping[str, Tensor], *, dims: int) -> str:
    return next((name for name, tensor in wanted.items() if tensor.ndim == dims + 2), "")


def _check(
    fitting: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    *,
    lost: list[str],
    found: Mapping[str, Tensor],
    path: Path | None,
) -> None:
    if len(fitting) < _LEAST * len(wanted):
        shaped = [name for name in lost if name in found]
        told = f" {first_names(shaped)} have another shape." if shaped else ""
        raise WeightsError(
            f"Expected at least {_LEAST:.0%} of the encoder's {len(wanted)} tensors under their names. Received: "
            f"{len(fitting)}; not there: {first_names(lost)}.{told} Use weights of this backbone and these options.",
            path=path,
            key="model.weights",
        )
    bad = [name for name, tensor in fitting.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise WeightsError(
            f"Expected finite weights. Received NaN or infinity in {first_names(bad)}. Use another file.", path=path
        )


def _shape_words(weight: Tensor) -> str:
    return f"{weight.shape[1]} x {'x'.join(map(str, weight.shape[2:]))}"


def adapt_stem(weight: Tensor, *, like: Tensor) -> Tensor:
    """Return ``weight`` with the channels and the kernel size of ``like``.

    Channels. Equal channels give the same response as before, whatever their number: a gray image gives what it gave as
    three equal channels (the sum over R, G and B). Where the new number is a multiple of the old one, the old channels
    are repeated and divided (two windows in RGB keep their colours); otherwise every new channel gets the same share of
    the sum. This holds for the network's input, so mean and deviation must be the same for all channels: after
    ImageNet's three different means, three "equal" channels are no longer equal (the shift is small, and training
    absorbs it in the norm layer).

    Kernel. 7x7 → 3x3 (the small stem): the kernel is shrunk by area, as if the image had been seen at 3/7 of its size,
    about what stride 1 instead of 2 undoes; its sum, and with it the response to an even image, stays. 3x3 → 7x7: the
    kernel stands in the middle of zeros, so each position that is looked at gives the same response.

    Args:
        weight: (64, C, k, k), or (64, C, k, k, k) of a 3-D network; any float type.
        like: (64, C', k', k') or (64, C', k', k', k'); only its shape counts.

    Returns:
        float32 of the shape of ``like``; ``weight`` itself where the shapes agree.

    Example:
        >>> rgb = torch.ones(64, 3, 7, 7)
        >>> float(adapt_stem(rgb, like=torch.empty(64, 1, 7, 7))[0, 0, 0, 0])
        3.0
    """
    if weight.shape == like.shape:
        return weight
    weight = _adapt_channels(weight.float(), like.shape[1])
    return _adapt_kernel(weight, like.shape[2])


def _adapt_channels(weight: Tensor, channels: int) -> Tensor:
    before, ones = weight.shape[1], (1,) * (weight.ndim - 2)
    if channels % before == 0:
        times = channels // before
        return weight.repeat(1, times, *ones) / times
    return weight.sum(dim=1, keepdim=True).repeat(1, channels, *ones) / channels


def _adapt_kernel(weight: Tensor, size: int) -> Tensor:
    before, axes = weight.shape[2], weight.ndim - 2
    if size > before:
        margin = (size - before) // 2
        return torch.nn.functional.pad(weight, (margin,) * 2 * axes)
    if size < before:
        shares = _overlaps(before, size).to(weight)
        for axis in range(2, 2 + axes):
            weight = torch.tensordot(weight, shares, dims=([axis], [1])).movedim(-1, axis)
    return weight


def _overlaps(before: int, after: int) -> Tensor:
    """(after, before): which part of each old cell falls into each new one; every column sums to 1."""
    edges = torch.linspace(0, before, after + 1, dtype=torch.float64)
    cells = torch.arange(before, dtype=torch.float64)
    high = torch.minimum(edges[1:, None], cells + 1)
    low = torch.maximum(edges[:-1, None], cells)
    return (high - low).clamp(min=0)
