"""Where the scenes that come with the package are."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def examples_folder() -> Path | None:
    """The folder of example scenes: in the installed package, or in the source tree it is run from."""
    for folder in (_PACKAGE / "examples", _PACKAGE.parent.parent / "examples"):
        if (folder / "demo.json").is_file():
            return folder
    return None
