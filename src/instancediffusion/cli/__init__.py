"""The `instancediffusion` command: one file per sub-command, each imported only when it is asked for.

Exit codes: 0 done, 1 failed, 2 bad usage or bad scene, 130 interrupted. Errors go to stderr, one line each.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import IO, Any, NoReturn

import click

from instancediffusion import __version__
from instancediffusion.errors import InstanceDiffusionError, SceneError, SettingsError

# Name -> what `--help` says. The command is the attribute of that name in the module of that name in this package.
COMMANDS = {
    "generate": "Turn scene files into pictures.",
    "studio": "Open a page in which scenes are drawn and their pictures made.",
    "scene": "Check, draw and convert scene files.",
    "world": "Draw samples of the synthetic world.",
    "train": "Train the stages of a model.",
    "evaluate": "Score a model on layouts it has not seen.",
    "study": "Measure what overlaps do to a model.",
    "judge": "Train and check the network that scores pictures.",
    "convert": "Turn published weights into a safe folder.",
    "doctor": "Say what is installed and what would be slow.",
    "bench": "Measure the cost of a model on this machine.",
}

DEBUG_VARIABLE = "INSTANCEDIFFUSION_DEBUG"


class Failure(click.ClickException):
    """A failed command: its message, one `error:` line for each of its lines."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message to stderr, or to `file`."""
        for line in self.message.splitlines() or ["failed"]:
            click.echo(f"error: {line}", file=file, err=file is None)


class BadInput(Failure):
    """A scene or a setting that cannot be used."""

    exit_code = 2


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one only to run it, and turns our errors into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """List the commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command by its name."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"{__name__}.{cmd_name}"), cmd_name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{__name__}.{cmd_name}.{cmd_name} is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the options of the program itself; what is wrong with them takes one line."""
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as error:
            raise _as_one_line(error) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error the user can mend becomes one line each and an exit code."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise _as_one_line(error) from error
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            raise click.exceptions.Exit(130) from None
        except Exception as error:  # the one place that may catch all: what a person sees is one line
            if os.environ.get(DEBUG_VARIABLE):
                raise
            raise _as_failure(error) from error


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="instancediffusion")
def cli() -> None:
    """Generate pictures in which every object has its own caption, its own place and its own layer.

    Set INSTANCEDIFFUSION_DEBUG=1 to see the traceback of an error.
    """


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit code.

    Args:
        args: the arguments after the program's name; None means those of the process.
    """
    cli.main(args=None if args is None else list(args), prog_name="instancediffusion")
    sys.exit(0)


def _as_one_line(error: click.UsageError) -> click.ClickException:
    """Say what is wrong with the usage and where help is; a command without arguments still gets its help."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error
    command = error.ctx.command_path if error.ctx is not None else "instancediffusion"
    return BadInput(f"{error.format_message()} (see `{command} --help`)")


def _as_failure(error: Exception) -> Failure:
    """Write an error in as few lines as name the cause: one, but for `SceneError`, which has one for each problem."""
    if isinstance(error, SceneError | SettingsError):
        return BadInput(str(error))
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return Failure(f"{os.fsdecode(error.filename)}: {error.strerror.lower()}")
    if isinstance(error, InstanceDiffusionError | OSError | MemoryError):
        return Failure(str(error) or type(error).__name__)
    first = str(error).strip().splitlines()[:1]
    return Failure(": ".join([type(error).__name__, *first]) + f" (set {DEBUG_VARIABLE}=1 to see where)")
