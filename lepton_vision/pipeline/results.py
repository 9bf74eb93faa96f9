"""Result files of an evaluation: predictions, figures, report page, model card and checklists."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lepton_vision.evaluation import Evaluation
from lepton_vision.files import write_atomic
from lepton_vision.inference.explain import explain_samples
from lepton_vision.models import Bundle
from lepton_vision.pipeline.facts import describe
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.ledger import Ledger, find_ledger, names_of
from lepton_vision.readers.versions import package_version
from lepton_vision.reporting import write_report
from lepton_vision.reporting.documents.evidence import RunFacts
from lepton_vision.reporting.documents.model_card import write_documents
from lepton_vision.types import CaseKey, HeatMaps, Pixels

_MOST_CELLS = 20_000_000  # of a CSV table: half a gigabyte


@dataclass(frozen=True, eq=False)
class Model:
    """A bundle and its predictions.

    Attributes:
        bundle: the model.
        image_ids: the images that it predicted, where there are several models (folds); None for all.
    """

    bundle: Bundle
    image_ids: frozenset[str] | None = None


def write_results(
    evaluation: Evaluation,
    predictions: Predictions,
    out: str | Path,
    *,
    title: str | None = None,
    data_flow: Mapping[str, Any] | None = None,
    models: Sequence[Model] = (),
    device: str = "auto",
    about: Mapping[str, str] | None = None,
) -> Path:
    """Write ``predictions.csv``, ``figures.json``, ``report.html``, ``model_card.md`` and the checklists into ``out``.

    Of very many classes the table is ``predictions.parquet``.

    Args:
        evaluation: what ``evaluate`` returned.
        predictions: what it was made of.
        out: folder; made if it is missing.
        title: heading of the page and the card.
        data_flow: see ``write_report``.
        models: the model, or those of the folds: their provenance and settings, and where the evidence lies in the
            cases of the galleries; none for another tool's predictions.
        device: where the maps of evidence are computed.
        about: what a human answered about the study (``reporting.about.read_about``).

    Returns:
        The path of the page.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    predictions.save(out / table_name(predictions))
    write_atomic(out / "figures.json", json.dumps(evaluation.to_dict(), indent=1))
    facts = _describe(models)
    facts |= {key: value for key, value in evaluation.provenance.items() if key in ("cases", "test_looks", "ledger")}
    maps = explain_cases(evaluation, models, device=device)
    settings = models[0].bundle.config.to_dict() if models else {}
    run = RunFacts(evaluation, data_flow or {}, facts, settings, bool(maps))
    write_documents(run, out, about=about, title=title)
    return write_report(
        evaluation, out / "report.html", title=title, data_flow=data_flow, provenance=facts or None, maps=maps
    )


def table_name(predictions: Predictions) -> str:
    """Name of the table of predictions among the results: Parquet where CSV would take gigabytes of text."""
    cells = sum(values.size for values in predictions.y_prob.values())
    return "predictions.parquet" if cells > _MOST_CELLS else "predictions.csv"


def _describe(models: Sequence[Model]) -> dict[str, Any]:
    """Facts about the model; of several, what is common to them and what each has of its own."""
    if not models:
        return {
            "model": "another tool's",
            "versions": {name: package_version(name).split()[-1] for name in ("lepton_vision", "numpy", "scipy")},
        }
    described = [describe(one.bundle) for one in models]
    if len(described) < 2:
        return described[0]
    common = {key: value for key, value in described[0].items() if all(one.get(key) == value for one in described)}
    own = {f"{key}s": [one.get(key) for one in described] for key in ("bundle", "kept_epoch")}
    return {"models": len(described), **own, **common}


@contextlib.contextmanager
def table_look(
    evaluation: Evaluation, predictions: Predictions, out: str | Path, *, table: Path
) -> Iterator[Evaluation]:
    """Give the evaluation of a table of predictions with how many looks there were, and note it when the block ends.

    The ledger is that of the run whose folder holds the table or the output, where there is one; else it begins in the
    output folder. Looks at a validation or training split are not noted.

    Args:
        evaluation: of the table.
        predictions: what it holds.
        out: folder of the results; made if it is missing.
        table: where it lies.
    """
    split = predictions.split or "unknown"
    if split not in ("test", "unknown"):
        yield evaluation
        return
    Path(out).mkdir(parents=True, exist_ok=True)
    ledger = Ledger(find_ledger(table.parent, out), "", "evaluate --predictions", id_key=predictions.id_key)
    figures, model = names_of(evaluation.figures), predictions.bundle_id or _name_of(predictions)
    with ledger.recording(model, figures, cases=predictions.cases, split=split) as looks:
        yield replace(evaluation, provenance={**evaluation.provenance, "cases": predictions.cases, **looks})


def _name_of(predictions: Predictions) -> str:
    """Tell other tools' models apart by what they say."""
    digest, order = hashlib.sha256(), np.argsort(predictions.image_id)
    for target in predictions.targets:
        digest.update(predictions.y_prob[target.name][order].tobytes())
    return f"another tool {digest.hexdigest()[:8]}"


def explain_cases(evaluation: Evaluation, models: Sequence[Model], *, device: str = "auto") -> HeatMaps:
    """Compute where the evidence lies in the most wrong and the least sure cases of an evaluation.

    Args:
        evaluation: of predictions that know where their images lie.
        models: what made them; a case is explained by the model that predicted it.
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
    maps: dict[CaseKey, Pixels] = {}
    for one in models:
        own = [(key, at) for key, at in dict(wanted).items() if one.image_ids is None or key.image_id in one.image_ids]
        maps |= explain_samples(one.bundle, own, device=device)
    return maps
