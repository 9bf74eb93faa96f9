"""Import rules of the design, checked on the source, and the doorways of heavy packages."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "lepton_vision"
ROOT = {"__init__", "_lazy", "_version", "errors", "files", "registry"}
FOUNDATION = {"errors", "files", "registry", "types", "config", "progress", "_lazy", "_version"}
LEFT = {
    "predictions": set(),
    "readers": set(),
    "manifest": {"readers"},
    "transforms": {"readers", "manifest"},
    "models": {"predictions"},
    "training": {"transforms", "models"},
    "inference": {"predictions", "readers", "manifest", "transforms", "models", "training"},
    "evaluation": {"predictions", "readers", "manifest"},
    "reporting": {"predictions", "readers", "manifest", "transforms", "evaluation"},
    "scoring": {"predictions", "readers", "manifest", "transforms", "models", "inference"},
}
"""Which stages each stage may import, beside the foundation."""
TOP = {"pipeline", "demo", "cli"}
DOORWAYS = {
    "albumentations": {"transforms/augment.py"},
    "matplotlib": {"reporting/figures.py"},
    "rich": {"progress/bars.py", "cli/console.py"},
    "typer": {
        f"cli/{name}.py"
        for name in [
            "app",
            "completion",
            "evaluation",
            "exports",
            "help",
            "machine",
            "options",
            "scoring",
            "statistics",
        ]
    },
    "jinja2": {"reporting/page.py"},
    "monai": {"transforms/volume_augment.py", "inference/whole_volumes.py", "models/external_encoders.py"},
    "mlflow": {"training/runlog.py"},
    "nibabel": {"readers/nifti.py", "scoring/masks/files.py"},  # what is read there, what is written here
    "onnx": {"inference/runtimes/onnx.py"},
    "onnxruntime": {"inference/runtimes/onnx.py"},
    "openvino": {"inference/runtimes/openvino.py"},
    "nncf": {"inference/runtimes/int8.py"},
    "ray": {"scoring/cluster/ray.py"},
    "fsspec": {"readers/remote.py"},
    "tifffile": {"readers/tiff.py"},
    "highdicom": {f"scoring/dicom/{name}.py" for name in ("segmentation", "report", "heat_maps")},
}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@cache
def imports(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports anywhere, type-checking blocks left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def stage_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def stages_imported(names: set[str]) -> set[str]:
    known = FOUNDATION | TOP | set(LEFT)
    return {
        part for name in names if name.startswith("lepton_vision.") for part in [name.split(".")[1]] if part in known
    }


def breaks(stage: str, imported: set[str]) -> set[str]:
    """Stages that ``stage`` imports and may not."""
    others = imported - {stage}
    if stage in FOUNDATION:
        return others - FOUNDATION
    if stage in TOP or stage == "__init__":
        return set()
    return others - FOUNDATION - LEFT[stage]


def test_every_module_imports_only_the_foundation_and_stages_to_its_left() -> None:
    found = {str(p.relative_to(PACKAGE)): breaks(stage_of(p), stages_imported(imports(p))) for p in sources()}
    assert {name: bad for name, bad in found.items() if bad} == {}


def test_the_rule_would_notice_a_break() -> None:
    assert breaks("readers", {"manifest"}) == {"manifest"}
    assert breaks("models", {"readers"}) == {"readers"}
    assert breaks("scoring", {"evaluation", "inference"}) == {"evaluation"}
    assert breaks("config", {"readers"}) == {"readers"}
    assert breaks("evaluation", {"pipeline"}) == {"pipeline"}
    assert breaks("evaluation", {"inference", "predictions"}) == {"inference"}


def test_the_root_holds_no_other_modules() -> None:
    assert {p.stem for p in PACKAGE.glob("*.py")} <= ROOT


def test_no_stage_imports_the_face_of_the_package() -> None:
    users = {
        p.relative_to(PACKAGE).as_posix()
        for p in sources()
        if any(n.rsplit(".", 1)[0] == "lepton_vision" and module_of(n) is None for n in imports(p))
    }
    assert users <= {"__init__.py"}


def module_of(name: str) -> Path | None:
    """File of a module of ours, by its dotted name."""
    place = PACKAGE.parent.joinpath(*name.split("."))
    return next((p for p in (place.with_suffix(".py"), place / "__init__.py") if p.is_file()), None)


def imported_files(path: Path) -> set[Path]:
    """Files of ours that a file imports: the module that a name is, else the module that it is taken from."""
    names = imports(path)
    found = {name: module_of(name) for name in names if name.startswith("lepton_vision.")}
    parents = {name.rsplit(".", 1)[0] for name, place in found.items() if place is not None}
    named = {name.rsplit(".", 1)[0] for name, place in found.items() if place is None}  # attributes of that module
    return {place for name, place in found.items() if place is not None and (name in named or name not in parents)}


def find_circle(graph: dict[Path, set[Path]]) -> list[Path]:
    """Files each of which imports the next one, the last the first; [] where there is no such circle."""
    done: set[Path] = set()

    def walk(at: Path, way: list[Path]) -> list[Path]:
        if at in way:
            return way[way.index(at) :]
        if at in done:
            return []
        for other in sorted(graph.get(at, ())):
            if circle := walk(other, [*way, at]):
                return circle
        done.add(at)
        return []

    for start in sorted(graph):
        if circle := walk(start, []):
            return circle
    return []


def test_no_files_import_each_other_in_a_circle() -> None:
    circle = find_circle({p: imported_files(p) for p in sources()})
    assert [p.relative_to(PACKAGE).as_posix() for p in circle] == []


def test_a_circle_would_be_noticed() -> None:
    a, b, c = (Path(name) for name in "abc")
    assert find_circle({a: {b}, b: {c}, c: {a}}) == [a, b, c]
    assert find_circle({a: {b, c}, b: {c}, c: set()}) == []


def test_an_import_inside_a_function_counts(tmp_path: Path) -> None:
    path = tmp_path / "late.py"
    path.write_text("def f():\n    from lepton_vision.readers.image import read_image\n", encoding="utf-8")
    assert imported_files(path) == {PACKAGE / "readers" / "image.py"}


@pytest.mark.parametrize("package", sorted(DOORWAYS))
def test_a_heavy_package_has_one_doorway(package: str) -> None:
    users = {
        p.relative_to(PACKAGE).as_posix() for p in sources() if any(n.split(".")[0] == package for n in imports(p))
    }
    assert users <= DOORWAYS[package]


def test_pydicom_is_known_to_the_readers_and_the_writer_of_the_demo_alone() -> None:
    users = {stage_of(p) for p in sources() if any(n.split(".")[0] == "pydicom" for n in imports(p))}
    assert users <= {"readers", "demo"}


@pytest.mark.parametrize("stage", ["predictions", "readers", "manifest", "evaluation", "reporting"])
def test_torch_is_not_imported_there(stage: str) -> None:
    users = [p.name for p in (PACKAGE / stage).rglob("*.py") if any(n.split(".")[0] == "torch" for n in imports(p))]
    assert users == []


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.strip()


def test_importing_the_package_loads_nothing_third_party_and_changes_nothing() -> None:
    code = """
