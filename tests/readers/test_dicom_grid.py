"""A grid of generated files: each gives the pixels that it was made of, or is refused. No path sees other pixels."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.pixels import get_encoder
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from lepton_vision.errors import ReadError
from lepton_vision.readers.image import probe, read_image, read_named, read_pixels

Array = npt.NDArray[np.generic]
ROWS, COLUMNS = 33, 36
GE = "1.2.840.113619.5.2"


@dataclass(frozen=True)
class Pixels:
    """A kind of pixels."""

    allocated: int
    stored: int
    signed: bool = False
    photometric: str = "MONOCHROME2"
    planar: int = 0
    frames: int = 1
    high: int | None = None

    @property
    def samples(self) -> int:
        return 1 if self.photometric.startswith(("MONO", "PAL")) else 3

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return np.dtype(f"<{'i' if self.signed else 'u'}{max(8, self.allocated) // 8 if self.allocated != 12 else 2}")

    @property
    def shift(self) -> int:
        return 0 if self.high is None else self.high - self.stored + 1

    @property
    def tolerance(self) -> float:
        """YBR is rounded; 32 bits become 24, and those of MONOCHROME1 are rounded twice."""
        return 1.0 if self.photometric == "YBR_FULL" else 512.0 if self.allocated == 32 else 0.0

    def values(self) -> Array:
        """Stored values (F, H, W[, 3]) with both ends of their range."""
        low = -(1 << self.stored - 1) if self.signed else 0
        high = low + (1 << self.stored) - 1
        shape = (self.frames, ROWS, COLUMNS, self.samples)[: 3 if self.samples == 1 else 4]
        found = np.random.default_rng(self.stored).integers(low, high, shape, endpoint=True).astype(self.dtype)
        found = np.sort(found, axis=1)  # noise cannot be compressed
        found.reshape(-1)[:2] = low, high
        return found

    def cells(self) -> Array:
        """What lies in the file: values at their place in the allocated bits, with an overlay in the others."""
        values = self.values()
        if self.allocated in (1, 12) or self.stored == self.allocated:
            return values
        cells = values.astype(f"u{self.dtype.itemsize}") & np.array((1 << self.stored) - 1, f"u{self.dtype.itemsize}")
        unused = (1 << self.allocated) - 1 - ((1 << self.stored) - 1 << self.shift)
        noise = np.random.default_rng(1).integers(0, 2, cells.shape).astype(cells.dtype) * np.array(unused, cells.dtype)
        return (cells << np.array(self.shift, cells.dtype) | noise).view(self.dtype)

    def native(self, *, little: bool = True, is_word: bool = False) -> bytes:
        """Uncompressed pixel data; ``is_word``: bytes lie in 16-bit words."""
        cells = self.cells()
        if self.planar:
            cells = np.moveaxis(cells, 3, 1)
        if self.allocated == 1:
            data = np.packbits(cells.reshape(-1), bitorder="little").tobytes()
        elif self.allocated == 12:
            flat = cells.reshape(-1, 2).astype(np.uint32) & 0xFFF
            joint = flat[:, 0] | flat[:, 1] << 12
            data = np.stack([joint & 255, joint >> 8 & 255, joint >> 16], axis=1).astype(np.uint8).tobytes()
        else:
            data = cells.astype(cells.dtype.newbyteorder("<" if little else ">")).tobytes()
        data += b"\0" * (len(data) % 2)
        is_swapped = not little and is_word and self.allocated in (1, 8, 12)
        return np.frombuffer(data, "<u2").byteswap().tobytes() if is_swapped else data

    def header(self, *, little: bool = True) -> Dataset:
        dataset = Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3.4"
        dataset.Modality, dataset.PatientID = "OT", "p"
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = self.samples, self.photometric
        if self.samples == 3:
            dataset.PlanarConfiguration = self.planar
        if self.frames > 1:
            dataset.NumberOfFrames = self.frames
        dataset.Rows, dataset.Columns = ROWS, COLUMNS
        dataset.BitsAllocated, dataset.BitsStored = self.allocated, self.stored
        dataset.HighBit = self.stored - 1 + self.shift
        dataset.PixelRepresentation = int(self.signed)
        if self.photometric == "PALETTE COLOR":
            for place, color in enumerate(("Red", "Green", "Blue")):
                first = 65536 - 100 if self.signed else 3
                setattr(dataset, f"{color}PaletteColorLookupTableDescriptor", [200, first, 16])
                dataset[f"{color}PaletteColorLookupTableDescriptor"].VR = "US"
                setattr(
                    dataset,
                    f"{color}PaletteColorLookupTableData",
                    palette()[place].astype("<u2" if little else ">u2").tobytes(),
                )
        return dataset

    def truth(self) -> npt.NDArray[np.float64]:
        """Pixels (C, F, H, W) as ``read_image`` gives them."""
        values = self.values().astype(np.float64)
        if self.photometric == "PALETTE COLOR":
            first = -100 if self.signed else 3
            return palette()[:, np.clip(values.astype(int) - first, 0, 199)]
        if self.photometric == "YBR_FULL":  # PS3.3 C.7.6.3.1.2
            y, cb, cr = np.moveaxis(values, 3, 0) - np.array([0, 128, 128])[:, None, None, None]
            red, blue = y + 1.402 * cr, y + 1.772 * cb
            return np.clip(np.stack([red, (y - 0.299 * red - 0.114 * blue) / 0.587, blue]), 0, 255)
        if self.photometric == "MONOCHROME1":
            values = (-1.0 if self.signed else (1 << self.stored) - 1.0) - values
        return values[None] if self.samples == 1 else np.moveaxis(values, 3, 0)

    def range(self) -> tuple[float, float]:
        if self.photometric == "PALETTE COLOR":
            return 0.0, 65535.0
        half = float(1 << self.stored - 1)
        low, high = (-half, half - 1) if self.signed else (0.0, 2 * half - 1)
        return float(np.float32(low)), float(np.float32(high))


def palette() -> npt.NDArray[np.float64]:
    return np.stack([np.arange(200) * step % 65536 for step in (300, 11, 7)]).astype(np.float64)


def write(
    path: Path,
    dataset: Dataset,
    *,
    declared: str,
    implicit: bool,
    little: bool = True,
    later_implicit: bool | None = None,
    change_at: int = 0x00280010,
) -> Path:
    """Write a data set in any encoding under any transfer syntax; from one element on perhaps in another."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = declared
    head = DicomBytesIO()
    write_file_meta_info(head, meta, enforce_standard=False)
    body = b""
    later = implicit if later_implicit is None else later_implicit
    for is_late, is_implicit in ((False, implicit), (True, later)):
        part, plain = DicomBytesIO(), Dataset()
        plain.update({element.tag: element for element in dataset if (element.tag >= change_at) == is_late})
        part.is_implicit_VR, part.is_little_endian = is_implicit, little
        write_dataset(part, plain)
        body += part.getvalue()
    if declared == DeflatedExplicitVRLittleEndian:
        engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        body = engine.compress(body) + engine.flush()
    path.write_bytes(b"\0" * 128 + b"DICM" + head.getvalue() + body)
    return path


