"""Damage sound files by a seed, and try what reads them: nothing may crash, run away, or be judged in two ways.

    LEPTON_VISION_DATA=../shared python scripts/fuzz.py --dicom 20000 --others 5000 --seed 0

Each mutant is read (as an image, by a loader, and as a mask), scanned, scored up to the network, and inspected; fifty
of them at a time are scanned as a folder and audited. Prints counts; exit code 1 if any of ``crashes``, ``raw_errors``,
``differing`` or ``over_budget`` is not 0. ``examples`` names the mutants by kind and number: ``--only dicom:1234``
tries one alone.

Without a corpus (``LEPTON_VISION_DATA``) the files that come with pydicom and generated ones are damaged.
"""

import argparse
import contextlib
import gzip
import io
import json
import multiprocessing
import os
import random
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from lepton_vision.config import Config
from lepton_vision.errors import LeptonError, ReadError
from lepton_vision.manifest import Manifest, audit_manifest
from lepton_vision.manifest.record import ScanRules, describe_file
from lepton_vision.pipeline.facts import inspect_path
from lepton_vision.readers.image import read_image, read_pixels
from lepton_vision.readers.limits import DEFAULT_LIMITS
from lepton_vision.readers.mask import read_mask
from lepton_vision.scoring.inputs.inputs import Inputs
from lepton_vision.scoring.inputs.locations import Location
from lepton_vision.scoring.scorer import Scorer

MOST_BYTES = 2_000_000  # of a source: larger ones only take longer
MOST_FRAMES = 6  # of a mutant of several frames that are compared one by one
CHUNK = 50
# Objects of these kinds are refused for what they are, broken or not, unless they are asked for.
RULES = ScanRules(frozenset({"segmentation", "parametric_map", "dose", "localizer", "secondary_capture"}))
EXTREMES = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x7f\xff\xff\xff", b"\0\0\0\x80", b"\1\0\0\0"]
BAD = ("crashes", "raw_errors", "differing", "over_budget")


def sources(kind):
    """Sound files, as bytes, in a fixed order."""
    return dicom_sources() if kind == "dicom" else other_sources()


def dicom_sources():
    root = Path(os.environ.get("LEPTON_VISION_DATA", "")) / "corpus"
    if not (os.environ.get("LEPTON_VISION_DATA") and root.is_dir()):
        import pydicom

        root = Path(pydicom.__file__).parent / "data" / "test_files"
    files = sorted(path for path in root.rglob("*") if path.is_file() and 0 < path.stat().st_size <= MOST_BYTES)
    found = [path.read_bytes() for path in files]
    return [data for data in found if data[128:132] == b"DICM"]


def other_sources():
    """PNG, JPEG, TIFF, NIfTI and npz files of all kinds, made here."""
    import nibabel
    import tifffile
    from PIL import Image

    rng = np.random.default_rng(0)
    gray, color = (rng.integers(0, 256, (40, 30, *more), dtype=np.uint8) for more in ((), (3,)))
    deep, made = rng.integers(0, 65536, (40, 30), dtype=np.uint16), []

    def keep(write):
        buffer = io.BytesIO()
        write(buffer)
        made.append(buffer.getvalue())

    for pixels in (gray, color, deep):
        keep(lambda file, pixels=pixels: Image.fromarray(pixels).save(file, "PNG"))
    keep(lambda file: Image.fromarray(gray).convert("P").save(file, "PNG"))
    for pixels, progressive in ((gray, False), (color, False), (color, True)):
        keep(lambda file, p=pixels, g=progressive: Image.fromarray(p).save(file, "JPEG", progressive=g))
    for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4"):
        picture = Image.fromarray(gray).convert("1") if compression == "group4" else Image.fromarray(color)
        keep(lambda file, p=picture, c=compression: p.save(file, "TIFF", compression=c))
    keep(lambda file: tifffile.imwrite(file, np.stack([deep] * 3), photometric="minisblack"))
    keep(lambda file: tifffile.imwrite(file, np.stack([gray] * 3), imagej=True))
    keep(lambda file: tifffile.imwrite(file, deep, tile=(16, 16), compression="zlib", bigtiff=True))
    volume = rng.integers(-99, 99, (12, 10, 4)).astype(np.int16)
    for nifti in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        data = nifti(volume, np.diag([1.0, 2.0, 3.0, 1.0])).to_bytes()
        made += [data, gzip.compress(data, mtime=0)]
    for save in (np.savez, np.savez_compressed):
        keep(lambda file, save=save: save(file, train_images=np.stack([gray] * 3), train_labels=np.arange(3)))
        keep(lambda file, save=save: save(file, images=np.stack([gray] * 2)))
    return made


def mutate(data, rng):
    """One mutant: cut, bytes and numbers changed (half of them in the header), pieces left out, doubled or swapped."""
    data = bytearray(data)
    if rng.random() < 0.1:
        del data[rng.randrange(len(data) + 1) :]
    for _ in range(rng.randrange(1, 4)):
        if len(data) < 16:
            break
        end = min(len(data), 3000) if rng.random() < 0.5 else len(data)
        place, how = rng.randrange(end - 8), rng.random()
        if how < 0.6:
            data[place] = rng.randrange(256)
        elif how < 0.75:
            data[place : place + 4] = rng.choice(EXTREMES)
        elif how < 0.8:
            data[place : place + 2] = struct.pack("<H", rng.choice([0, 1, 0x7FFF, 0x8000, 0xFFFF]))
        elif how < 0.9:
            del data[place : place + rng.randrange(1, 64)]
        else:
            other = rng.randrange(len(data))
            data[place:place] = data[other : other + rng.randrange(1, 64)]
    return bytes(data)


