"""How good pictures are: a judge that says what they show, and scores against what they were to show.

`evaluate(pairs, judge)` is the way in; `instancediffusion evaluate` makes the pictures, too. The judge itself is in
`evaluation.judges`.
"""

from .assignment import assign
from .estimates import Estimate, estimate, wilson
from .evaluate import Evaluator, Judged, PictureJudge, evaluate
from .frechet import FeatureStatistics, frechet_distance
from .judges import Judge, JudgeConfig, JudgeLessons, JudgeTask, check_judge
from .layouts import GROUPS, Layout, layout_of, layouts
from .markdown import to_markdown
from .matching import Match, match
from .metrics import MEASURES, InstanceMetrics
from .report import EvaluationReport, GroupReport, ReportError, ScoreTable
from .scores import InstanceScore, score_picture
from .seen import Seen, SeenInstance
from .truth import TrueInstance, Truth, truth_of_prompt, truth_of_sample, truth_of_scene

__all__ = [
    "GROUPS",
    "MEASURES",
    "Estimate",
    "EvaluationReport",
    "Evaluator",
    "FeatureStatistics",
    "GroupReport",
    "InstanceMetrics",
    "InstanceScore",
    "Judge",
    "JudgeConfig",
    "JudgeLessons",
    "JudgeTask",
    "Judged",
    "Layout",
    "Match",
    "PictureJudge",
    "ReportError",
    "ScoreTable",
    "Seen",
    "SeenInstance",
    "TrueInstance",
    "Truth",
    "assign",
    "check_judge",
    "estimate",
    "evaluate",
    "frechet_distance",
    "layout_of",
    "layouts",
    "match",
    "score_picture",
    "to_markdown",
    "truth_of_prompt",
    "truth_of_sample",
    "truth_of_scene",
    "wilson",
]
