"""Agreement of a joint model's heads: label against mask, and the classifier's attention against the mask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_vision.config import SegmentationConfig
from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.errors import ReadError
from lepton_vision.evaluation.masks.agreement import HeadAgreement, agree_heads
from lepton_vision.evaluation.masks.pointing import PointingGame, play_pointing_game
from lepton_vision.inference.explain import can_explain, explain_samples
from lepton_vision.models import Bundle
from lepton_vision.transforms.masks import load_mask
from lepton_vision.types import CaseKey, SampleAddress, Target

MOST_POINTED = 200
"""Cases of a pointing game: with more, those whose pseudonyms come first, which is a draw at random."""

_TOLERANCE = 0.03  # of the longer side: the 15 pixels of Zhang et al. on images of some 500
_AT_ONCE = 32


@dataclass(frozen=True, slots=True, eq=False)
class LabelledMask:
    """Label and mask of one case, true and predicted.

    Attributes:
        image_id: pseudonymous id.
        patient_id: "" where unknown.
        image: where its pixels lie.
        truth: where its mask lies.
        bundle: the model that predicted it.
        probabilities: by target, () or (K,) float32.
        predicted: (1 + M,) number of predicted pixels of the background and each structure.
        true: the same of the true mask.
    """

    image_id: str
    patient_id: str
    image: SampleAddress
    truth: SampleAddress
    bundle: Bundle
    probabilities: Mapping[str, npt.NDArray[np.float32]]
    predicted: npt.NDArray[np.int64]
    true: npt.NDArray[np.int64]


@dataclass(frozen=True)
class HeadFigures:
    """Result of ``compare_heads``, by binary target that structures explain.

    Attributes:
        agreement: label against mask.
        pointing: heat maps of the label against the true mask; targets without a case to point at are not in it.
    """

    agreement: Mapping[str, HeadAgreement] = field(default_factory=dict)
    pointing: Mapping[str, PointingGame] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; empty where there was nothing to compare."""
        found = {name: {"agreement": one.to_dict()} for name, one in self.agreement.items()}
        for name, game in self.pointing.items():
            found[name]["pointing"] = game.to_dict()
        return found


def compare_heads(
    cases: Sequence[LabelledMask],
    *,
    targets: Sequence[Target],
    segmentation: SegmentationConfig,
    thresholds: Mapping[str, float],
    config: EvaluationConfig | None = None,
    device: str = "auto",
) -> HeadFigures:
    """Ask of each binary target whether its label and the mask of the structures that explain it say the same.

    The pointing game asks of images that show a structure whether Grad-CAM of the positive class is hottest there, or
    not farther away than half a cell of the map that Grad-CAM is made of (16 pixels with the standard stem, 4 with the
    small one; at least 3 % of the longer side of the network's input): it cannot point more finely. It is played where
    Grad-CAM knows the network, on at most ``MOST_POINTED`` images.

    Args:
        cases: what was predicted, with both heads.
        targets: of the model; those that no structure explains are left out, see ``SegmentationConfig.explaining``.
        segmentation: structures.
        thresholds: by target, from which probability on a label is positive.
        config: replicates, confidence and seed.
        device: for Grad-CAM.

    Example:
        >>> compare_heads(cases, targets=bundle.targets, segmentation=segmentation,
        ...               thresholds={"infected": 0.4}).agreement["infected"]  # doctest: +SKIP
    """
    agreement: dict[str, HeadAgreement] = {}
    pointing: dict[str, PointingGame] = {}
    for target in targets:
        shown = list(segmentation.explaining(target)) if target.is_binary else []
        both = [case for case in cases if target.name in case.probabilities]
        if not shown or not both:
            continue
        agreement[target.name] = agree_heads(
            np.array([float(case.probabilities[target.name]) for case in both]),
            np.array([float(case.predicted[shown].sum()) for case in both]),
            threshold=thresholds.get(target.name, 0.5),
            true_area=np.array([float(case.true[shown].sum()) for case in both]),
            patient_id=np.array([case.patient_id for case in both], np.str_),
            config=config,
        )
        game = _point(both, target, shown=shown, segmentation=segmentation, config=config, device=device)
        if game is not None:
            pointing[target.name] = game
    return HeadFigures(agreement, pointing)


def _point(
    cases: Sequence[LabelledMask],
    target: Target,
    *,
    shown: Sequence[int],
    segmentation: SegmentationConfig,
    config: EvaluationConfig | None,
    device: str,
) -> PointingGame | None:
    """Play on cases whose true mask shows a structure; None where there is none."""
    marked = [case for case in cases if case.true[list(shown)].any() and can_explain(case.bundle)]
    marked = sorted(marked, key=lambda case: case.image_id)[:MOST_POINTED]
    played = list(_maps(marked, target, shown=shown, segmentation=segmentation, device=device))
    if not any(mask.any() for _, _, mask in played):
        return None
    return play_pointing_game(
        [heat for _, heat, _ in played],
        [mask for _, _, mask in played],
        tolerance_pixels=max(round(_TOLERANCE * max(played[0][1].shape)), marked[0].bundle.network().strides[-1] // 2),
        patient_id=np.array([case.patient_id for case, _, _ in played], np.str_),
        config=config,
    )


def _maps(
    cases: Sequence[LabelledMask],
    target: Target,
    *,
    shown: Sequence[int],
    segmentation: SegmentationConfig,
    device: str,
) -> Iterator[tuple[LabelledMask, npt.NDArray[np.float32], npt.NDArray[np.bool_]]]:
    """Heat map and true mask, both as large as the network's input, of what can be read again."""
    for bundle in {id(case.bundle): case.bundle for case in cases}.values():
        own = [case for case in cases if case.bundle is bundle]
        for some in (own[start : start + _AT_ONCE] for start in range(0, len(own), _AT_ONCE)):
            keys = {case.image_id: CaseKey(case.image_id, target.name, target.positive) for case in some}
            heat = explain_samples(bundle, [(keys[case.image_id], case.image) for case in some], device=device)
            for case in some:
                try:
                    mask = load_mask(case.truth, segmentation, config=bundle.config.preprocess, on=case.image)
                except ReadError:
                    continue
                if keys[case.image_id] in heat:
                    yield case, heat[keys[case.image_id]], np.isin(mask, shown)
