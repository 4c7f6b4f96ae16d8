"""What this command line adds to click: groups that guess what was meant, options whose values are in a registry."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from typing import Any

import click
from click.shell_completion import CompletionItem


class Group(click.Group):
    """A group of commands that answers a misspelt one with the nearest there is."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of the arguments."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(str(args[0]).lower(), self.list_commands(ctx), n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near and "Did you mean" not in error.message else ""
            raise click.UsageError(f"{error.message}{hint}", ctx) from None


class Names(click.Choice):  # type: ignore[type-arg, unused-ignore]
    """A choice among names that may have become more since: they are looked up when an option is read.

    Args:
        names: the registry, or what returns it, for registries that cost time to import.
        spelt: the registered name for a text as people write it.
    """

    def __init__(
        self, names: Collection[str] | Callable[[], Collection[str]], spelt: Callable[[str], str] = str
    ) -> None:
        self._names, self._spelt = names, spelt
        super().__init__(() if callable(names) else tuple(names))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Find the name, or fail with all there are."""
        self._look_up()
        return str(super().convert(self._spelt(str(value)), param, ctx))

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer the names that begin so."""
        self._look_up()
        return super().shell_complete(ctx, param, incomplete)

    def _look_up(self) -> None:
        self.choices = tuple(self._names() if callable(self._names) else self._names)