import sys, os, warnings, logging, random
before = set(sys.modules); env = dict(os.environ); filters = list(warnings.filters); state = random.getstate()
handlers = list(logging.getLogger().handlers)
import lepton_vision
dir(lepton_vision)
new = {name.split('.')[0] for name in set(sys.modules) - before}
assert env == dict(os.environ) and filters == list(warnings.filters) and state == random.getstate()
assert handlers == logging.getLogger().handlers
print(sorted(name for name in new if name not in sys.stdlib_module_names))
"""
    assert run_python(code) == "['lepton_vision']"


@pytest.mark.parametrize(
    "module",
    [
        "evaluation.classes.evaluation",
        "evaluation.masks.evaluation",
        "evaluation.masks.froc",
        "evaluation.masks.pointing",
        "predictions.predictions",
        "reporting.classes.card",
        "reporting.masks.table",
        "manifest.audit",
        "readers.image",
    ],
)
def test_a_stage_without_torch_does_not_load_it_by_a_detour(module: str) -> None:
    code = (
        f"import sys, lepton_vision.{module}; print(sorted({{'torch', 'monai', 'albumentations'}} & set(sys.modules)))"
    )
    assert run_python(code) == "[]"


def test_the_scoring_path_loads_neither_monai_nor_albumentations() -> None:
    code = (
        "import sys, lepton_vision.scoring.batch; "
        "print(sorted({'monai', 'albumentations', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    )
    assert run_python(code) == "[]"


def test_no_file_is_above_400_lines() -> None:
    long = {p.name: n for p in sources() if (n := len(p.read_text(encoding="utf-8").splitlines())) > 400}
    assert long == {}


def long_functions(source: str) -> dict[str, int]:
    """Functions whose statements, signature and docstring aside, span more than 40 lines."""
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            has_text = ast.get_docstring(node) is not None
            statements = node.body[1:] if has_text and len(node.body) > 1 else node.body
            lines = (node.end_lineno or 0) - statements[0].lineno + 1
            if lines > 40:
                found[node.name] = lines
    return found


def test_no_function_is_above_40_lines() -> None:
    found = {p.relative_to(PACKAGE).as_posix(): long_functions(p.read_text(encoding="utf-8")) for p in sources()}
    assert {name: long for name, long in found.items() if long} == {}


def test_the_rule_of_length_would_notice_a_long_function() -> None:
    many = "\n".join(["    x = 1"] * 41)
    assert long_functions(f'def f(\n    a,\n):\n    """Text."""\n{many}') == {"f": 41}
    assert long_functions("def f():\n" + "\n".join(["    x = 1"] * 40)) == {}


def first_line_fault(source: str) -> str:
    """What is wrong with the first line of a module's docstring; "" where it is a name with a full stop."""
    line = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
    if not line:
        return "no docstring"
    if line.split()[0].strip(":,") in {"What", "Where", "Whether", "How", "Which", "Who", "Whose"}:
        return f"a question, not a name: {line}"
    return "" if line.endswith(".") else f"no full stop: {line}"


