"""The command line as a whole: cheap to start, one line for each error, honest exit codes."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from instancediffusion import __version__
from instancediffusion.cli import COMMANDS, DEBUG_VARIABLE, LazyGroup, cli
from instancediffusion.errors import CheckpointError, Problem, SceneError, SettingsError

HEAVY = {"torch", "diffusers", "transformers", "accelerate", "numpy", "PIL"}


def imported_by(code: str) -> set[str]:
    """Top-level names a fresh interpreter has imported after running some code."""
    program = f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    )


def asking_for_help(*command: str) -> str:
    """Code that asks the command line for help in its own process."""
    return (
        "from click.testing import CliRunner\nfrom instancediffusion.cli import cli\n"
        f"result = CliRunner().invoke(cli, {[*command, '--help']})\nassert result.exit_code == 0, result.output"
    )


def test_importing_the_package_is_cheap() -> None:
    assert not HEAVY & imported_by("import instancediffusion")


def test_importtime_sees_no_torch() -> None:
    command = [sys.executable, "-X", "importtime", "-c", "import instancediffusion"]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    names = {line.rpartition("|")[2].strip().partition(".")[0] for line in report.splitlines()}
    assert "instancediffusion" in names
    assert not HEAVY & names


def test_a_misspelt_name_is_an_attribute_error() -> None:
    import instancediffusion

    with pytest.raises(AttributeError, match="InstanceDifusion"):
        instancediffusion.InstanceDifusion  # noqa: B018
    assert set(instancediffusion.__all__) <= set(dir(instancediffusion))


def test_every_public_name_is_where_it_is_said_to_be() -> None:
    import instancediffusion

    for name in instancediffusion.__all__:
        assert getattr(instancediffusion, name) is not None


def test_help_needs_no_torch_and_half_a_second() -> None:
    assert not HEAVY & imported_by(asking_for_help())
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "instancediffusion", "--help"], check=True, capture_output=True)
        best = min(best, time.perf_counter() - start)
    assert best < 0.5


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commands_own_help_needs_no_torch(name: str) -> None:
    assert not {"torch", "diffusers", "transformers"} & imported_by(asking_for_help(name))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_explains_itself(name: str) -> None:
    def walk(command: click.Command, path: str) -> None:
        assert command.help, f"{path} has no help"
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{path} {parameter.opts[0]} has no help"
        if isinstance(command, click.Group):
            for child, inner in command.commands.items():
                walk(inner, f"{path} {child}")

    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    walk(command, name)


def failing(error: BaseException) -> LazyGroup:
    @click.group(cls=LazyGroup, invoke_without_command=True)
    def group() -> None:
        raise error

    return group


PROBLEMS = (Problem("$.prompt", "is empty", "write one"), Problem("$.width", "is 3", "use 16 to 8192"))


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (
            SceneError(PROBLEMS, "a.json"),
            2,
            ["a.json: $.prompt: is empty; write one", "a.json: $.width: is 3; use 16 to 8192"],
        ),
        (SettingsError("steps: 0 is too few; use 1 or more"), 2, ["steps: 0 is too few; use 1 or more"]),
        (CheckpointError("x.pth: refused"), 1, ["x.pth: refused"]),
        (FileNotFoundError(2, "No such file or directory", "gone.json"), 1, ["gone.json: no such file or directory"]),
        (
            FileNotFoundError(2, "No such file or directory", Path("gone.json")),
            1,
            ["gone.json: no such file or directory"],
        ),
        (
            ZeroDivisionError("division by zero"),
            1,
            [f"ZeroDivisionError: division by zero (set {DEBUG_VARIABLE}=1 to see where)"],
        ),
        (RuntimeError("first\nsecond"), 1, [f"RuntimeError: first (set {DEBUG_VARIABLE}=1 to see where)"]),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(error: Exception, code: int, lines: list[str]) -> None:
    result = CliRunner().invoke(failing(error))
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.splitlines() == [f"error: {line}" for line in lines]


def test_an_interrupt_leaves_with_130() -> None:
    result = CliRunner().invoke(failing(KeyboardInterrupt()))
    assert (result.exit_code, result.stderr.strip()) == (130, "interrupted")


def test_debugging_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEBUG_VARIABLE, "1")
    assert isinstance(CliRunner().invoke(failing(CheckpointError("x"))).exception, CheckpointError)


@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"], ["doctor", "--nonsense"]])
def test_bad_usage_is_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(cli, arguments).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [(["genrate"], "generate"), (["scene", "validte"], "validate"), (["world", "shet"], "sheet")],
)
def test_a_misspelt_command_is_answered_by_the_nearest(arguments: list[str], meant: str) -> None:
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2 and meant in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.fixture
def defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What `generate` is called with, in a folder of its own without configuration files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    command = cli.get_command(click.Context(cli), "generate")
    assert command is not None
    seen: dict[str, Any] = {}
    monkeypatch.setattr(command, "callback", lambda **given: seen.update(given))
    yield seen


def test_options_have_defaults_in_files_and_the_environment(
    defaults: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def called(*arguments: str) -> tuple[Any, ...]:
        result = CliRunner().invoke(cli, [*arguments[:-1], "generate", arguments[-1]])
        assert result.exit_code == 0, result.output
        return tuple(defaults[name] for name in ("num_inference_steps", "guidance_scale", "seeds", "quiet", "model"))

    user = tmp_path / "config" / "instancediffusion" / "config.toml"
    user.parent.mkdir(parents=True)
    user.write_text("[generate]\nsteps = 1\nguidance-scale = 1.5\nseed = 3\nmodel = 'a'\n[doctor]\njson = true\n")
    assert called("x") == (1, 1.5, (3,), False, "a")
    (tmp_path / "instancediffusion.toml").write_text("[generate]\nsteps = 2\nseed = [4, 5]\nquiet = true\n")
    assert called("x") == (2, 1.5, (4, 5), True, "a")
    (tmp_path / "mine.toml").write_text("[generate]\nnum_inference_steps = 7\n")
    assert called("--config", "mine.toml", "x") == (7, 1.5, (4, 5), True, "a")
    monkeypatch.setenv("INSTANCEDIFFUSION_GENERATE_STEPS", "9")
    monkeypatch.setenv("INSTANCEDIFFUSION_GENERATE_SEED", "6 7")
    assert called("--config", "mine.toml", "x") == (9, 1.5, (6, 7), True, "a")
    monkeypatch.delenv("INSTANCEDIFFUSION_GENERATE_STEPS")
    monkeypatch.setenv("INSTANCEDIFFUSION_GENERATE_NUM_INFERENCE_STEPS", "8")
    assert called("x")[0] == 8
    result = CliRunner().invoke(cli, ["generate", "x", "--steps", "4"])
    assert result.exit_code == 0 and defaults["num_inference_steps"] == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[generate]\nstepps = 3", "did you mean 'steps'"),
        ("[generte]\nsteps = 3", "[generte] is no command"),
        ("[generate]\nsteps = 'many'", "configuration file"),
        ("steps", "is not TOML"),
    ],
)
def test_faults_of_a_configuration_file_are_one_line(defaults: dict[str, Any], text: str, says: str) -> None:
    Path("instancediffusion.toml").write_text(text)
    result = CliRunner().invoke(cli, ["generate", "x"])
    assert result.exit_code == 2 and says in result.stderr and len(result.stderr.splitlines()) == 1
    assert not defaults


def test_a_bad_variable_is_named(defaults: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTANCEDIFFUSION_GENERATE_STEPS", "many")
    result = CliRunner().invoke(cli, ["generate", "x"])
    assert result.exit_code == 2 and "$INSTANCEDIFFUSION_GENERATE_STEPS" in result.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_and_options(shell: str) -> None:
    asked = {"COMP_WORDS": "instancediffusion ge", "COMP_CWORD": "ge" if shell == "fish" else "1"}
    environment = {**os.environ, "_INSTANCEDIFFUSION_COMPLETE": f"{shell}_complete", **asked}
    command = [sys.executable, "-c", "from instancediffusion.cli import main; main()"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert "generate" in done.stdout


def test_variables_of_other_programs_are_no_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTANCEDIFFUSION_VERSION", "1.2")
    assert "Usage" not in CliRunner().invoke(cli, ["scene", "formats"]).output


def test_version_and_module_entry() -> None:
    command = [sys.executable, "-m", "instancediffusion", "--version"]
    assert __version__ in subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_doctor_reports_what_a_bug_report_needs() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "instancediffusion", "doctor", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    report = json.loads(result.stdout)
    assert result.returncode == (0 if report["ok"] else 1)
    assert {"torch", "diffusers", "transformers", "resvg-py"} <= set(report["packages"])
    assert all(package["ok"] for package in report["packages"].values())
    assert report["devices"][0]["name"] == "cpu"
    assert report["devices"][0]["gflops"]["float32"] > 0.1
    assert {"mini", "sd15"} <= set(report["models"])
    assert any("OMP_NUM_THREADS=1" in note for note in report["notes"])
    if report["models"]["mini"]["place"]:
        assert len(report["models"]["mini"]["sha256"]) == 64


def test_bad_usage_takes_one_line_and_says_where_help_is():
    for arguments in (["generate"], ["--nothing"], ["scene", "validate", "--nothing"], ["draw"]):
        done = CliRunner().invoke(cli, arguments)
        assert done.exit_code == 2
        assert len(done.stderr.strip().splitlines()) == 1
        assert done.stderr.startswith("error: ")
        assert "--help" in done.stderr


def test_doctor_lists_what_mini_knows() -> None:
    result = CliRunner().invoke(cli, ["doctor", "--vocabulary", "--json"])
    known = json.loads(result.stdout)
    assert len(known["objects"]) >= 40 and {"panda", "balloon"} <= set(known["objects"])
    assert {"red", "blue"} <= set(known["colours"]) and known["backgrounds"]
    if "words" in known:  # of a model that knows no others
        assert {word for name in known["objects"] for word in name.split()} <= set(known["words"])
    plain = CliRunner().invoke(cli, ["doctor", "--vocabulary"]).stdout
    assert all(f"{kind} ({len(words)}): " in plain for kind, words in known.items())
