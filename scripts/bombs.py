"""Make one small file of each kind that blows up or never ends, and see what reading and scanning it costs.

    python scripts/bombs.py [KIND …]

Prints a line for each kind: bytes on disk, what ``read_image`` and a scan say, processor seconds and peak memory above
that of the process before. Exit code 1 if any takes more than its budget (``Limits.seconds``, ``Limits.memory``), dies,
or is judged in two ways.
"""

import argparse
import contextlib
import gzip
import io
import json
import os
import pickle
import resource
import signal
import socket
import struct
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from lepton_vision.errors import ReadError
from lepton_vision.manifest.record import describe_file
from lepton_vision.readers.image import read_image
from lepton_vision.readers.limits import DEFAULT_LIMITS

EXPLICIT, DEFLATED, BASELINE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.50"
J2K = "1.2.840.10008.1.2.4.90"
MEGABYTE = bytes(2**20)
PATIENCE = 60  # processor seconds, after which a reader is taken for endless


def element(tag, vr, value):
    if vr in (b"OB", b"OW", b"SQ", b"UN"):
        return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr, 0, len(value)) + value
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def number(tag, value):
    return element(tag, b"US", struct.pack("<H", value))


def head_of(syntax):
    meta = element(0x00020010, b"UI", syntax.encode())
    return bytes(128) + b"DICM" + element(0x00020000, b"UL", struct.pack("<I", len(meta))) + meta


def body(rows=64, columns=64, *, frames="1", extra=b"", pixels=None, photometric=b"MONOCHROME2", late=b""):
    """A data set up to its pixels; ``extra`` before group 0028, ``late`` after it."""
    parts = [element(0x00080016, b"UI", b"1.2.840.10008.5.1.4.1.1.2"), element(0x00080018, b"UI", b"1.2.3.4"), extra]
    parts += [number(0x00280002, 1), element(0x00280004, b"CS", photometric)]
    parts += [element(0x00280008, b"IS", frames.encode()), number(0x00280010, rows), number(0x00280011, columns)]
    parts += [number(0x00280100, 8), number(0x00280101, 8), number(0x00280102, 7), number(0x00280103, 0), late]
    pixels = element(0x7FE00010, b"OB", bytes(rows * columns)) if pixels is None else pixels
    return b"".join(parts) + pixels


def encapsulated(frame):
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(frame) + len(frame) % 2) + frame + b"\0" * (len(frame) % 2)
    start = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    return start + item + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def zeros(megabytes, *, wbits=-15, before=b""):
    """Deflated zeros: one flushed block, many times over."""
    engine = zlib.compressobj(9, zlib.DEFLATED, wbits)
    start = engine.compress(before) + engine.flush(zlib.Z_FULL_FLUSH)
    block = engine.compress(MEGABYTE) + engine.flush(zlib.Z_FULL_FLUSH)
    return start + block * megabytes + engine.flush()


def many_frames(path):
    path.write_bytes(head_of(EXPLICIT) + body(160, 160, frames="2147483647"))


def many_frames_compressed(path):
    path.write_bytes(head_of(BASELINE) + body(frames="2147483647", pixels=encapsulated(jpeg(64, 64))))


def many_items(path, *, is_known=False, count=2_000_000):
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * count
    if is_known:
        sequence = element(0x00283010, b"SQ", items)
    else:
        end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
        sequence = struct.pack("<HH2sHI", 0x0028, 0x3010, b"SQ", 0, 0xFFFFFFFF) + items + end
    path.write_bytes(head_of(EXPLICIT) + body(late=sequence))


def many_items_of_known_length(path):
    many_items(path, is_known=True)


def many_items_deflated(path):
    many_items(path)
    data = path.read_bytes()[len(head_of(EXPLICIT)) :]
    engine = zlib.compressobj(1, zlib.DEFLATED, -15)
    path.write_bytes(head_of(DEFLATED) + engine.compress(data) + engine.flush())


