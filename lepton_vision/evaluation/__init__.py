"""Predictions in, figures with intervals out; never imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_vision._lazy import resolver

if TYPE_CHECKING:
    from lepton_vision.evaluation.agreement import HeadAgreement as HeadAgreement
    from lepton_vision.evaluation.agreement import agree_heads as agree_heads
    from lepton_vision.evaluation.classification import Evaluation as Evaluation
    from lepton_vision.evaluation.classification import evaluate as evaluate
    from lepton_vision.evaluation.comparison import Comparison as Comparison
    from lepton_vision.evaluation.comparison import compare as compare
    from lepton_vision.evaluation.detection import Froc as Froc
    from lepton_vision.evaluation.detection import froc as froc
    from lepton_vision.evaluation.lesions import LesionScores as LesionScores
    from lepton_vision.evaluation.lesions import score_lesions as score_lesions
    from lepton_vision.evaluation.masks import compare_masks as compare_masks
    from lepton_vision.evaluation.operating_point import Criterion as Criterion
    from lepton_vision.evaluation.operating_point import choose_operating_point as choose_operating_point
    from lepton_vision.evaluation.planning import SamplePlan as SamplePlan
    from lepton_vision.evaluation.planning import plan_sample as plan_sample
    from lepton_vision.evaluation.pointing import PointingGame as PointingGame
    from lepton_vision.evaluation.pointing import play_pointing_game as play_pointing_game
    from lepton_vision.evaluation.segmentation import MaskCase as MaskCase
    from lepton_vision.evaluation.segmentation import SegmentationEvaluation as SegmentationEvaluation
    from lepton_vision.evaluation.segmentation import evaluate_masks as evaluate_masks
    from lepton_vision.evaluation.surface_area import area_surface_dice as area_surface_dice
    from lepton_vision.evaluation.units import Aggregation as Aggregation
    from lepton_vision.evaluation.units import aggregate as aggregate
    from lepton_vision.evaluation.units import fit_aggregation as fit_aggregation

_HOMES = {
    "Aggregation": "units",
    "Comparison": "comparison",
    "Criterion": "operating_point",
    "Evaluation": "classification",
    "Froc": "detection",
    "HeadAgreement": "agreement",
    "LesionScores": "lesions",
    "MaskCase": "segmentation",
    "PointingGame": "pointing",
    "SamplePlan": "planning",
    "SegmentationEvaluation": "segmentation",
    "aggregate": "units",
    "agree_heads": "agreement",
    "area_surface_dice": "surface_area",
    "choose_operating_point": "operating_point",
    "compare": "comparison",
    "compare_masks": "masks",
    "evaluate": "classification",
    "evaluate_masks": "segmentation",
    "fit_aggregation": "units",
    "froc": "detection",
    "plan_sample": "planning",
    "play_pointing_game": "pointing",
    "score_lesions": "lesions",
}
__all__ = sorted(_HOMES)
__getattr__ = resolver(__name__, _HOMES)
