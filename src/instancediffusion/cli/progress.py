"""What commands print for a user: paths on stdout; progress, warnings and errors on stderr."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from instancediffusion.errors import SceneWarning
from instancediffusion.stores import told


def echo(text: object, *, err: bool = False) -> None:
    """Print a line in which folders of a store go by their addresses."""
    click.echo(told(str(text)), err=err)


class Reporter:
    """Prints what is written, and bars with the time left if stderr is a terminal.

    Args:
        quiet: print neither paths nor bars.
    """

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.watched = not quiet and sys.stderr.isatty()
        self._bar: Any = None
        self._warned: set[str] = set()

    def line(self, text: str) -> None:
        """Print a line to stdout, without tearing a bar."""
        if self.quiet:
            return
        if self._bar is None:
            echo(text)
        else:
            self._bar.clear()
            echo(text)
            self._bar.refresh()

    def wrote(self, path: Path | None) -> None:
        """Print the path of a file, if one was written."""
        if path is not None:
            self.line(str(path))

    def made(self, path: Path) -> None:
        """Count a picture and print its path."""
        if self._bar is not None:
            self._bar.update()
        self.line(str(path))

    @contextmanager
    def warnings(self) -> Iterator[None]:
        """Print each warning about a scene as it comes."""
        with warnings.catch_warnings():
            warnings.simplefilter("always", SceneWarning)
            warnings.showwarning = self._show
            yield

    @contextmanager
    def progress(self, pipeline: Any, pictures: int) -> Iterator[None]:
        """Show bars on a terminal: all pictures, and of a pipeline the batch elements of those being made."""
        if pipeline is not None:
            pipeline.set_progress_bar_config(disable=True)
        with self.warnings():
            if not self.watched:
                yield
                return
            from tqdm import tqdm  # type: ignore[import-untyped]

            if pipeline is not None:
                pipeline.set_progress_bar_config(
                    desc="  sampling", unit="row", position=1, leave=False, disable=False, dynamic_ncols=True
                )
            with tqdm(total=pictures, desc="pictures", unit="picture", position=0, dynamic_ncols=True) as self._bar:
                yield
            self._bar = None

    def _show(self, message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        """Show a warning about a scene in one line, once; others are for programmers."""
        text = f"warning: {message}"
        if issubclass(category, SceneWarning) and text not in self._warned:
            self._warned.add(text)
            click.echo(text, err=True)


class Countdown:
    """Says now and then on stderr how far some work is and when it will be done.

    Args:
        what: the work, in a word or two.
        total: its units.
        quiet: say nothing.
        every: seconds between two lines.
    """

    def __init__(self, what: str, total: int, *, quiet: bool = False, every: float = 15.0) -> None:
        self._what, self._total, self._quiet, self._every = what, total, quiet, every
        self._done, self._start = 0, time.monotonic()
        self._said = self._start

    def add(self, count: int) -> None:
        """Count finished units."""
        self._done += count
        now = time.monotonic()
        if self._quiet or (now - self._said < self._every and self._done < self._total):
            return
        self._said, each = now, (now - self._start) / self._done
        left = (self._total - self._done) * each
        ends = (
            f", {left / 60:.0f} min left" if left >= 90 else f", {left:.0f} s left" if self._done < self._total else ""
        )
        click.echo(f"{self._what} {self._done}/{self._total}, {each:.2f} s each{ends}", err=True)


@contextmanager
def echoed_warnings() -> Iterator[list[warnings.WarningMessage]]:
    """Print every warning of the block in a line."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        try:
            yield found
        finally:
            for warning in found:
                for line in str(warning.message).splitlines():
                    echo(f"warning: {line}", err=True)
