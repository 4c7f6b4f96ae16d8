"""The assignment problem, solved exactly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def assign(gain: npt.ArrayLike) -> list[tuple[int, int]]:
    """Pair rows with columns so that the sum of their gains is the largest possible.

    The Hungarian method with potentials, in the order of n^2 m for n <= m (Kuhn 1955; Jonker and Volgenant 1987).

    Args:
        gain: (n, m), finite; of any sign.

    Returns:
        min(n, m) pairs (row, column), by row; no row and no column occurs twice.
    """
    cost = -np.asarray(gain, np.float64)
    if cost.ndim != 2 or not np.isfinite(cost).all():
        raise ValueError("gain is a matrix of finite numbers")
    if cost.shape[0] > cost.shape[1]:
        return sorted((row, column) for column, row in assign(-cost.T))
    rows, columns = cost.shape
    # Everything counts from 1: row 0 is "unassigned", column 0 is where the row that is being placed starts.
    row_price, column_price = np.zeros(rows + 1), np.zeros(columns + 1)
    owner, before = np.zeros(columns + 1, int), np.zeros(columns + 1, int)
    for row in range(1, rows + 1):
        owner[0], column = row, 0
        least, done = np.full(columns + 1, np.inf), np.zeros(columns + 1, bool)
        while True:
            done[column] = True
            here = owner[column]
            reduced = np.concatenate([[np.inf], cost[here - 1] - row_price[here] - column_price[1:]])
            better = ~done & (reduced < least)
            least[better], before[better] = reduced[better], column
            column = int(np.argmin(np.where(done, np.inf, least)))
            step = least[column]
            row_price[owner[done]] += step
            column_price[done] -= step
            least[~done] -= step
            if owner[column] == 0:
                break
        while column:
            owner[column] = owner[before[column]]
            column = int(before[column])
    return sorted((int(owner[column]) - 1, column - 1) for column in range(1, columns + 1) if owner[column])
