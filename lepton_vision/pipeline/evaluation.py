"""Evaluation of one bundle on one split."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lepton_vision.errors import ConfigError, ManifestError
from lepton_vision.evaluation import Evaluation
from lepton_vision.evaluation.masks.evaluation import SegmentationEvaluation
from lepton_vision.files import new_results
from lepton_vision.manifest import Manifest
from lepton_vision.manifest.id_keys import warn_of_key
from lepton_vision.models import Bundle
from lepton_vision.pipeline.case_points import stated_point as stated_point
from lepton_vision.pipeline.classes import EvaluationOptions, evaluate_classes
from lepton_vision.pipeline.masks import evaluate_mask_parts
from lepton_vision.predictions.ledger import Ledger
from lepton_vision.types import Displayed, Progress, Split

_DEFAULTS = EvaluationOptions()


@dataclass(frozen=True, slots=True)
class SplitResult(Displayed):
    """Evaluation of a bundle on one split.

    Attributes:
        report: the page of the classes, or of the masks where there is no target.
        evaluation: figures of the targets; None where there is none.
        masks: figures of the masks; None where there is no true or no predicted mask.
        mask_report: the page of the masks, or None.
    """

    report: Path
    evaluation: Evaluation | None = None
    masks: SegmentationEvaluation | None = None
    mask_report: Path | None = None

    def moved(self, stage: Path, out: Path) -> SplitResult:
        """The same, whose pages have moved from one folder to another."""
        page, masks = self.report, self.mask_report
        at = None if masks is None else out / masks.relative_to(stage)
        return replace(self, report=out / page.relative_to(stage), mask_report=at)


def evaluate_bundle(
    bundle: Bundle,
    manifest: Manifest,
    *,
    split: Split,
    out: str | Path,
    device: str = "auto",
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    title: str | None = None,
    options: EvaluationOptions = _DEFAULTS,
) -> SplitResult:
    """Predict one split, evaluate at the bundle's operating point, and write figures, predictions, page and card.

    Masks are evaluated where the model predicts them and rows have true ones; their files and page lie in
    ``out/masks``. ``options`` asks for subgroups and comparison with another site, names the run whose ledger notes a
    look at the test split, and holds what a human answered about the study.

    Raises:
        ConfigError: the bundle has targets, but no operating point; or a reference without another site.
        ManifestError: the split has no rows, or a column of subgroups is missing.
        LabelError: the model predicts masks alone, and no row has one.
        OutputError: ``out`` cannot be written, or another process writes to it; said before anything is computed.
    """
    part = manifest.subset(split)
    if len(part) == 0:
        raise ManifestError(f"Expected rows in the {split} split. Received: none.", key="split")
    warn_of_key(manifest, {} if options.is_external else bundle.provenance)
    options = replace(options, run_dir=options.run_dir or Path(out))
    how: dict[str, Any] = {"title": title, "device": device, "progress": progress}
    with ExitStack() as looks, new_results(out) as stage:  # a look is noted once the results have their place
        result: SplitResult | None = None
        if bundle.targets:
            how_seen: dict[str, Any] = {"options": options, "cache_dir": cache_dir, "looks": looks}
            found = evaluate_classes(bundle, manifest, part, out=stage, **how_seen, **how)
            result = SplitResult(found[1], found[0])
        if bundle.gives_masks and (result is None or part.frame["mask_values"].notna().any()):
            facts = looks.enter_context(_recording_look(result, bundle, part, options=options))
            masks, page = evaluate_mask_parts([(bundle, part)], out=stage / "masks", split=split, facts=facts, **how)
            whole = SplitResult(page) if result is None else result
            result = replace(whole, masks=masks, mask_report=page)
        if result is None:
            raise ConfigError("Expected a bundle with targets or masks to evaluate. Received: neither.")
        return result.moved(stage, Path(out))


def _recording_look(
    result: SplitResult | None, bundle: Bundle, part: Manifest, *, options: EvaluationOptions
) -> AbstractContextManager[dict[str, Any]]:
    """Number of looks at the split: as counted with the classes, or with masks alone, once they are written."""
    if result is not None and result.evaluation is not None:
        known = result.evaluation.provenance
        return nullcontext({key: known[key] for key in ("test_looks", "ledger") if key in known})
    if part.frame["split"].iloc[0] != "test" or bundle.config.segmentation is None:
        return nullcontext({})
    figures = {"masks": list(bundle.config.segmentation.names)}
    ledger = Ledger(Path(options.run_dir or "."), part.fingerprint, options.command, id_key=part.id_key)
    return ledger.recording(bundle.bundle_id, figures)
