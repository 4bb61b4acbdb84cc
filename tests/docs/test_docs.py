"""The documentation does what it says: its code runs, its links lead somewhere, its tables are what the code prints."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
RUNNING = [ROOT / "README.md", DOCS / "index.md", *sorted((DOCS / "guide").glob("*.md"))]
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_SNIPPET = re.compile(r'^--8<-- "(.+)"$', re.MULTILINE)


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _with_code(pages: list[Path]) -> list[Path]:
    return [page for page in pages if _BLOCK.search(page.read_text(encoding="utf-8"))]


def _printed(page: Path, folder: Path) -> str:
    """What the blocks of a page print, when they are pasted into a file one after another."""
    script = folder / "page.py"
    script.write_text("\n".join(_BLOCK.findall(page.read_text(encoding="utf-8"))), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "utf8", script.name], cwd=folder, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, f"{_name(page)}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("page", _with_code(RUNNING), ids=_name)
def test_code_of_a_page_runs_as_pasted(page: Path, tmp_path: Path) -> None:
    _printed(page, tmp_path)


def test_tables_of_chunks_and_shards_are_what_the_code_prints(tmp_path: Path) -> None:
    page = DOCS / "guide" / "layout.md"
    rows = [line for line in _printed(page, tmp_path).splitlines() if line.startswith("| ")]
    shown = set(page.read_text(encoding="utf-8").splitlines())
    assert rows
    assert [row for row in rows if row not in shown] == []


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=_name)
def test_links_of_a_page_lead_to_files(page: Path) -> None:
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    targets = [target.partition("#")[0] for target in _LINK.findall(text) if "://" not in target]
    assert [target for target in targets if target and not (page.parent / target).is_file()] == []


def test_every_page_is_in_the_navigation_once() -> None:
    listed = re.findall(r"[\w./-]+\.md$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(page.relative_to(DOCS).as_posix() for page in PAGES)


def test_included_files_exist() -> None:
    included = [name for page in PAGES for name in _SNIPPET.findall(page.read_text(encoding="utf-8"))]
    assert included
    assert [name for name in included if not (ROOT / name).is_file()] == []


def test_settings_file_of_the_command_line_page_gives_the_plan_beside_it(tmp_path: Path) -> None:
    page = (DOCS / "guide" / "cli.md").read_text(encoding="utf-8")
    (settings,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (shown,) = re.findall(r"^```text\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    code = "import sys; from scopestream import AcquisitionSettings as S; print(S.from_yaml(sys.stdin.read()).plan())"
    done = subprocess.run(
        [sys.executable, "-c", code], input=settings, capture_output=True, encoding="utf-8", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert [line for line in shown.splitlines() if line != "..." and line not in printed] == []
