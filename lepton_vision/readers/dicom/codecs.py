"""Decoders of DICOM transfer syntaxes as they work on this machine, each tried on a frame of 8 x 8 pixels."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from lepton_vision.errors import ReadError
from lepton_vision.readers.dicom.decode import ROUTES, decode_frame
from lepton_vision.readers.dicom.layout import PixelLayout
from lepton_vision.readers.limits import Limits
from lepton_vision.types import Plain

_NAMES = {"1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression"}  # pydicom 3.0 does not know it
_SIDE = 8
_LIMITS = Limits(seconds=10.0, memory=2**30)  # whatever the environment says, which may be wrong
_LOSS = 0.02  # of the range, that lossy compression at highest quality may change


class _Sample(NamedTuple):
    """A compressed frame, whose pixels rise evenly from the first to the last, in base 85."""

    syntax: str
    bits: int
    frame: str


_SAMPLES = {
    "pillow": _Sample(
        "1.2.840.10008.1.2.4.50",
        8,
        "|JeWF01!$>Nk#wx0RR9200961|JwjV009930RaI40RaI40RaI40s#R50RaL50RaL60s;a80s;a90|WyD0|NsB0s{mC0|W#F1Ox&D1qB2"
        "I1q1{H1pmMQ3kU!R00;pA5di<h02BZL00000000000000000005|HJ?r5C8xN0RR910000000000000LHCNxD+;{VzJ2mt{A06zdcwoS"
        "x#7FO~<|Je",
    ),
    "simpleitk": _Sample(
        "1.2.840.10008.1.2.4.51",
        12,
        "|JeWF01!$>Nk#wx0RR9200961|JwjV009930RaI40RaI40RaI40s#R50RaL50RaL60s;a80s;a90|WyD0|NsB0s{mC0|W#F1Ox&D1qB2"
        "I1q1{H1pmPR3k(1V00;pA5di<h02BZL00000000000000000009|HJ?s5C8xM0{{R30000000000000XPDmO`0Wpn@900;pA002J#Kg)"
        "4V#=xvE#@630F#rGA",
    ),
    "python-gdcm": _Sample(
        "1.2.840.10008.1.2.4.70",
        12,
        "|JeWF01!$>Nk#wx0RR9200961|HA+a5C8}O2mt{R0RO}Q761VO0RR910000000000000LH5dYc$2mt{A0RRBV2nYxW2nZAafPjF2fPjH"
        "O2nYxW2nYxi0DypifPjF3KnMs32nYxW6aavLfPjF2fj|fd2nYxW2owN-fPjF2fPw$n",
    ),
    "pyjpegls": _Sample(
        "1.2.840.10008.1.2.4.80",
        12,
        "|JeWc01FTR2mlBH0TBTI_y7$7|Nj6I07C&306_oR00;pA00000qx^r5@%DR<@$~>C1b&|<tHs(tAO+IpaJO46QTzWb9Ne5-8`J0f+}ha"
        "I)Y6{6)`oUwRz@}B{9<8XUtV2ZzqQ4+wWXDn(EtD0",
    ),
    "pylibjpeg-openjpeg": _Sample(
        "1.2.840.10008.1.2.4.90",
        8,
        "|4;u>04V?f0000800008000000000000008000080000000000009R90sm3}3;+NC0RR951ONg5TmS?>K>uU_B>(|Ka%Ew3Wn>^?c_2@4"
        "Wo}APMMofZWpZ<AZ*CwmE;TMR|BwI*0000006PEy|C8T=P!cNx3kwtExi5u3I8cJ26#rIn!*hKk&M>{ba$`Q~#A@?QIyrrdF7{Xd*#",
    ),
    "pylibjpeg-rle": _Sample(
        "1.2.840.10008.1.2.5",
        12,
        "0ssI2KmY&$U;qFB00000000000000000000000000000000000000000000000000000000000000000{Q&&|{Q~_1{RI65{RaI9{RsU"
        "D{R;gH{S5sL{SN&P2LM2TzyLsizy|<8fWQDifWQX;K!CsiK!Csp06>7i06>7i2LM2TzyLsizy|<8fWQDifWQX;K!CsiK!Csp06>7i06>"
        "7i",
    ),
    "numpy": _Sample(
        "1.2.840.10008.1.2.8.1",
        12,
        "1;Gaa03ZMYF#KOD5shd>a{~y$KwwaCKx9;OL}F5MLS|NWMqyELL1k5SMPpNQLuXfa$KcTLz~t2Q#NyKO!sgcY#^KTN!R6KU#pBcS`v",
    ),
}
"""A frame for each decoder, by its distribution."""


@dataclass(frozen=True, slots=True)
class Codec(Plain):
    """A transfer syntax and its decoder here.

    Attributes:
        syntax: its UID.
        name: as PS3.6 has it.
        decoder: the distribution whose decoder reads it, and no other.
        fault: why it does not work; "" where it does.
    """

    syntax: str
    name: str
    decoder: str
    fault: str


def check_codecs() -> tuple[Codec, ...]:
    """Try the decoder of every compressed transfer syntax that is read."""
    faults = {package: _try(package) for package in _SAMPLES}
    return tuple(
        Codec(uid, _NAMES.get(uid, UID(uid).name), route.package, faults[route.package] or _unknown(uid, route.plugin))
        for uid, route in ROUTES.items()
    )


def _unknown(syntax: str, plugin: str) -> str:
    """What is wrong where pydicom has no such plugin for a syntax; "" where it has, or is not asked."""
    is_asked = plugin not in ("", "simpleitk")
    return (
        f"pydicom has no {plugin} for it"
        if is_asked and plugin not in get_decoder(UID(syntax)).available_plugins
        else ""
    )


def _try(package: str) -> str:
    """Decode the sample of a decoder and compare it with what was compressed."""
    sample = _SAMPLES[package]
    stored = 8 if sample.bits == 8 else 16
    layout = PixelLayout(_SIDE, _SIDE, 1, 1, stored, sample.bits, sample.bits - 1, False, False, "MONOCHROME2")
    try:
        frame, _ = decode_frame(base64.b85decode(sample.frame), sample.syntax, layout=layout, limits=_LIMITS)
    except ReadError as error:
        return str(error)
    step = 1 << (sample.bits - 6)
    expected = np.arange(_SIDE * _SIDE).reshape(_SIDE, _SIDE) * step
    largest = float(np.abs(frame.astype(np.int64) - expected).max())
    return "" if largest <= _LOSS * 2**sample.bits else "it gives other pixels than were compressed"
