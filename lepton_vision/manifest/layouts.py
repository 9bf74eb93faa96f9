"""File-name layouts of public data sets, which pair each mask with its image."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

import pandas as pd

from lepton_vision.manifest.masks import attach_masks
from lepton_vision.manifest.record import BASE, Record
from lepton_vision.manifest.schema import objects
from lepton_vision.readers.identity import pseudonym
from lepton_vision.readers.mask import united_member

_LOGGER = logging.getLogger(__name__)
_IMAGE_FOLDERS: Final = frozenset({"images", "image", "imgs", "img", "img_dir", "jpegimages", "cxr_png"})
_MASK_FOLDERS: Final = frozenset(
    {"masks", "mask", "labels", "label", "segmentations", "segmentation", "segs", "seg", "annotations", "gt"}
    | {"groundtruth", "ground_truth", "groundtruths", "1st_manual", "2nd_manual", "manual", "manualmask"}
    | {"ann_dir", "segmentationclass", "segmentationobject"}
)
_NNUNET: Final = {"labelstr": "imagestr", "labelsts": "imagests"}  # of nnU-Net and the Medical Segmentation Decathlon
_WORDS: Final = r"(?:masks?|seg|segmentation|labels?|labelmap|gt|ground_?truth|annotation|manual)"
_NAMED: Final = re.compile(rf"(?P<stem>.+?)[ _.-]+{_WORDS}(?:[ _-]?\d+)?", re.IGNORECASE)
_LED: Final = re.compile(rf"{_WORDS}(?P<stem>[ _.-].+|\d.*)?", re.IGNORECASE)  # segmentation-0, label0001
_SCAN: Final = re.compile(r"(?:images?|img|imaging|volume|vol|scan)(?P<stem>[ _.-].+|\d.*)", re.IGNORECASE)
_TELLING: Final = re.compile(_WORDS, re.IGNORECASE)
_OF_IMAGES: Final = re.compile(r"(?<![a-z])(?:images?|imgs?)(?![a-z])")
_OF_MASKS: Final = re.compile(r"(?<![a-z])(?:masks?|labels?|segmentations?|annotations?|ground_?truth)(?![a-z])")
_HINT: Final = re.compile("mask|seg|label|gt|truth|annot|manual|ann_dir", re.IGNORECASE)  # in the path of every mask
_NUMBER: Final = re.compile(r"(?<=[A-Za-z])[ _-]?\d+$")  # of a further mask of one image
_CHANNEL: Final = re.compile(r"_\d{4}$")  # of nnU-Net's images, not of its masks
_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".dcm", ".nii", ".npy"})


def find_masks(paths: Iterable[str], *, endings: Collection[str] = ()) -> dict[str, tuple[str, ...]]:
    """Tell masks from images by their names alone.

    A mask stands beside its image and is called after it (``scan_mask.png``, ``scan_mask_1.png``, ``scan-label.nii``,
    ``segmentation-0.nii`` and ``volume-0.nii``, ``mask.nii`` in the folder of one image), in a folder whose name says
    so too (``truth_GroundTruth/scan_Segmentation.png``), or has the name of its image in the folder beside it
    (``masks/scan.png`` and ``images/scan.png``, ``train_masks`` and ``train_images``, ``labelsTr`` and ``imagesTr``).
    What has no image of its own name is a mask where its folder is one of masks, beside a folder of images or below
    the images themselves (``ct.nii`` and ``segmentations/liver.nii``), or where it is called after several images
    (``case_seg.nii`` beside ``case_t1.nii`` and ``case_t2.nii``).

    Args:
        paths: of files, relative to the folder of the scan, with forward slashes.
        endings: of the names of images that are channels of one.

    Returns:
        By path of each mask, the paths of its images: several where an image has several files, as nnU-Net's channels;
        none where no name says whose it is.
    """
    stems = {path: stem for path in map(PurePosixPath, paths) if (stem := _stem(path))}
    names = _index(stems, endings=endings)
    found = {path: names.images_of(path, stem) for path, stem in stems.items()}
    return {path.as_posix(): tuple(dict.fromkeys(images)) for path, images in found.items() if images is not None}


def may_be_mask(path: str) -> bool:
    """Whether a path holds a word that masks are told by; quick, for long lists of which most hold none."""
    return _HINT.search(path) is not None


@dataclass(frozen=True, slots=True)
class _Names:
    """Files by folder and name.

    Attributes:
        here: by folder and name; channels by that of their case, too.
        near: by the folder around that, and name.
        starts: files that are no masks by their names, by folder and the beginning of the name, up to a separator.
        plain: all of these, by folder.
        beside: folders of images, by what they are called but for the word for images.
        inner: by folder, folders in it that hold files and are none of masks.
    """

    here: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    near: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    starts: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    plain: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    beside: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    inner: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def images_of(self, path: PurePosixPath, stem: str) -> list[str] | None:
        """Images of a mask, none where no name says whose it is; None of what is no mask."""
        folder, named, led = _folder(path), _NAMED.fullmatch(stem), _LED.fullmatch(stem)
        short = named["stem"] if named else (led["stem"] or "").lstrip(" _.-") if led else stem
        images = self.here.get((folder, short), []) if short and (named or led) else []
        for place in self._image_folders(path):
            images = images or self.here.get((place, stem), []) or self.here.get((place, short), [])
            images = images or self._only(self.starts.get((place, short), []))
        if named and _TELLING.search(path.parent.name):
            images = images or self.near.get((_folder(path.parent), short), [])
        if images or self._is_below_images(path) or _NNUNET.keys() & {part.lower() for part in path.parts[:-1]}:
            return images or self._only(self.plain.get(_folder(path.parent), []))
        if path.suffix.lower() == ".dcm":  # its header says what it is
            return None
        around = self.starts.get((folder, short), []) if named else self.plain.get(folder, []) if led else []
        if led and led["stem"]:
            around = []
        return self._only(around) if around else None

    @staticmethod
    def _only(images: list[str]) -> list[str]:
        """One image; of several nobody can tell."""
        return images if len(images) == 1 else []

    def _is_below_images(self, path: PurePosixPath) -> bool:
        """Whether a file lies in a folder of masks, beside one of images or among the images themselves."""
        if any(True for _ in self._beside(path)):
            return True
        above = _folder(path.parent)
        is_told = path.parent.name.lower() in _MASK_FOLDERS
        return is_told and bool(self.plain.get(above)) and not self.inner.get(above)

    def _beside(self, path: PurePosixPath) -> Iterator[str]:
        """Folders of images beside the folder of masks that a file lies in, with what is below it, and without."""
        parts = path.parent.as_posix().lower().split("/")
        for number, part in enumerate(parts):
            word = _without_word(part, _MASK_FOLDERS, _OF_MASKS)
            for pattern in dict.fromkeys((word, "*")) if word else ():
                for name in sorted(self.beside.get("/".join([*parts[:number], pattern]), ())):
                    yield "/".join([*parts[:number], name, *parts[number + 1 :]])
                    yield "/".join([*parts[:number], name])

    def _image_folders(self, path: PurePosixPath) -> Iterator[str]:
        """Folders that may hold the image of a mask: that of images beside its own, and the one above."""
        parts = path.parent.as_posix().lower().split("/")
        for number, part in enumerate(parts):
            if part in _NNUNET:
                yield "/".join([*parts[:number], _NNUNET[part], *parts[number + 1 :]])
        yield from self._beside(path)
        for number, part in enumerate(parts):
            if part in _MASK_FOLDERS:
                yield "/".join([*parts[:number], *parts[number + 1 :]]) or "."


def _index(stems: Mapping[PurePosixPath, str], *, endings: Collection[str]) -> _Names:
    names = _Names()
    for path, stem in stems.items():
        text, folder = path.as_posix(), _folder(path)
        names.here[folder, stem].append(text)
        names.near[_folder(path.parent), stem].append(text)
        if _CHANNEL.search(stem) and path.parent.name.lower() in {*_IMAGE_FOLDERS, *_NNUNET.values()}:
            names.here[folder, _CHANNEL.sub("", stem)].append(text)
        for ending in endings:
            if stem.endswith(ending):
                names.here[folder, stem.removesuffix(ending)].append(text)
        if (scan := _SCAN.fullmatch(stem)) is not None:
            names.here[folder, scan["stem"].lstrip(" _.-")].append(text)
        if not (_NAMED.fullmatch(stem) or _LED.fullmatch(stem)):
            names.plain[folder].append(text)
            for cut in re.finditer(r"[ _.-]", stem):
                names.starts[folder, stem[: cut.start()]].append(text)
        parts = folder.split("/")
        for number, part in enumerate(parts):
            if pattern := _without_word(part, _IMAGE_FOLDERS, _OF_IMAGES):
                names.beside["/".join([*parts[:number], pattern])].add(part)
            if part not in _MASK_FOLDERS:
                names.inner["/".join(parts[:number]) or "."].add(part)
    return names


def _without_word(name: str, whole: Collection[str], word: re.Pattern[str]) -> str:
    """What a folder is called with "*" for the word that says what it holds; "" where there is none."""
    if name in whole:
        return "*"
    pattern = word.sub("*", name, count=1)
    return "" if pattern == name else pattern


def are_layout(folders: Iterable[str]) -> bool:
    """Whether folders of one level are parts of a data set, images and masks, rather than classes."""
    names = {name.lower() for name in folders}
    if names & {*_NNUNET, *_NNUNET.values()}:
        return True
    images, masks = (
        {pattern for name in names if (pattern := _without_word(name, whole, word))}
        for whole, word in ((_IMAGE_FOLDERS, _OF_IMAGES), (_MASK_FOLDERS, _OF_MASKS))
    )
    return bool(images & masks)


def mask_records(masks: Iterable[str]) -> list[Record]:
    """Rejected rows of the files that are masks."""
    ids = {path: pseudonym("image", path) for path in masks}
    return [
        {"image_id": own, BASE: own, "path": path, "status": "rejected", "reason": "mask_file"}
        for path, own in ids.items()
    ]


def attach_named(frame: pd.DataFrame, masks: Mapping[str, tuple[str, ...]], *, root: Path) -> pd.DataFrame:
    """Give images the masks that are called after them: none where a name leaves a choice.

    Several of one image whose names differ in a number alone (``scan_mask.png``, ``scan_mask_1.png``) are one mask.
    A mask that cannot be used (see ``masks.attach_masks``) is left out; its image stays.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for mask in sorted(masks, key=lambda path: (len(path), path)):
        for image in masks[mask]:
            found[image].append(mask)
    names = {image: {_NUMBER.sub("", _bare(mask)) for mask in parts} for image, parts in found.items()}
    own = {image: _cell(parts) for image, parts in found.items() if len(names[image]) == 1}
    named = frame.assign(mask_path=pd.Series([own.get(path) for path in objects(frame["path"])], dtype=object))
    if named["mask_path"].isna().all():
        return frame
    attached = attach_masks(named, root=root, table_folder=None)
    usable = set(frame.loc[frame["status"] == "ok", "image_id"])
    is_refused = (attached["image_id"].isin(usable) & (attached["status"] == "rejected")).to_numpy(dtype=bool)
    for column in ("reason", "mask_path", "mask_member"):
        attached[column] = attached[column].mask(is_refused)
    return attached.assign(status=attached["status"].mask(is_refused, "ok"))


def _bare(path: str) -> str:
    place = PurePosixPath(path)
    return place.with_name(_stem(place)).as_posix()


def _cell(parts: Sequence[str]) -> str:
    """How a label table would name a mask of these files."""
    member = united_member([PurePosixPath(path).name for path in parts[1:]])
    return parts[0] + (f"#{member}" if member else "")


def warn_of_mask_files(frame: pd.DataFrame, masks: Mapping[str, tuple[str, ...]]) -> None:
    """Warn of files that were taken for masks, and of what became of them."""
    if masks:
        _LOGGER.warning(
            "%d files are masks by their names and no samples; %d images have one of them as their mask now (not where "
            "an image has several of other names, or the file is no usable mask). --include mask_file takes them for "
            "images, a column mask of a label table says whose they are.",
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
