"""Every code block of the pages that show how things are done runs, in the order in which a reader meets it."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import pytest
import typer.main

from lepton_vision.cli.app import app
from tests.docs import folders
from tests.docs.blocks import Block, Page, read_page, run_page, shell_commands

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [read_page(path) for room in ("start", "how-to") for path in sorted((DOCS / room).glob("*.md"))]
ALL = [read_page(path) for path in sorted([ROOT / "README.md", *DOCS.rglob("*.md")]) if "_build" not in path.parts]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.path.parent.name}-{page.path.stem}")
def test_the_code_of_a_page_runs(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    for name in page.needs:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    getattr(folders, page.folder.replace("-", "_"))(tmp_path, request)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    run_page(page, tmp_path)


def test_every_page_has_blocks_that_run_or_say_why_not() -> None:
    for page in PAGES:
        for block in page.blocks:
            assert block.language in {"python", "bash", "yaml", "csv", "toml", "text", "json"}, (page.path, block.line)
            assert not block.why_not or len(block.why_not.split()) > 2, (page.path, block.line)


@pytest.mark.parametrize("page", ALL, ids=lambda page: str(page.path.relative_to(ROOT)))
def test_commands_in_a_page_exist_with_their_options(page: Page) -> None:
    for block in page.blocks:
        if block.language == "bash":
            check_shell(block)
        elif block.language == "python":
            compile(block.text, str(page.path), "exec")


def check_shell(block: Block) -> None:
    """Hold a shell block against bash's grammar, and our commands in it against the command line."""
    checked = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    commands = typer.main.get_command(app).commands
    for words, line in shell_commands(block.text):
        if words[0] != "lepton-vision" or len(words) == 1 or words[1].startswith("-"):
            continue
        assert words[1] in commands, line
        known = {option for one in commands[words[1]].params for option in (*one.opts, *one.secondary_opts)} | {
            "--help"
        }
        given = {word.split("=")[0] for word in words[2:] if word.startswith("--")}
        assert given <= known, (line, given - known)


def test_a_block_that_fails_fails_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("```python\n1 / 0\n```\n", "```bash\nfalse\n```\n", "```bash\nlepton-vision inspect nothing\n```\n"):
        (tmp_path / "page.md").write_text(text)
        with pytest.raises((AssertionError, ZeroDivisionError)):
            run_page(read_page(tmp_path / "page.md"), tmp_path)
    (tmp_path / "page.md").write_text("```bash\nlepton-vision scan a --nonsense 1\n```\n")
    with pytest.raises(AssertionError, match="nonsense"):
        check_shell(read_page(tmp_path / "page.md").blocks[0])


def test_remarks_name_folder_packages_reasons_and_exit_codes(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(
        "# T\n\n<!-- runs in: demo -->\n<!-- needs: onnx -->\n\n<!-- not run: needs a cluster of nodes -->\n\n"
        "```bash\nsrun x\n```\n\n<!-- ends with: 1 -->\n\n```bash\nfalse\n```\n\ntext\n\n```python\nx = 1\n```\n"
    )
    page = read_page(tmp_path / "page.md")
    assert (page.folder, page.needs) == ("demo", ("onnx",))
    assert [one.why_not for one in page.blocks] == ["needs a cluster of nodes", "", ""]
    assert [one.status for one in page.blocks] == [0, 1, 0]
    assert page.blocks[2].line == 21
