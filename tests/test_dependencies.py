"""Third-party imports of the package against ``pyproject.toml``."""

from __future__ import annotations

import ast
import os
import pickle
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest

from lepton_vision.errors import MissingExtraError

ROOT = Path(__file__).resolve().parents[1]
# What of the package may import a package that an extra brings, and how it is reached.
DOORWAYS = {
    "onnx": ("onnx", "import lepton_vision.inference.runtimes.onnx"),
    "onnxruntime": ("onnx", "import lepton_vision.inference.runtimes.onnx"),
    "openvino": ("openvino", "import lepton_vision.inference.runtimes.openvino"),
    "nncf": ("int8", "import lepton_vision.inference.runtimes.int8"),
    "timm": ("timm", "import lepton_vision.models.timm_encoders"),
    "fsspec": ("remote", "from lepton_vision.readers.remote import list_objects; list_objects('s3://bucket/')"),
    "s3fs": ("remote", "from lepton_vision.readers.remote import list_objects; list_objects('s3://bucket/')"),
    "ray": (
        "ray",
        "from lepton_vision.scoring.cluster import ray\nwith ray._connected(ray.Cluster(address=None)): pass",
    ),
}


def normalized(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement)[0].lower().replace("_", "-")


@cache
def declared() -> dict[str, set[str]]:
    """Distributions by extra; "" holds the core dependencies."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"": project["dependencies"]} | project["optional-dependencies"]
    return {name: {normalized(one) for one in found} for name, found in groups.items()}


def modules_of(source: str) -> set[str]:
    """Top-level names of the absolute imports of a file, those inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            first = node.args[0]
            names |= {first.value} if isinstance(first, ast.Constant) else set()
    return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)


@cache
def third_party() -> dict[str, set[str]]:
    """Third-party modules and the files of the package that import them."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "lepton_vision").rglob("*.py")):
        for name in modules_of(path.read_text(encoding="utf-8")) - {"lepton_vision"}:
            found.setdefault(name, set()).add(path.relative_to(ROOT).as_posix())
    return found


installed = cache(packages_distributions)  # reads the metadata of every distribution: half a second


def distribution_of(module: str) -> str:
    known = installed().get(module, [])
    ours = {one for group in declared().values() for one in group}
    names = [normalized(name) for name in known]
    return next((name for name in names if name in ours), names[0] if names else {"mlflow": "mlflow-skinny"}[module])


def test_the_search_sees_imports_inside_functions_and_by_name() -> None:
    source = "import os\nfrom . import x\ndef f():\n    from monai.data import y\n    import_module('ray.data')\n"
    assert modules_of(source) == {"monai", "ray"}
    assert {"torch", "monai", "sklearn", "cv2", "yaml"} <= set(third_party())


def test_every_third_party_import_is_declared() -> None:
    everything = set.union(*declared().values())
    undeclared = {module: files for module, files in third_party().items() if distribution_of(module) not in everything}
    assert undeclared == {}


def test_what_an_extra_brings_is_imported_behind_a_doorway_alone() -> None:
    optional = {module for module in third_party() if distribution_of(module) not in declared()[""]}
    assert optional - {"mlflow"} <= set(DOORWAYS)  # mlflow: see tests/training/test_tracking.py
    for extra, _ in DOORWAYS.values():
        assert extra in declared()


@pytest.mark.slow
def test_a_missing_extra_is_one_typed_error_with_a_command_that_works() -> None:
    code = f"""
import sys
from lepton_vision.errors import MissingExtraError
class Absent:
    package = ""
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
for package, (extra, reach) in {DOORWAYS!r}.items():
    Absent.package = package
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        del sys.modules[name]
    try:
        exec(reach)
    except MissingExtraError as error:
        assert error.extra == extra and error.exit_code == 2
        assert str(error).startswith(f"Expected the package {{package}}. Found: none."), error
        assert f"pip install -e '.[{{extra}}]'" in str(error)
        print(package)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == list(DOORWAYS)


def test_a_missing_extra_survives_a_process_border() -> None:
    error = pickle.loads(pickle.dumps(MissingExtraError("ray", extra="ray", key="on")))
    assert (str(error), error.extra, error.key) == (str(MissingExtraError("ray", extra="ray", key="on")), "ray", "on")


def test_no_text_names_an_install_from_an_index_that_does_not_have_the_package() -> None:
    texts = [*(ROOT / "lepton_vision").rglob("*.py"), ROOT / "README.md"]
    named = [path.name for path in texts if re.search(r"nstall '?lepton-vision\[", path.read_text(encoding="utf-8"))]
    assert named == []


LOAD = "from lepton_vision.inference.runtimes.choice import load_engine"
REPORTS = {
    "onnx": f"{LOAD}\nload_engine(bundle, engine='onnx')",
    "openvino": f"{LOAD}\nload_engine(bundle, engine='openvino')",
    "int8": "import lepton_vision.inference.runtimes.int8",
    "remote": "import fsspec, s3fs",
    "timm": "lv.build_model(config.override('model.backbone=timm:resnet18'))",
    "ray": DOORWAYS["ray"][1],
}


@pytest.mark.slow
@pytest.mark.parametrize("extra", sorted(REPORTS))
def test_no_extra_writes_into_the_home_or_needs_a_network(extra: str, tmp_path: Path) -> None:
    """In a network namespace without a route: only the loopback device is there."""
    alone = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    try:
        subprocess.run([*alone, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs unshare and ip, and the right to make a network namespace")
    for module, (name, _) in DOORWAYS.items():
        if name == extra and find_spec(module) is None:
            pytest.skip(f"needs {module}")
    code = f"""
import lepton_vision as lv
config = lv.Config(targets=(lv.Target("sick", "binary", ("no", "yes")),)).override("preprocess.size=[32, 32]")
bundle = lv.Bundle(config=config, targets=config.targets, state=lv.build_model(config).state_dict())
{REPORTS[extra]}
import time; time.sleep(2)  # a report may be written by a thread
"""
    quiet = {"HOME": str(tmp_path), "LEPTON_VISION_ID_KEY": "k", "XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": ""}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "RAY_"))}
    done = subprocess.run(
        [*alone, sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False, env=kept | quiet
    )
    assert done.returncode == 0, done.stderr
    own = {".ray/auth_token"}  # by which the processes of a Ray cluster know each other
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} <= own
