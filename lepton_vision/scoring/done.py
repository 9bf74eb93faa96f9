"""Inputs that have rows already, packed: 16 bytes each, where a set of texts takes a hundred."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lepton_vision.errors import ScoringError
from lepton_vision.scoring.inputs import Inputs

Words = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class DoneInputs:
    """Path ids and source versions, as the numbers that their hexadecimal digits are.

    Attributes:
        ids: (N,) uint64, rising, each once.
        versions: (N,) uint64; 0 where unknown.
    """

    ids: Words
    versions: Words

    @classmethod
    def of(cls, ids: Words, versions: Words) -> DoneInputs:
        """Sort them.

        Raises:
            ScoringError: an input stands twice.
        """
        order = np.argsort(ids)
        ids = ids[order]
        twice = int((ids[1:] == ids[:-1]).sum())
        if twice:
            raise ScoringError(
                f"Expected the rows of an input in one shard. Received: {twice} inputs with rows in several; a shard "
                "was copied into the output folder. Take it out, or start over with resume off."
            )
        return cls(ids, versions[order])

    def __len__(self) -> int:
        return self.ids.size

    def mark(self, path_ids: Words) -> npt.NDArray[np.bool_]:
        """Mark those of (M,) path ids that have rows."""
        return np.isin(path_ids, self.ids, assume_unique=True)

    def version(self, path_id: int) -> int:
        """Version of an input that has rows; 0 where unknown."""
        return int(self.versions[np.searchsorted(self.ids, np.uint64(path_id))])


def refuse_changed(inputs: Inputs, done: DoneInputs, *, is_done: npt.NDArray[np.bool_]) -> None:
    """Compare size and time of the inputs that have rows with what they were when they were read.

    Args:
        inputs: of this run.
        done: of earlier runs.
        is_done: (N,) which inputs have rows.

    Raises:
        ScoringError: an input is another one by now: its row would be of an image that is no longer there.
    """
    changed = 0
    if is_done.any():
        for one, known in zip(inputs, is_done.tolist(), strict=True):
            if known and (recorded := done.version(int(one.path_id, 16))):
                now = one.version()
                changed += now is not None and int(now, 16) != recorded
    if changed:
        raise ScoringError(
            f"Expected inputs as they were when they were scored. Received: {changed} that have changed since (size or "
            "time of the file). Name another output folder, or start over with resume off (--no-resume).",
            key="inputs",
        )
