"""Every error this package raises for a reason a user can mend.

Each message names the field and the fix, so that the command line can print it as it is. Programming errors stay
`TypeError`, `ValueError` and the like.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


class InstanceDiffusionError(Exception):
    """Root of the package's errors: the message is one readable line (several for `SceneError`)."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, or doubtful, in a scene.

    Attributes:
        path: where it stands, as a JSON path such as `$.instances[2].box`.
        message: what is wrong, with the value that was found.
        fix: what to write instead; may be empty where the message says it all.
        severity: `"error"` (the scene is refused) or `"warning"` (it is used, after the mend the message states).
    """

    path: str
    message: str
    fix: str = ""
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        """Return the problem in one line: `path: message; fix`."""
        return f"{self.path}: {self.message}" + (f"; {self.fix}" if self.fix else "")


class SceneError(InstanceDiffusionError):
    """A scene that cannot be used. It carries every problem found, not only the first.

    Attributes:
        problems: the problems, in the order of the file. Warnings may stand among them; at least one is an error.
        source: the file (or other name) the scene came from, or None.
    """

    def __init__(self, problems: Iterable[Problem], source: str | None = None) -> None:
        self.problems = tuple(problems)
        self.source = source
        super().__init__(self.problems, source)

    def __str__(self) -> str:
        """Return one line for each problem, led by the source if it is known."""
        lead = f"{self.source}: " if self.source else ""
        return "\n".join(f"{lead}{problem}" for problem in self.problems) or f"{lead}the scene cannot be used"


class SceneWarning(UserWarning):
    """Something in a scene was mended on reading (a box that leaves the canvas, say)."""


class FailureWarning(UserWarning):
    """A picture of several could not be made; the others are there."""


class CheckpointError(InstanceDiffusionError):
    """A file of weights that is unsafe, damaged, or not what it should be."""


class ModelError(InstanceDiffusionError):
    """A model that cannot be found, put together, or asked for what it was not built for."""


class PicturesError(ModelError):
    """Pictures that a model could not make, because their numbers are not finite."""


class SettingsError(InstanceDiffusionError):
    """A setting of a run that is out of range or contradicts another."""


class SettingsWarning(UserWarning):
    """A setting that is read and no longer does anything."""
