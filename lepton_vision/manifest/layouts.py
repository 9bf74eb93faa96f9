"""Masks by their names, as public data sets lay them out: which file is the mask of which image."""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

import pandas as pd

from lepton_vision.manifest.masks import attach_masks
from lepton_vision.manifest.record import BASE, Record
from lepton_vision.manifest.schema import objects
from lepton_vision.readers.identity import pseudonym

_LOGGER = logging.getLogger(__name__)
_IMAGE_FOLDERS: Final = frozenset({"images", "image", "imgs", "img"})
_MASK_FOLDERS: Final = frozenset(
    {"masks", "mask", "labels", "label", "segmentations", "segmentation", "segs", "seg", "annotations", "gt"}
    | {"groundtruth", "ground_truth", "groundtruths", "1st_manual", "2nd_manual", "manual"}
)
_NNUNET: Final = {"labelstr": "imagestr", "labelsts": "imagests"}  # of nnU-Net and the Medical Segmentation Decathlon
_WORDS: Final = r"(?:masks?|seg|segmentation|labels?|labelmap|gt|ground_?truth|annotation|manual)"
_NAMED: Final = re.compile(rf"(?P<stem>.+?)[ _.-]+{_WORDS}(?:[ _-]?\d+)?", re.IGNORECASE)
_TELLING: Final = re.compile(_WORDS, re.IGNORECASE)
_CHANNEL: Final = re.compile(r"_\d{4}$")  # of nnU-Net's images, not of its masks
_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".dcm", ".nii", ".npy"})


def find_masks(paths: Iterable[str], *, endings: Collection[str] = ()) -> dict[str, tuple[str, ...]]:
    """Tell masks from images by their names alone.

    A mask stands beside its image and is called after it (``scan_mask.png``, ``scan_mask_1.png``, ``scan-label.nii``),
    in a folder whose name says so too (``truth_GroundTruth/scan_Segmentation.png``), or has the name of its image in
    the folder beside it (``masks/scan.png`` and ``images/scan.png``, ``labelsTr`` and ``imagesTr``). Without an image
    of that name a file is no mask, except in nnU-Net's folders.

    Args:
        paths: of files, relative to the folder of the scan, with forward slashes.
        endings: of the names of images that are channels of one.

    Returns:
        By path of each mask, the paths of its images: several where an image has several files, as nnU-Net's channels.
    """
    stems = {path: stem for path in map(PurePosixPath, paths) if (stem := _stem(path))}
    here: dict[tuple[str, str], list[str]] = defaultdict(list)
    near: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path, stem in stems.items():
        here[_folder(path), stem].append(path.as_posix())
        near[_folder(path.parent), stem].append(path.as_posix())
        if _CHANNEL.search(stem) and path.parent.name.lower() in {*_IMAGE_FOLDERS, *_NNUNET.values()}:
            here[_folder(path), _CHANNEL.sub("", stem)].append(path.as_posix())
        for ending in endings:
            if stem.endswith(ending):
                here[_folder(path), stem.removesuffix(ending)].append(path.as_posix())
    found: dict[str, tuple[str, ...]] = {}
    for path, stem in stems.items():
        named = _NAMED.fullmatch(stem)
        short = named["stem"] if named else stem
        images = here.get((_folder(path), short), []) if named else []
        for folder in _image_folders(path):
            images = images or here.get((folder, stem), []) or here.get((folder, short), [])
        if named and _TELLING.search(path.parent.name):
            images = images or near.get((_folder(path.parent), short), [])
        if images or _NNUNET.keys() & {part.lower() for part in path.parts[:-1]}:
            found[path.as_posix()] = tuple(dict.fromkeys(images))
    return found


def are_layout(folders: Iterable[str]) -> bool:
    """Whether folders of one level are parts of a data set, images and masks, rather than classes."""
    names = {name.lower() for name in folders}
    if names & {*_NNUNET, *_NNUNET.values()}:
        return True
    return bool(names & _IMAGE_FOLDERS and names & _MASK_FOLDERS)


def mask_records(masks: Iterable[str]) -> list[Record]:
    """Rejected rows of the files that are masks."""
    ids = {path: pseudonym("image", path) for path in masks}
    return [
        {"image_id": own, BASE: own, "path": path, "status": "rejected", "reason": "mask_file"}
        for path, own in ids.items()
    ]


def attach_named(frame: pd.DataFrame, masks: Mapping[str, tuple[str, ...]], *, root: Path) -> pd.DataFrame:
    """Give images the masks that are called after them: one each, and none where a name leaves a choice.

    A mask that cannot be used (see ``masks.attach_masks``) is left out; its image stays.
    """
    counts = Counter(image for images in masks.values() for image in images)
    own = {image: mask for mask, images in masks.items() for image in images if counts[image] == 1}
    named = frame.assign(mask_path=pd.Series([own.get(path) for path in objects(frame["path"])], dtype=object))
    if named["mask_path"].isna().all():
        return frame
    attached = attach_masks(named, root=root, table_folder=None)
    usable = set(frame.loc[frame["status"] == "ok", "image_id"])
    is_refused = (attached["image_id"].isin(usable) & (attached["status"] == "rejected")).to_numpy(dtype=bool)
    for column in ("reason", "mask_path", "mask_member"):
        attached[column] = attached[column].mask(is_refused)
    return attached.assign(status=attached["status"].mask(is_refused, "ok"))


def tell_masks(frame: pd.DataFrame, masks: Mapping[str, tuple[str, ...]]) -> None:
    """Warn of files that were taken for masks, and of what became of them."""
    if masks:
        _LOGGER.warning(
            "%d files are masks by their names and no samples; %d images have one of them as their mask now (not where "
            "an image has several, or the file is no usable mask). --include mask_file takes them for images, a column "
            "mask of a label table says whose they are.",
            len(masks),
            int(frame["mask_path"].notna().sum()),
        )


def _stem(path: PurePosixPath) -> str:
    """Name without suffix; "" for a file that is no image by its name."""
    name = path.name.removesuffix(".gz")
    stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix
    return stem if suffix.lower() in _SUFFIXES else ""


def _folder(path: PurePosixPath) -> str:
    """What names the folder of a file, whatever the case of its letters."""
    return path.parent.as_posix().lower()


def _image_folders(path: PurePosixPath) -> Iterator[str]:
    """Folders that may hold the image of a file in a folder of masks: that of images beside it, and the one above."""
    parts = path.parent.as_posix().lower().split("/")
    for number, part in enumerate(parts):
        if part in _NNUNET:
            yield "/".join([*parts[:number], _NNUNET[part], *parts[number + 1 :]])
        elif part in _MASK_FOLDERS:
            yield from ("/".join([*parts[:number], name, *parts[number + 1 :]]) for name in sorted(_IMAGE_FOLDERS))
            yield "/".join([*parts[:number], *parts[number + 1 :]]) or "."
