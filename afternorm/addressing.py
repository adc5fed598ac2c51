# SPDX-License-Identifier: Apache-2.0
"""Addresses of the machine's strided operands."""

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def grid(base: int, *dimensions: tuple[int, int]) -> Indices:
    """Addresses ``base + i*stride_i + ...`` for (count, stride) a dimension, as an array."""
    addresses = np.array(base, dtype=np.int64)
    for count, stride in dimensions:
        addresses = addresses[..., None] + np.arange(count, dtype=np.int64) * stride
    return addresses
