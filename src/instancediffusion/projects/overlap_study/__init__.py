"""The overlap study: who is in front, what blends, and how much a place binds, measured over settings.

`design` says what is drawn, `run` makes the pictures and measures them, `report` and `pages` tell what came of it;
`instancediffusion study overlap` does all of it. What needs a network is imported where it is used.
"""

from .cells import SUITES, Cell
from .compared import COMPARED, Compared
from .study_metrics import MEASURES, PAIR_MEASURES

__all__ = ["COMPARED", "MEASURES", "PAIR_MEASURES", "SUITES", "Cell", "Compared"]
