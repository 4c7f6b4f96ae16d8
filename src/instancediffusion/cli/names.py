"""Options whose values are names in a registry."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import click
from click.shell_completion import CompletionItem


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
