"""The conditions of a study: one for each picture that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from instancediffusion.scene import Scene, without_order

if TYPE_CHECKING:
    from instancediffusion.evaluation.truth import Truth

SUITES = ("seed", "grid", "flip")
"""The parts of the study: the tests that started it, factors crossed, and both orders of random layouts."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One condition of a design. It holds no settings: every condition is sampled with all of those that are compared.

    Attributes:
        key: its name, unique in the study.
        suite: one of `SUITES`.
        section: the part of the report it counts in, such as "test2".
        scene: what the model is given when the order is given, too.
        truth: what the picture is measured against, in the depth order that is asked for. Its instances are the
            scene's first ones; the scene may hold more (boxes of parts).
        seed: of the start noise.
        factors: name -> value: what tables and plots are broken down by.
        pair: the two instances whose order is measured, by index; None if none is.
        front: which of the two is asked to be nearer, 0 or 1; None if no order is stated.
        twins: conditions that differ in the order only have this in common; None where there is only one order.
        targets: the instances that count; empty means all.
    """

    key: str
    suite: str
    section: str
    scene: Scene
    truth: Truth
    seed: int
    factors: Mapping[str, str] = field(default_factory=dict)
    pair: tuple[int, int] | None = None
    front: int | None = None
    twins: str | None = None
    targets: tuple[int, ...] = ()

    def asked(self, *, order: bool) -> Scene:
        """Return the scene as a model is given it, with or without its depth order."""
        return self.scene if order else without_order(self.scene)
