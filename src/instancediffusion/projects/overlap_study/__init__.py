"""The overlap study: which object is in front, what blends, and how strongly a location binds, over settings.

`design` lists the conditions, `study_run` generates and evaluates the pictures, `write` and `pages` report the results;
`instancediffusion study overlap` does all of it. What needs a network is imported where it is used.
"""

from .cells import SUITES, Cell
from .compared import COMPARED, Compared
from .study_metrics import MEASURES, PAIR_MEASURES

__all__ = ["COMPARED", "MEASURES", "PAIR_MEASURES", "SUITES", "Cell", "Compared"]
