# SPDX-License-Identifier: Apache-2.0
"""FlashNorm's picture of one normalized row before a square matrix (arXiv 2407.09577).

A vector unit does m operations a cycle and a matrix unit m x m; they take turns or work at the same
time.  A row of n elements needs n/m cycles for its RMS, n/m cycles to be scaled, and the product
(n/m)^2 cycles.  Square root and division are not counted.  What can overlap follows from what
needs what, chunk of m elements by chunk; so the figures come out of a small simulation of the two
units rather than of three formulas.
"""

from dataclasses import dataclass

from afternorm.errors import AfternormError


@dataclass(frozen=True)
class FlashNorm:
    """Cycles of one row of `n` elements on units of width `m`, by schedule."""

    n: int
    m: int
    serial: int
    interleaved: int
    deferred: int


def flashnorm(n: int = 512, m: int = 128) -> FlashNorm:
    """Cycles of RMSNorm and the linear layer after it, for one row.

    `serial` scales the whole row before the product begins; `interleaved` multiplies a chunk as
    soon as it is scaled; `deferred` multiplies at once, beside the RMS, and scales each chunk of
    the result as it leaves.

    Raises
    ------
    AfternormError
        If `m` does not divide `n`.

    Examples
    --------
    >>> flashnorm(512, 128)
    FlashNorm(n=512, m=128, serial=24, interleaved=21, deferred=17)
    """
    if n < 1 or m < 1 or n % m:
        raise AfternormError(f"the width m={m} must divide the row's n={n} elements")
    chunks = n // m
    rms = chunks
    scaled = [rms + chunk + 1 for chunk in range(chunks)]
    serial = _product(chunks, [scaled[-1]] * chunks)[-1]
    interleaved = _product(chunks, scaled)[-1]
    time = 0
    # Column by column: a chunk of the result is complete after its share of the product.
    for complete in range(chunks, chunks * chunks + 1, chunks):
        time = max(time, complete, rms) + 1
    return FlashNorm(n, m, serial, interleaved, time)


def _product(chunks: int, ready: list[int]) -> list[int]:
    """When the matrix unit has done with each chunk of the input, row by row of the matrix."""
    time, ends = 0, []
    for at in ready:
        time = max(time, at) + chunks
        ends.append(time)
    return ends
