"""What training watches: a few figures of the validation split, without intervals."""

from __future__ import annotations

import numpy as np

from lepton_vision.evaluation.questions import questions_of
from lepton_vision.evaluation.target_measures import measures_of
from lepton_vision.inference.predictions import Predictions


def validation_figures(predictions: Predictions) -> dict[str, float]:
    """Compute what training watches, without intervals: ``val_auroc``, ``val_average_precision`` and ``val_loss``.

    Each is the mean over the targets of the mean over the classes that can be judged: for ``val_loss``, the log loss of
    the probabilities, those with a label, otherwise those with positive and negative samples. Where others are left
    out, ``val_classes_judged`` and ``val_classes_left_out`` count both. A figure that no class defines is NaN.
    """
    names = {"val_auroc": "auroc", "val_average_precision": "average_precision", "val_loss": "log_loss"}
    found: dict[str, list[float]] = {key: [] for key in names}
    judged = left_out = 0
    for target in predictions.targets:
        asked = questions_of(predictions, target)
        both, labelled = (
            [one.class_name for one in asked if not one.missing()],
            [one.class_name for one in asked if one.n],
        )
        judged, left_out = judged + len(both), left_out + len(asked) - len(both)
        part = predictions.select(predictions.labelled(target))
        measures = measures_of(part, target, thresholds=(0.5,) * target.outputs)
        values = measures.values(np.ones((1, measures.units)))
        for key, name in names.items():
            is_whole = target.kind == "binary" or (target.is_exclusive and name == "log_loss")
            classes = labelled if name == "log_loss" else both
            ends = [""] if is_whole and classes else [f"_{one}" for one in classes]
            if ends:
                found[key].append(float(np.mean([values[f"{name}{end}"][0] for end in ends])))
    figures = {key: float(np.mean(values)) if values else float("nan") for key, values in found.items()}
    return figures | ({"val_classes_judged": judged, "val_classes_left_out": left_out} if left_out else {})
