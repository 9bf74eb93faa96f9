"""Pipeline of a study, where all stages meet.

``fit`` trains one model on a split manifest; ``evaluate_bundle`` looks at one split with it; ``run_study`` goes from
files to a report.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_vision._lazy import resolver

if TYPE_CHECKING:
    from lepton_vision.pipeline.classes import EvaluationOptions as EvaluationOptions
    from lepton_vision.pipeline.evaluation import SplitResult as SplitResult
    from lepton_vision.pipeline.evaluation import evaluate_bundle as evaluate_bundle
    from lepton_vision.pipeline.folds import cross_validate as cross_validate
    from lepton_vision.pipeline.machine import Machine as Machine
    from lepton_vision.pipeline.machine import examine_machine as examine_machine
    from lepton_vision.pipeline.study import StudyResult as StudyResult
    from lepton_vision.pipeline.study import run_study as run_study
    from lepton_vision.pipeline.training import fit as fit

__getattr__ = resolver(__name__, __file__)
