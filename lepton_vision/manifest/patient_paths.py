"""Parts of paths that look like patient ids: suggested to the user, never applied unasked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Final

_MOST_PATHS: Final = 20_000  # looked at; neighbours in sorted order are of one patient
_WORDS: Final = "patient|participant|subject|volunteer|person|subj|pat|sub|mrn|pid|pt|case|p"
_WORD: Final = re.compile(rf"(?<![A-Za-z0-9])((?:{_WORDS})[-_ ]?)(\d+)", re.IGNORECASE)
_SCHEMES: Final = (  # of TCGA, BIDS where names hold letters, CBIS-DDSM, and OASIS
    "TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}",
    "sub-[A-Za-z0-9]+",
    r"P_\d{5}",
    r"OAS(?:[12]_|3)\d{4}",
)
_SESSION: Final = re.compile(  # behind a patient in the name of a folder, as in S001_visit2
    r"(?<=\d)[-_. ](?:ses|session|visit|scan|study|mr|ct|day|week|month|year|time|tp|t|v)[-_]?\d+(?![A-Za-z0-9]).*",
    re.IGNORECASE,
)
_NO_PATIENT: Final = re.compile(
    "study|series|session|ses|visit|view|slice|frame|fold|class|images?|img|scan|part|batch|grade|stage|label|folder|set"
    "|phase|day|month|year|time|t|v|level|birads|train|test|val|copy|version|file|shard|chunk|block|png|jpe?g|dicom|dcm"
)
_FEW: Final = 12  # numbered folders up to here are grades, months, batches …
_SHARD: Final = 1000  # images in a numbered folder that is no patient
_OWN_NAMES: Final = 200  # as many will do where no two images of the folders are called alike


def suggest_pattern(paths: Sequence[str]) -> str | None:
    """A regular expression of what looks like a patient in most of the relative paths, or None."""
    paths = paths[:_MOST_PATHS]
    for candidates in (_by_word(paths), _SCHEMES, _by_folder(paths), _by_file_name(paths)):
        rated = [(_coverage(pattern, paths), pattern) for pattern in candidates]
        good = [(count, pattern) for (share, count), pattern in rated if share >= 0.8 and count >= 2]
        if good:
            return max(good, key=lambda one: one[0])[1]
    return None


def _coverage(pattern: str, paths: Sequence[str]) -> tuple[float, int]:
    """Share of the paths that a pattern finds something in, and how many different things it finds."""
    compiled = re.compile(pattern)
    found = [match.group(compiled.groups) for match in map(compiled.search, paths) if match]
    return len(found) / max(1, len(paths)), len(set(found))


def _by_word(paths: Sequence[str]) -> list[str]:
    """Patterns of a word for a patient and a number, as in patient00012, sub-01 and p10/p10000032."""
    prefixes: Counter[str] = Counter()
    digits: dict[str, Counter[int]] = {}
    for path in paths:
        parts = _WORD.findall(path)
        prefixes.update({prefix for prefix, _ in parts})
        for prefix, number in parts:
            digits.setdefault(prefix, Counter())[len(number)] += 1
    common = [prefix for prefix, count in prefixes.most_common(3) if count >= 0.8 * len(paths)]
    found = []
    for prefix in sorted(common, key=lambda one: _WORDS.split("|").index(one.lower().rstrip("-_ ")))[:1]:
        start = re.escape(prefix).replace(r"\-", "-").replace(r"\ ", " ")
        patterns = [rf"{start}\d+"]
        patterns += [rf"{start}\d{{{length}}}" for length in digits[prefix] if len(digits[prefix]) == 2]
        found += patterns if len(prefix) > 2 else [f"(?:^|/)({one})" for one in patterns]
    return found


def _by_folder(paths: Sequence[str]) -> list[str]:
    """Patterns of the folders of one level that are numbered alike, as in LIDC-IDRI-0001/."""
    found = []
    depth = max((path.count("/") for path in paths), default=0)
    for level in range(depth):
        whole = [path.split("/")[level] for path in paths if path.count("/") > level]
        names = [_SESSION.sub("", name) for name in whole]
        template = _template(names, total=len(paths))
        few = 2 if template is not None and template != r"\d+" else _FEW
        if template is not None and len(set(names)) > few and not (template == r"\d+" and _are_shards(names, paths)):
            pattern = f"({template})" if whole != names else f"({template})/"
            anywhere = f"(?:^|/){pattern}"
            found.append(anywhere if _levels(anywhere, paths) == {level} else f"^(?:[^/]+/){{{level}}}{pattern}")
    return found


def _are_shards(names: Sequence[str], paths: Sequence[str]) -> bool:
    """Whether numbered folders hold so many images each that they divide a large set rather than patients.

    The slices of patients are often called alike in each folder.
    """
    usual = sorted(Counter(names).values())[len(set(names)) // 2]
    are_own = len({PurePosixPath(path).name for path in paths}) == len(paths)
    return usual >= _SHARD or (usual >= _OWN_NAMES and are_own)


def _levels(pattern: str, paths: Sequence[str]) -> set[int]:
    """Number of folders before the part of the paths that a pattern matches."""
    found = map(re.compile(pattern).search, paths)
    return {match.string.count("/", 0, match.start(1)) for match in found if match}


def _by_file_name(paths: Sequence[str]) -> list[str]:
    """Patterns of the first number of file names that repeats, as in 00000012_003.png and IM-0012-0001.png."""
    heads = [re.match(r"(.*?\d+)[-_. ].", PurePosixPath(path).stem + ".") for path in paths]
    names = [head.group(1) for head in heads if head]
    template = _template(names, total=len(paths))
    if template is None or len(names) < 1.5 * len(set(names)) or len(set(names)) < 2:
        return []
    return [f"(?:^|/)({template})[-_. ][^/]*$"]


def _template(names: Sequence[str], *, total: int) -> str | None:
    """The names with their numbers left open, where most are alike and no word says what else they are."""
    known = (re.sub(r"\d+", lambda _: r"\d+", re.escape(name).replace(r"\-", "-")) for name in names)
    alike = Counter(text for text in known if r"\d+" in text)
    if not alike:
        return None
    template, count = alike.most_common(1)[0]
    words = re.findall(r"[a-z]+", template.replace(r"\d", " ").lower())
    return None if count < 0.8 * total or any(map(_NO_PATIENT.fullmatch, words)) else template
