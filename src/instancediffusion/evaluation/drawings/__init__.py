"""What pictures of the synthetic world show, told by its drawings: nothing is learned, so nothing can prefer a model.

`Drawings` lays a drawing where an object should be, `shown` says which of them each pixel shows, and `DrawingsJudge`
looks for the objects of a scene.
"""

from .judge import DrawingsJudge
from .placing import DECIDED, LEAST_DIFFERENCE, LEAST_SHARE, RIM_SHARE, Bools, Drawings, Drawn, Floats, blurred
from .showing import NOBODY, UNDECIDED, shown, shown_iou, shown_share

__all__ = [
    "DECIDED",
    "LEAST_DIFFERENCE",
    "LEAST_SHARE",
    "NOBODY",
    "RIM_SHARE",
    "UNDECIDED",
    "Bools",
    "Drawings",
    "DrawingsJudge",
    "Drawn",
    "Floats",
    "blurred",
    "shown",
    "shown_iou",
    "shown_share",
]
