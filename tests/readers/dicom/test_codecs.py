"""Trial of the decoders of DICOM transfer syntaxes."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from pydicom.uid import UID, JPEGLSLossless, RLELossless

from lepton_vision.errors import ReadError
from lepton_vision.readers.dicom import codecs
from lepton_vision.readers.dicom.decode import ROUTES


def test_every_decoder_of_this_machine_works() -> None:
    found = codecs.check_codecs()
    assert [one.syntax for one in found] == list(ROUTES)
    assert {one.fault for one in found} == {""}
    assert {one.decoder for one in found} == set(codecs._SAMPLES)
    assert [one.name for one in found if one.name != UID(one.syntax).name] in ([], ["Deflated Image Frame Compression"])
    assert not [one for one in found if one.name[0].isdigit()]


def test_the_sample_of_run_lengths_is_what_pydicom_reads() -> None:
    """An independent decoder gives the pixels that all samples hold."""
    from pydicom.pixels.decoders.rle import _rle_decode_frame

    sample = codecs._SAMPLES["pylibjpeg-rle"]
    assert UID(sample.syntax) == RLELossless
    planes = _rle_decode_frame(base64.b85decode(sample.frame), 8, 8, 1, 16)
    assert np.frombuffer(planes, "<u2").tolist() == [64 * k for k in range(64)]


@pytest.mark.parametrize("fault", ["missing", "damaged", "other pixels"])
def test_a_decoder_that_fails_is_told_for_its_syntaxes_alone(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = codecs.decode_frame

    def decode(data: bytes, syntax: str, **how: object) -> tuple[np.ndarray, str]:
        if syntax != JPEGLSLossless:
            return usual(data, syntax, **how)  # type: ignore[arg-type]
        if fault == "other pixels":
            return np.zeros((8, 8), np.uint16), ""
        raise ReadError(f"It is {fault}.", reason="decoder_missing")

    monkeypatch.setattr(codecs, "decode_frame", decode)
    broken = [one for one in codecs.check_codecs() if one.fault]
    assert {one.decoder for one in broken} == {"pyjpegls"}
    assert len(broken) == 2
    assert fault in broken[0].fault
