"""Hostile files: bombs, damage and crashing decoders give a ReadError in bounded memory."""

from __future__ import annotations

import gzip
import io
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import threading
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image as Pillow
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from lepton_vision.errors import ReadError
from lepton_vision.readers.dicom import child as dicom_child
from lepton_vision.readers.dicom import decode as dicom_decode
from lepton_vision.readers.dicom.codestream import parse_jpeg, parse_jpeg2000
from lepton_vision.readers.image import Limits, probe, read_image

Make = Callable[..., Path]
GRAY = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
BASELINE, J2K, LOSSLESS_JPEG = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.70"


def reason_of(path: Path, **options: object) -> str:
    with pytest.raises(ReadError) as caught:
        read_image(path, **options)  # type: ignore[arg-type]
    return caught.value.reason


def jpeg_of(rows: int, columns: int) -> bytes:
    """A valid small JPEG whose frame header is made to announce other sizes."""
    buffer = io.BytesIO()
    Pillow.new("L", (16, 16)).save(buffer, "JPEG")
    data = bytearray(buffer.getvalue())
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", rows, columns)
    return bytes(data)


def jpeg2000_of(rows: int, columns: int) -> bytes:
    buffer = io.BytesIO()
    Pillow.new("L", (16, 16)).save(buffer, "JPEG2000", no_jp2=True)
    data = bytearray(buffer.getvalue())
    data[8:16] = struct.pack(">II", columns, rows)
    data[24:32] = struct.pack(">II", columns, rows)
    return bytes(data)


def peak_bytes(path: Path) -> int:
    """Peak memory that reading ``path`` adds in a fresh process."""
    code = (
        "import resource, sys\n"
        "from lepton_vision.readers.image import read_image\n"
        "from lepton_vision.errors import ReadError\n"
        "import pydicom.pixels, PIL.Image\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "before = peak()\n"
        "try:\n    read_image(sys.argv[1])\nexcept ReadError as error:\n    print(error.reason, peak() - before)\n"
    )
    answer = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True).stdout
    assert answer.split()[0] in ("too_large", "mismatch", "truncated", "corrupt"), answer
    return int(answer.split()[1])


@pytest.mark.parametrize(
    ("syntax", "frame", "rows", "reason"),
    [
        (BASELINE, jpeg_of(65500, 65500), 65500, "too_large"),  # header and stream agree on 4 gigapixels
        (BASELINE, jpeg_of(65500, 65500), 16, "truncated"),  # too few bytes for what the stream announces
        (BASELINE, jpeg_of(16000, 16000), 16000, "too_large"),  # 1.3 GB of pixels
        (BASELINE, jpeg_of(12000, 12000), 12000, "truncated"),  # below the cap, but no such image fits 500 bytes
        (BASELINE, jpeg_of(32, 32), 16, "mismatch"),
        (J2K, jpeg2000_of(60000, 60000), 60000, "too_large"),
        (J2K, jpeg2000_of(60000, 60000), 16, "mismatch"),
        (LOSSLESS_JPEG, jpeg_of(65500, 65500), 16, "truncated"),
    ],
)
def test_codestream_bombs(make_dicom: Make, syntax: str, frame: bytes, rows: int, reason: str) -> None:
    header = {"Rows": rows, "Columns": rows, "PixelData": encapsulate([frame])}
    path = make_dicom(np.zeros((16, 16), np.uint8), syntax=syntax, **header)
    assert path.stat().st_size < 3000
    assert reason_of(path) == reason
    assert peak_bytes(path) < 64 * 1024**2


def test_deflate_bomb(make_dicom: Make, tmp_path: Path) -> None:
    source = make_dicom(np.zeros((4, 4), np.uint8), syntax="1.2.840.10008.1.2.1.99").read_bytes()
    start = 132 + 12 + struct.unpack_from("<I", source, 140)[0]
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    inner = zlib.decompress(source[start:], -15)
    private = struct.pack("<HH2sHI", 0x7FE1, 0x1001, b"OB", 0, 200 * 2**20)
    pieces = [engine.compress(inner + private)] + [engine.compress(bytes(2**20)) for _ in range(200)] + [engine.flush()]
    path = tmp_path / "bomb.dcm"
    path.write_bytes(source[:start] + b"".join(pieces))
    assert path.stat().st_size < 300_000
    assert reason_of(path, limits=Limits(max_bytes=16 * 2**20)) == "too_large"


def test_gzip_bomb_is_inflated_no_further_than_its_header(tmp_path: Path) -> None:
    path = tmp_path / "bomb.nii.gz"
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, 4, 4, 4, 1, 1, 1, 1)
    struct.pack_into("<hh", header, 70, 2, 8)
    struct.pack_into("<f", header, 108, 352.0)
    header[344:348] = b"n+1\0"
    with gzip.open(path, "wb") as file:
        file.write(header)
        for _ in range(60):
            file.write(bytes(2**20))
    assert read_image(path).pixels.shape == (1, 4, 4, 4)
    struct.pack_into("<8h", header, 40, 3, 32000, 32000, 4, 1, 1, 1, 1)
    path.write_bytes(gzip.compress(bytes(header)))
    assert reason_of(path) == "too_large"


