"""The judge: a small network of ours that says what stands where in a world's picture.

It learns from composites only, which are drawn from the world while it trains; it never sees a generated picture.
"""

from .config import JudgeConfig, JudgeLessons
from .judge import Judge, check_judge
from .task import JudgeTask

__all__ = ["Judge", "JudgeConfig", "JudgeLessons", "JudgeTask", "check_judge"]
