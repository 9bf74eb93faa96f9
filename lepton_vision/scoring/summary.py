"""Summary of a scoring run: counts of its rows, and the check of the failure rate."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from lepton_vision.errors import TooManyFailuresError
from lepton_vision.manifest.left_out import may_include
from lepton_vision.scoring.sink import ShardSink
from lepton_vision.types import ObjectKind, Result, Table

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ScoreSummary(Result):
    """Summary of the output folder of a scoring run.

    Attributes:
        output: the folder of shards.
        rows: rows in the folder, those of earlier runs included.
        scored: rows with probabilities, or with a mask where there are no targets.
        failed: rows without, counted by reason code.
        new_rows: rows that this run added.
        seconds: wall time of this run.
        masks: rows with a mask file; None where none were asked for.
        without_mask: rows whose input was read and that have none, counted by reason.
        engine: runtime of the probabilities; None without targets.
        engine_difference: its largest difference from torch in float32 on a calibration batch; None for torch.
        cases: rows of series, studies and patients in ``_cases`` of the folder, see ``cases.write_cases``.
        left_out: rows of what is no image to classify, or no slice of the series it lies in, counted by reason: no
            failures.
        replaced: rows of failed or changed inputs that this run set aside, since it scored these again.
    """

    output: Path
    rows: int
    scored: int
    failed: dict[str, int]
    new_rows: int
    seconds: float
    masks: int | None = None
    without_mask: dict[str, int] = field(default_factory=dict)
    engine: str | None = None
    engine_difference: float | None = None
    cases: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    replaced: int = 0

    @property
    def images_per_s(self) -> float:
        """Rows that this run added per second of wall time."""
        return self.new_rows / self.seconds if self.seconds > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        counts: dict[str, Any] = {"rows": self.rows, "scored": self.scored, "failed": self.failed}
        if self.left_out:
            counts |= {"left_out": self.left_out}
        if self.masks is not None:
            counts |= {"masks": self.masks, "without_mask": self.without_mask}
        if self.engine_difference is not None:
            counts |= {"engine": self.engine, "engine_difference": self.engine_difference}
        if self.cases:
            counts |= {"cases": self.cases}
        counts |= {"replaced_rows": self.replaced} if self.replaced else {}
        counts |= {"new_rows": self.new_rows, "seconds": round(self.seconds, 3)}
        return counts | {"images_per_s": round(self.images_per_s, 2)}

    def _tables(self) -> tuple[Table, ...]:
        return (Table("Scoring", self.to_dict().items()),)


def summarize(
    sink: ShardSink,
    *,
    engine: str | None,
    difference: float | None = None,
    new_rows: int,
    started: float,
    cases: dict[str, int],
    replaced: int = 0,
) -> ScoreSummary:
    """Count what a folder of shards holds; ``started`` is the time of ``perf_counter`` at which the run began."""
    return ScoreSummary(
        sink.folder,
        sink.rows,
        sink.scored,
        dict(sorted(sink.failed.items())),
        new_rows,
        time.perf_counter() - started,
        sink.masked if "mask" in sink.schema.names else None,
        dict(sorted(sink.unmasked.items())),
        engine,
        difference,
        cases,
        dict(sorted(sink.left_out.items())),
        replaced,
    )


STOP_FAILURES = 100  # rows that must have failed before a run is stopped: a small one goes to its end


@dataclass(frozen=True, slots=True)
class FailureLimit:
    """Early stop of a run whose failures already exceed the share tolerated at its end.

    It is not stopped while it could still end well, every input that is left giving one good row, nor below
    ``STOP_FAILURES``: the rows of a small folder are worth more than the minutes.

    Attributes:
        share: largest tolerated share of failed rows.
        inputs: of the whole run, of which this may be a part.
        failed: rows that failed in other parts of the run.
    """

    share: float = 1.0
    inputs: int = 0
    failed: int = 0

    def check(self, failed: int, *, rows: int) -> None:
        """Raise TooManyFailuresError where the limit is passed.

        Args:
            failed: rows that failed so far, those of earlier runs included.
            rows: that there will be at least in this part: those so far, and one for each input that is left.
        """
        failed += self.failed
        rows = max(rows, self.inputs)
        if failed >= STOP_FAILURES and failed > self.share * rows:
            raise TooManyFailuresError(
                f"Expected at most {self.share:.1%} failed rows. Received: {failed} of {rows} that there will be, so "
                "the run was stopped. The rows so far are kept; look at their reasons. The same command with a higher "
                "--max-failures (Python: max_failures) goes on."
            )


def check_failures(summary: ScoreSummary, max_failures: float) -> None:
    """Raise TooManyFailuresError where more than ``max_failures`` of the rows of a finished run failed."""
    share = sum(summary.failed.values()) / max(summary.rows, 1)
    if share > max_failures:
        counts = ", ".join(f"{reason} {count}" for reason, count in summary.failed.items())
        raise TooManyFailuresError(
            f"Expected at most {max_failures:.1%} failed rows. Received: {share:.1%} ({counts}). "
            "All rows are written; look at their reasons, or raise --max-failures (Python: max_failures).",
            facts=summary.to_dict(),
        )


def warn_of_left_out(summary: ScoreSummary, *, volumes: bool) -> None:
    """Warn of objects that were not scored, and say how they would be."""
    kinds = [reason for reason in summary.left_out if reason in get_args(ObjectKind)]
    if kinds:
        shown = ", ".join(f"{kind}: {summary.left_out[kind]}" for kind in kinds)
        asked = ",".join(may_include(kinds, volumes=volumes))
        remedy = f" --include {asked} scores them, too (include=…), with --no-resume or into another folder."
        _LOGGER.warning("Not scored, as no images to classify: %s.%s", shown, remedy if asked else "")
