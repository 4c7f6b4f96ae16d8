"""The judge: a small network of ours that says what stands where in a world's picture.

It learns from composites only, which are drawn from the world while it trains; it never sees a generated picture.
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
