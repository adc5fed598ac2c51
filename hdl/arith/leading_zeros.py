# SPDX-License-Identifier: Apache-2.0
"""A count of leading zeros, as a tree of logarithmic depth."""

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value
from amaranth.utils import ceil_log2


def leading_zeros(m: Module, value: Value) -> tuple[Value, Value]:
    """Combinational: the number of zeros above the highest one of `value`, and whether all are.

    The count has ``ceil_log2(len(value))`` bits and is meaningless for a value of zero.
    """
    width = 1 << ceil_log2(len(value))
    # Padding below the last bit never changes the count of a nonzero value.
    bits = Cat(C(0, width - len(value)), value)
    nodes: list[tuple[Value, Value]] = [(C(0, 0), ~bits[n]) for n in range(width)]
    while len(nodes) > 1:
        merged: list[tuple[Value, Value]] = []
        for (low, low_zero), (high, high_zero) in zip(nodes[::2], nodes[1::2], strict=True):
            count = Signal(len(low) + 1, name="leading_count")
            zero = Signal(name="leading_zero")
            m.d.comb += [
                count.eq(Cat(Mux(high_zero, low, high), high_zero)),
                zero.eq(low_zero & high_zero),
            ]
            merged.append((count, zero))
        nodes = merged
    return nodes[0]
