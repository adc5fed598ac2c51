# SPDX-License-Identifier: Apache-2.0
"""The weight-stationary systolic array: exact dot products of MX blocks.

Column c computes ``dot = sum(a.mantissas * b[c].mantissas)`` and ``exponent = a.exponent +
b[c].exponent - 12``, so that the product of the two blocks is ``dot * 2**exponent``.  One block
of A enters a cycle; column c's result comes ``latency + c`` cycles later.

R rows of C elements: row r of A is delayed by r cycles (the skew) and moves right by one column
a cycle, sums move down.  The exponents are one more row below.  `swap`, with the first block of
A that a new set of B multiplies, travels with that block.

B is loaded block by block, in *descending* order of columns, through the shadow registers, with
the same skew by rows.  A burst of L blocks fills columns L-1 to 0: the block of index i in its
burst enters column 0, and column c shifts for the indices i >= c only.

Why tiles may follow each other so closely: let a block of A with `swap` enter at cycle t, so
that column c swaps at the end of cycle t + c.  A burst that starts at cycle s >= t first shifts
column c at the end of cycle s + c or later, which is no earlier than the swap; on the same edge
the active register takes the old shadow.  And the burst's last block shifts at the end of
cycle s + L - 1, so the next block of A with `swap` may enter at s + L.  The period of tiles is
therefore max(M, L) for M blocks of A, with no gap between two tiles when M >= L.
"""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hdl.arith.delay import delay
from hdl.interfaces import EXPONENT_BITS, block_layout
from hdl.matmul.exponent import ExponentElement
from hdl.matmul.pe import ProcessingElement
from hdl.memory.delay_line import delay_line
from hdl.once import once

PRODUCT_SHIFT = 12
"""Fraction bits of a product: an MX mantissa has six."""


def psum_width(rows: int) -> int:
    """Bits of a sum of `rows` products of int8: -128 * -128 in each row must fit."""
    return 1 + (rows << 14).bit_length()


class SystolicArray(wiring.Component):
    """R rows and C columns of int8 multiply-accumulate elements, and a row for exponents.

    Parameters
    ----------
    rows
        Rows R: elements of a block.
    columns
        Columns C.

    Members
    -------
    a : In(block)
        Block of A; what enters in a cycle that nobody cares for gives a result that nobody
        takes.
    swap : In(1)
        With `a`: the first block of a tile, use the loaded blocks of B from here on.
    b : In(block)
        Block of B.
    b_valid, b_first : In(1)
        Load `b`; it is the first of its burst.
    dots : Out(signed, C)
        Dot products; column c `latency` + c cycles after `a`.
    exponents : Out(signed(12), C)
        Their exponents, at the same time.
    """

    def __init__(self, *, rows: int, columns: int) -> None:
        if rows < 1 or columns < 1:
            raise ValueError(f"an array of {rows} rows and {columns} columns is impossible")
        self.rows = rows
        self.columns = columns
        self.dot_width = psum_width(rows)
        self.exponent_width = EXPONENT_BITS + 2
        block = block_layout(rows)
        super().__init__(
            {
                "a": In(block),
                "swap": In(1),
                "b": In(block),
                "b_valid": In(1),
                "b_first": In(1),
                "dots": Out(data.ArrayLayout(signed(self.dot_width), columns)),
                "exponents": Out(data.ArrayLayout(signed(self.exponent_width), columns)),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from a block of A to the result of column 0."""
        return self.rows - 1 + ProcessingElement.latency

    def elaborate(self, platform: object) -> Module:
        m = Module()
        columns = self.columns

        # Columns that shift with this block of B: one more with each block of a burst.
        reach = Signal(columns, reset_less=True)
        shift: Value = Signal(columns)
        with m.If(self.b_valid):
            m.d.comb += shift.eq(Mux(self.b_first, 1, reach))
            m.d.sync += reach.eq(Cat(C(1, 1), shift))
        # Element (r, c) swaps r + c cycles after element (0, 0), so that one line serves all.
        depth = self.latency - ExponentElement.latency
        line = Signal(max(self.rows - 1, depth) + columns - 1)
        m.d.sync += line.eq(Cat(self.swap, line))
        swap = Cat(self.swap, line)

        sums: list[Value] = [C(0, signed(16))] * columns
        for r in range(self.rows):
            a = delay_line(m, self.a.mantissas[r], r, name=f"a_skew_{r}")
            b = delay_line(m, self.b.mantissas[r], r, name=f"b_skew_{r}")
            for c in range(columns):
                pe = once(
                    ProcessingElement, psum_width=psum_width(max(r, 1)), sum_width=psum_width(r + 1)
                )
                m.submodules[f"pe_{r}_{c}"] = pe
                m.d.comb += [
                    pe.i_a.eq(a),
                    pe.swap.eq(swap[r + c]),
                    pe.i_b.eq(b),
                    pe.shift.eq(shift[c]),
                    pe.i_psum.eq(sums[c]),
                ]
                a, b, sums[c] = pe.o_a, pe.o_b, pe.o_psum
            below = Signal(columns, name=f"shift_{r + 1}")
            m.d.sync += below.eq(shift)
            shift = below

        # Sums of exponents are made in fewer cycles: with this skew they come with the dots.
        a = Signal(signed(EXPONENT_BITS + 1))
        m.d.comb += a.eq(self.a.exponent - PRODUCT_SHIFT)
        a = delay_line(m, a, depth, name="a_skew_exponent")
        b = delay_line(m, self.b.exponent, depth, name="b_skew_exponent")
        shift = delay(m, shift, depth - self.rows, name="shift_exponent")
        for c in range(columns):
            element = once(ExponentElement, a_width=EXPONENT_BITS + 1, b_width=EXPONENT_BITS)
            m.submodules[f"exponent_{c}"] = element
            m.d.comb += [
                element.i_a.eq(a),
                element.swap.eq(swap[depth + c]),
                element.i_b.eq(b),
                element.shift.eq(shift[c]),
                self.dots[c].eq(sums[c]),
                self.exponents[c].eq(element.o_sum),
            ]
            a, b = element.o_a, element.o_b
        return m
