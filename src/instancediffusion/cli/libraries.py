"""Loading large libraries: without the garbage collector, and without their advice to programmers."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


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
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library, logging in (("DIFFUSERS", diffusers_logging), ("TRANSFORMERS", transformers_logging)):
        if f"{library}_VERBOSITY" not in os.environ:
            logging.set_verbosity_error()
        if not bars:
            logging.disable_progress_bar()
