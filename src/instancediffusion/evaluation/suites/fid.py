"""`fid`: the Frechet distance of the pictures to real ones, by the features of a network of one's choice.

Heusel et al. 2017 take an Inception network; by default this takes DINOv2, whose distances agree better with people's
judgement (Stein et al. 2023). Numbers of different networks, and of sets of different size, cannot be compared: the
paper's FID (23.9 by boxes) is of Inception, which `--features inception-2015-12-05.pt` takes (see `inception`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from PIL import Image

from instancediffusion.errors import SettingsError

from ..estimates import NORMAL_95, Estimate
from ..frechet import FeatureStatistics, frechet_distance
from ..report import ScoreTable
from .models import Floats, Models
from .suite import Case, Measure, Row, Scored, Suite, register

BLOCKS = 10
"""Parts of the set of pictures that are left out in turn for the interval."""


@register
class FrechetSuite(Suite):
    """Frechet distance."""

    name = "fid"
    title = "Frechet distance to real pictures"
    needs = ("features",)
    reference = True
    measures: ClassVar[Mapping[str, Measure]] = {
        "frechet": Measure(
            "Frechet distance",
            "Of the features of the pictures and of the real ones; compare equal numbers of pictures and the same "
            f"network only. Interval by leaving out each {BLOCKS}th of the pictures (jackknife).",
            upwards=False,
        ),
        "halves": Measure(
            "halves of the real ones", "Of one half of the real pictures and the other: what chance gives.", False
        ),
    }

    def score(self, case: Case, image: Image.Image, models: Models) -> Row:  # noqa: ARG002
        """Compute the features."""
        return {"features": [float(value) for value in models.features(image)]}

    def aggregate(self, scored: Sequence[Scored]) -> ScoreTable:
        """Return the distance of one half of the pictures and the other."""
        rows = np.array([item.row["features"] for item in scored], np.float64)
        halves = _statistics(rows[::2]), _statistics(rows[1::2])
        distance = frechet_distance(*halves)
        return ScoreTable(len(scored), {"halves": Estimate(distance, distance, distance, len(scored))})

    def compare(self, scored: Sequence[Scored], real: Sequence[Scored]) -> tuple[ScoreTable, ScoreTable | None]:
        """Return the distance to the real pictures, and that of halves of these.

        Raises:
            SettingsError: there are fewer than two pictures on a side.
        """
        if min(len(scored), len(real)) < 2:
            raise SettingsError(
                f"fid: {len(scored)} pictures and {len(real)} real ones; two of each are needed (--real FOLDER)"
            )
        rows = np.array([item.row["features"] for item in scored], np.float64)
        others = _statistics(np.array([item.row["features"] for item in real], np.float64))
        value = frechet_distance(_statistics(rows), others)
        spread = _jackknife(rows, others)
        distance = Estimate(value, max(value - spread, 0.0), value + spread, len(scored))
        made = {"frechet": distance, **(self.aggregate(real).scores if len(real) >= 4 else {})}
        return ScoreTable(len(scored), made), None


def _statistics(rows: Floats) -> FeatureStatistics:
    statistics = FeatureStatistics(rows.shape[1])
    statistics.update(rows)
    return statistics


def _jackknife(rows: Floats, others: FeatureStatistics) -> float:
    """Return half the width of the interval of 95 %, by the delete-a-group jackknife (Efron and Tibshirani, ch. 11)."""
    blocks = min(BLOCKS, len(rows))
    if len(rows) - -(-len(rows) // blocks) < 2:
        return 0.0
    groups = np.arange(len(rows)) % blocks
    values = np.array([frechet_distance(_statistics(rows[groups != k]), others) for k in range(blocks)])
    return NORMAL_95 * float(np.sqrt((blocks - 1) / blocks * ((values - values.mean()) ** 2).sum()))
