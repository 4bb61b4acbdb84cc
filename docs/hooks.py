"""For mkdocs: the aligned lists of names in docstrings become tables on the page of the reference."""

from __future__ import annotations

import re
from itertools import groupby
from typing import Any

_PARAGRAPH = re.compile(r"<p>((?:(?!</p>).)*? {2,}(?:(?!</p>).)*)</p>", re.DOTALL)
_ROW = re.compile(r"([a-z_]\w*) {2,}(.+)")


def on_page_content(html: str, *, page: Any, **_: Any) -> str:
    """Called by mkdocs with the HTML of each page."""
    return _PARAGRAPH.sub(_as_table, html) if page.file.src_uri == "reference.md" else html


def _as_table(paragraph: re.Match[str]) -> str:
    lines: list[tuple[str, str]] = []  # (name, or "" for text), text
    for line in paragraph[1].split("\n"):
        if (row := _ROW.fullmatch(line)) is not None:
            lines.append((row[1], row[2]))
        elif lines and (line.startswith("  ") or not lines[-1][0]):  # a line goes on
            lines[-1] = lines[-1][0], f"{lines[-1][1]} {line.strip()}"
        else:
            lines.append(("", line.strip()))
    parts = []
    for is_row, group in groupby(lines, key=lambda line: bool(line[0])):
        if is_row:
            rows = "".join(f"<tr><td><code>{name}</code></td><td>{text}</td></tr>" for name, text in group)
            parts.append(f"<table><tbody>{rows}</tbody></table>")
        else:
            parts += [f"<p>{text}</p>" for _, text in group]
    return "".join(parts)
