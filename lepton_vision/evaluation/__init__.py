"""Evaluation of predictions: figures with confidence intervals; never imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_vision._lazy import resolver

if TYPE_CHECKING:
    from lepton_vision.evaluation.choices.operating_point import Criterion as Criterion
    from lepton_vision.evaluation.choices.operating_point import choose_operating_point as choose_operating_point
    from lepton_vision.evaluation.classes.comparison import Comparison as Comparison
    from lepton_vision.evaluation.classes.comparison import compare as compare
    from lepton_vision.evaluation.classes.evaluation import Evaluation as Evaluation
    from lepton_vision.evaluation.classes.evaluation import evaluate as evaluate
    from lepton_vision.evaluation.classes.planning import SamplePlan as SamplePlan
    from lepton_vision.evaluation.classes.planning import plan_sample as plan_sample
    from lepton_vision.evaluation.classes.units import Aggregation as Aggregation
    from lepton_vision.evaluation.classes.units import aggregate as aggregate
    from lepton_vision.evaluation.classes.units import fit_aggregation as fit_aggregation
    from lepton_vision.evaluation.masks.agreement import HeadAgreement as HeadAgreement
    from lepton_vision.evaluation.masks.agreement import agree_heads as agree_heads
    from lepton_vision.evaluation.masks.case import compare_masks as compare_masks
    from lepton_vision.evaluation.masks.evaluation import MaskCase as MaskCase
    from lepton_vision.evaluation.masks.evaluation import SegmentationEvaluation as SegmentationEvaluation
    from lepton_vision.evaluation.masks.evaluation import evaluate_masks as evaluate_masks
    from lepton_vision.evaluation.masks.froc import Froc as Froc
    from lepton_vision.evaluation.masks.froc import froc as froc
    from lepton_vision.evaluation.masks.lesions import LesionScores as LesionScores
    from lepton_vision.evaluation.masks.lesions import score_lesions as score_lesions
    from lepton_vision.evaluation.masks.pointing import PointingGame as PointingGame
    from lepton_vision.evaluation.masks.pointing import play_pointing_game as play_pointing_game
    from lepton_vision.evaluation.masks.surface_area import area_surface_dice as area_surface_dice

__getattr__ = resolver(__name__, __file__)
