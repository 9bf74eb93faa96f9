"""Statements that a run's artefacts support, for the model card and the checklists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lepton_vision.evaluation.classes.evaluation import Evaluation
from lepton_vision.evaluation.classes.figure_table import names_for
from lepton_vision.reporting.classes.analyses import show
from lepton_vision.reporting.classes.case_words import count_cases, plural, unit_of
from lepton_vision.reporting.classes.notes import find_notes
from lepton_vision.reporting.classes.operating_point import describe_operating_point
from lepton_vision.reporting.classes.view import show_value
from lepton_vision.reporting.wording import split_name, term
from lepton_vision.types import Target

_LEAKAGE = {
    "stop": "At the patient; training stops where a patient or an identical image stands in two parts.",
    "drop_train": "At the patient; of images that stand in two parts the training copy is dropped.",
    "allow": "Patients or images in two parts were allowed: see audit.json.",
}
_TRAINING = ("epochs", "batch_size", "lr", "weight_decay", "sampling", "class_weights", "freeze_stages", "ema_decay")


@dataclass(frozen=True, eq=False)
class RunFacts:
    """Facts known of a run.

    Attributes:
        evaluation: its figures.
        data_flow: files in, rejected, per split; or empty.
        provenance: facts about the bundle; or empty.
        settings: ``Config.to_dict``; or empty, for predictions of another tool.
        has_maps: whether the page shows where the evidence lies.
    """

    evaluation: Evaluation
    data_flow: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    has_maps: bool = False


def gather(run: RunFacts) -> dict[str, str]:
    """Return what is known, by key; what is unknown is absent."""
    found = {**_of_figures(run), **_of_analyses(run), **_of_data(run), **_of_model(run)}
    return {key: text for key, text in found.items() if text}


def _of_figures(run: RunFacts) -> dict[str, str]:
    evaluation, own = run.evaluation, run.evaluation.provenance
    targets = evaluation.targets
    names = {term(key, t).title for t in targets for key in names_for("headline", t.kind)}
    method = f"{show_value(own.get('intervals'))}, {show_value(own.get('replicates'))} replicates, seed "
    cautions = [note.text for note in find_notes(evaluation) if note.kind == "caution"]
    shown = sum(map(len, evaluation.worst.values()))
    return {
        "output": "; ".join(f"{t.name} ({t.kind}: {', '.join(t.classes) or t.unit or 'a number'})" for t in targets),
        "performance": " ".join(_performance(evaluation, target) for target in targets),
        "operating_point": " ".join(describe_operating_point(evaluation, t) for t in targets if not t.is_value),
        "metrics": f"{', '.join(sorted(names))} and others, with curves: report.html and figures.json.",
        "uncertainty": f"{evaluation.confidence:.0%} intervals: {method}{show_value(own.get('seed'))}."
        if own.get("intervals")
        else "",
        "failures": f"The {shown} most wrong decisions stand in report.html."
        if shown
        else f"No decision was wrong among these {plural(unit_of(evaluation))}.",
        "cautions": " ".join(cautions),
        "missing": _missing(evaluation),
        "explanation": "Grad-CAM of the last stage, in the galleries of report.html." if run.has_maps else "",
    }


def _performance(evaluation: Evaluation, target: Target) -> str:
    figures = evaluation.figures.get(target.name, {})
    keys = [key for key in names_for("headline", target.kind) if key in figures]
    words = [term(key, target) for key in keys]
    shown = [f"{one.title} {show(figures[key], one)}" for key, one in zip(keys, words, strict=True)]
    counted = count_cases(evaluation.n, evaluation.n_patients, unit=unit_of(evaluation))
    where = f"{split_name(evaluation.split)} split, {counted}"
    return f"{target.name}, {where}: {', '.join(shown)}." if shown else ""


def _missing(evaluation: Evaluation) -> str:
    unlabelled = sum(evaluation.n_unlabelled.values())
    return (
        f"Images that cannot be read get no probability ({evaluation.n_failed:,}); unknown labels ({unlabelled:,}) are "
        "left out of figures, never counted as negative."
    )


def _of_analyses(run: RunFacts) -> dict[str, str]:
    found = run.evaluation.analyses
    columns = [one.column for one in found.subgroups or ()]
    has_classes = any(not target.is_value for target in run.evaluation.targets)
    temperatures = run.settings.get("evaluation", {}).get("calibrate")
    kind = run.settings.get("evaluation", {}).get("calibration", "temperature")
    return {
        "subgroups": f"Figures by {', '.join(columns)}, with gaps tested: report.html." if columns else "",
        "external": "Compared with the internal evaluation: report.html." if found.external else "",
        "recalibration": "What recalibration would change: report.html." if found.external else "",
        "calibration": f"Calibrated on validation ({kind}), then frozen." if temperatures and has_classes else "",
    }


def _of_data(run: RunFacts) -> dict[str, str]:
    flow = run.data_flow
    rejected = {str(code): int(n) for code, n in (flow.get("rejected") or {}).items()}
    parts = [
        f"{split_name(name)} {show_value(part.get('images'))} images of {show_value(part.get('patients'))} patients"
        for name, part in (flow.get("splits") or {}).items()
        if part
    ]
    reasons = ", ".join(f"{code} {n:,}" for code, n in sorted(rejected.items()))
    settings = run.settings.get("split", {})
    is_ours = bool(run.settings)
    return {
        "flow": f"{int(flow['rows']):,} images found, {sum(rejected.values()):,} rejected{_in_brackets(reasons)}."
        if flow.get("rows") is not None
        else "",
        "rejected": "A file that cannot be read is a row with a reason, never a guess." if is_ours else "",
        "partitions": f"{'; '.join(parts)}. Seed, where no official split was kept, {show_value(settings.get('seed'))}."
        if parts
        else "",
        "disjoint": _LEAKAGE.get(run.settings.get("audit", {}).get("on_leakage"), ""),
        "data_fingerprint": _fact("Fingerprint of the data ", run.provenance.get("data_fingerprint")),
        "pseudonyms": "Ids are keyed pseudonyms; no identifier of a header is kept." if is_ours else "",
    }


def _of_model(run: RunFacts) -> dict[str, str]:
    facts, settings = run.provenance, run.settings
    train, model = settings.get("train", {}), settings.get("model", {})
    if not settings:
        return {}
    versions = facts.get("versions") or {}
    pixels = settings.get("preprocess", {})
    chosen = {key: train.get(key) for key in _TRAINING if key in train}
    return {
        "model": f"{show_value(model.get('backbone'))}, one head per target; input {_size(pixels)} "
        f"pixels, windows {show_value(pixels.get('windows'))}.",
        "preprocessing": f"Size {_size(pixels)}, windows {show_value(pixels.get('windows'))}, fit "
        f"{show_value(pixels.get('fit'))}, colour {show_value(pixels.get('color'))}; the same in training and in use.",
        "software": ", ".join(f"{name} {show_value(value)}" for name, value in versions.items()),
        "initialization": _initialization(model, facts.get("initial_weights") or {}),
        "training": ", ".join(f"{key.replace('_', ' ')} {show_value(value)}" for key, value in chosen.items())
        + f"; augmentation {_augmentation(settings, facts)}; seed "
        + f"{show_value(train.get('seed'))}.",
        "selection": _selection(train)
        + _in_brackets(_fact("epoch ", facts.get("kept_epoch")) or _fact("epochs ", facts.get("kept_epochs")))
        + "; the test split is not read before.",
        "ensemble": _ensemble(facts, members=model.get("members") or 1),
        "imbalance": f"Sampling {show_value(train.get('sampling'))}, class weights "
        f"{show_value(train.get('class_weights'))}.",
        "bundle": _fact("Bundle ", facts.get("bundle")) or _fact("Bundles, one for each fold: ", facts.get("bundles")),
    }


def _augmentation(settings: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    return "an own pipeline" if facts.get("augment") else show_value(settings.get("augment", {}).get("preset"))


def _initialization(model: Mapping[str, Any], origin: Mapping[str, Any]) -> str:
    """What the weights were before training, with source and licence as far as somebody states them."""
    stated = [f"{name} {show_value(text)}" for name, text in origin.items() if name != "file"]
    return "; ".join([f"Weights: {show_value(model.get('weights'))}", *stated]) + "."


def _selection(train: Mapping[str, Any]) -> str:
    """By what rule the epoch was taken."""
    if train.get("keep") == "last":
        return "Last epoch of the schedule, whatever the figures of validation"
    return f"Best epoch by {show_value(train.get('monitor'))} on validation"


def _ensemble(facts: Mapping[str, Any], *, members: int) -> str:
    each = f"{members} networks, trained side by side from different random starts; the mean of their logits counts."
    if facts.get("models"):
        return (
            f"{facts['models']} models, one for each fold; each image is predicted by the one that was trained without "
            "its patient. " + (f"Each is of {each}" if members > 1 else "Nothing is combined.")
        )
    if not facts.get("bundle"):
        return ""
    return f"One model of {each}" if members > 1 else "One model; nothing is combined."


def _fact(name: str, value: Any) -> str:
    return "" if value is None else f"{name}{show_value(value)}"


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


def _size(pixels: Mapping[str, Any]) -> str:
    return " x ".join(str(side) for side in pixels.get("size", ()))
