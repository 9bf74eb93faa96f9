"""Write the pages of docs/reference from the code; with --check say which are out of date.

python scripts/reference.py
python scripts/reference.py --check
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reference_pages.codes import api, reason_codes
from reference_pages.commands import command_line, exit_codes
from reference_pages.configuration import configuration
from reference_pages.tables import bundle, rows

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
PAGES = {
    "configuration": configuration,
    "command-line": command_line,
    "rows": rows,
    "bundle": bundle,
    "reason-codes": reason_codes,
    "exit-codes": exit_codes,
    "api": api,
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a page is out of date")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the pages stand")
    given = parser.parse_args(arguments)
    outdated = []
    for name, make in PAGES.items():
        path, text = given.folder / f"{name}.md", make()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            outdated.append(path.name)
            if not given.check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
    if given.check and outdated:
        print(f"Out of date: {', '.join(outdated)}. Run python scripts/reference.py, and commit what it writes.")
        return 1
    print(f"{len(PAGES)} pages, {len(outdated)} {'out of date' if given.check else 'written'}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
