"""Ordered processing of many files in worker processes, where a crash costs one row and not the scan."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Final

from lepton_vision.manifest.record import BASE, NO_RULES, Record, ScanRules, begin_worker, describe_file, describe_files
from lepton_vision.readers.identity import pseudonym

_BATCH: Final = 16
_FEW: Final = 128  # files: below, starting processes takes longer than it saves
Job = tuple[str, str]


def describe_all(
    jobs: Sequence[Job],
    *,
    workers: int | None,
    progress: Callable[[int, int], None] | None = None,
    rules: ScanRules = NO_RULES,
) -> Iterator[list[Record]]:
    """Rows of each file, in the order of ``jobs``.

    Args:
        jobs: (path, path relative to the root).
        workers: processes; None takes one per core for many files; 0 and 1 stay in this process.
        progress: called with (files done, files in all).
        rules: see ``record.ScanRules``.
    """
    count = workers if workers is not None else min(os.cpu_count() or 1, 16) if len(jobs) >= _FEW else 1
    described = _in_processes(jobs, count, rules=rules) if count > 1 and len(jobs) > 1 else _here(jobs, rules)
    for done, records in enumerate(described, start=1):
        if progress is not None:
            progress(done, len(jobs))
        yield records


def _here(jobs: Sequence[Job], rules: ScanRules) -> Iterator[list[Record]]:
    for path, relative in jobs:
        yield describe_file(path, relative, rules=rules)


def _pool(workers: int) -> ProcessPoolExecutor:
    # Not fork: a child of a process that runs threads (torch, OpenCV) may hang in a lock that no thread holds any more.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=begin_worker)


def _in_processes(jobs: Sequence[Job], workers: int, *, rules: ScanRules) -> Iterator[list[Record]]:
    batches = [jobs[start : start + _BATCH] for start in range(0, len(jobs), _BATCH)]
    pool = _pool(min(workers, len(batches)))
    try:
        try:
            pool.submit(int).result()
        except BrokenProcessPool:  # a script without `if __name__ == "__main__":` cannot start processes
            yield from _here(jobs, rules)
            return
        waiting: deque[tuple[Sequence[Job], Future[list[list[Record]]]]] = deque()
        for batch in batches:
            if len(waiting) >= 4 * workers:
                yield from _collect(*waiting.popleft(), rules=rules)
            try:
                waiting.append((batch, pool.submit(describe_files, batch, rules)))
            except BrokenProcessPool:
                pool = _pool(min(workers, len(batches)))
                waiting.append((batch, pool.submit(describe_files, batch, rules)))
        while waiting:
            yield from _collect(*waiting.popleft(), rules=rules)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _collect(batch: Sequence[Job], future: Future[list[list[Record]]], *, rules: ScanRules) -> list[list[Record]]:
    try:
        return future.result()
    except BrokenProcessPool:
        return [_describe_apart(job, rules) for job in batch]


def _describe_apart(job: Job, rules: ScanRules) -> list[Record]:
    """A file of a batch that killed its worker, in a process of its own."""
    with _pool(1) as pool:
        try:
            return pool.submit(describe_files, [job], rules).result()[0]
        except BrokenProcessPool:
            image_id = pseudonym("image", job[1])
            record = {"image_id": image_id, BASE: image_id, "path": job[1]}
            return [record | {"status": "rejected", "reason": "decoder_failed"}]
