"""Child process of ``dicom.child``: decodes frames from standard input to standard output, until its input ends.

Run as ``python -m lepton_vision.readers.dicom.decode_worker``. It limits its own memory and processor time, so that a
hostile frame ends this process and nothing else.
"""

from __future__ import annotations

import importlib
import math
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, SecondaryCaptureImageStorage, generate_uid

from lepton_vision.errors import ReadError
from lepton_vision.readers.dicom.child import receive, send
from lepton_vision.readers.dicom.decode import decode_with_pydicom, encapsulate_frame
from lepton_vision.readers.dicom.layout import PixelLayout
from lepton_vision.readers.pages import read_picture

_LONGEST = 2**33
_MODULES = {"simpleitk": "SimpleITK", "gdcm": "gdcm"}
_BASE_MEMORY = 2 * 1024**3


def main() -> None:
    """Answer requests until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    # Decoders print; nothing of that may get between the answers.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    folder = ""
    try:
        while True:
            request, data = receive(requests, most=_LONGEST)
            folder = request["folder"]
            _answer(answers, request, data=bytes(data))
    except EOFError:
        pass
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _answer(answers: IO[bytes], request: dict[str, Any], *, data: bytes) -> None:
    started, pixels = time.process_time(), np.empty(0, np.uint8)
    try:
        if module := _MODULES.get(request.get("plugin", "")):
            importlib.import_module(module)  # large, and no part of what a file may take
            started = time.process_time()
        _limit(request)
        pixels = np.ascontiguousarray(_decode(request, data))
        facts: dict[str, Any] = {"dtype": pixels.dtype.str, "shape": pixels.shape}
    except ImportError as error:
        facts = {"error": type(error).__name__, "is_missing": True}
    except ReadError as error:  # our own words
        facts = {"error": str(error), "reason": error.reason}
    except BaseException as error:
        # Only the type: the text may quote the file.
        facts = {"error": type(error).__name__}
    facts["seconds"] = time.process_time() - started
    send(answers, facts, data=pixels.reshape(-1).view(np.uint8).data)


def _limit(request: dict[str, Any]) -> None:
    """Lower the soft limits of this process: time and memory count from what it has used by now."""
    if sys.platform == "win32":
        return
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    seconds = math.ceil(usage.ru_utime + usage.ru_stime + request["seconds"]) + 1
    for kind, soft in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, _held_bytes() + int(request["memory"]))):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _held_bytes() -> int:
    """Address space of this process; a round number where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        return _BASE_MEMORY
    return pages * os.sysconf("SC_PAGE_SIZE")


def _decode(request: dict[str, Any], data: bytes) -> npt.NDArray[Any]:
    if "picture" in request:
        return read_picture(data, kind=request["picture"])
    layout = PixelLayout(**request["layout"])
    if request["plugin"] != "simpleitk":
        return decode_with_pydicom(data, request["syntax"], plugin=request["plugin"], layout=layout)
    return _decode_with_simpleitk(data, request["syntax"], layout=layout, folder=Path(request["folder"]))


def _decode_with_simpleitk(data: bytes, syntax: str, *, layout: PixelLayout, folder: Path) -> npt.NDArray[Any]:
    """SimpleITK reads files only: write one that holds nothing but the frame and its layout.

    Without rescale, MONOCHROME1 and palette in the header it returns stored values.
    """
    import SimpleITK

    path = folder / "frame.dcm"
    dataset = _minimal_dataset(data, syntax, layout=layout)
    try:
        dataset.save_as(path, enforce_file_format=True)
        pixels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path), imageIO="GDCMImageIO"))
    finally:
        path.unlink(missing_ok=True)
    shape = (layout.rows, layout.columns) if layout.samples == 1 else (layout.rows, layout.columns, layout.samples)
    return np.asarray(pixels).reshape(shape).astype(layout.dtype)


def _minimal_dataset(data: bytes, syntax: str, *, layout: PixelLayout) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.Rows, dataset.Columns = layout.rows, layout.columns
    dataset.SamplesPerPixel = layout.samples
    dataset.PhotometricInterpretation = "MONOCHROME2" if layout.samples == 1 else layout.photometric
    if layout.samples > 1:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated, dataset.BitsStored = layout.bits_allocated, layout.bits_stored
    dataset.HighBit = layout.bits_stored - 1
    dataset.PixelRepresentation = int(layout.is_signed)
    dataset.PixelData = encapsulate_frame(data)[:-8]  # pydicom writes the end of the sequence itself
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


if __name__ == "__main__":
    main()