def test_png_bomb(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    assert reason_of(path) == "too_large"
    assert peak_bytes(path) < 64 * 1024**2


def test_npz_bomb_and_pickle(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, train_images=np.zeros((4000, 64, 64), np.uint8))
    assert reason_of(path, member="train_images", frame=0, limits=Limits(max_bytes=10**6)) == "too_large"
    np.savez(path, train_images=np.array([[[{}]]], dtype=object))
    assert reason_of(path, member="train_images", frame=0) == "unsupported"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no arrays")
    assert reason_of(path) == "not_an_image"


def test_deeply_nested_sequences(make_dicom: Make, tmp_path: Path) -> None:
    inner = Dataset()
    for _ in range(180):
        outer = Dataset()
        outer.ReferencedSeriesSequence = Sequence([inner])
        inner = outer
    try:
        path = make_dicom(GRAY, ReferencedSeriesSequence=inner.ReferencedSeriesSequence)
    except RecursionError:
        pytest.skip("pydicom cannot write so deep a sequence here")
    try_to_read(path)


class PanicException(BaseException):
    """Like the one of pyo3: no Exception."""


@pytest.mark.parametrize("kind", [PanicException, RecursionError, MemoryError, ValueError, AssertionError])
def test_whatever_a_decoder_raises(make_dicom: Make, monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
    dataset = dcmread(make_dicom(GRAY))
    dataset.compress("1.2.840.10008.1.2.5")
    path = make_dicom(GRAY, syntax="1.2.840.10008.1.2.5", PixelData=dataset.PixelData)
    np.testing.assert_array_equal(read_image(path).pixels[0], GRAY)

    def fail(*_: object, **__: object) -> None:
        raise kind("Doe^John")

    monkeypatch.setattr(dicom_decode, "decode_with_pydicom", fail)
    with pytest.raises(ReadError) as caught:
        read_image(path)
    assert caught.value.reason == ("too_large" if kind is MemoryError else "decoder_failed")
    assert "Doe" not in str(caught.value)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_interrupts_pass(make_dicom: Make, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]) -> None:
    def stop(*_: object, **__: object) -> None:
        raise kind

    monkeypatch.setattr("lepton_vision.readers.dicom.file.read_stored", stop)
    with pytest.raises(kind):
        read_image(make_dicom(GRAY))


FUZZED = [
    "CT_small.dcm",
    "MR_small_RLE.dcm",
    "JPEG2000.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "SC_rgb_jpeg_gdcm.dcm",  # JPEG lossless: GDCM, in the child
    "MR_small_jpeg_ls_lossless.dcm",
    "image_dfl.dcm",
    "rtdose_rle.dcm",
    "liver_1frame.dcm",
]


def try_to_read(path: Path) -> None:
    for call in (read_image, probe):
        try:
            assert call(path) is not None
        except ReadError as error:
            assert error.reason in ReadError.REASONS  # noqa: PT017


@pytest.mark.parametrize("name", FUZZED)
def test_truncated_and_mutated_dicom(name: str, tmp_path: Path) -> None:
    source = TEST_FILES / name
    if not source.is_file():
        pytest.skip(f"{name} is not shipped with this pydicom")
    fuzz(source.read_bytes(), tmp_path / "mutant", seed=len(name))


def fuzz(data: bytes, path: Path, *, seed: int, rounds: int = 25) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        mutant = bytearray(data[: rng.integers(0, len(data) + 1)] if rng.random() < 0.3 else data)
        # half of the flips hit the header, where they change most
        for _ in range(rng.integers(0, 6) if mutant else 0):
            end = min(len(mutant), 3000) if rng.random() < 0.5 else len(mutant)
            mutant[rng.integers(0, end)] = rng.integers(0, 256)
        path.write_bytes(bytes(mutant))
        try_to_read(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "NIFTI", "GZ", "NPZ"])
