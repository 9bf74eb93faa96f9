"""Compressed streams with runaway sizes, recognised by their headers."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image as Pillow

from lepton_vision.errors import ReadError
from lepton_vision.readers.dicom.codestream import check_scans, is_usual_jpeg2000, parse_jpeg
from lepton_vision.readers.limits import Limits

NOISE = np.random.default_rng(0).integers(0, 256, (64, 48), dtype=np.uint8)


def encode(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(NOISE).save(buffer, kind, **options)
    return buffer.getvalue()


def reason_of(data: bytes, limits: Limits) -> str:
    with pytest.raises(ReadError) as caught:
        check_scans(data, limits=limits)
    return caught.value.reason


def test_scans_count_with_the_blocks_they_run_over() -> None:
    data, blocks = encode("JPEG", progressive=True), 8 * 6
    assert data.count(b"\xff\xda") == 6  # libjpeg's script for gray
    enough = 6 * blocks * 60e-9
    check_scans(data, limits=Limits(seconds=1.01 * enough))
    assert reason_of(data, Limits(seconds=0.99 * enough)) == "too_large"


def test_only_scans_that_are_decoded_count() -> None:
    """libjpeg decodes one scan of all components and refuses a second; components in scans of their own are decoded."""
    data = encode("JPEG")
    scan = data[data.index(b"\xff\xda") : -2]
    many = data[:-2] + scan * 50 + data[-2:]
    check_scans(many, limits=Limits(seconds=1e-6))
    with pytest.raises(OSError, match="broken"):
        Pillow.open(io.BytesIO(many)).load()
    place = data.index(b"\xff\xc0") + 9
    two = bytearray(many)
    two[place] = 2  # components in the frame header, one in the scan
    assert reason_of(bytes(two), Limits(seconds=1e-6)) == "too_large"


def test_segments_before_the_data_are_bounded() -> None:
    data = encode("JPEG")
    comment = b"\xff\xfe\x00\x04hi"
    check_scans(data[:2] + comment * 10_000 + data[2:], limits=Limits())
    assert reason_of(data[:2] + comment * 20_000 + data[2:], Limits()) == "too_large"
    with pytest.raises(ReadError, match="segments"):
        parse_jpeg(data[:2] + b"\xff" * 100_000 + data[2:])  # fill bytes


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"no_jp2": True},
        {"irreversible": True},
        {"tile_size": (32, 32)},
        {"num_resolutions": 3},
        {"progression": "RPCL"},
    ],
)
def test_what_encoders_write_is_usual(options: dict[str, object]) -> None:
    assert is_usual_jpeg2000(encode("JPEG2000", **options))


def test_what_can_take_minutes_is_not() -> None:
    data = encode("JPEG2000", no_jp2=True)
    place = data.index(b"\xff\x52")
    layers = bytearray(data)
    struct.pack_into(">H", layers, place + 6, 65535)
    assert not is_usual_jpeg2000(bytes(layers))
    precincts = bytearray(data)
    precincts[place + 4] |= 1
    assert not is_usual_jpeg2000(bytes(precincts))
    tiles = bytearray(data)
    struct.pack_into(">2I", tiles, 24, 1, 1)
    assert not is_usual_jpeg2000(bytes(tiles))
    assert not is_usual_jpeg2000(data.replace(b"\xff\x52", b"\xff\x64", 1))  # a comment in place of the style
    assert not is_usual_jpeg2000(data[:50])
    assert not is_usual_jpeg2000(encode("JPEG2000", no_jp2=True, precinct_size=(64, 64)))