def mutant(kind, files, seed, number):
    rng = random.Random(f"{seed}:{kind}:{number}")
    return mutate(files[rng.randrange(len(files))], rng)


def scorer():
    """What reads and prepares in a run of scores; no network."""
    target = {"name": "sick", "kind": "binary", "classes": ["no", "yes"]}
    config = Config.from_dict({"targets": [target], "scan": {"include": list(RULES.include)}})
    return Scorer(SimpleNamespace(config=config, bundle_id=""), None, streams=None, limits=DEFAULT_LIMITS)


def verdict(read):
    """ "ok", a reason code, or "raw:" and the type of an error that is none of ours."""
    try:
        read()
    except ReadError as error:
        return error.reason
    except LeptonError as error:
        return f"other:{type(error).__name__}"
    except Exception as error:  # the very thing that is looked for
        return f"raw:{type(error).__name__}"
    return "ok"


def verdicts(path, score):
    """By whom it was judged, and how; those of frames by their numbers."""
    found = {"read": verdict(lambda: read_image(path))}
    found["load"] = verdict(lambda: read_pixels(path))
    found["inspect"] = verdict(lambda: inspect_path(path))
    reason = score.read(next(iter(Inputs.of([Location(path.as_posix())])))).reason
    found["score"] = reason.replace("unexpected:", "raw:") or "ok"
    try:
        rows = describe_file(str(path), path.name, rules=RULES)
    except Exception as error:  # as above
        found["scan"] = f"raw:{type(error).__name__}"
        return found
    if len(rows) == 1 and "frame" not in rows[0]:
        found["scan"] = rows[0].get("reason") or "ok"
        return found
    for row in rows[:MOST_FRAMES]:
        where = {"frame": row["frame"], "member": row.get("member")}
        alone = verdict(lambda where=where: read_image(path, **where))
        if alone != (row.get("reason") or "ok"):
            found["scan"] = f"frame {row['frame']}: {row.get('reason') or 'ok'}, read alone: {alone}"
    return found


def peak_bytes():
    """Peak of this process since ``forget_peak``; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def forget_peak():
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def try_one(data, path, score):
    """Counts of one mutant, and what is to be told of it."""
    path.write_bytes(data)
    counts, told = Counter(tried=1), []
    forget_peak()
    before, started = peak_bytes(), time.process_time()
    found = verdicts(path, score)
    seconds, held = time.process_time() - started, peak_bytes() - before
    limits = DEFAULT_LIMITS.for_file(len(data))
    said = found | {"mask": verdict(lambda: read_mask(path))}  # which has its own reasons
    raw = {name: one for name, one in said.items() if one.startswith(("raw:", "other:"))}
    counts["readable"] = found["read"] == "ok"
    counts["raw_errors"] = bool(raw)
    counts["differing"] = not raw and len(set(found.values())) > 1
    counts["over_budget"] = seconds > len(found) * limits.seconds or held > 1.2 * limits.memory
    if raw or counts["differing"] or counts["over_budget"]:
        told = [{"verdicts": said, "seconds": round(seconds, 1), "megabytes": held // 2**20}]
    return counts, told


def run_chunk(kind, seed, first, count):
    """Try some mutants in this process; returns their counts and examples."""
    warnings.simplefilter("ignore")
    files, score = sources(kind), scorer()
    counts, examples = Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + count):
            path = Path(folder) / f"{number}.bin"
            more, told = try_one(mutant(kind, files, seed, number), path, score)
            counts += more
            examples += [{"mutant": f"{kind}:{number}", **one} for one in told]
        told = verdict(lambda: audit_manifest(Manifest.scan(folder, workers=1, include=RULES.include)))
        if told.startswith("raw:"):
            counts["raw_errors"] += 1
            examples.append({"mutant": f"{kind}:{first}-{first + count - 1}", "audit": told})
    return counts, examples


def run(kind, mutants, *, seed=0, workers=1, minutes=None):
    """Try ``mutants`` of a kind in processes that may die."""
    total, examples, end = (
        Counter(dict.fromkeys(BAD, 0)),
        [],
        None if minutes is None else time.time() + 60 * minutes,
    )
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context)
    jobs = [(kind, seed, first, min(CHUNK, mutants - first)) for first in range(0, mutants, CHUNK)]
    for start in range(0, len(jobs), workers):
        if end is not None and time.time() > end:
            break
        for job, future in [(job, pool.submit(run_chunk, *job)) for job in jobs[start : start + workers]]:
            try:
                counts, told = future.result()
            except BrokenProcessPool:
                counts, told = Counter(crashes=1), [{"mutant": f"{kind}:{job[2]}-{job[2] + job[3] - 1}", "crash": True}]
                pool = ProcessPoolExecutor(workers, mp_context=context)
            total.update(counts)
            examples += told
        print(f"{kind}: {dict(total)}", file=sys.stderr)
    pool.shutdown()
    return total, examples


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dicom", type=int, default=20_000)
    parser.add_argument("--others", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--minutes", type=float, help="stop each of the two kinds after so long")
    parser.add_argument("--only", help="one mutant, KIND:NUMBER")
    asked = parser.parse_args()
    if asked.only:
        kind, number = asked.only.split(":")
        counts, examples = run_chunk(kind, asked.seed, int(number), 1)
        print(json.dumps({"counts": counts, "examples": examples}, indent=1))
        return
    result, examples = {}, []
    for kind, mutants in (("dicom", asked.dicom), ("others", asked.others)):
        counts, told = run(kind, mutants, seed=asked.seed, workers=asked.workers, minutes=asked.minutes)
        result[kind] = dict(counts)
        examples += told
    print(json.dumps({**result, "examples": examples[:50]}, indent=1))
    raise SystemExit(1 if any(counts.get(name) for counts in result.values() for name in BAD) else 0)


if __name__ == "__main__":
    main()
