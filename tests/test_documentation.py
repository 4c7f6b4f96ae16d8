"""The documentation: complete, and its code runs as it stands."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from instancediffusion.cli import COMMANDS, cli
from tests.conftest import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


class _Config(yaml.SafeLoader):
    """mkdocs.yml holds tags of its own."""


_Config.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def blocks(path: Path, language: str) -> list[str]:
    """The fenced code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)


def prepare(folder: Path) -> dict[str, str]:
    """A working folder that looks like the repository to a reader's commands, with this interpreter's scripts first."""
    (folder / "examples").symlink_to(ROOT / "examples")
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.parametrize("name", ["README.md", "docs/quickstart.md"])
def test_python_blocks_run(name: str, tmp_path: Path) -> None:
    found = blocks(ROOT / name, "python")
    assert found
    program = "\n".join(found)
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=prepare(tmp_path), capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert list(tmp_path.glob("*.png"))


def test_readme_commands_run(tmp_path: Path) -> None:
    (commands,) = blocks(ROOT / "README.md", "bash")
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=tmp_path,
        env=prepare(tmp_path),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "overlay.png").is_file()
    assert (tmp_path / "pictures" / "manifest.json").is_file()


@pytest.mark.parametrize("path", [ROOT / "README.md", *PAGES], ids=lambda path: path.name)
def test_scene_blocks_are_valid(path: Path) -> None:
    from instancediffusion import Scene

    for block in blocks(path, "json"):
        value = json.loads(block)
        if isinstance(value, dict) and "instances" in value:
            Scene.from_dict(value)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_python_blocks_of_every_page_compile(path: Path) -> None:
    for block in blocks(path, "python"):
        compile(block, str(path), "exec")


def options_of(line: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", line))


@pytest.mark.parametrize("path", [ROOT / "README.md", *PAGES], ids=lambda path: path.name)
def test_commands_in_the_pages_exist(path: Path) -> None:
    lines = "\n".join(blocks(path, "console") + blocks(path, "bash")).replace("\\\n", " ").splitlines()
    for line in lines:
        words = line.removeprefix("$ ").split("#")[0].split()
        if not words or words[0] != "instancediffusion":
            continue
        command: click.Command | None = cli
        for word in words[1:]:
            if not isinstance(command, click.Group):
                break
            if not word.startswith("-"):
                command = command.get_command(click.Context(command), word)
                assert command is not None, f"{path.name}: no such command: {line}"
        assert command is not None
        known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {
            "--help",
            "--version",
        }
        assert options_of(line) <= known, f"{path.name}: {line}"


def test_every_command_has_its_page() -> None:
    text = (DOCS / "cli.md").read_text()
    for name in COMMANDS:
        assert f":command: {name}\n" in text, f"docs/cli.md does not show {name}"


def test_the_readme_lists_every_package_and_architecture_too() -> None:
    source = ROOT / "src" / "instancediffusion"
    packages = {path.parent.name for path in source.glob("*/__init__.py")}
    tree = re.findall(r"^ +(\w+)/ ", (ROOT / "README.md").read_text(), re.MULTILINE)
    projects = {path.parent.name for path in source.glob("projects/*/__init__.py")}
    assert sorted(tree) == sorted(packages | projects)  # a line each
    text = (ROOT / "docs/architecture.md").read_text()
    assert not {package for package in packages | {"errors", "runs"} if f"`{package}`" not in text}


def test_each_of_ten_changes_names_one_file() -> None:
    """Contributors are sent to a file that is there; the first eight are sent to what registers one more."""
    section = (ROOT / "CONTRIBUTING.md").read_text().split("## Ten changes")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| `([\w/]+\.py)`", section, re.MULTILINE)
    assert len(rows) == 10 and len({file for _, file in rows}) == 10
    for number, (change, file) in enumerate(rows):
        text = (ROOT / "src" / "instancediffusion" / file).read_text()
        assert number >= 8 or re.search(r"^def register\w*\(", text, re.MULTILINE), change


def test_every_package_has_an_api_page() -> None:
    source = ROOT / "src" / "instancediffusion"
    text = "".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    for path in (*source.glob("*/__init__.py"), *source.glob("projects/*/__init__.py")):
        if path.parent.name != "cli":
            name = ".".join(path.parent.relative_to(source).parts)
            assert f"::: instancediffusion.{name}\n" in text


def test_every_page_is_in_the_menu() -> None:
    config = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader=_Config)

    def leaves(nav: object) -> set[str]:
        if isinstance(nav, str):
            return {nav}
        children = nav.values() if isinstance(nav, dict) else nav
        return set().union(*(leaves(child) for child in children))  # type: ignore[attr-defined]

    assert {path.relative_to(DOCS).as_posix() for path in PAGES} == leaves(config["nav"])


def test_every_setting_is_explained() -> None:
    from dataclasses import fields

    from instancediffusion.pipeline import GenerationSettings

    text = (GenerationSettings.__doc__ or "").partition("Attributes:")[2]
    for field in fields(GenerationSettings):
        assert f"{field.name}: " in text


def constraint(name: str) -> str:
    found = re.search(rf"^{name}==([0-9.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert found is not None, name
    return found[1]


def test_the_version_matrix_is_that_of_the_project() -> None:
    lines = [line.strip("| \n").split(" | ") for line in (DOCS / "versions.md").read_text().splitlines() if "|" in line]
    rows = {line[0].strip(): line[1:] for line in lines}
    names = lines[0]
    claimed = dict(zip(names, rows["claimed, at least"], strict=True))
    newest = dict(zip(names, rows["newest tried"], strict=True))
    project = (ROOT / "pyproject.toml").read_text()
    assert f'requires-python = ">={claimed.pop("Python")}"' in project
    for name, version in claimed.items():
        assert f'"{name.lower()}>={version}"' in project, name
        assert newest[name] == constraint(name.lower()), name


def test_hooks_use_the_versions_of_the_project() -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    found = re.findall(r'additional_dependencies: \["([a-z-]+)==([0-9.]+)"\]', hooks)
    assert {name for name, _ in found} == {"ruff", "import-linter"}
    assert all(version == constraint(name) for name, version in found)


def test_the_readme_has_a_line_for_every_folder() -> None:
    (tree,) = blocks(ROOT / "README.md", "text")
    told = {line.split("/")[0] for line in tree.splitlines() if not line.startswith(" ")}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    if not listed:
        pytest.skip("no git checkout")
    assert told == {path.split("/")[0] for path in listed if "/" in path and not path.startswith(".")}
