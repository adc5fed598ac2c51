# SPDX-License-Identifier: Apache-2.0
"""The Pareto front: points than which no other is better in all respects."""

from collections.abc import Sequence

import numpy as np


def pareto_front(points: Sequence[Sequence[float]]) -> list[bool]:
    """Which points are on the front, where less is better in every coordinate.

    A point is not, if another one is nowhere worse and somewhere better; equal points stand or
    fall together.

    Examples
    --------
    >>> pareto_front([(1, 9), (2, 5), (3, 5), (9, 1)])
    [True, True, False, True]
    """
    if not points:
        return []
    values = np.asarray(points, dtype=np.float64)
    return [
        not ((values <= point).all(axis=1) & (values < point).any(axis=1)).any() for point in values
    ]
