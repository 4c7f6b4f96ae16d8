"""The `instancediffusion` command: one file per sub-command, each imported only when it is asked for.

Exit codes: 0 done, 1 failed, 2 bad usage or bad scene, 130 interrupted. Errors go to stderr, one line each.
"""

import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import IO, Any, NoReturn

import click

from instancediffusion import __version__
from instancediffusion.errors import InstanceDiffusionError, SceneError, SettingsError
from instancediffusion.stores import told

from .click_types import Group
from .defaults import PREFIX, default_map, name_variables, read_defaults
from .libraries import runs_one_command

# Name -> what `--help` says. The command is the attribute of that name in the module of that name in this package.
COMMANDS = {
    "generate": "Turn scene files into pictures.",
    "studio": "Open a page in which scenes are drawn and their pictures made.",
    "scene": "Check, draw and convert scene files.",
    "data": "Look at, check, convert, split and annotate labelled pictures.",
    "dataset": "Make labelled pictures from a spec.",
    "world": "Draw samples of the synthetic world.",
    "train": "Train the stages of a model.",
    "evaluate": "Score a model on layouts it was not trained on.",
    "study": "Measure what overlaps do to a model.",
    "judge": "Train and check the evaluator that scores pictures.",
    "convert": "Turn published weights into a safe folder.",
    "doctor": "Say what is installed and what would be slow.",
    "bench": "Measure the cost of a model on this machine.",
}

DEBUG_VARIABLE = "INSTANCEDIFFUSION_DEBUG"


class Failure(click.ClickException):
    """A failed command: its message, one line for each of its lines, led by `error:` or what it says itself."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message to stderr, or to `file`."""
        for line in self.message.splitlines() or ["failed"]:
            lead = "" if line.startswith("warning: ") else "error: "
            click.echo(told(f"{lead}{line}"), file=file, err=file is None)


class BadInput(Failure):
    """A scene or a setting that cannot be used."""

    exit_code = 2


class LazyGroup(Group):
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
        name_variables(command, f"{PREFIX}_{cmd_name}")
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
        except Exception as error:  # the one handler that may catch all: what a user sees is one line
            if os.environ.get(DEBUG_VARIABLE):
                raise
            raise _as_failure(error) from error


@click.group(
    cls=LazyGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "auto_envvar_prefix": PREFIX,
    },
)
@click.version_option(__version__, prog_name="instancediffusion", allow_from_autoenv=False)
@click.option(
    "--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Take defaults from this TOML file."
)
@click.pass_context
def cli(ctx: click.Context, config: Path | None) -> None:
    """Generate pictures in which every object has its own caption, its own location and its own layer.

    Every option has a default of your own: in the environment (INSTANCEDIFFUSION_GENERATE_STEPS=20) or in a table of
    instancediffusion.toml ([generate], steps = 20). Set INSTANCEDIFFUSION_DEBUG=1 to see the traceback of an error.
    """
    tables, files = read_defaults(config)
    unknown = [name for name in tables if name not in COMMANDS]
    if unknown:
        raise SettingsError(f"{files[-1]}: [{unknown[0]}] is no command; commands are {', '.join(COMMANDS)}")
    name = ctx.invoked_subcommand
    if name in tables and (command := cli.get_command(ctx, name)) is not None:
        ctx.default_map = {name: default_map(command, ctx, tables[name], f"{files[-1]}: [{name}]")}


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit code.

    Args:
        args: the arguments after the program's name; None means those of the process.
    """
    for stream in (sys.stdout, sys.stderr):
        # A file name that the terminal's encoding lacks is shown by its numbers, rather than ending the work.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if args is None:
        runs_one_command()
    cli.main(args=None if args is None else list(args), prog_name="instancediffusion")
    sys.exit(0)


def _as_one_line(error: click.UsageError) -> click.ClickException:
    """Say what is wrong with the usage and where help is; a command without arguments still gets its help."""
    # Before click 8.2 the help was printed without an error.
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
        return error
    command = error.ctx.command_path if error.ctx is not None else "instancediffusion"
    return BadInput(f"{error.format_message()}{_origin(error)} (see `{command} --help`)")


def _origin(error: click.UsageError) -> str:
    """Say where a bad value comes from, if it was not typed."""
    parameter = getattr(error, "param", None)
    if error.ctx is None or parameter is None or parameter.name is None:
        return ""
    source = error.ctx.get_parameter_source(parameter.name)
    if source is click.core.ParameterSource.ENVIRONMENT:
        names = [parameter.envvar, f"{error.ctx.auto_envvar_prefix}_{parameter.name.upper()}"]
        return f" It comes from ${next((name for name in names if name and name in os.environ), names[-1])}."
    return " It comes from a configuration file." if source is click.core.ParameterSource.DEFAULT_MAP else ""


def problem_lines(error: SceneError) -> str:
    """The problems of a scene, a line each: warnings, which say what was left out or mended, are called so."""
    lead = f"{error.source}: " if error.source else ""
    lines = [f"{'warning: ' * (p.severity == 'warning')}{lead}{p}" for p in error.problems]
    return "\n".join(lines) or str(error)


def _as_failure(error: Exception) -> Failure:
    """Write an error in as few lines as name the cause: one, but for `SceneError`, which has one for each problem."""
    if isinstance(error, SceneError):
        return BadInput(problem_lines(error))
    if isinstance(error, SettingsError):
        return BadInput(str(error))
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return Failure(f"{os.fsdecode(error.filename)}: {error.strerror.lower()}")
    if isinstance(error, InstanceDiffusionError | OSError | MemoryError):
        return Failure(str(error) or type(error).__name__)
    first = str(error).strip().splitlines()[:1]
    return Failure(": ".join([type(error).__name__, *first]) + f" (set {DEBUG_VARIABLE}=1 to see where)")