def outcome(read: Callable[[Path], object], path: Path) -> object:
    try:
        return read(path)
    except ReadError as error:
        return error.reason


def check(path: Path, kind: Pixels, *, may_refuse: bool = False) -> bool:
    """Hold every way to read a file against the truth; whether it was read."""
    truth = kind.truth()
    if may_refuse and isinstance(outcome(read_image, path), str):
        reasons = {outcome(read, path) for read in (read_image, read_pixels, read_named, probe)}
        assert len(reasons) == 1, reasons
        return False
    image = read_image(path)
    wanted = truth if kind.frames > 1 else truth[:, 0]
    for one in (image, read_pixels(path), read_named(path)):
        assert one.pixels.shape == wanted.shape
        assert np.abs(one.pixels - wanted.astype(np.float32)).max() <= kind.tolerance
        assert one.value_range == kind.range()
        assert one.value_range[0] <= one.pixels.min()
        assert one.pixels.max() <= one.value_range[1]
    last = kind.frames - 1
    assert np.abs(read_image(path, frame=last).pixels - truth[:, last].astype(np.float32)).max() <= kind.tolerance
    found = probe(path)
    assert (found.frames, found.rows, found.columns) == (kind.frames, ROWS, COLUMNS)
    return True


def native_kinds() -> Iterator[Pixels]:
    for frames, signed, (allocated, stored, high) in itertools.product(
        (1, 3),
        (False, True),
        ((8, 8, None), (8, 6, None), (16, 16, None), (16, 12, None), (16, 12, 15), (32, 32, None)),
    ):
        for photometric in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"):
            if photometric != "PALETTE COLOR" or allocated < 32:
                yield Pixels(allocated, stored, signed, photometric, frames=frames, high=high)
        if not signed and high is None:
            for planar in (0, 1):
                yield Pixels(allocated, stored, signed, "RGB", planar, frames)
        if (allocated, stored, signed) == (8, 8, False):
            yield from (Pixels(8, 8, False, "YBR_FULL", planar, frames) for planar in (0, 1))
    yield from (Pixels(bits, bits, frames=frames) for bits in (1, 12) for frames in (1, 3))


