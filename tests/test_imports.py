"""No two modules need each other, be it at import, in a function, or for a type only.

The layers are import-linter's (`make imports`). This looks inside a layer, too, and at imports that are deferred.
"""

import ast
import sys
from collections import Counter
from importlib import import_module
from importlib.util import find_spec, resolve_name
from pathlib import Path

import pytest

from instancediffusion import moved

SOURCE = Path(__file__).parents[1] / "src"
BY_NAME = {
    # A notebook asks a scene to show itself; what draws it lies above, and is only looked for when that happens.
    ("instancediffusion.scene.model", "instancediffusion.rendering.notebook"),
}
"""Imports from below to above that are meant, by the text of the name."""


def imports(root):
    """Module -> the modules of the same tree that its text imports anywhere."""
    paths = {".".join(path.relative_to(root).with_suffix("").parts): path for path in root.rglob("*.py")}
    modules = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    return {name: set(_imported(name, path, modules)) - {name} for name, path in modules.items()}


def _imported(name, path, modules):
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            found = [inner if (inner := f"{base}.{alias.name}") in modules else base for alias in node.names]
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func):
            found = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        else:
            continue
        yield from (one for one in found if one in modules and (name, one) not in BY_NAME)


def circles(graph):
    """The sets of modules that reach each other."""
    reached = {}
    for start in graph:
        seen, stack = set(), [start]
        while stack:
            new = graph[stack.pop()] - seen
            seen |= new
            stack += new
        reached[start] = seen
    return {frozenset(b for b in reached[a] if a in reached[b]) for a in graph if a in reached[a]}


def test_no_modules_import_each_other():
    assert not circles(imports(SOURCE))


def test_deferred_imports_and_imports_of_types_count(tmp_path):
    for name, text in {
        "__init__": "",
        "a": "def late():\n    from .b import x\n",
        "b": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.c import y\n",
        "c": "from importlib import import_module\nz = lambda: import_module('p.a')\n",
        "d": "from . import a\n",
    }.items():
        (tmp_path / "p").mkdir(exist_ok=True)
        (tmp_path / "p" / f"{name}.py").write_text(text)
    assert circles(imports(tmp_path)) == {frozenset({"p.a", "p.b", "p.c"})}
    (tmp_path / "p" / "c.py").write_text("")
    assert not circles(imports(tmp_path))


RECUR = {
    # A format has the name of its file in each registry, a command that of what it runs.
    *("coco", "labelme", "label_studio", "native"),
    *("annotate", "evaluate", "judge", "world"),
    # The protocol and what fills it; the value and its schedule.
    *("denoiser", "grounding"),
}
"""Names that more than one module has, on purpose."""


def test_a_name_occurs_once():
    """Who looks for a file finds one."""
    names = Counter(path.stem for path in SOURCE.rglob("*.py") if not path.stem.startswith("__"))
    assert {name for name, count in names.items() if count > 1} <= RECUR


OLD = [*moved.MODULES.items(), ("worlds.catalogue.food", "projects.emoji_world.catalogue.food")]
PATHS = [path.relative_to(SOURCE / "instancediffusion").with_suffix("") for path in SOURCE.rglob("*.py")]
HERE = {".".join(path.parts).removesuffix(".__init__") for path in PATHS}
NAMES = [(package, name, home) for package, names in moved.NAMES.items() for name, home in names.items()]


@pytest.mark.parametrize(("old", "new"), OLD)
def test_modules_that_moved_are_found_by_their_old_names(old, new):
    """What is imported by an old name is what stands in the new place."""
    assert new in HERE and old not in HERE
    forget_old_modules()
    name = f"instancediffusion.{old}"
    with pytest.warns(FutureWarning, match=rf"{name} is now instancediffusion.{new};") as told:
        found = import_module(name)
    assert Path(told[-1].filename).name in (Path(__file__).name, "__init__.py")  # not a file of ours
    home = import_module(f"instancediffusion.{new}")
    own = {key for key in vars(home) if not key.startswith("__")}
    assert own and all(getattr(found, key) is getattr(home, key) for key in own)


@pytest.mark.parametrize(("package", "name", "home"), NAMES)
def test_names_that_moved_are_found_in_their_old_package(package, name, home):
    place = import_module(f"instancediffusion.{home}")
    warned = rf"instancediffusion.{package}.{name} is now {place.__name__}.{name};"
    old = import_module(f"instancediffusion.{package}")
    vars(old).pop(name, None)  # an old module of that name, which another test has imported
    with pytest.warns(FutureWarning, match=warned) as told:
        found = getattr(old, name)
    assert found is getattr(place, name) and Path(told[0].filename).name == Path(__file__).name


def test_other_names_are_not_found_and_an_old_one_from_its_package_is():
    assert find_spec("instancediffusion.training.nowhere") is None
    assert not hasattr(import_module("instancediffusion.evaluation"), "nothing")
    forget_old_modules()
    with pytest.warns(FutureWarning):
        from instancediffusion.worlds import sheets
    with pytest.warns(FutureWarning):
        import_module("instancediffusion.evaluation.layouts")
    with pytest.raises(TypeError, match="layouts"):  # a module, and the function that was there before it was imported
        import_module("instancediffusion.evaluation").layouts()
    assert sheets.object_sheet.__module__ == "instancediffusion.projects.emoji_world.contact_sheets"


def forget_old_modules():
    """So that the next import of an old name warns."""
    for name in list(sys.modules):
        if name.startswith("instancediffusion.") and moved.new_name(name.removeprefix("instancediffusion.")):
            del sys.modules[name]
