"""Suites that score pictures of scenes, from any source: `instancediffusion evaluate --suite NAME`.

A suite is one object (`Suite`): what it needs, how it scores a picture, how it puts scores together. `register` adds
one.
"""

from . import attributes, coco, fid, flip, mig, points, seven, spatial  # noqa: F401 - they register themselves
from .models import Detection, Models
from .suite import SUITES, Case, Measure, NotScoredError, Published, Scored, Suite, register, suite_of
from .suite_run import run_suite

__all__ = [
    "SUITES",
    "Case",
    "Detection",
    "Measure",
    "Models",
    "NotScoredError",
    "Published",
    "Scored",
    "Suite",
    "register",
    "run_suite",
    "suite_of",
]