# Transfer syntax, and whether what is found there is implicit and little endian.
FOUND = [
    (ImplicitVRLittleEndian, True, True), (ImplicitVRLittleEndian, False, True), (ExplicitVRLittleEndian, False, True),
    (ExplicitVRLittleEndian, True, True), (ExplicitVRBigEndian, False, False), (GE, True, True), (GE, False, True),
    (DeflatedExplicitVRLittleEndian, False, True), (DeflatedExplicitVRLittleEndian, True, True),
]  # fmt: skip
IN_DOUBT = [
    (ImplicitVRLittleEndian, False, False), (ExplicitVRLittleEndian, False, False), (ExplicitVRBigEndian, False, True),
    (ExplicitVRBigEndian, True, True), (JPEG2000Lossless, False, True), (RLELossless, True, True),
    ("1.2.3.4.5", False, True),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("declared", "implicit", "little"), FOUND)
def test_native_pixels(tmp_path: Path, declared: str, implicit: bool, little: bool) -> None:
    read = 0
    for kind, vr in itertools.product(native_kinds(), ("OB", "OW")):
        if vr == "OB" and (implicit or kind.allocated > 8):
            continue  # no such thing in the standard
        dataset = kind.header(little=little)
        dataset.PixelData = kind.native(little=little and declared != GE, is_word=vr == "OW")
        dataset["PixelData"].VR = vr
        path = write(tmp_path / "a.dcm", dataset, declared=declared, implicit=implicit, little=little)
        is_read = check(path, kind, may_refuse=declared == GE and kind.allocated != 16)
        assert is_read == (declared != GE or kind.allocated == 16)
        read += is_read
    assert read >= 40


@pytest.mark.parametrize(("declared", "implicit", "little"), IN_DOUBT)
def test_encodings_that_leave_a_doubt_are_refused(tmp_path: Path, declared: str, implicit: bool, little: bool) -> None:
    for kind in (Pixels(8, 8), Pixels(16, 12, frames=3), Pixels(8, 8, photometric="RGB")):
        dataset = kind.header()
        dataset.PixelData = kind.native(little=little)
        dataset["PixelData"].VR = "OW"
        path = write(tmp_path / "a.dcm", dataset, declared=declared, implicit=implicit, little=little)
        assert not check(path, kind, may_refuse=True)


@pytest.mark.parametrize("declared", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize("implicit", [True, False])
def test_encodings_that_change_on_the_way(tmp_path: Path, declared: str, implicit: bool) -> None:
    for kind, place in itertools.product(native_kinds(), (0x00280010, 0x7FE00010)):
        dataset = kind.header()
        dataset.PixelData = kind.native()
        dataset["PixelData"].VR = "OW"
        path = write(
            tmp_path / "a.dcm", dataset, declared=declared, implicit=implicit, later_implicit=not implicit,
            change_at=place,
        )  # fmt: skip
        may_refuse = implicit and place == 0x00280010  # where pydicom cannot follow
        assert check(path, kind, may_refuse=may_refuse) != may_refuse


COMPRESSED = [RLELossless, JPEG2000Lossless, JPEGLSLossless]
OTHERS = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, GE, JPEGLossless, *COMPRESSED]


def compressed_kinds() -> Iterator[Pixels]:
    for frames, (allocated, stored), photometric in itertools.product(
        (1, 3), ((8, 8), (16, 12), (16, 16)), ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
    ):
        for signed in (False, True):
            yield Pixels(allocated, stored, signed, photometric, frames=frames)
    for frames, planar in itertools.product((1, 3), (0, 1)):
        yield Pixels(8, 8, False, "RGB", planar, frames)
        yield Pixels(16, 16, False, "RGB", planar, frames)
        yield Pixels(8, 8, False, "YBR_FULL", planar, frames)


def compress(kind: Pixels, syntax: str) -> list[bytes]:
    """Compressed frames, by pydicom; what it is given is color by pixel, and without an overlay."""
    values = kind.values()
    return [get_encoder(syntax).encode(values[index], **encoding(kind)) for index in range(kind.frames)]


def encoding(kind: Pixels) -> dict[str, Any]:
    """What pydicom's encoders want to know."""
    return {
        "rows": ROWS, "columns": COLUMNS, "samples_per_pixel": kind.samples, "bits_allocated": kind.allocated,
        "bits_stored": kind.stored, "pixel_representation": int(kind.signed), "number_of_frames": 1,
        "photometric_interpretation": "MONOCHROME2" if kind.samples == 1 else "RGB", "planar_configuration": 0,
    }  # fmt: skip


