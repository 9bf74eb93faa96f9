"""Sphinx configuration of the documentation; notebooks are copied beside it for each build."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
shutil.copytree(HERE.parent / "notebooks", HERE / "notebooks", dirs_exist_ok=True)

_VERSION = (HERE.parent / "lepton_vision" / "_version.py").read_text(encoding="utf-8")

project = "lepton_vision"
author = "the lepton_vision developers"
project_copyright = author
release = version = re.findall(r'__version__ = "(.+)"', _VERSION)[0]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
nb_execution_mode = "off"
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_use_ivar = True
napoleon_attr_annotations = False  # the text of an attribute gives shape, dtype, range and unit
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
suppress_warnings = ["mystnb.unknown_mime_type"]
copybutton_exclude = ".linenos, .gp, .go"


def setup(app: Any) -> None:
    """Let links to notebooks, right in the sources, lead to the copies."""
    app.connect("source-read", _lead_to_copies)


def _lead_to_copies(app: Any, name: str, text: list[str]) -> None:
    text[0] = text[0].replace("](../../notebooks/", "](../notebooks/")


html_theme = "furo"
html_title = f"lepton_vision {release}"
html_static_path = ["images", "style"]
html_css_files = ["tables.css"]
html_show_sphinx = False
