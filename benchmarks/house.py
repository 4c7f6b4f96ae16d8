"""Measure the layout of the package: what one has to touch to add something, modules, repeated names.

    python benchmarks/house.py                  # the working tree
    python benchmarks/house.py --at 87d7a5b     # any commit, read from git
    python benchmarks/house.py --files          # and which files each number counts

It reads texts and imports nothing, so it takes seconds and no torch. What a call passes through is measured by
`benchmarks/call_path.py`. The tables that both fill are in `docs/architecture.md`.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import subprocess
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "src/instancediffusion/"
TINY = 40
"""Lines below which a module is listed."""


@dataclass(frozen=True)
class Extension:
    """Something that contributors add.

    A file in whose code all of `siblings` occur lists what there is, so it needs an entry for one more.

    Attributes:
        name: what it is.
        registry: function that adds one, or that derives all else from one, as `file:function`. Where it is found, one
            object does.
        siblings: some that are there already: patterns of identifiers, and of strings that are one word.
        below: beginnings of the paths whose files count.
    """

    name: str
    registry: str
    siblings: tuple[str, ...]
    below: tuple[str, ...] = ("",)


EXTENSIONS = (
    Extension(
        "location kind",
        "scene/locations/kind.py:register_location",
        (
            r"(^|_)scribbles?(_|$)|Scribble",
            r"(^|_)points?(_|$)|Point",
            r"(^|_)box(es)?(_|$)|Box",
            r"(^|_)masks?(_|$)|Mask",
        ),
    ),
    Extension(
        "merge rule",
        "pipeline/merging.py:register",
        (r"^mean$|MeanMerge", r"^crop$|CropMerge", r"(?i)^layered(_?merge)?$"),
    ),
    Extension("scheduler name", "choices.py:register_scheduler", ("^unipc$", "^lcm$", "^ddim$")),
    Extension(
        "attention-mask rule",
        "conditioning/attention_mask.py:register_mask_rule",
        ("^visibility$", "^published$"),
    ),
    Extension(
        "scene format",
        "scene/formats/scene_format.py:register",
        ("official", "(?i)coco", "native"),
        ("scene", "cli", "studio"),
    ),
    Extension("dataset format", "datasets/dataset_format.py:register", ("webdataset", "(?i)yolo", "imagefolder")),
    Extension(
        "evaluation suite", "evaluation/suites/suite.py:register", ("(?i)^mig$", "(?i)^points$", "(?i)^attributes$")
    ),
    Extension("base model", "adapter/backbones/backbone.py:register_backbone", (r"(?i)^(is_|sd)?xl$|sdxl",)),
    Extension(
        "option of a run",
        "cli/settings_options.py:settings_options",
        ("^(--)?mis.fraction$", "^(--)?order.guidance(.scale)?$", "^(--)?guidance(.scale)?$"),
    ),
)

WAY = ("adapter", "conditioning", "pipeline", "sampling")
"""Packages that a scene passes through on its way to the UNet."""


def sources(commit: str | None) -> dict[str, str]:
    """The Python files of the package, by their path below it."""
    if commit is None:
        base = ROOT / PACKAGE
        return {str(path.relative_to(base)): path.read_text("utf-8") for path in sorted(base.rglob("*.py"))}
    command = ["git", "-C", str(ROOT), "archive", commit, PACKAGE]
    archive = subprocess.run(command, check=True, capture_output=True).stdout
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.name.endswith(".py") else None
            if file is not None:
                found[member.name.removeprefix(PACKAGE)] = file.read().decode("utf-8")
    return found


def words(tree: ast.AST) -> Iterator[str]:
    """The identifiers of a module, and its strings that are one word; no comments and no docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.arg | ast.keyword):
            yield node.arg or ""
        elif isinstance(node, ast.alias):
            yield from node.name.split(".")
        elif isinstance(node, ast.ImportFrom):
            yield from (node.module or "").split(".")
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"\S{1,40}", node.value):
            yield node.value


def lists(found: set[str], siblings: tuple[str, ...]) -> bool:
    """Whether words name all of some siblings."""
    return all(any(re.search(pattern, word) for word in found) for pattern in siblings)


def reads_of(tree: ast.AST, attribute: str) -> int:
    """How often a module reads an attribute of something that is not itself."""
    found = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == attribute)
    own = ("self", "out")  # a layer of that name, a value that is being filled
    return sum(isinstance(n.ctx, ast.Load) and not (isinstance(n.value, ast.Name) and n.value.id in own) for n in found)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at", metavar="COMMIT", help="read the package from git, as it was then")
    parser.add_argument("--files", action="store_true", help="list what each number counts")
    options = parser.parse_args()
    texts = sources(options.at)
    trees = {path: ast.parse(text) for path, text in texts.items()}
    known = {path: set(words(tree)) for path, tree in trees.items()}

    print("| to add one | registry | files that list what there is | files to touch |\n|---|---|---|---|")
    details: list[tuple[str, list[str]]] = []
    for kind in EXTENSIONS:
        file, _, function = kind.registry.partition(":")
        registered = file in trees and any(
            isinstance(node, ast.FunctionDef) and node.name == function for node in ast.walk(trees[file])
        )
        listing = [path for path, found in known.items() if path.startswith(kind.below) and lists(found, kind.siblings)]
        home = f"`{kind.registry}`" if registered else "none"
        print(f"| {kind.name} | {home} | {len(listing)} | {1 if registered else len(listing)} |")
        details.append((f"list what there is of: {kind.name}", listing))

    lines = {path: text.count("\n") for path, text in texts.items()}
    plain = {path: count for path, count in lines.items() if not path.endswith("__init__.py")}
    names = Counter(path.rpartition("/")[2] for path in plain)
    repeated = {name: count for name, count in names.items() if count > 1}
    tiny = {path: count for path, count in plain.items() if count < TINY}
    orders = {
        path: count for path, tree in trees.items() if path.startswith(WAY) and (count := reads_of(tree, "z_order"))
    }
    counts = sorted(lines.values())
    print("\n| layout | |\n|---|---|")
    print(f"| modules | {len(texts)} |")
    print(f"| lines, all and of the median module | {sum(counts)}, {counts[len(counts) // 2]} |")
    print(f"| names that occur more than once, and files that have them | {len(repeated)}, {sum(repeated.values())} |")
    print(f"| modules under {TINY} lines, `__init__` aside | {len(tiny)} |")
    print(f"| lines of the commands (`cli`) | {sum(n for path, n in lines.items() if path.startswith('cli/'))} |")
    print(f"| modules of {', '.join(WAY)} that read a `z_order` | {len(orders)} |")
    details += [
        ("names that occur more than once", [f"{name} x{repeated[name]}" for name in sorted(repeated)]),
        (f"under {TINY} lines", [f"{path} {tiny[path]}" for path in sorted(tiny)]),
        ("read a z_order", [f"{path} x{count}" for path, count in orders.items()]),
    ]
    if options.files:
        for title, items in details:
            print(f"\n{title}: {len(items)}\n" + "\n".join(f"    {item}" for item in items))


if __name__ == "__main__":
    main()
