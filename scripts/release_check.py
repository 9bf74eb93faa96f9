"""Release check: builds sdist and wheel, looks into them, and uses each in a fresh environment away from the sources.

`make release-check`, or `python scripts/release_check.py [--folder DIR]` with the packages build and twine. It takes
minutes: the fresh environment gets all core dependencies, and scripts/smoke.py trains.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from email.parser import HeaderParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "lepton_vision/"
SOURCES = ("configs/png.yaml", "docs/index.md", "notebooks/01_explore.ipynb", "scripts/smoke.py", "tests/conftest.py")
FILES = ("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "constraints.txt")
IMPORT = """
import sys, lepton_vision
from pathlib import Path
from lepton_vision.reporting.page import _environment
assert Path(lepton_vision.__file__).is_relative_to(sys.prefix), "it was not imported from the environment"
assert all(getattr(lepton_vision, name) is not None for name in lepton_vision.__all__)
_environment().get_template("report.html.j2")
print(lepton_vision.__version__)
"""


def version() -> str:
    text = (ROOT / "lepton_vision" / "_version.py").read_text(encoding="utf-8")
    return re.findall(r'__version__ = "(.+)"', text)[0]


def faults_of_wheel(path: Path) -> list[str]:
    """What is wrong with the files of a wheel."""
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        said = HeaderParser().parsestr(archive.read(metadata).decode())
    info = metadata.rpartition("/")[0]
    wanted = {f.relative_to(ROOT).as_posix() for f in (ROOT / PACKAGE).rglob("*") if "__pycache__" not in f.parts}
    wanted = {name for name in wanted if (ROOT / name).is_file()}
    faults = [f"{name} is missing" for name in sorted({*wanted, f"{info}/licenses/LICENSE"} - names)]
    faults += [f"{name} does not belong there" for name in sorted(names - wanted) if not name.startswith(info)]
    faults += [] if said["Version"] == version() else [f"version {said['Version']} is not {version()}"]
    return faults + [f"no {key}" for key in ("Summary", "License-Expression", "Requires-Python") if not said[key]]


def faults_of_sdist(path: Path) -> list[str]:
    """What is wrong with the files of an sdist."""
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {*SOURCES, *FILES, f"{PACKAGE}py.typed", "pyproject.toml", "PKG-INFO"}
    faults = [f"{name} is missing" for name in sorted(wanted - names)]
    built = [name for name in names if re.match(r"(docs/(_build|notebooks)|\.venv|runs|demo-run)/", name)]
    return faults + [f"{name} does not belong there" for name in sorted(built)]


def run(*words: object, where: Path) -> str:
    """Run a command away from the sources; end where it fails."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(word) for word in words], cwd=where, env=clean, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\n{' '.join(map(str, words))} ended with {done.returncode}")
    return done.stdout.strip()


def build(folder: Path) -> tuple[Path, Path]:
    """The wheel, built from the sdist as an index would get it, and the sdist; both without a fault."""
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, where=folder)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    faults = [*faults_of_wheel(wheel), *faults_of_sdist(sdist)]
    if faults:
        sys.exit("\n".join(faults))
    print(run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist, where=folder))
    return wheel, sdist


def use(wheel: Path, sdist: Path, folder: Path) -> None:
    """Install the wheel with its core dependencies, run the smoke test; then the sdist in its place."""
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "install", "-c", ROOT / "constraints.txt", wheel, where=folder)
    run(*pip, "check", where=folder)
    shutil.copy(ROOT / "scripts" / "smoke.py", folder / "smoke.py")
    print("wheel:", run(python, "-c", IMPORT, where=folder))
    print(run(python, "-m", "lepton_vision.cli", "doctor", where=folder))
    print(run(python, "smoke.py", where=folder))
    run(*pip, "install", "--force-reinstall", "--no-deps", sdist, where=folder)
    print("sdist:", run(python, "-c", IMPORT, where=folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="for the fresh environment; kept. Default: one that is removed")
    kept = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) if kept is None else kept.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        use(*build(folder), folder)
    print(f"lepton_vision {version()} can be released")


if __name__ == "__main__":
    main()