def test_truncated_and_mutated_others(kind: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    if kind in ("PNG", "JPEG", "TIFF"):
        Pillow.fromarray(noise).save(buffer, kind)
        data = buffer.getvalue()
    elif kind == "NPZ":
        np.savez_compressed(buffer, train_images=noise[None])
        data = buffer.getvalue()
    else:
        import nibabel

        data = nibabel.Nifti1Image(noise[..., None].astype(np.int16), np.eye(4)).to_bytes()
        data = gzip.compress(data) if kind == "GZ" else data
    fuzz(data, tmp_path / "mutant", seed=1, rounds=80)


LOSSLESS = TEST_FILES / "SC_rgb_jpeg_gdcm.dcm"


def child_id() -> int:
    process = dicom_child._hosts[os.getpid()].idle[-1]._process
    assert process is not None
    return process.pid


def test_child_is_kept_and_replaced_after_a_crash() -> None:
    expected = read_image(LOSSLESS)
    assert expected.decoder.startswith("python-gdcm ")
    first = child_id()
    read_image(LOSSLESS)
    assert child_id() == first
    os.kill(first, signal.SIGKILL)
    np.testing.assert_array_equal(read_image(LOSSLESS).pixels, expected.pixels)
    assert child_id() != first


def test_child_that_aborts_or_hangs_is_a_read_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for code in ("import os; os.abort()", "import time; time.sleep(60)", "print('no answer at all, but text')"):
        module = tmp_path / f"fake_{abs(hash(code))}.py"
        module.write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(dicom_child, "_MODULE", module.stem)
        monkeypatch.setattr(dicom_child, "_START_SECONDS", 1.0)
        for host in dicom_child._hosts.pop(os.getpid(), dicom_child._Hosts()).idle:
            host.stop()
        assert reason_of(LOSSLESS, limits=Limits(seconds=0.5)) == "decoder_failed"
    monkeypatch.undo()
    assert read_image(LOSSLESS).pixels.shape[0] == 3


def test_time_of_a_child_counts_for_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    spent: list[float] = []
    monkeypatch.setattr(dicom_child, "add_cpu_seconds", spent.append)
    read_image(LOSSLESS)
    assert len(spent) == 1
    assert 0.0 <= spent[0] < 10.0


def test_threads_decode_in_children_of_their_own() -> None:
    """A barrier that all threads must reach while they hold a child."""
    count = min(3, os.cpu_count() or 1)
    barrier, held = threading.Barrier(count, timeout=30), set()

    def hold() -> None:
        with dicom_child._acquire_host() as host:
            held.add(id(host))
            barrier.wait()

    threads = [threading.Thread(target=hold) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == count


def test_child_works_in_threads_and_in_forked_and_spawned_workers() -> None:
    expected = float(read_image(LOSSLESS).pixels.sum())
    sums: list[float] = []
    threads = [threading.Thread(target=lambda: sums.append(total(LOSSLESS))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == [expected] * 4
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(total, [LOSSLESS] * 4) == [expected] * 4


def total(path: Path) -> float:
    return float(read_image(path).pixels.sum())


@pytest.mark.parametrize(
    ("work", "end"),
    [
        ("np.ones(400 * 2**20, np.uint8)", "MemoryError"),
        ("np.ones(4 * 2**20, np.uint8)", "done"),
        ("any(iter(int, 1))", ""),  # runs for ever
    ],
)
def test_child_limits_itself(work: str, end: str) -> None:
    code = (
        "import numpy as np\n"
        "from lepton_vision.readers.dicom.decode_worker import _limit\n"
        "_limit({'seconds': 0, 'memory': 200 * 2**20})\n"
        f"try:\n    {work}\n    print('done')\nexcept MemoryError:\n    print('MemoryError')\n"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert process.stdout.strip() == end
    assert process.returncode == (0 if end else -signal.SIGXCPU)


def test_tiff_of_unusual_compression_is_decoded_in_the_child(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 2, (40, 30), dtype=np.uint8) * 255
    path = tmp_path / "fax.tif"
    Pillow.fromarray(noise).convert("1").save(path, compression="group4")
    np.testing.assert_array_equal(read_image(path).pixels[0], noise)
    Pillow.new("RGB", (64, 48), (200, 10, 10)).save(path, compression="jpeg")
    process = child_id()
    assert read_image(path).pixels.shape == (3, 48, 64)
    assert child_id() == process
    data = bytearray(path.read_bytes())
    data[8 + 60 : 8 + 90] = bytes(30)
    path.write_bytes(bytes(data))
    try_to_read(path)


def test_large_jpeg2000_is_decoded_in_the_child(make_dicom: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    buffer = io.BytesIO()
    Pillow.fromarray(frame).save(buffer, "JPEG2000", no_jp2=True)
    path = make_dicom(frame, syntax=J2K, PixelData=encapsulate([buffer.getvalue()]))
    here = read_image(path)
    monkeypatch.setattr(dicom_decode, "_MOST_HERE", 64)
    monkeypatch.setattr(dicom_decode, "decode_with_pydicom", None)  # not in this process
    there = read_image(path)
    np.testing.assert_array_equal(there.pixels, here.pixels)
    np.testing.assert_array_equal(there.pixels[0], frame)
    assert there.decoder == here.decoder


def test_codestream_headers() -> None:
    header = parse_jpeg(jpeg_of(16, 16))
    assert (header.rows, header.columns, header.samples, header.precision) == (16, 16, 1, 8)
    header = parse_jpeg2000(jpeg2000_of(20, 30))
    assert (header.rows, header.columns, header.samples, header.precision) == (20, 30, 1, 8)
    buffer = io.BytesIO()
    Pillow.new("RGB", (7, 5)).save(buffer, "JPEG2000")
    header = parse_jpeg2000(buffer.getvalue())  # in a JP2 file
    assert (header.rows, header.columns, header.samples) == (5, 7, 3)
    tiny = bytearray(jpeg2000_of(60000, 60000))
    tiny[24:32] = struct.pack(">II", 1, 1)
    with pytest.raises(ReadError, match="tiles"):
        parse_jpeg2000(bytes(tiny))
