"""Compressed frames in several fragments, whose borders have no meaning."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from lepton_vision.readers.image import probe, read_image

Make = Callable[..., Path]


@pytest.mark.parametrize("pieces", [1, 2, 16, 64])
@pytest.mark.parametrize("has_table", [False, True])
def test_a_header_of_a_frame_may_go_on_in_the_next_piece(make_dicom: Make, pieces: int, has_table: bool) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    stream = BytesIO()
    Pillow.fromarray(values).save(stream, "JPEG")
    data = encapsulate([stream.getvalue()], fragments_per_frame=pieces, has_bot=has_table)
    path = make_dicom(values, syntax=JPEGBaseline8Bit, PixelData=data)
    assert probe(path).frames == 1
    np.testing.assert_array_equal(read_image(path).pixels[0], np.asarray(Pillow.open(stream)))
