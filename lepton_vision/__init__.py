"""Training, evaluation and use of medical image classifiers: the package's public names and its data path.

The data path, left to right::

    files ─readers→ Image ─manifest→ rows, splits ─transforms→ Batch ─models→ ModelOutput
          ─training→ Bundle ─inference→ Predictions ─evaluation→ Evaluation ─reporting→ report.html
          Bundle + new files ─scoring→ scores

Importing this package loads nothing else: every public name is resolved when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_vision._lazy import resolver

if TYPE_CHECKING:
    from lepton_vision._version import __version__ as __version__
    from lepton_vision.config import Config as Config
    from lepton_vision.errors import LeptonError as LeptonError
    from lepton_vision.evaluation import Comparison as Comparison
    from lepton_vision.evaluation import Evaluation as Evaluation
    from lepton_vision.evaluation import aggregate as aggregate
    from lepton_vision.evaluation import choose_operating_point as choose_operating_point
    from lepton_vision.evaluation import compare as compare
    from lepton_vision.evaluation import evaluate as evaluate
    from lepton_vision.inference import predict as predict
    from lepton_vision.inference.embedding import embed as embed
    from lepton_vision.inference.explain import explain as explain
    from lepton_vision.manifest import Manifest as Manifest
    from lepton_vision.manifest import audit_manifest as audit_manifest
    from lepton_vision.manifest import split_manifest as split_manifest
    from lepton_vision.models import Bundle as Bundle
    from lepton_vision.models import Encoder as Encoder
    from lepton_vision.models import build_model as build_model
    from lepton_vision.models import register_encoder as register_encoder
    from lepton_vision.pipeline import cross_validate as cross_validate
    from lepton_vision.pipeline import fit as fit
    from lepton_vision.pipeline import run_study as run_study
    from lepton_vision.predictions import Predictions as Predictions
    from lepton_vision.predictions.operating_point import OperatingPoint as OperatingPoint
    from lepton_vision.readers import read_image as read_image
    from lepton_vision.reporting import write_report as write_report
    from lepton_vision.reporting.batches import show_batch as show_batch
    from lepton_vision.scoring import score as score
    from lepton_vision.transforms import make_loader as make_loader
    from lepton_vision.types import Image as Image
    from lepton_vision.types import OwnFigure as OwnFigure
    from lepton_vision.types import Target as Target
    from lepton_vision.types import Window as Window

__getattr__ = resolver(__name__, __file__)


def __dir__() -> list[str]:
    names: list[str] = __getattr__("__all__")
    return names
