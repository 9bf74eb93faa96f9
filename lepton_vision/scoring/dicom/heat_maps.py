"""Heat maps of a classifier as DICOM Secondary Capture (PS3.3 A.8.1) beside the image. Uses highdicom.

Like a report (``report``), it carries patient and study of its source, and is written only where it is asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import as_tensor

from lepton_vision._version import __version__
from lepton_vision.errors import ConfigError
from lepton_vision.inference.explain import RgbPixels, can_explain, grad_cam
from lepton_vision.models.bundle import Bundle
from lepton_vision.readers.dicom.sources import read_sources, refer_to
from lepton_vision.readers.limits import Limits
from lepton_vision.readers.quiet import quiet
from lepton_vision.readers.versions import package_version
from lepton_vision.scoring.dicom.segmentation import (
    PRODUCT,
    build_file,
    check_text,
    content_time,
    fix_content_time,
    make_uid,
)
from lepton_vision.transforms.preprocess import to_input
from lepton_vision.transforms.resize import UInt16Pixels
from lepton_vision.types import Pixels

_SERIES_NUMBER = 9003  # behind those of the segmentations and reports


class HeatMaps:
    """Grad-CAM of one bundle.

    Args:
        bundle: a 2-D classifier of whole images.

    Raises:
        ConfigError: it is another.
    """

    def __init__(self, bundle: Bundle) -> None:
        if not can_explain(bundle) or not bundle.targets:
            raise ConfigError(
                "Expected a classifier of whole 2-D images for heat maps. Received: one of volumes, of regions, or "
                "without targets. Leave the heat maps out.",
                key="cams",
            )
        self._network, self._config = bundle.network(), bundle.config.preprocess

    def of(self, pixels: UInt16Pixels, *, target: str, class_index: int) -> Pixels:
        """Heat of one class, (H, W) float32, 0 or more, for one image (C, H, W); see ``grad_cam``."""
        images = as_tensor(to_input(pixels[None], self._config))
        return np.asarray(grad_cam(self._network, images, target=target, class_index=class_index)[0])


def heat_map_bytes(
    picture: RgbPixels,
    *,
    finding: str,
    bundle_id: str,
    source: str | Path | Sequence[str | Path],
    frame: int | None,
    limits: Limits,
) -> bytes:
    """Return a Secondary Capture of an RGB picture, (H, W, 3), that refers to its source and belongs to its study.

    THE FILE HOLDS PATIENT DATA, see ``report.write_structured_report``. The same picture and source give the same
    bytes.

    Raises:
        ScoringError: a name that DICOM cannot hold, or a source that nothing can be derived from.
        ReadError: ``source`` cannot be read.
    """
    check_text(finding, "finding")
    with quiet:  # values of headers must reach no log
        header = read_sources(source, limits=limits)[0].header
        return build_file(
            lambda: _build(picture, header, finding=finding, bundle_id=bundle_id, frame=frame),
            expected="Expected a DICOM image that a picture can be filed beside. Received: none",
        )


def _build(picture: RgbPixels, header: Any, *, finding: str, bundle_id: str, frame: int | None) -> Any:
    from highdicom.sc import SCImage

    day, time = content_time([header], None)
    series = ["heat map series", str(header.SeriesInstanceUID), bundle_id]
    digest = hashlib.sha256(picture.tobytes()).hexdigest()
    content = [str(header.SOPInstanceUID), frame, finding, digest, __version__, package_version("highdicom")]
    capture = SCImage.from_ref_dataset(
        header,
        picture,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        series_instance_uid=make_uid(series),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=make_uid([*series, *content]),
        instance_number=1,
        manufacturer=PRODUCT,
        patient_orientation=("L", "P") if not header.get("PatientOrientation") else header.PatientOrientation,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
    )
    for keyword in ("PatientOrientation", "Laterality"):  # type 2C: unknown, not guessed
        setattr(capture, keyword, header.get(keyword) or "")
    capture.SeriesDescription, capture.SpecificCharacterSet = "Grad-CAM", "ISO_IR 192"
    capture.DerivationDescription = (
        f"Grad-CAM of {finding} by {PRODUCT} {__version__}, bundle {bundle_id}; no diagnosis"
    )
    said = str(header.get("BurnedInAnnotation") or "")
    if said in ("YES", "NO"):  # the picture shows the image: nobody knows more than its header says
        capture.BurnedInAnnotation = said
    elif "BurnedInAnnotation" in capture:
        del capture.BurnedInAnnotation
    capture.SourceImageSequence = [refer_to(header, frame=frame)]
    capture.ContentDate, capture.ContentTime = day, time  # type: ignore[assignment]
    fix_content_time(capture, time=(day, time))
    return capture
