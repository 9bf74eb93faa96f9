"""Data types that pass between stages.

Axis letters are fixed here and used in every docstring:
B batch, C channel, D depth (frames or slices), H height (rows), W width (columns), K class, N samples, M mask class.

A label that is unknown is NaN; it is never counted as negative. A mask is unknown where it holds ``UNKNOWN``: a sample
without a mask is not a sample whose mask is empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_vision._lazy import resolver

if TYPE_CHECKING:
    from lepton_vision.types.batch import Batch as Batch
    from lepton_vision.types.batch import ModelOutput as ModelOutput
    from lepton_vision.types.figure import Figure as Figure
    from lepton_vision.types.figure import FigureSpec as FigureSpec
    from lepton_vision.types.figure import Interval as Interval
    from lepton_vision.types.figure import OwnFigure as OwnFigure
    from lepton_vision.types.figure import decimals as decimals
    from lepton_vision.types.geometry import GRID_TOLERANCE as GRID_TOLERANCE
    from lepton_vision.types.geometry import FloatArray as FloatArray
    from lepton_vision.types.geometry import Geometry as Geometry
    from lepton_vision.types.geometry import GridGap as GridGap
    from lepton_vision.types.geometry import Vector as Vector
    from lepton_vision.types.geometry import grid_gap as grid_gap
    from lepton_vision.types.geometry import is_same_spacing as is_same_spacing
    from lepton_vision.types.image import Backbone as Backbone
    from lepton_vision.types.image import Image as Image
    from lepton_vision.types.image import ObjectKind as ObjectKind
    from lepton_vision.types.image import Pixels as Pixels
    from lepton_vision.types.image import VoiLut as VoiLut
    from lepton_vision.types.image import Window as Window
    from lepton_vision.types.image import WindowFunction as WindowFunction
    from lepton_vision.types.image import WindowName as WindowName
    from lepton_vision.types.kinds import CLASS_KINDS as CLASS_KINDS
    from lepton_vision.types.kinds import EXCLUSIVE as EXCLUSIVE
    from lepton_vision.types.kinds import MEANS as MEANS
    from lepton_vision.types.kinds import ORDERED as ORDERED
    from lepton_vision.types.kinds import VALUES as VALUES
    from lepton_vision.types.kinds import YES_NO as YES_NO
    from lepton_vision.types.kinds import TargetKind as TargetKind
    from lepton_vision.types.kinds import TargetLoss as TargetLoss
    from lepton_vision.types.result import Displayed as Displayed
    from lepton_vision.types.result import Plain as Plain
    from lepton_vision.types.result import Result as Result
    from lepton_vision.types.result import Table as Table
    from lepton_vision.types.result import figures_table as figures_table
    from lepton_vision.types.result import plain as plain
    from lepton_vision.types.sample import SPLITS as SPLITS
    from lepton_vision.types.sample import UNKNOWN as UNKNOWN
    from lepton_vision.types.sample import CaseKey as CaseKey
    from lepton_vision.types.sample import HeatMaps as HeatMaps
    from lepton_vision.types.sample import Progress as Progress
    from lepton_vision.types.sample import SampleAddress as SampleAddress
    from lepton_vision.types.sample import Split as Split
    from lepton_vision.types.target import Target as Target
    from lepton_vision.types.target import Uncertain as Uncertain
    from lepton_vision.types.target import are_called as are_called
    from lepton_vision.types.target import check_names as check_names
    from lepton_vision.types.target import output_stems as output_stems
    from lepton_vision.types.target import probability_names as probability_names
    from lepton_vision.types.target import set_names as set_names

__getattr__ = resolver(__name__, __file__)
