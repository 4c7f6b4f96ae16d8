"""A list of problems that grows while something is checked."""

from __future__ import annotations

import json
import re
import reprlib
import warnings
from collections.abc import Iterable
from typing import Literal

from instancediffusion.errors import Problem, SceneError, SceneWarning

from .limits import MAX_PROBLEMS

_PLAIN_KEY = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*\Z")
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlist = _SHORT.maxtuple = 6
_SHORT.maxdict = 4
_SHORT.maxlevel = 3


FRACTIONS = "lengths are pixels: multiply fractions by width and height (`--units fractions` does it for a scene)"


class Report:
    """Collects the problems of one scene.

    Args:
        lenient: a fault of the data that can be mended by leaving a location or an instance out counts as a
            warning. Meant for formats whose published files have such faults.
    """

    def __init__(self, *, lenient: bool = False) -> None:
        self.lenient = lenient
        self.problems: list[Problem] = []
        self.error_count = 0

    @property
    def failed(self) -> bool:
        """Whether any problem is an error."""
        return self.error_count > 0

    def error(self, path: str, message: str, fix: str = "") -> None:
        """Note something that makes the scene unusable."""
        self.add(Problem(path, message, fix, "error"))

    def warn(self, path: str, message: str, fix: str = "") -> None:
        """Note something that was mended, or is doubtful."""
        self.add(Problem(path, message, fix, "warning"))

    def add(self, problem: Problem) -> None:
        """Note a problem; beyond the first 10,000 only that there are more."""
        self.error_count += problem.severity == "error"
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)
        elif len(self.problems) == MAX_PROBLEMS:
            # What was mended one by one in a large file does not make the file unusable.
            severity: Literal["error", "warning"] = "error" if self.failed else "warning"
            more = Problem("$", "there are more problems than can be listed", "mend these first", severity)
            self.problems.append(more)

    def fault(self, path: str, message: str, fix: str = "") -> None:
        """Note something that cannot be used: an error, or when lenient a warning that it is left out."""
        if self.lenient:
            self.warn(path, f"{message}: left out", fix)
        else:
            self.error(path, message, fix)

    def absorb(self, error: SceneError, path: str) -> None:
        """Note the errors of a part as faults of this scene, `$` of the part being `path` here."""
        for problem in error.problems:
            self.fault(path + problem.path.removeprefix("$"), problem.message, problem.fix)

    def adopt(self, entry: Report) -> None:
        """Note the problems of one entry of several: what makes it unusable makes it be left out, no more."""
        for problem in entry.problems:
            if problem.severity == "error":
                self.warn(problem.path, f"{problem.message}: left out", problem.fix)
            else:
                self.add(problem)

    def settle(self, source: str | None = None, *, stacklevel: int = 3) -> None:
        """Raise `SceneError` if there is an error, else issue each warning as a `SceneWarning`."""
        if self.failed:
            raise SceneError(self.problems, source)
        lead = f"{source}: " if source else ""
        for problem in self.problems:
            warnings.warn(f"{lead}{problem}", SceneWarning, stacklevel=stacklevel)


def child(path: str, key: str | int) -> str:
    """Return the JSON path of a member or an item."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if _PLAIN_KEY.match(key) else f"{path}[{json.dumps(key[:60])}]"


def show(value: object) -> str:
    """Return a value as a short piece of text for a message."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    try:
        return _SHORT.repr(value)
    except ValueError:  # an integer with more digits than Python prints
        return "a number with thousands of digits"


def kind(value: object) -> str:
    """Return what a value is called in JSON."""
    if value is None or isinstance(value, bool):
        return show(value)
    names = ((str, "a string"), (dict, "an object"), ((list, tuple), "an array"), ((int, float), "a number"))
    return next((name for type_, name in names if isinstance(value, type_)), type(value).__name__)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is spelled most like `name`, if one is near."""
    import difflib  # here, because it is rarely needed and imports much

    found = difflib.get_close_matches(name[:60].lower(), list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def number_text(value: float) -> str:
    """Return a number as a message writes it, whole ones without a point."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else f"{value:.6g}"


def numbers_text(values: list[float] | tuple[float, ...]) -> str:
    """Return numbers in brackets, as a message writes them."""
    return "[" + ", ".join(number_text(value) for value in values) + "]"