def many_elements(path):
    tags = ((0x0009 + 2 * (k // 60_000)) << 16 | 0x1000 + k % 60_000 for k in range(2_000_000))
    path.write_bytes(head_of(EXPLICIT) + body(extra=b"".join(element(tag, b"LO", b"") for tag in tags)))


def deflated(path):
    start = body(extra=struct.pack("<HH2sHI", 0x0009, 0x1010, b"OB", 0, 2_000 * 2**20), pixels=b"")
    path.write_bytes(head_of(DEFLATED) + zeros(2_000, before=start[: start.index(b"\x09\0\x10\x10") + 12]))


def deflated_pixels(path):
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFF * 4096)
    path.write_bytes(head_of(DEFLATED) + zeros(257, before=body(0xFFFF, 4096, pixels=pixels)))


def giant_palette(path):
    late = b"".join(element(tag, b"US", struct.pack("<HHH", 0, 0, 16)) for tag in (0x00281101, 0x00281102, 0x00281103))
    late += b"".join(element(tag, b"OW", bytes(30_000_000)) for tag in (0x00281201, 0x00281202, 0x00281203))
    path.write_bytes(head_of(EXPLICIT) + body(photometric=b"PALETTE COLOR", late=late))


def jpeg(rows, columns, *, progressive=False):
    file = io.BytesIO()
    Image.new("L", (columns, rows)).save(file, "JPEG", progressive=progressive, quality=1)
    return file.getvalue()


def progressive():
    """Some 270 kB: thousands of scans that refine nothing, of 30 bytes each, run over all blocks."""
    data = jpeg(4000, 4000, progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * ((270_000 - len(data)) // len(last)) + b"\xff\xd9"


def progressive_jpeg(path):
    path.write_bytes(progressive())


def progressive_jpeg_in_dicom(path):
    path.write_bytes(head_of(BASELINE) + body(4000, 4000, pixels=encapsulated(progressive())))


def jpeg_segments(path):
    data = jpeg(64, 64)
    path.write_bytes(data[:2] + b"\xff\xfe\x00\x02" * 5_000_000 + data[2:])


def jpeg2000(layers=1, tile=None, samples=64):
    file = io.BytesIO()
    Image.new("L", (samples, samples)).save(file, "JPEG2000", no_jp2=True, tile_size=tile)
    data = bytearray(file.getvalue())
    place = data.index(b"\xff\x52")
    struct.pack_into(">H", data, place + 6, layers)
    return bytes(data)


def jpeg2000_layers(path):
    path.write_bytes(head_of(J2K) + body(pixels=encapsulated(jpeg2000(layers=65535))))


def jpeg2000_tiles(path):
    frame = bytearray(jpeg2000(tile=(4, 4)))
    path.write_bytes(head_of(J2K) + body(pixels=encapsulated(bytes(frame))))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows, columns, *, color=0, depth=8, middle=b"", packed=b""):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + middle + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def png_blank(path):
    path.write_bytes(png(16_000, 16_000, packed=zeros(245, wbits=15)))


def png_text(path):
    text = chunk(b"zTXt", b"a\0\0" + zeros(900, wbits=15))
    path.write_bytes(png(64, 64, middle=text * 20, packed=zlib.compress(bytes(65 * 64))))


def png_text_deep(path):
    text = chunk(b"zTXt", b"a\0\0" + zeros(7, wbits=15))
    packed = zlib.compress(bytes(64 * (64 * 6 + 1)))
    path.write_bytes(png(64, 64, color=2, depth=16, middle=text * 2_000, packed=packed))


def png_chunks(path):
    path.write_bytes(png(64, 64, middle=chunk(b"teXt", b"") * 2_000_000, packed=zlib.compress(bytes(65 * 64))))


TAGS = (
    (256, 3, 1, 16),
    (257, 3, 1, 16),
    (258, 3, 1, 8),
    (259, 3, 1, 1),
    (262, 3, 1, 1),
    (273, 4, 1, 8),
    (277, 3, 1, 1),
)
TAGS += ((278, 3, 1, 16), (279, 4, 1, 256))


def directory(place, tags, *, after):
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return struct.pack("<H", len(tags)) + entries + struct.pack("<I", after)


def tiff(directories, *, loop=False):
    """Pages that share one strip of 256 bytes."""
    size = 6 + 12 * len(TAGS)
    first = 8 + 256
    places = [first + size * k for k in range(directories)]
    last = first if loop else 0
    pages = [directory(place, TAGS, after=after) for place, after in zip(places, [*places[1:], last], strict=True)]
    return b"II*\0" + struct.pack("<I", first) + bytes(256) + b"".join(pages)


def tiff_chain(path):
    path.write_bytes(tiff(400_000))


def tiff_pages(path):
    path.write_bytes(tiff(8_000))


def tiff_circle(path):
    path.write_bytes(tiff(5, loop=True))


def tiff_numbers(path):
    """Each page lists the same 4 million strips."""
    count, pages = 4_000_000, 200
    tags = [(t, 4, count, 8) if t in (273, 279) else (t, k, n, v) for t, k, n, v in TAGS]
    size, first = 6 + 12 * len(TAGS), 8 + 4 * count
    places = [first + size * k for k in range(pages)]
    found = [directory(place, tags, after=after) for place, after in zip(places, [*places[1:], 0], strict=True)]
    path.write_bytes(b"II*\0" + struct.pack("<I", first) + bytes(4 * count) + b"".join(found))


def tiff_tile(path, *, compression=5):
    tags = [tag for tag in TAGS if tag[0] not in (259, 273, 278, 279)]
    tags += [(259, 3, 1, compression), (322, 4, 1, 60_000), (323, 4, 1, 60_000), (324, 4, 1, 8), (325, 4, 1, 256)]
    path.write_bytes(b"II*\0" + struct.pack("<I", 264) + bytes(256) + directory(264, sorted(tags), after=0))


def tiff_lzma(path):
    """A stream of LZMA that asks for a dictionary of 1.5 GiB."""
    import lzma

    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 3 * 2**29, "preset": 0, "nice_len": 32, "mf": lzma.MF_HC3}]
    filters[0]["mode"] = lzma.MODE_FAST
    small = lzma.compress(bytes(256), format=lzma.FORMAT_XZ, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 2**20}])
    data = bytearray(small.ljust(256, b"\0"))
    place = data.index(b"\x21\x01") + 2
    data[place] = 37  # 1.5 GiB
    header = data[12 : 12 + (data[12] + 1) * 4 - 4]
    struct.pack_into("<I", data, 12 + len(header), zlib.crc32(header))
    tags = [(259, 3, 1, 34925) if tag[0] == 259 else tag for tag in TAGS]
    path.write_bytes(b"II*\0" + struct.pack("<I", 264) + bytes(data) + directory(264, tags, after=0))


