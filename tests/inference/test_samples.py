"""Frames of a volume as samples of their own."""

from __future__ import annotations

from itertools import islice
from threading import Barrier, Event, Lock
from time import monotonic, sleep

import numpy as np

from lepton_vision.inference.samples import read_ahead
from lepton_vision.readers.frames import frames_of
from lepton_vision.types import Geometry, Image


def test_a_frame_keeps_its_place_in_the_patient() -> None:
    geometry = Geometry((1.0, 2.0, 3.0), ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)), (2.5, 0.5, 0.75))
    pixels = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    image = Image(pixels, spacing_mm=geometry.spacing_mm, geometry=geometry, image_id="a")
    first, second = frames_of(image)
    assert (first.image_id, second.image_id) == ("a-0", "a-1")
    assert first.spacing_mm == second.spacing_mm == (0.5, 0.75)
    np.testing.assert_array_equal(second.pixels, pixels[:, 1])
    assert second.geometry is not None
    assert second.geometry.origin_mm == (1.0, 2.0, 5.5)
    np.testing.assert_array_equal(second.geometry.affine @ [2, 1, 1], geometry.affine @ [1, 2, 1, 1])
    assert frames_of(Image(pixels, spacing_mm=(2.5, 0.5, 0.75)))[1].geometry is None


def test_results_come_in_order_and_two_readers_read_at_once_only_where_little_is_ready() -> None:
    both, lock, early = Barrier(2), Lock(), Event()
    running, done, crowded = 0, 0, dict[int, bool]()

    def read(job: int) -> int:
        nonlocal running, done
        if job < 2:
            both.wait(timeout=60)  # broken, and so an error, if they are not read at once
        with lock:
            running += 1
        if job >= 84:  # 48 of the 64 that may wait are ready once all before are done
            early.wait(timeout=60)
            sleep(0.01)
        with lock:
            crowded[job] = running > 1
            running, done = running - 1, done + 1
            if done == 84:
                early.set()
        return job

    found = read_ahead(range(300), read, workers=2, depth=64)
    first = list(islice(found, 36))  # 16 single files and 5 groups of 4: so many groups more may be read
    deadline = monotonic() + 60
    while done < 100 and monotonic() < deadline:
        sleep(0.01)
    assert done == 100
    assert not any(crowded[job] for job in range(84, 100))
    assert [*first, *found] == list(range(300))