def test_every_module_says_in_its_first_line_what_it_is() -> None:
    faults = {str(path.relative_to(PACKAGE)): first_line_fault(path.read_text(encoding="utf-8")) for path in sources()}
    assert {name: fault for name, fault in faults.items() if fault} == {}


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("x = 1", "no docstring"),
        ('"""What makes two images the same."""', "a question"),
        ('"""Image hashes"""', "no full stop"),
        ('"""Image hashes\n\nExact and perceptual."""', "no full stop"),
        ('"""Image hashes: exact and perceptual."""', ""),
    ],
)
def test_a_poor_first_line_would_be_noticed(source: str, fault: str) -> None:
    assert first_line_fault(source).startswith(fault)
    assert bool(first_line_fault(source)) == bool(fault)


KINDS = {"binary", "multiclass", "multilabel", "ordinal", "regression"}
KIND_GROUPS = {"CLASS_KINDS", "EXCLUSIVE", "KINDS", "ORDERED", "VALUES", "YES_NO"}


def kind_comparisons(source: str) -> list[int]:
    """Lines that compare with the name of a kind of target, or ask whether ``x.kind`` is in a group of kinds."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            sides = [one for side in (node.left, *node.comparators) for one in ast.walk(side)]
            names = any(isinstance(one, ast.Constant) and one.value in KINDS for one in sides)
            groups = any(isinstance(one, ast.Name) and one.id in KIND_GROUPS for one in node.comparators)
            if names or (groups and isinstance(node.left, ast.Attribute) and node.left.attr == "kind"):
                found.append(node.lineno)
    return found


def test_nobody_else_compares_kinds_of_targets() -> None:
    found = {path.name: kind_comparisons(path.read_text(encoding="utf-8")) for path in sources()}
    assert {name for name, lines in found.items() if lines} <= {"kinds.py"}


def test_a_comparison_of_kinds_would_be_noticed() -> None:
    for condition in ("target.kind == 'binary'", "kind in ('ordinal', 'x')", "one.kind not in EXCLUSIVE"):
        assert kind_comparisons(f"y = 1 if {condition} else 2") == [1]


def view_comparisons(source: str) -> list[int]:
    """Lines that compare the ``view`` of something with a name."""
    compared = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Compare))
    return [
        node.lineno
        for node in compared
        if any(isinstance(one, ast.Attribute) and one.attr == "view" for one in (node.left, *node.comparators))
        and any(isinstance(one, ast.Constant) for side in (node.left, *node.comparators) for one in ast.walk(side))
    ]


def test_the_configuration_alone_compares_names_of_views() -> None:
    found = {path.name: view_comparisons(path.read_text(encoding="utf-8")) for path in sources()}
    assert {name for name, lines in found.items() if lines} <= {"config.py", "sections.py"}
    for condition in ("config.volume.view == '3d'", "volume.view in ('2.5d', 'slices')"):
        assert view_comparisons(f"y = 1 if {condition} else 2") == [1]


def test_no_gpl_decoder_is_named() -> None:
    forbidden = "pylibjpeg" + "-libjpeg"
    project = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert forbidden not in project
