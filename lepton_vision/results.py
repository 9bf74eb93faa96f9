"""What an evaluation leaves in a folder: predictions, figures, the page, the model card and the checklists."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lepton_vision.evaluation import Evaluation
from lepton_vision.files import write_atomic
from lepton_vision.inference import Predictions
from lepton_vision.inference.explain import explain_samples
from lepton_vision.inspection import describe
from lepton_vision.models import Bundle
from lepton_vision.reporting import write_report
from lepton_vision.reporting.evidence import Run
from lepton_vision.reporting.model_card import write_documents
from lepton_vision.types import CaseKey, HeatMaps


def write_results(
    evaluation: Evaluation,
    predictions: Predictions,
    out: str | Path,
    *,
    title: str | None = None,
    data_flow: Mapping[str, Any] | None = None,
    bundle: Bundle | None = None,
    device: str = "auto",
    about: Mapping[str, str] | None = None,
) -> Path:
    """Write ``predictions.csv``, ``figures.json``, ``report.html``, ``model_card.md`` and the checklists into ``out``.

    Args:
        evaluation: what ``evaluate`` returned.
        predictions: what it was made of.
        out: folder; made if it is missing.
        title: heading of the page and the card.
        data_flow: see ``write_report``.
        bundle: the model: its provenance, its settings, and where the evidence lies in the cases of the galleries; None
            for another tool's predictions.
        device: where the maps of evidence are computed.
        about: what a human answered about the study (``reporting.about.read_about``).

    Returns:
        The path of the page.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    predictions.save(out / "predictions.csv")
    write_atomic(out / "figures.json", json.dumps(evaluation.to_dict(), indent=1))
    facts: dict[str, Any] = {} if bundle is None else describe(bundle)
    facts |= {key: value for key, value in evaluation.provenance.items() if key in ("test_looks", "ledger")}
    maps = {} if bundle is None else explain_cases(evaluation, bundle, device=device)
    settings = {} if bundle is None else bundle.config.to_dict()
    run = Run(evaluation, data_flow or {}, facts, settings, bool(maps))
    write_documents(run, out, about=about, title=title)
    return write_report(
        evaluation, out / "report.html", title=title, data_flow=data_flow, provenance=facts or None, maps=maps
    )


def explain_cases(evaluation: Evaluation, bundle: Bundle, *, device: str = "auto") -> HeatMaps:
    """Compute where the evidence lies in the most wrong and the least sure cases of an evaluation.

    Args:
        evaluation: of predictions that know where their images lie.
        bundle: the model that made them.
        device: "auto", "cpu", "cuda" or "mps".

    Returns:
        For ``write_report``; empty for models that Grad-CAM does not know.
    """
    wanted = [
        (CaseKey(case.image_id, target, case.class_name), case.address)
        for found in (evaluation.worst, evaluation.unsure)
        for target, cases in found.items()
        for case in cases
        if case.address is not None
    ]
    return explain_samples(bundle, dict(wanted).items(), device=device)