def nifti(*sizes, offset=352.0, bits=8):
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, len(sizes), *sizes, *[1] * (7 - len(sizes)))
    struct.pack_into("<hh", header, 70, {8: 2, 64: 64}[bits], bits)
    struct.pack_into("<f", header, 108, offset)
    header[344:348] = b"n+1\0"
    return bytes(header)


def nifti_sizes(path):
    path.write_bytes(nifti(32_000, 32_000, 32_000))


def nifti_blank(path):
    path.write_bytes(zeros(2_000, wbits=31, before=nifti(512, 512, 1000, bits=64)))


def nifti_offset(path):
    path.write_bytes(zeros(5_000, wbits=31, before=nifti(4, 4, 4, offset=5e9)))


def nifti_parts(path):
    path.write_bytes(gzip.compress(nifti(4, 4, 4)) + gzip.compress(b"") * 2_000_000)


def npz(path, shape, *, data=b"", packed=0, name="train_images"):
    """Add an array whose header says ``shape``, with ``packed`` megabytes of zeros after ``data``."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    pieces = [file.getvalue(), data, *[MEGABYTE] * packed]
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open(f"{name}.npy", "w", force_zip64=True) as member,
    ):
        for piece in pieces:
            member.write(piece)


def npz_entries(path):
    npz(path, (2**31, 8, 8), data=bytes(64))


def npz_empty_entries(path):
    npz(path, (2**31, 0, 8))


def npz_pixels(path):
    npz(path, (10**9, 1, 1), packed=1000)


def npz_gigabytes(path):
    npz(path, (3000, 1024, 1024), packed=3000)


def npz_labels(path):
    npz(path, (2, 8, 8), data=bytes(128))
    npz(path, (2**31,), packed=2048, name="train_labels")


def pipe(path):
    os.mkfifo(path)


def unix_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def device(path):
    path.symlink_to("/dev/zero")


def endless_file(path):
    path.symlink_to("/proc/kmsg")


BOMBS = {make.__name__: make for make in (
    many_frames, many_frames_compressed, many_items, many_items_of_known_length, many_items_deflated, many_elements,
    deflated, deflated_pixels, giant_palette, progressive_jpeg, progressive_jpeg_in_dicom, jpeg_segments,
    jpeg2000_layers, jpeg2000_tiles, png_blank, png_text, png_text_deep, png_chunks, tiff_chain, tiff_pages,
    tiff_circle, tiff_numbers, tiff_tile, tiff_lzma, nifti_sizes, nifti_blank, nifti_offset, nifti_parts, npz_entries,
    npz_empty_entries, npz_pixels, npz_gigabytes, npz_labels, pipe, unix_socket, device, endless_file,
)}  # fmt: skip


def try_reading(path):
    try:
        read_image(path)
    except ReadError as error:
        return error.reason
    return "ok"


def try_scanning(path):
    rows = describe_file(str(path), path.name)
    reasons = {row.get("reason") or "ok" for row in rows}
    return reasons.pop() if len(reasons) == 1 else f"{len(rows)} rows: {sorted(reasons)}"


def peak_bytes():
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def measure(call, path):
    """Run a call in a fork of this process: what it says, processor seconds and peak bytes, its children included."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        signal.setitimer(signal.ITIMER_PROF, PATIENCE)
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before, started = peak_bytes(), time.process_time()
        said = call(path)
        seconds, held = time.process_time() - started, peak_bytes() - before
        # A decoder of its own starts with some 200 MB, which no file is the reason of.
        below = max(0, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 - 250 * 2**20)
        os.write(write_end, pickle.dumps((said, seconds, max(held, below))))
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as file:
        answer = file.read()
    status = os.waitpid(child, 0)[1]
    return pickle.loads(answer) if answer else (f"died by signal {os.WTERMSIG(status)}", float(PATIENCE), 0)


