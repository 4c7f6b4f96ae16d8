"""What this command line adds to click: groups that suggest a name, choices from a registry, paths in a store."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from instancediffusion.stores import Mirror, is_url, temporary_copy


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


class Output(click.Path):
    """A folder or file to write; one in a store is mirrored until the command ends.

    Args:
        pull: bring what an earlier run of the command left in the store.
        **options: those of `click.Path`.
    """

    def __init__(self, *, pull: bool = False, **options: Any) -> None:
        super().__init__(path_type=Path, **options)
        self.pull = pull

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Open the mirror."""
        if not isinstance(value, str) or not is_url(value) or ctx is None:
            return super().convert(value, param, ctx)
        mirror = Mirror.open(value, pull=self.pull)
        ctx.call_on_close(mirror.close)
        return mirror.folder


class Source(click.Path):
    """A file or folder to read; one in a store is copied here until the command ends."""

    def __init__(self, **options: Any) -> None:
        super().__init__(exists=True, path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Bring the copy."""
        if isinstance(value, str) and is_url(value) and ctx is not None:
            value = brought(value, ctx)
        return super().convert(value, param, ctx)


class SceneSource(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A file or folder of scenes, `-`, or a prompt; what lies in a store is copied here until the command ends."""

    name = "scene"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002
        """Bring the copy."""
        return str(brought(value, ctx)) if is_url(value) and ctx is not None else str(value)


def brought(url: str, context: click.Context) -> Path:
    """Copy a file or folder of a store here, until the command ends."""
    copy, folder = temporary_copy(url)
    context.call_on_close(lambda: shutil.rmtree(folder, ignore_errors=True))
    return copy
