"""Grad-CAM heat maps of chosen samples, read and preprocessed as for the network."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch

from lepton_vision.errors import LeptonError
from lepton_vision.inference.cam import grad_cam
from lepton_vision.models.bundle import Bundle
from lepton_vision.models.device import choose_device
from lepton_vision.readers.image import read_image
from lepton_vision.transforms.preprocess import preprocess_image, to_input
from lepton_vision.types import CaseKey, SampleAddress

_BATCH = 8


def can_explain(bundle: Bundle) -> bool:
    """Whether Grad-CAM knows the network: a 2-D classifier of whole images."""
    segmentation = bundle.config.segmentation
    return bundle.config.volume is None and (segmentation is None or segmentation.mode != "roi")


def explain_samples(
    bundle: Bundle, wanted: Iterable[tuple[CaseKey, SampleAddress]], *, device: str = "auto"
) -> dict[CaseKey, npt.NDArray[np.float32]]:
    """Compute where the evidence for a class lies in each sample (see ``grad_cam``).

    A sample that cannot be read any more has no map. The maps of one class have one scale: they may be compared.

    Args:
        bundle: the model.
        wanted: what to explain, and where its pixels lie.
        device: "auto", "cpu", "cuda" or "mps".

    Returns:
        By what was asked for, (H, W) float32, 0 or more, as large as the network's input; nothing where Grad-CAM does
        not know the network (volumes, regions of interest).

    Example:
        >>> maps = explain_samples(bundle, [(CaseKey("3f9a", "covid", "COVID"), address)])  # doctest: +SKIP
    """
    if not can_explain(bundle):
        return {}
    targets = {target.name: target for target in bundle.targets}
    groups: dict[tuple[str, str], list[tuple[CaseKey, npt.NDArray[np.uint16]]]] = {}
    for one, address in wanted:
        pixels = _read(address, bundle)
        if pixels is not None:
            groups.setdefault((one.target, one.class_name), []).append((one, pixels))
    network = bundle.network().to(choose_device(device))
    maps: dict[CaseKey, npt.NDArray[np.float32]] = {}
    for (name, class_name), members in groups.items():
        index = targets[name].classes.index(class_name)
        for start in range(0, len(members), _BATCH):
            part = members[start : start + _BATCH]
            images = to_input(np.stack([pixels for _, pixels in part]), bundle.config.preprocess)
            heat = grad_cam(network, torch.as_tensor(images), target=name, class_index=index)
            maps |= {one: heat[k] for k, (one, _) in enumerate(part)}
    return maps


def _read(address: SampleAddress, bundle: Bundle) -> npt.NDArray[np.uint16] | None:
    """(C, H, W) uint16, or None: a picture that is gone costs its map, not the report."""
    try:
        image = read_image(address.path, frame=address.frame, member=address.member, **address.repairs)
        return preprocess_image(image, bundle.config.preprocess)
    except (LeptonError, OSError, ValueError):
        return None
