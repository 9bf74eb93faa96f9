"""Scoring on a Ray cluster: the doorway to ray.

Ray Data hands parts of the inputs to actors, each of which holds the bundle; a part is scored into a folder of its own
with its own ledger (``parts``). An actor that is lost is started again by Ray, anywhere, and its part goes on from the
shards that are there. The rows are merged at the end: the same as those of a run on one machine.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lepton_vision.errors import ConfigError, LeptonError, MissingExtraError, ScoringError
from lepton_vision.models.bundle import Bundle
from lepton_vision.readers.identity import key_check
from lepton_vision.scoring.batch import Progress, run_job
from lepton_vision.scoring.cluster.parts import merge_finished_parts, merge_job, part_name, start_over
from lepton_vision.scoring.job import ScoreJob
from lepton_vision.scoring.outputs import PARTS
from lepton_vision.scoring.sink import failed_rows
from lepton_vision.scoring.summary import FailureLimit, ScoreSummary
from lepton_vision.scoring.superseded import supersede_unopened

INPUTS_PER_PART = 2048


@dataclass(frozen=True, slots=True)
class Cluster:
    """Settings of the cluster that computes a run.

    Attributes:
        address: of a Ray cluster, e.g. "ray://head:10001" or "auto"; empty starts one on this machine that ends with
            the run.
        actors: processes that score at most; None is one for each CPU (or GPU) of the cluster.
        cpus: CPUs, and threads of torch, of an actor.
        gpus: GPUs of an actor.
        inputs_per_part: what a lost actor's successor is handed at once.
    """

    address: str = ""
    actors: int | None = None
    cpus: int = 1
    gpus: float = 0.0
    inputs_per_part: int = INPUTS_PER_PART


def score_on_ray(
    bundle: Bundle | str | Path,
    inputs: str | Path | Iterable[str | Path],
    output: str | Path,
    *,
    cluster: Cluster | None = None,
    path_map: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> ScoreSummary:
    """Score files and folders with the actors of a Ray cluster: the rows and files of ``score``, each exactly once.

    All machines see inputs, output and the folders for masks and reports under the same paths and share the key of the
    ids (``LEPTON_VISION_ID_KEY``). A run that was killed goes on when it is repeated; which of several images of one id
    has the mask or report may then be another than on one machine.

    Args:
        bundle: see ``score``.
        inputs: see ``score``.
        output: see ``score``.
        cluster: where; None is this machine.
        path_map: see ``score``.
        progress: called with (inputs done, all inputs, failed inputs of this run) as parts end.
        options: the others of ``score``. Name an engine: parts of different engines are not merged. Actors write
            Parquet, and the rows become those of another ``file_format`` where they are merged.

    Raises:
        ConfigError: see ``score``; or an actor has another key.
        MissingExtraError: ray is not installed.
        ScoringError: see ``score``; or the cluster cannot be reached or lost a part more often than Ray tries.
        TooManyFailuresError: see ``score``.

    Example:
        >>> score_on_ray("bundle", "/data/inbox", "/data/scores", cluster=Cluster("auto"))  # doctest: +SKIP
    """
    job = ScoreJob.of(bundle, Path(output).absolute(), **options).prepared(inputs, path_map=path_map)
    if not job.settings.resume:
        start_over(job)
    if any((job.output / PARTS).glob("*/part-*.parquet")):
        merge_finished_parts(job)  # of a run that was killed
    replaced, pending = supersede_unopened(job), job.without_scored()
    if len(pending.inputs):
        _score_parts(pending, cluster or Cluster(), total=len(job.inputs), progress=progress)
    return replace(merge_job(job), replaced=replaced)


def _score_parts(job: ScoreJob, cluster: Cluster, *, total: int, progress: Progress | None) -> None:
    """Score what is left of a run of ``total`` inputs; stop where too many have failed."""
    stop = FailureLimit(job.settings.max_failures, total, failed_rows([job.output]))
    stop.check(0, rows=0)  # of an earlier run
    # A part that goes on after a loss keeps its failed rows; and the processes of the actors are ours.
    job = replace(job, settings=replace(job.settings, retry_failed=False, tune_process=True))
    task = _Task(job, -(-len(job.inputs) // cluster.inputs_per_part), stop)
    done, failed = total - len(job.inputs), 0
    with closing(_run(task, cluster)) as parts:
        for part in parts:
            done, failed = done + part["inputs"], failed + part["failed"]
            if progress is not None:
                progress(done, total, failed)
            stop.check(failed, rows=0)


@dataclass(frozen=True, slots=True)
class _Task:
    """What every actor needs: the job of all parts, and how many there are."""

    job: ScoreJob
    parts: int
    stop: FailureLimit
    key_check: str = field(default_factory=key_check)

    def run(self, part: int) -> dict[str, int]:
        """Score one part; return how many inputs it has and how many rows failed."""
        if key_check() != self.key_check:
            raise ConfigError(
                "Expected the same key of pseudonymous ids on all machines. Received: another one. Set "
                "LEPTON_VISION_ID_KEY to one secret text everywhere.",
                key="LEPTON_VISION_ID_KEY",
            )
        own = self.job.inputs.keep(np.arange(len(self.job.inputs)) % self.parts == part)
        summary = run_job(replace(self.job, inputs=own).part(part_name(part, self.parts)), stop=self.stop)
        return {"inputs": len(own), "failed": sum(summary.failed.values())}


class _Actor:
    """Keeps the bundle between parts."""

    def __init__(self, task: Any) -> None:
        import ray

        self._task: _Task = ray.get(task)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        found = [self._task.run(int(part)) for part in batch["part"]]
        return {name: np.array([one[name] for one in found]) for name in ("inputs", "failed")}


def _run(task: _Task, cluster: Cluster) -> Generator[dict[str, int]]:
    """Counts of each part as it ends."""
    with _connected(cluster) as ray:
        actors = cluster.actors or max(1, int(ray.cluster_resources().get("GPU" if cluster.gpus else "CPU", 1)))
        parts = ray.data.from_items([{"part": part} for part in range(task.parts)], override_num_blocks=task.parts)
        counts = parts.map_batches(
            _Actor,
            fn_constructor_args=(ray.put(task),),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(actors, task.parts)),
            num_cpus=cluster.cpus,
            num_gpus=cluster.gpus or None,
        )
        try:
            for row in counts.iter_rows():
                yield {name: int(value) for name, value in row.items()}
        except Exception as error:
            cause = _cause(error)
            if isinstance(cause, LeptonError):
                raise cause from None
            raise ScoringError(
                f"The cluster did not finish the run ({type(error).__name__}). Rows written so far are safe; repeat "
                "the command to go on."
            ) from None


def _cause(error: BaseException) -> BaseException:
    """The error that an actor raised, below those of Ray around it."""
    while not isinstance(error, LeptonError) and (below := getattr(error, "cause", None) or error.__cause__):
        error = below
    return error


@contextmanager
def _connected(cluster: Cluster) -> Iterator[Any]:
    """Connect to Ray for the duration of a block, with its usage reports switched off."""
    kept = os.environ.get("RAY_USAGE_STATS_ENABLED")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        try:
            import ray
            import ray.data
        except ImportError:
            raise MissingExtraError("ray", extra="ray", key="on") from None
        was_there = ray.is_initialized()
        try:
            if not was_there:
                ray.init(address=cluster.address or None, log_to_driver=False, **_local(cluster))
        except Exception as error:  # its text holds addresses
            raise ScoringError(
                f"The Ray cluster cannot be reached or started ({type(error).__name__}). Check the address.", key="on"
            ) from None
        ray.data.DataContext.get_current().enable_progress_bars = False
        try:
            yield ray
        finally:
            if not was_there:
                ray.shutdown()
    finally:
        if kept is None:
            del os.environ["RAY_USAGE_STATS_ENABLED"]
        else:
            os.environ["RAY_USAGE_STATS_ENABLED"] = kept


def _local(cluster: Cluster) -> dict[str, Any]:
    """Settings that only a cluster started here can be given."""
    return {} if cluster.address else {"include_dashboard": False, "num_cpus": cluster.actors}
