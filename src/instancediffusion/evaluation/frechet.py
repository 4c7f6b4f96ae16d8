"""The distance of two sets of pictures, by the features a judge gives them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class FeatureStatistics:
    """Mean and covariance of features, fed row by row.

    Args:
        size: numbers in a row.
    """

    def __init__(self, size: int) -> None:
        self.count = 0
        self._sum, self._products = np.zeros(size), np.zeros((size, size))

    def update(self, features: npt.ArrayLike) -> None:
        """Add one row (D,) or several (N, D)."""
        rows = np.atleast_2d(np.asarray(features, np.float64))
        self.count += len(rows)
        self._sum += rows.sum(0)
        self._products += rows.T @ rows

    def compute(self) -> tuple[Floats, Floats]:
        """Return mean (D,) and covariance (D, D), divided by count - 1; at least two rows are needed."""
        if self.count < 2:
            raise ValueError("mean and covariance need at least two rows")
        mean = self._sum / self.count
        return mean, (self._products - self.count * np.outer(mean, mean)) / (self.count - 1)


def frechet_distance(first: FeatureStatistics, second: FeatureStatistics) -> float:
    """Return the squared Frechet distance of two normal distributions.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2) (Dowson and Landau 1982; Heusel et al. 2017 for pictures, with
    features of another network, so that the numbers are not comparable to theirs). It shrinks with the number of
    pictures: compare sets of one size only.
    """
    (mean1, cov1), (mean2, cov2) = first.compute(), second.compute()
    root = _root(cov1)
    inner = root @ cov2 @ root
    overlap = np.sqrt(np.clip(np.linalg.eigvalsh((inner + inner.T) / 2), 0, None)).sum()
    distance = float(((mean1 - mean2) ** 2).sum() + np.trace(cov1) + np.trace(cov2) - 2 * overlap)
    return max(distance, 0.0)


def _root(matrix: Floats) -> Floats:
    """Return the square root of a symmetric matrix without negative eigenvalues."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    root: Floats = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    return root
