"""Files that nobody could make whole again, kept beside under names that readers do not look for: `.7.damaged`."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

_NAME = re.compile(r"\.(.+)\.damaged\d*")


def move_aside(path: Path) -> None:
    """Rename the file, so that readers take its frames for missing."""
    os.replace(path, _free_name(path))


def keep_aside(path: Path, *, copied: bool) -> None:
    """Keep what the file has now.

    copied  False where another file will take its place, and the bytes of this one stay as they are
    """
    aside = _free_name(path)
    if not copied:
        try:
            os.link(path, aside)
            return
        except OSError:  # not on this file system
            pass
    shutil.copyfile(path, aside)


def original_name(path: Path) -> str:
    """Of a file that was put aside; empty for any other."""
    match = _NAME.fullmatch(path.name)
    return match[1] if match else ""


def _free_name(path: Path) -> Path:
    number = 0
    while (aside := path.with_name(f".{path.name}.damaged{number or ''}")).exists():
        number += 1
    return aside
