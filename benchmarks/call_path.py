"""Measure what a scene passes through: the longest call path to the UNet, and the hops of a depth order.

    python benchmarks/call_path.py                  # the working tree
    python benchmarks/call_path.py --at 87d7a5b     # a commit, unpacked from git into a temporary folder
    python benchmarks/call_path.py --functions      # and which functions the numbers count

A tiny model of random weights draws a scene of two overlapping instances, one step, with everything on that makes calls
deeper: guidance, per-instance branches before the merge, order guidance.

- The call path: the functions of the package that are on the stack when the UNet is called, from `pipe(scene)` on.
- A hop of `z_order`: a function of the package, from `load_scene` to the first gated attention, that passes the order
  on: it returns something that is different when the two instances change their order. What differs between two runs
  of the same order is left out. Functions that are handed such a thing are counted too; `self` counts as handed for
  values only (frozen data classes).
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import warnings
from collections import Counter, defaultdict
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SCENE: dict[str, Any] = {"version": 1, "prompt": "two things", "width": 64, "height": 64}
BOXES = ([4, 4, 40, 44], [20, 16, 60, 60])
DEEP = 9
"""Levels of a value that are looked into."""

Function = tuple[str, str, int]
"""A function: file below the package, name, line."""
Noted = defaultdict[Function, Counter[object]]


def digest(value: object, depth: int = DEEP) -> object:
    """A value that is equal for equal data: tensors by their bytes, data classes and containers by what they hold."""
    import numpy as np
    import torch

    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().float().numpy()
    if isinstance(value, np.ndarray):
        return value.shape, hashlib.sha1(np.ascontiguousarray(value).tobytes()).hexdigest()
    if depth == 0:
        return type(value).__name__
    if isinstance(value, dict):
        return tuple((digest(key, depth - 1), digest(one, depth - 1)) for key, one in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return tuple(digest(one, depth - 1) for one in value)
    if dataclasses.is_dataclass(value) and type(value).__module__.startswith("instancediffusion"):
        return type(value).__name__, digest(dict(vars(value)), depth - 1) if hasattr(value, "__dict__") else None
    return type(value).__name__


class Recorder:
    """What functions of a folder are handed and return, until one of them is `stop`."""

    def __init__(self, folder: Path, stop: tuple[str, str]) -> None:
        self.folder, self.stop = str(folder), stop
        self.handed: Noted = defaultdict(Counter)
        self.returned: Noted = defaultdict(Counter)
        self.done = False

    def function(self, code: CodeType) -> Function | None:
        """Where a function is; None for code from elsewhere."""
        if not code.co_filename.startswith(self.folder) or code.co_name.startswith("<"):
            return None
        return code.co_filename[len(self.folder) + 1 :], code.co_name, code.co_firstlineno

    def __call__(self, frame: FrameType, event: str, returned: object) -> None:
        """Take note of one call or return; see `sys.setprofile`."""
        if self.done or event not in ("call", "return"):
            return
        function = self.function(frame.f_code)
        if function is None:
            return
        if function[:2] == self.stop:
            self.done = True
            return
        code = frame.f_code
        if event == "return":
            self.returned[function][digest(returned)] += 1
            return
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        handed = {name: frame.f_locals[name] for name in names if name in frame.f_locals}
        owner = handed.get("self")
        if owner is not None and not (dataclasses.is_dataclass(owner) and owner.__dataclass_params__.frozen):  # type: ignore[attr-defined]
            del handed["self"]
        self.handed[function][digest(handed)] += 1


def differing(again: Noted, once: Noted, other: Noted) -> list[Function]:
    """The functions of which the run that differs notes something else, and the one that does not notes the same."""
    return [key for key in {**once, **other} if once[key] != other[key] and once[key] == again[key]]


def write_scene(path: Path, orders: tuple[int, int]) -> Path:
    """Write a scene of two boxes that overlap, with their orders."""
    kinds = zip(("a cat", "a dog"), BOXES, orders, strict=True)
    instances = [{"caption": text, "box": box, "z_order": order} for text, box, order in kinds]
    path.write_text(json.dumps(SCENE | {"instances": instances}))
    return path


def measure(tree: Path, functions: bool) -> None:
    """Print the numbers of the package in a tree."""
    sys.path[:0] = [str(tree / "src"), str(tree)]
    warnings.simplefilter("ignore")
    from tests.tiny_pipeline import tiny_pipeline

    from instancediffusion import load_scene

    package = tree / "src" / "instancediffusion"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pipe = tiny_pipeline(folder)
        settings: dict[str, Any] = {"num_inference_steps": 2, "mis_fraction": 0.5, "order_guidance_scale": 1.0}
        settings |= {"mis_merge": "layered", "instance_mask": "visibility"}
        settings |= {"seed": 0, "output_type": "latent", "guidance_scale": 5.0}

        paths: list[list[tuple[str, str]]] = []

        def called(*_: object) -> None:
            frame, path = sys._getframe(), []
            while frame is not None:
                file = frame.f_code.co_filename
                if file.startswith(str(package)):
                    path.append((file[len(str(package)) + 1 :], frame.f_code.co_name))
                frame = frame.f_back  # type: ignore[assignment]
            paths.append([one for one in reversed(path) if not one[1].startswith("<")])

        first = write_scene(folder / "first.json", (0, 1))
        second = write_scene(folder / "second.json", (1, 0))
        hook = pipe.unet.register_forward_pre_hook(called)
        pipe(load_scene(first), **settings)  # what is computed once in a process is computed now
        hook.remove()

        runs = []
        for path in (first, first, second):
            (folder / "scene.json").write_text(path.read_text())
            recorder = Recorder(package, ("adapter/gated_attention.py", "forward"))
            sys.setprofile(recorder)
            try:
                pipe(load_scene(folder / "scene.json"), **settings)
            finally:
                sys.setprofile(None)
            if not recorder.done:
                raise RuntimeError("the gated attention never ran: nothing was measured")
            runs.append(recorder)

    again, once, other = runs
    handed = differing(again.handed, once.handed, other.handed)
    hops = differing(again.returned, once.returned, other.returned)
    longest = max(paths, key=len)
    print("| way of a scene | |\n|---|---|")
    print(f"| functions on the longest call path to the UNet, `pipe(scene)` counted | {len(longest)} |")
    print(f"| files on the call path to the UNet, at most | {max(len(set(f for f, _ in path)) for path in paths)} |")
    print(f"| functions that a run goes through before the first gated attention | {len(once.handed)} |")
    print(f"| hops of `z_order` among them, and files they are in | {len(hops)}, {len({file for file, *_ in hops})} |")
    print(f"| functions that are handed it | {len(handed)} |")
    if functions:
        print("\nlongest call path:", *(f"    {file}: {name}" for file, name in longest), sep="\n")
        print("\nhops of z_order:", *(f"    {file}:{line} {name}" for file, name, line in hops), sep="\n")


def main() -> None:
    """Measure a tree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at", metavar="COMMIT", help="unpack the package from git, as it was then")
    parser.add_argument("--functions", action="store_true", help="list what each number counts")
    options = parser.parse_args()
    if options.at is None:
        return measure(ROOT, options.functions)
    command = ["git", "-C", str(ROOT), "archive", options.at, "src/instancediffusion", "tests"]
    archive = subprocess.run(command, check=True, capture_output=True).stdout
    with tempfile.TemporaryDirectory() as tree, tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(tree, filter="data")
        return measure(Path(tree).resolve(), options.functions)


if __name__ == "__main__":
    main()