@pytest.mark.parametrize("syntax", COMPRESSED)
def test_compressed_pixels(tmp_path: Path, syntax: str) -> None:
    path = tmp_path / "a.dcm"
    for count, kind in enumerate(compressed_kinds()):
        dataset = kind.header()
        frames = compress(kind, syntax)
        dataset.PixelData = encapsulate(frames, has_bot=count % 2 == 0, fragments_per_frame=1 + count % 3)
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        implicit = count % 3 == 0
        assert check(write(path, dataset, declared=syntax, implicit=implicit), kind)
        other = OTHERS[count % len(OTHERS)]
        if other != syntax:
            assert not check(write(path, dataset, declared=other, implicit=implicit), kind, may_refuse=True)
        if kind.frames > 1:
            del dataset.NumberOfFrames
            write(path, dataset, declared=syntax, implicit=implicit)
            assert outcome(read_image, path) == outcome(probe, path) == "mismatch"


@pytest.mark.parametrize("stated", [None, "1", "2", "1A"])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_frames_that_the_header_does_not_tell_of_are_not_left_out(
    tmp_path: Path, syntax: str, stated: str | None
) -> None:
    for kind in (one for one in native_kinds() if one.frames == 3 and one.allocated > 1):
        dataset = kind.header()
        dataset.PixelData = kind.native()
        dataset["PixelData"].VR = "OW"
        del dataset.NumberOfFrames
        if stated is not None:
            dataset[0x00280008] = DataElement(0x00280008, "LO", stated)
        path = write(tmp_path / "a.dcm", dataset, declared=syntax, implicit=syntax == ImplicitVRLittleEndian)
        assert outcome(read_image, path) == outcome(read_pixels, path) == outcome(probe, path) == "mismatch"


def test_padding_is_no_frame(tmp_path: Path) -> None:
    kind = Pixels(16, 12, frames=3)
    dataset = kind.header()
    dataset.PixelData = kind.native() + b"\0" * (ROWS * COLUMNS)
    dataset["PixelData"].VR = "OW"
    assert check(write(tmp_path / "a.dcm", dataset, declared=ExplicitVRLittleEndian, implicit=False), kind)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_subsampled_color_is_as_long_as_one_way_of_writing_it(tmp_path: Path, length: int) -> None:
    """Two thirds of the bytes are subsampled, all of them written in full; anything longer is in doubt."""
    kind = Pixels(8, 8, photometric="YBR_FULL_422")
    dataset = kind.header()
    dataset.PixelData = b"\x80" * (ROWS * COLUMNS * (1 + length))
    dataset["PixelData"].VR = "OB"
    path = write(tmp_path / "a.dcm", dataset, declared=ExplicitVRLittleEndian, implicit=False)
    if length == 3:
        assert outcome(read_image, path) == outcome(probe, path) == "mismatch"
    else:
        assert (read_image(path).pixels == 128).all()


def test_a_codestream_may_hold_more_bits_than_the_header_says(tmp_path: Path) -> None:
    kind = Pixels(16, 16)
    dataset = kind.header()
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.PixelData = encapsulate(compress(kind, JPEG2000Lossless))
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    assert check(write(tmp_path / "a.dcm", dataset, declared=JPEG2000Lossless, implicit=False), kind)


def test_rle_holds_native_cells(tmp_path: Path) -> None:
    kind, cells = Pixels(16, 12, high=15), Pixels(16, 16)
    dataset = kind.header()
    frame = get_encoder(RLELossless).encode(kind.cells()[0], **encoding(cells))
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    assert check(write(tmp_path / "a.dcm", dataset, declared=RLELossless, implicit=False), kind)


@pytest.mark.parametrize("little", [True, False])
def test_words_of_a_lookup_table_have_the_order_of_their_file(tmp_path: Path, little: bool) -> None:
    kind, table = Pixels(8, 8), Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [256, 0, 16], "US"
    table["LUTDescriptor"].VR = "US"
    table.LUTData = (np.arange(256) * 3).astype("<u2" if little else ">u2").tobytes()
    table["LUTData"].VR = "OW"
    dataset = kind.header()
    dataset.ModalityLUTSequence = [table]
    dataset.PixelData = kind.native()
    dataset["PixelData"].VR = "OB"
    declared = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    image = read_image(write(tmp_path / "a.dcm", dataset, declared=declared, implicit=False, little=little))
    np.testing.assert_array_equal(image.pixels, kind.values() * np.float32(3))
    assert image.value_range == (0.0, 765.0)
