"""Choices made on validation after training: calibration, operating point, novelty."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_vision.config import Config
from lepton_vision.evaluation import Criterion, choose_operating_point
from lepton_vision.evaluation.choices.calibration import fit_calibrators, fit_temperatures
from lepton_vision.evaluation.classes.conformal import fit_set_rules
from lepton_vision.inference.cached_outputs import CachedOutputs
from lepton_vision.inference.reference import measure_novelty
from lepton_vision.manifest import Manifest
from lepton_vision.models import Bundle, build_model
from lepton_vision.models.device import choose_precision
from lepton_vision.pipeline.case_points import keep_case_point, stated_point
from lepton_vision.training.features import FixedStages
from lepton_vision.types import Batch, Progress

_LOGGER = logging.getLogger(__name__)

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.utils.data import DataLoader


def pooled_features(
    config: Config, fixed: FixedStages, train: DataLoader[Batch], val: DataLoader[Batch] | None, device: torch.device
) -> tuple[Tensor, Tensor] | None:
    """What a fixed encoder gave of the rows of train and validation, from the store; None where it is to be run.

    In float32 alone, where it is what the network gives in use, to the bit.
    """
    is_plain = not config.is_volume and config.segmentation is None and not config.model.mirrored
    is_kept = config.train.cache_features and fixed.is_kept
    formats = {choose_precision(name, device) for name in (config.train.precision, "auto")}  # trained in, used in
    if val is None or formats != {"fp32"} or not (is_plain and is_kept):
        return None
    network = build_model(config).to(device)
    if fixed.count < len(network.encoder_stages()):
        return None
    return fixed.loader(network, train).features, fixed.loader(network, val).features


def choose_on_validation(
    bundle: Bundle,
    val: Manifest | None,
    *,
    train: Manifest,
    stated: float | None = None,
    device: str = "auto",
    cache_dir: Path | None = None,
    pooled: Callable[[], tuple[Tensor, Tensor] | None] = lambda: None,
    progress: Progress | None = None,
) -> Bundle:
    """Fit the calibration, then choose operating point and set rules on the calibrated probabilities, on validation.

    How far a new image is from the rows of ``train`` is measured by those of validation too. A bundle of masks alone
    has none of all this. Without validation it is only ``stated`` at which probability the bundle decides. The network
    sees each row of validation once; where the encoder was fixed, ``pooled`` may give the features (N, F) of train and
    validation that it gave before, and then it sees none.
    """
    if not bundle.targets:
        return bundle
    if val is None:
        return bundle if stated is None else _decide_at(bundle, stated)
    how: dict[str, Any] = {"device": device, "cache_dir": cache_dir}
    known = pooled() or (None, None)
    seen = CachedOutputs(bundle, val, pooled=known[1], progress=_told(progress, "validation"), **how)
    told = _told(progress, "training images as reference")
    novelty = measure_novelty(bundle, train, seen, rows=int(val.is_ok.sum()), pooled=known[0], progress=told, **how)
    bundle = bundle.with_novelty(novelty)
    settings = bundle.config.evaluation
    predictions = seen.predictions(bundle)
    if settings.calibrate:
        if settings.calibration == "temperature":
            bundle = bundle.with_temperatures(fit_temperatures(predictions))
        else:
            bundle = bundle.with_calibrators(fit_calibrators(predictions, method=settings.calibration))
        predictions = seen.predictions(bundle)
    if settings.conformal_coverage is not None:
        bundle = bundle.with_set_rules(fit_set_rules(predictions, coverage=settings.conformal_coverage))
    point = choose_operating_point(predictions, criterion=Criterion.of(settings))
    return keep_case_point(bundle.with_operating_point(point), predictions)


def _told(progress: Progress | None, note: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress("choose", done, total, note)


def _decide_at(bundle: Bundle, stated: float) -> Bundle:
    _LOGGER.warning(
        "split.val is 0: the last epoch is kept, nothing is calibrated or chosen, and decisions are at a stated "
        "probability of %g.",
        stated,
    )
    return bundle.with_operating_point(stated_point(bundle.targets, threshold=stated))
