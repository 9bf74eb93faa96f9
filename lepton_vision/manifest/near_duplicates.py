"""Near-duplicate images: pairs with close perceptual hashes, confirmed pixel by pixel.

Thresholds were set on BreastMNIST, PneumoniaMNIST, COVID-CT and a brain MR set by looking at the pairs: all pairs of
at least ``CORRELATION`` and ``DETAIL_CORRELATION`` show one image twice (recompressed, resized, brightened, shifted by
a pixel) or two adjoining slices of one patient. Images of different patients that resemble each other, such as chest
X-rays in one position, stay below: among all pairs of PneumoniaMNIST with close hashes none reaches 0.98.
Mirrored, rotated or cropped copies are not found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from lepton_vision.errors import ReadError
from lepton_vision.manifest.hashes import THUMBNAIL, thumbnail
from lepton_vision.readers.image import read_image
from lepton_vision.types import Pixels

if TYPE_CHECKING:
    from lepton_vision.manifest.table import Manifest

CORRELATION: Final = 0.98  # of the thumbnails
DETAIL_CORRELATION: Final = 0.90  # of the thumbnails without their slow shading
_MOST_PAIRS: Final = 2_000_000  # candidates compared; bounds time where most images have one hash
_BATCH: Final = 4096  # candidate pairs whose thumbnails are compared at once

Pairs = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class NearPairs:
    """Result of the search for near-duplicates.

    Attributes:
        same: (P, 2) int64 rows of the manifest, in different parts, that show the same image.
        unverified: candidate pairs that were not compared: a file cannot be read any more, or there are too many.
        contradicting: (P, 2) int64 rows in whatever parts that show the same image with different labels.
    """

    same: Pairs
    unverified: int
    contradicting: Pairs = field(default_factory=lambda: np.empty((0, 2), dtype=np.int64))


def near_pairs(
    manifest: Manifest,
    rows: npt.NDArray[np.int64],
    *,
    parts: npt.NDArray[np.int64],
    distance: int,
    labels: npt.NDArray[np.int64] | None = None,
) -> NearPairs:
    """Pairs of rows that show the same image without having the same pixels: in different parts, or labelled apart.

    Args:
        manifest: its files are read for the candidates.
        rows: (N,) rows to look at; those without a perceptual hash (constant images) are passed over.
        parts: (N,) number of the part of each of them: a split, a patient; -1 for none.
        distance: largest Hamming distance of a candidate pair.
        labels: (N, L) codes of the values of label columns, -1 unknown, or None.
    """
    frame = manifest.frame.iloc[rows]
    is_hashed = frame["phash"].notna().to_numpy()
    frame, rows, parts = frame[is_hashed], rows[is_hashed], parts[is_hashed]
    codes = np.empty((len(rows), 0), dtype=np.int64) if labels is None else labels[is_hashed]
    hashes = np.asarray([int(value, 16) for value in frame["phash"]], dtype=np.uint64)
    patients, pixels = (pd.factorize(frame[name])[0] for name in ("patient_id", "pixel_hash"))
    stacks = _stacks(frame)

    def is_apart(pairs: Pairs) -> Mask:
        a, b = pairs.T
        return np.asarray((parts[a] != parts[b]) & (parts[pairs] >= 0).all(axis=1) & (patients[a] != patients[b]))

    def is_contradicting(pairs: Pairs) -> Mask:
        a, b = pairs.T
        differs = ((codes[a] != codes[b]) & (codes[a] >= 0) & (codes[b] >= 0)).any(axis=1)
        return np.asarray(differs & ((stacks[a] != stacks[b]) | (stacks[a] < 0)))

    def wanted() -> Iterator[Pairs]:  # those in two parts first, as there is a bound
        kept, room = list[Pairs](), 2 * _MOST_PAIRS if codes.shape[1] else 0  # more are not even counted
        for pairs in candidate_pairs(hashes, distance=distance):
            a, b = pairs.T
            others = pairs[(pixels[a] != pixels[b]) | (pixels[a] < 0)]
            chosen = is_apart(others)
            yield others[chosen]
            if room > 0:
                others = others[~chosen]
                kept.append(others[is_contradicting(others)])
                room -= len(kept[-1])
        yield from kept

    found = verify_pairs(wanted(), lambda place: load_thumbnail(manifest, int(rows[place])), count=len(rows))
    apart, contradicting = (found.same[select(found.same)] for select in (is_apart, is_contradicting))
    return NearPairs(rows[apart], found.unverified, rows[contradicting])


def _stacks(frame: pd.DataFrame) -> npt.NDArray[np.int64]:
    """(N,) number of the series, or file of several frames, that a row is a slice of; -1 where it is of none."""
    of_file = frame["path"].where(frame["frame"].notna() & frame["member"].isna())
    return pd.factorize(frame["series_id"].fillna(of_file))[0].astype(np.int64)


def load_thumbnail(manifest: Manifest, row: int) -> Pixels | None:
    """Thumbnail of one row, or None where its image cannot be read any more."""
    address = manifest.locate(row)
    try:
        return thumbnail(read_image(address.path, frame=address.frame, member=address.member, **address.repairs).pixels)
    except ReadError:  # the callers count such pairs
        return None


def candidate_pairs(hashes: npt.NDArray[np.uint64], *, distance: int) -> Iterator[Pairs]:
    """Pairs of rows whose 64-bit hashes differ in at most ``distance`` bits, each once.

    Of ``distance`` + 1 bands of bits, two such hashes share at least one; only rows that share a band are compared.

    Yields:
        (P, 2) int64 row numbers, the lower first.
    """
    edges = np.linspace(0, 64, distance + 2).astype(np.uint64)
    bands = [(hashes >> low) & np.uint64((1 << int(high - low)) - 1) for low, high in pairwise(edges)]
    for number, band in enumerate(bands):
        order = np.argsort(band, kind="stable")
        ranked = band[order]
        place, step = np.arange(len(hashes) - 1), 1
        while len(place):
            place = place[place + step < len(hashes)]
            place = place[ranked[place] == ranked[place + step]]  # as equal values stand side by side
            first, second = order[place], order[place + step]
            is_near = _bit_count(hashes[first] ^ hashes[second]) <= distance
            for earlier in bands[:number]:
                is_near &= earlier[first] != earlier[second]
            if is_near.any():
                yield np.sort(np.stack([first[is_near], second[is_near]], axis=1), axis=1)
            step += 1


def connect(pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Groups of rows that pairs connect, in order."""
    leader: dict[int, int] = {}

    def find(row: int) -> int:
        while leader.setdefault(row, row) != row:
            leader[row] = leader[leader[row]]
            row = leader[row]
        return row

    for a, b in pairs:
        first, second = sorted((find(a), find(b)))
        leader[second] = first
    groups: dict[int, list[int]] = {}
    for row in sorted(leader):
        groups.setdefault(find(row), []).append(row)
    return list(groups.values())


