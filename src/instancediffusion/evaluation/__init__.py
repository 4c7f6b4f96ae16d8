"""Evaluation of pictures: a judge's detections against what was asked for; suites of published benchmarks.

`evaluate(pairs, judge)` is the way in; `instancediffusion evaluate` makes the pictures, too.
"""

from instancediffusion.moved import old_names

from .assignment import assign
from .estimates import Estimate, estimate, wilson
from .evaluate import Evaluator, Judged, PictureJudge, classes_of, evaluate, load_judge, register_judge
from .frechet import FeatureStatistics, frechet_distance
from .markdown import to_markdown
from .matching import Match, match
from .metrics import MEASURES, InstanceMetrics
from .report import EvaluationReport, GroupReport, ReportError, ScoreTable
from .scores import InstanceScore, score_picture
from .seen import Seen, SeenInstance
from .truth import TrueInstance, Truth, truth_of_prompt, truth_of_sample, truth_of_scene

__all__ = [
    "MEASURES",
    "Estimate",
    "EvaluationReport",
    "Evaluator",
    "FeatureStatistics",
    "GroupReport",
    "InstanceMetrics",
    "InstanceScore",
    "Judged",
    "Match",
    "PictureJudge",
    "ReportError",
    "ScoreTable",
    "Seen",
    "SeenInstance",
    "TrueInstance",
    "Truth",
    "assign",
    "classes_of",
    "estimate",
    "evaluate",
    "frechet_distance",
    "load_judge",
    "match",
    "register_judge",
    "score_picture",
    "to_markdown",
    "truth_of_prompt",
    "truth_of_sample",
    "truth_of_scene",
    "wilson",
]

__getattr__ = old_names(__name__)
