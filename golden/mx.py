# SPDX-License-Identifier: Apache-2.0
"""MX blocks: int8 mantissas that share one exponent (OCP Microscaling MXINT8).

An element is ``m * 2**(e - 6)`` with ``e = floor(log2(max |x|))`` of its block.
Mantissas are rounded to nearest even and saturate at +-127; -128 is accepted
from outside and never produced.  On chip ``e`` is a signed 10-bit number, and a
zero block has zero mantissas and the exponent -512.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from golden.number import EXPONENT_MAX, Floats

ZERO_EXPONENT = -512
MANTISSA_MAX = 127
MANTISSA_SHIFT = 6


class Blocks(NamedTuple):
    """An array of blocks: `mantissas` has shape ``[..., block]``, `exponents` ``[...]``."""

    mantissas: NDArray[np.int8]
    exponents: NDArray[np.int16]


def quantize(x: ArrayLike, block: int) -> Blocks:
    """Quantize along the last axis, whose length is a multiple of `block`.

    Any float64 is accepted; exponents outside -511..511 saturate or become zero,
    as the on-chip exponent does.

    Raises
    ------
    ValueError
        If the last axis is no multiple of `block`, or a value is not finite.
    """
    x = np.asarray(x, dtype=np.float64)
    if x.shape[-1] % block:
        raise ValueError(f"the last axis has {x.shape[-1]} elements, no multiple of block {block}")
    if not np.isfinite(x).all():
        raise ValueError("cannot quantize NaN or infinity")
    x = x.reshape(*x.shape[:-1], -1, block)
    peak = np.abs(x).max(axis=-1)
    exponents = np.frexp(peak)[1] - 1
    zero = (peak == 0) | (exponents <= ZERO_EXPONENT)
    exponents = np.where(zero, ZERO_EXPONENT, np.minimum(exponents, EXPONENT_MAX))
    scaled = np.ldexp(x, np.where(zero, 0, MANTISSA_SHIFT - exponents)[..., None])
    mantissas = np.clip(np.rint(scaled), -MANTISSA_MAX, MANTISSA_MAX)
    mantissas = np.where(zero[..., None], 0, mantissas)
    return Blocks(mantissas.astype(np.int8), exponents.astype(np.int16))


def dequantize(blocks: Blocks) -> Floats:
    """The elements as float64, flattened along the last two axes."""
    exponents = blocks.exponents.astype(np.int64)[..., None] - MANTISSA_SHIFT
    x = np.ldexp(blocks.mantissas.astype(np.float64), exponents)
    return x.reshape(*x.shape[:-2], -1)
