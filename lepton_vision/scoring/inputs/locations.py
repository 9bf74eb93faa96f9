"""Locations of inputs as compact text: a file, a member of an archive, an object, a row of a manifest."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, cast

from lepton_vision.errors import ManifestError, ReadError
from lepton_vision.inference.samples import named_masks
from lepton_vision.manifest.table import Manifest
from lepton_vision.readers.archives import is_archive, list_members
from lepton_vision.readers.dicom.dicomdir import is_dicomdir, list_dicomdir
from lepton_vision.readers.folders import FolderKey, match_paths, walk_folder
from lepton_vision.readers.identity import pseudonym
from lepton_vision.readers.limits import Limits
from lepton_vision.readers.remote import is_url, list_objects
from lepton_vision.transforms.rows import RowTable, TextColumn

_PSEUDONYM = re.compile(r"[0-9a-f]{16}(-([a-z]*[0-9]+|[0-9a-f]{16}))*")
_LETTER = re.compile("[a-f]")
_BETWEEN = "\0"  # the one character that no path holds
LocationKind = Literal["file", "member", "object", "row", "left_out"]


@dataclass(frozen=True, slots=True)
class Location:
    """Location of one input.

    Attributes:
        path: absolute path of the file or the archive; URL of an object.
        kind: "file", "member" of an archive, "object", "row" of a manifest, or "left_out" of a series.
        member: name in the archive, or of the array in an npz file; empty where there is none.
        index: number of the member in the archive.
        copy: number among the members of that name.
        frame: the one frame that a manifest names, or None.
        reason: code why it will not be read; empty where it can be tried.
        image_id: as the manifest has it; empty where there is none.
        patient_id: as the manifest has it.
        unkeyed: which of the two are no pseudonyms, and stay out of the rows: "image", "patient" or both, with a blank
            between them.
        repair: of a series, as the manifest has it, see ``SampleAddress.repair``.
        case: of members and objects that are channels of one case, the texts of them all, see ``packed_cases``.
    """

    path: str
    kind: LocationKind = "file"
    member: str = ""
    index: int = 0
    copy: int = 0
    frame: int | None = None
    reason: str = ""
    image_id: str = ""
    patient_id: str = ""
    unkeyed: str = ""
    repair: str = ""
    case: str = ""

    @property
    def name(self) -> PurePosixPath:
        """Name of the file at its location; that of a fetched or unpacked one says nothing."""
        return PurePosixPath(self.member if self.kind == "member" else self.path)

    @property
    def identity(self) -> str:
        """Text that ``path_id`` is made of: the same file at the same location has the same one in every run."""
        if self.kind == "member":
            return _BETWEEN.join((self.path, self.member, str(self.copy)))
        if self.member or self.frame is not None:
            return _BETWEEN.join((self.path, self.member, "" if self.frame is None else str(self.frame)))
        return self.path

    @property
    def ids(self) -> dict[str, str]:
        """Pseudonymous ids that the manifest has of it."""
        unkeyed, known = self.unkeyed.split(), dict[str, str]()
        if self.image_id:
            known["image_id"] = pseudonym("image", self.image_id) if "image" in unkeyed else self.image_id
        if self.patient_id:
            known["patient_id"] = pseudonym("patient", self.patient_id) if "patient" in unkeyed else self.patient_id
        return known

    @property
    def text(self) -> str:
        """All of it as one text; of a plain file, its path."""
        if self.kind == "file" and not self.reason:
            return self.path
        frame = "" if self.frame is None else str(self.frame)
        numbers = (str(self.index), str(self.copy), frame)
        known = (self.image_id, self.patient_id, self.unkeyed, self.repair, self.case)
        return _BETWEEN.join((self.path, self.kind, self.member, *numbers, self.reason, *known))

    @classmethod
    def of_text(cls, text: str) -> Location:
        """The location that gave this text."""
        path, *rest = text.split(_BETWEEN)
        if not rest:
            return cls(path)
        kind, member, index, copy, frame, reason, *known = rest
        number = int(frame) if frame else None
        return cls(path, cast(LocationKind, kind), member, int(index), int(copy), number, reason, *known)


def list_locations(
    named: str | Path | Iterable[str | Path], *, leave_out: Sequence[Path], limits: Limits
) -> Iterator[Location]:
    """Find what is named, in the order given; a location that is named twice comes twice (``Inputs.of`` keeps one).

    Args:
        named: a file, a folder (the files below it, as a scan sees them, see ``folders.walk_folder``), a glob pattern
            (``**`` for any depth), a manifest (.parquet, .csv: its usable rows; ids of it that are no pseudonyms get
            one; another table is a file), an archive (.zip, .tar, .tar.gz, .tgz: its members, also where it lies in
            a folder), a DICOMDIR, a URL (an object, a prefix or a pattern), or several of these. In a folder, an
            archive and a store, masks of others by their names have the reason "mask_file".
        leave_out: folders whose files are left out.
        limits: caps on archives.

    Yields:
        Places; one with a reason for an archive or DICOMDIR that cannot be used as a whole. What does not exist is a
        location too, and ends as a failure.

    Raises:
        ConfigError: an object store that cannot be listed.
        ManifestError: a manifest whose ids were made with another key.
    """
    barred = frozenset(folder.absolute() for folder in leave_out)
    entries = [named] if isinstance(named, str | Path) else named
    seen = set[FolderKey]()
    for entry in entries:
        yield from _expand(str(entry), barred, seen=seen, limits=limits)


def _expand(name: str, barred: frozenset[Path], *, seen: set[FolderKey], limits: Limits) -> Iterator[Location]:
    if is_url(name):
        urls = list_objects(name)
        masks = named_masks(urls, folder="") if len(urls) > 1 else frozenset()
        yield from (Location(url, "object", reason="mask_file" if url in masks else "") for url in urls)
        return
    path = os.path.normpath(Path(name).expanduser().absolute())
    if any(sign in path for sign in "*?[") and not os.path.lexists(path):
        found = match_paths(path)
        if found:
            for one in found:
                if Path(one) not in barred:
                    yield from _of_path(one, barred, seen=seen, limits=limits)
            return
    yield from _of_path(path, barred, seen=seen, limits=limits)


def _of_path(path: str, barred: frozenset[Path], *, seen: set[FolderKey], limits: Limits) -> Iterator[Location]:
    if os.path.isdir(path):  # noqa: PTH112
        files = TextColumn.of(walk_folder(path, leave_out=barred, seen=seen))
        masks = named_masks(files, folder=path)
        for file in files:
            yield from (Location(file, reason="mask_file"),) if file in masks else _of_file(file, limits=limits)
    elif path.lower().endswith((".parquet", ".csv")) and os.path.isfile(path):  # noqa: PTH113
        try:
            manifest = Manifest.load(path)
        except ManifestError:
            yield Location(path)  # another table, named by a shell's pattern beside images: a row, as in a folder
            return
        manifest.require_key("and scores would mix ids of both")
        yield from _of_manifest(manifest)
    elif is_dicomdir(path):
        try:
            yield from (Location(file.as_posix()) for file in list_dicomdir(path, limits=limits))
        except ReadError as error:
            yield Location(path, reason=error.reason)
    else:
        yield from _of_file(path, limits=limits)


def _of_file(path: str, *, limits: Limits) -> Iterator[Location]:
    if not is_archive(path):
        yield Location(path)
        return
    try:
        members = list_members(path, limits=limits)
    except ReadError as error:
        yield Location(path, reason=error.reason)
        return
    masks = named_masks([one.name for one in members], folder="")
    for one in members:
        reason = one.reason or ("mask_file" if one.name in masks else "")
        yield Location(path, "member", one.name, one.index, one.copy, reason=reason)


def _of_manifest(manifest: Manifest) -> Iterator[Location]:
    rows = RowTable.of(manifest)
    patients = TextColumn.of_column(manifest.frame["patient_id"], rows.index)
    is_image_keyed, is_patient_keyed = is_keyed(rows.image_ids), is_keyed(patients)
    for number in range(len(rows)):
        address, image_id, patient_id = rows.locate(number), rows.image_id(number), patients[number]
        unkeyed = [] if is_image_keyed(image_id) else ["image"]
        unkeyed += [] if is_patient_keyed(patient_id) else ["patient"]
        yield Location(
            Path(os.path.normpath(address.path.absolute())).as_posix(),
            "row",
            address.member or "",
            frame=address.frame,
            image_id=image_id,
            patient_id=patient_id,
            unkeyed=" ".join(unkeyed),
            repair=address.repair,
        )


def is_keyed(column: TextColumn) -> Callable[[str], bool]:
    """Return what tells the pseudonyms in a column of a manifest from ids that somebody wrote into it.

    ``scan`` writes 16 hexadecimal digits, with frames or further ids behind them; a manifest does not say otherwise
    where its ids come from. An id of that shape is taken for a pseudonym where it has a letter, or where all of its
    column have the shape and some a letter: numbers of 16 decimal digits alone are those of some registry.
    """

    def texts() -> Iterator[str]:  # no list: there may be millions
        return (text for text in (column[number] for number in range(len(column))) if text)

    is_ours = all(map(_PSEUDONYM.fullmatch, texts())) and any(map(_LETTER.search, texts()))
    return lambda text: not text or (bool(_PSEUDONYM.fullmatch(text)) and (is_ours or bool(_LETTER.search(text))))
