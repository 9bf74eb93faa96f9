"""HTML page rendering shared by all reports, from template to file: the doorway to jinja2."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from lepton_vision._version import __version__
from lepton_vision.errors import ReportError
from lepton_vision.files import write_atomic
from lepton_vision.reporting.classes.case_words import in_units


def check_place(path: str | Path) -> None:
    """Refuse a folder before any work is done.

    Raises:
        ReportError: ``path`` is a folder.
    """
    if Path(path).is_dir():
        raise ReportError("Expected a file to write the report to. Received: a folder. Add a file name.", path=path)


def write_page(path: str | Path, page: str) -> Path:
    """Write a page, whole or not at all; its folder is made if it is missing.

    Raises:
        ReportError: it cannot be written there.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, page)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ReportError(
            f"The report cannot be written: {reason}. Give a folder that is writable and has room.", path=path
        ) from None
    return path


def render_template(name: str, **values: Any) -> str:
    """Fill a template of this package; every text is escaped, and a value that is missing is an error."""
    page: str = _environment().get_template(name).render(version=__version__, **values)
    return page


@dataclass(frozen=True, slots=True)
class Script:
    """A script of this package, for a page that allows no other.

    Attributes:
        text: what stands between the tags.
        hash: what the page's Content-Security-Policy names it by.
    """

    text: Markup
    hash: str


def read_script(name: str) -> Script:
    """Read a script from the templates; it is put into a page as it is."""
    source = (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")
    digest = hashlib.sha256(source.encode("utf-8")).digest()
    return Script(Markup(source), f"sha256-{base64.b64encode(digest).decode('ascii')}")  # noqa: S704 - a file of ours


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("lepton_vision.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["drawn"] = Markup  # for SVG from to_svg, whose texts are escaped there
    environment.filters["cases"] = _cases
    return environment


@pass_context
def _cases(context: Context, text: str) -> str:
    """A fixed text with the unit of analysis in place of "image"."""
    return in_units(text, str(context.get("unit", "image")))
