"""Predictions in, figures with intervals out; never imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_vision._lazy import resolver

if TYPE_CHECKING:
    from lepton_vision.evaluation.agreement import HeadAgreement as HeadAgreement
    from lepton_vision.evaluation.agreement import agree_heads as agree_heads
    from lepton_vision.evaluation.classification import Evaluation as Evaluation
    from lepton_vision.evaluation.classification import evaluate as evaluate
    from lepton_vision.evaluation.detection import Froc as Froc
    from lepton_vision.evaluation.detection import froc as froc
    from lepton_vision.evaluation.lesions import LesionScores as LesionScores
    from lepton_vision.evaluation.lesions import score_lesions as score_lesions
    from lepton_vision.evaluation.masks import compare_masks as compare_masks
    from lepton_vision.evaluation.operating_point import Criterion as Criterion
    from lepton_vision.evaluation.operating_point import choose_operating_point as choose_operating_point
    from lepton_vision.evaluation.pointing import PointingGame as PointingGame
    from lepton_vision.evaluation.pointing import play_pointing_game as play_pointing_game
    from lepton_vision.evaluation.segmentation import MaskCase as MaskCase
    from lepton_vision.evaluation.segmentation import SegmentationEvaluation as SegmentationEvaluation
    from lepton_vision.evaluation.segmentation import evaluate_masks as evaluate_masks

_HOMES = {
    "Criterion": "operating_point",
    "Evaluation": "classification",
    "Froc": "detection",
    "HeadAgreement": "agreement",
    "LesionScores": "lesions",
    "MaskCase": "segmentation",
    "PointingGame": "pointing",
    "SegmentationEvaluation": "segmentation",
    "agree_heads": "agreement",
    "choose_operating_point": "operating_point",
    "compare_masks": "masks",
    "evaluate": "classification",
    "evaluate_masks": "segmentation",
    "froc": "detection",
    "play_pointing_game": "pointing",
    "score_lesions": "lesions",
}
__all__ = sorted(_HOMES)
__getattr__ = resolver(__name__, _HOMES)
