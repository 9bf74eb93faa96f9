"""Every analysis beside the figures that the data allow, in one place."""

from __future__ import annotations

from lepton_vision.config import EvaluationConfig
from lepton_vision.evaluation.abstention import abstentions
from lepton_vision.evaluation.analyses import Analyses
from lepton_vision.evaluation.calibration_statistics import calibration_statistics
from lepton_vision.evaluation.decision_curve import decision_curve
from lepton_vision.evaluation.intervals import Bootstrap
from lepton_vision.evaluation.questions import questions_of
from lepton_vision.inference.predictions import Predictions
from lepton_vision.types import OperatingPoint


def analyze(predictions: Predictions, *, operating_point: OperatingPoint, config: EvaluationConfig) -> Analyses:
    """Compute the analyses of one split.

    Args:
        predictions: of one split.
        operating_point: thresholds for every binary and multilabel target.
        config: replicates, confidence and seed.
    """
    bootstrap = Bootstrap(config.replicates, config.confidence, config.seed)
    questions = {target.name: questions_of(predictions, target) for target in predictions.targets}
    return Analyses(
        calibration={k: tuple(calibration_statistics(q, bootstrap) for q in asked) for k, asked in questions.items()},
        decision_curve={k: tuple(decision_curve(q, bootstrap) for q in asked) for k, asked in questions.items()},
        abstention={
            target.name: abstentions(
                predictions, target, thresholds=operating_point.thresholds.get(target.name, ()), bootstrap=bootstrap
            )
            for target in predictions.targets
        },
    )
