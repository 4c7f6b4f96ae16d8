"""Groups of commands that say which command was perhaps meant."""

from __future__ import annotations

import difflib

import click


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
