"""Where inputs lie, as texts that can be packed: a file, a member of an archive, an object, a row of a manifest."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from lepton_vision.errors import ManifestError, ReadError
from lepton_vision.inference.samples import walk_folder
from lepton_vision.manifest.table import Manifest
from lepton_vision.readers.archives import is_archive, list_members
from lepton_vision.readers.dicomdir import is_dicomdir, list_dicomdir
from lepton_vision.readers.limits import Limits
from lepton_vision.readers.remote import is_url, list_objects
from lepton_vision.transforms.rows import RowTable, TextColumn

_BETWEEN = "\0"  # the one character that no path holds
PlaceKind = Literal["file", "member", "object", "row"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where one input lies.

    Attributes:
        path: absolute path of the file or the archive; URL of an object.
        kind: "file", "member" of an archive, "object" or "row" of a manifest.
        member: name in the archive, or of the array in an npz file; empty where there is none.
        index: number of the member in the archive.
        copy: number among the members of that name.
        frame: the one frame that a manifest names, or None.
        reason: code why it will not be read; empty where it can be tried.
        image_id: as the manifest has it; empty where there is none.
        patient_id: as the manifest has it.
    """

    path: str
    kind: PlaceKind = "file"
    member: str = ""
    index: int = 0
    copy: int = 0
    frame: int | None = None
    reason: str = ""
    image_id: str = ""
    patient_id: str = ""

    @property
    def identity(self) -> str:
        """What its ``path_id`` is made of: the same file at the same place has the same one in every run."""
        if self.kind == "member":
            return _BETWEEN.join((self.path, self.member, str(self.copy)))
        if self.member or self.frame is not None:
            return _BETWEEN.join((self.path, self.member, "" if self.frame is None else str(self.frame)))
        return self.path

    @property
    def ids(self) -> dict[str, str]:
        """What the manifest knows of it."""
        known = {"image_id": self.image_id, "patient_id": self.patient_id}
        return {name: value for name, value in known.items() if value}

    @property
    def text(self) -> str:
        """All of it as one text; of a plain file, its path."""
        if self.kind == "file" and not self.reason:
            return self.path
        frame = "" if self.frame is None else str(self.frame)
        numbers = (str(self.index), str(self.copy), frame)
        return _BETWEEN.join((self.path, self.kind, self.member, *numbers, self.reason, self.image_id, self.patient_id))

    @classmethod
    def of_text(cls, text: str) -> Place:
        """The place that gave this text."""
        path, *rest = text.split(_BETWEEN)
        if not rest:
            return cls(path)
        kind, member, index, copy, frame, reason, image_id, patient_id = rest
        number = int(frame) if frame else None
        return cls(path, cast(PlaceKind, kind), member, int(index), int(copy), number, reason, image_id, patient_id)


def list_places(
    named: str | Path | Iterable[str | Path], *, leave_out: Sequence[Path], limits: Limits
) -> Iterator[Place]:
    """Find what is named, in the order given; a place that is named twice comes twice (``Inputs.of`` keeps one).

    Args:
        named: a file, a folder (the files below it, sorted, hidden ones left out), a glob pattern (``**`` for any
            depth), a manifest (.parquet, .csv: its usable rows; another table is one place), an archive (.zip, .tar,
            .tar.gz, .tgz: its members, also where it lies in a folder), a DICOMDIR, a URL (an object, a prefix or a
            pattern), or several of these.
        leave_out: folders whose files are left out.
        limits: caps on archives.

    Yields:
        Places; one with a reason for an archive or DICOMDIR that cannot be used as a whole. What does not exist is a
        place too, and ends as a failure.

    Raises:
        ConfigError: an object store that cannot be listed.
    """
    barred = frozenset(folder.absolute() for folder in leave_out)
    entries = [named] if isinstance(named, str | Path) else named
    for entry in entries:
        yield from _expand(str(entry), barred, limits=limits)


def _expand(name: str, barred: frozenset[Path], *, limits: Limits) -> Iterator[Place]:
    if is_url(name):
        yield from (Place(url, "object") for url in list_objects(name))
        return
    path = os.path.normpath(Path(name).expanduser().absolute())
    if any(sign in path for sign in "*?[") and not os.path.lexists(path):
        found = sorted(glob.glob(path, recursive=True))  # noqa: PTH207  keeps texts
        if found:
            for one in found:
                if Path(one) not in barred:
                    yield from _of_path(one, barred, limits=limits)
            return
    yield from _of_path(path, barred, limits=limits)


def _of_path(path: str, barred: frozenset[Path], *, limits: Limits) -> Iterator[Place]:
    if os.path.isdir(path):  # noqa: PTH112
        for file in walk_folder(path, barred):
            yield from _of_file(file, limits=limits)
    elif path.lower().endswith((".parquet", ".csv")) and os.path.exists(path):  # noqa: PTH110
        try:
            manifest = Manifest.load(path)
        except ManifestError:
            yield Place(path)  # another table, named by a shell's pattern beside images: a row, as in a folder
            return
        yield from _of_manifest(manifest)
    elif is_dicomdir(path):
        try:
            yield from (Place(file.as_posix()) for file in list_dicomdir(path, limits=limits))
        except ReadError as error:
            yield Place(path, reason=error.reason)
    else:
        yield from _of_file(path, limits=limits)


def _of_file(path: str, *, limits: Limits) -> Iterator[Place]:
    if not is_archive(path):
        yield Place(path)
        return
    try:
        members = list_members(path, limits=limits)
    except ReadError as error:
        yield Place(path, reason=error.reason)
        return
    for one in members:
        yield Place(path, "member", one.name, one.index, one.copy, reason=one.reason)


def _of_manifest(manifest: Manifest) -> Iterator[Place]:
    rows = RowTable.of(manifest)
    patients = TextColumn.of_column(manifest.frame["patient_id"], rows.index)
    for number in range(len(rows)):
        address = rows.locate(number)
        path = Path(os.path.normpath(address.path.absolute())).as_posix()
        yield Place(
            path,
            "row",
            address.member or "",
            frame=address.frame,
            image_id=rows.image_id(number),
            patient_id=patients[number],
        )