def _bit_count(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    """Number of set bits; numpy 2 has it built in."""
    if hasattr(np, "bitwise_count"):
        counted: npt.NDArray[np.uint8] = np.bitwise_count(values)
        return counted
    table = np.array([bin(value).count("1") for value in range(2**16)], dtype=np.uint8)
    by_table: npt.NDArray[np.uint8] = table[values[..., None].view(np.uint16)].sum(axis=-1, dtype=np.uint8)
    return by_table


def verify_pairs(pairs: Iterator[Pairs], load: Callable[[int], Pixels | None], *, count: int) -> NearPairs:
    """Compare the images of candidate pairs.

    Args:
        pairs: what ``candidate_pairs`` yields.
        load: thumbnail (32, 32) of a row, or None where its image cannot be read any more; called once per row.
        count: number of rows.
    """
    # 1 KB per row, of which the system gives only what is touched
    images = np.empty((count, THUMBNAIL, THUMBNAIL), dtype=np.uint8)
    state = np.zeros(count, dtype=np.int8)  # 0 not tried, 1 loaded, -1 cannot be read
    same: list[Pairs] = []
    compared = unverified = 0
    for block in pairs:
        if compared >= _MOST_PAIRS:
            unverified += len(block)
            if unverified >= _MOST_PAIRS:
                break
            continue
        for start in range(0, len(block), _BATCH):
            batch = block[start : start + _BATCH]
            for row in np.unique(batch[(state[batch] != -1).all(axis=1)]):
                if state[row] == 0:
                    image = load(int(row))
                    state[row] = -1 if image is None else 1
                    images[row] = 0 if image is None else np.rint(image * 255)
            readable = batch[(state[batch] == 1).all(axis=1)]
            unverified += len(batch) - len(readable)
            compared += len(batch)
            if len(readable):
                same.append(readable[are_same(images[readable[:, 0]], images[readable[:, 1]])])
    return NearPairs(np.concatenate(same) if same else np.empty((0, 2), dtype=np.int64), unverified)


def are_same(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """(P,) bool: whether thumbnails (P, 32, 32) of two images show the same, up to brightness and contrast."""
    whole = _correlation(first.astype(np.float32), second.astype(np.float32))
    detail = _correlation(_detail(first), _detail(second))
    return np.asarray((whole >= CORRELATION) & (detail >= DETAIL_CORRELATION), dtype=bool)


def _detail(images: npt.NDArray[np.uint8]) -> Pixels:
    """Images without what is wider than a few cells: bodies of one kind agree in that already."""
    sharp = images.astype(np.float32)
    return np.stack([image - cv2.GaussianBlur(image, (0, 0), THUMBNAIL / 16) for image in sharp])


def _correlation(first: Pixels, second: Pixels) -> Pixels:
    a, b = (images.reshape(len(images), -1) for images in (first, second))
    a, b = (images - images.mean(axis=1, keepdims=True) for images in (a, b))
    norm = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    correlation: Pixels = np.sum(a * b, axis=1) / np.maximum(norm, np.float32(1e-6))
    return correlation