def explode(name, folder):
    """Make one bomb and read it in all ways."""
    path = Path(folder) / f"{name}.bin"
    BOMBS[name](path)
    size = path.lstat().st_size if name in ("pipe", "unix_socket", "device", "endless_file") else path.stat().st_size
    limits = DEFAULT_LIMITS.for_file(size)
    line = {"kind": name, "bytes": size}
    for what, call in (("read", try_reading), ("scan", try_scanning)):
        said, seconds, held = measure(call, path)
        line |= {what: said, f"{what}_seconds": round(seconds, 2), f"{what}_megabytes": held // 2**20}
        line["over_budget"] = line.get("over_budget", False) or seconds > limits.seconds + 1 or held > limits.memory
    # A file of several arrays is no image without the name of one, and yet may be scanned.
    line["differing"] = line["read"] not in (line["scan"], "no_frame")
    path.unlink()
    return line


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(BOMBS))
    asked = parser.parse_args()
    import tifffile  # noqa: F401 - loaded here, so that no file is charged with it
    from nibabel import nifti1, nifti2  # noqa: F401

    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.kinds or BOMBS:
            lines.append(explode(name, folder))
            print(json.dumps(lines[-1]), flush=True)
    bad = [line["kind"] for line in lines if line["over_budget"] or line["differing"] or "died" in str(line)]
    print(json.dumps({"kinds": len(lines), "bad": bad}))
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
