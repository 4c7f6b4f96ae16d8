"""The evaluator (judge): a small detector of our own for the pictures of a world.

It is trained on composites only, which are sampled from the world during training, never on generated pictures.
"""

from instancediffusion.evaluation import register_judge

from .judge import Judge, check_judge
from .judge_config import JudgeConfig, JudgeLessons
from .judge_task import JudgeTask
from .layouts import GROUPS, Layout, layout_of, layouts

register_judge(Judge.load)

__all__ = [
    "GROUPS",
    "Judge",
    "JudgeConfig",
    "JudgeLessons",
    "JudgeTask",
    "Layout",
    "check_judge",
    "layout_of",
    "layouts",
]
