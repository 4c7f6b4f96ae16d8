"""Loading large libraries: without the garbage collector, their advice to programmers, and unneeded optional parts."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any


@contextmanager
def uncollected() -> Iterator[None]:
    """Switch the cycle collector off while libraries are loaded, and keep it from what they leave.

    Importing torch, transformers and diffusers makes more than a million objects that stay. The collector would walk
    them again and again for nothing, which takes a fifth of the time of the imports.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()


def quieten_libraries(*, bars: bool) -> None:
    """Keep the libraries' advice to programmers off the terminal; what the environment asks for wins.

    Args:
        bars: let them show bars while they load and download.
    """
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    for library in ("diffusers", "transformers"):
        if find_spec(library) is None:  # see `unloaded`
            continue
        logging = import_module(f"{library}.utils.logging")
        if f"{library.upper()}_VERBOSITY" not in os.environ:
            logging.set_verbosity_error()
        if not bars:
            logging.disable_progress_bar()


UNASKED = ("peft", "scipy", "transformers")
"""What diffusers imports only because it is installed: for LoRA files, for a few schedulers, and for text encoders, of
which `pipeline.clip_text` has the one that the model in the package needs. It is a third of the time that all imports
take."""


def runs_one_command() -> None:
    """Say that this process runs one command and ends: what it does not need it need not load."""
    global _one_command
    _one_command = True


_one_command = False


@contextmanager
def unloaded(packages: Collection[str] = UNASKED) -> Iterator[None]:
    """Have libraries that are loaded meanwhile find some packages not installed.

    They decide once and for all of a process what they can do, so it does nothing but in processes of which
    `runs_one_command` was said.
    """
    hidden = [name for name in packages if name not in sys.modules] if _one_command else []
    known: dict[str, Any] = sys.modules
    known.update(dict.fromkeys(hidden))  # how Python spells "no such module"
    try:
        yield
    finally:
        for name in hidden:
            if known.get(name, sys) is None:
                del known[name]
