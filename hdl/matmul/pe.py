# SPDX-License-Identifier: Apache-2.0
"""A processing element of the weight-stationary array: ``o_psum = i_psum + i_a * weight``.

The activation moves on to the right after one cycle; it meets `i_psum` two cycles after it
came in, and the sum leaves after `latency` = 3 cycles, one a cycle::

    1  activation register, weight register
    2  product register (a multiplier has registers on both sides)
    3  sum register

The weights of the next tile come from the left through a chain of their own (`i_b`, `o_b`),
whose registers are the shadow weights: there is one register per element for loading and
double buffering together.  `swap` comes together with the first activation that the new
weight multiplies.

The double-buffered weight-stationary element is that of Jouppi et al., "In-datacenter
performance analysis of a tensor processing unit", ISCA 2017; the skewed loading, which makes
the chain and the second buffer one, is this project's.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class ProcessingElement(wiring.Component):
    """One int8 multiply-accumulate element.

    Parameters
    ----------
    psum_width, sum_width
        Bits of the sum that comes in and of the one that goes out, with their signs; at least 16.

    Members
    -------
    i_a, o_a : In(signed(8)), Out(signed(8))
        Activations from the left, and on to the right one cycle later.
    swap : In(1)
        From `i_a` of this cycle on, multiply with the weight that lies in the shadow register.
    i_b, o_b : In(signed(8)), Out(signed(8))
        Weights from the left; the shadow register.
    shift : In(1)
        Take `i_b` into the shadow register.
    i_psum, o_psum : In(signed(psum_width)), Out(signed(sum_width))
        Sum of the rows above, two cycles after the `i_a` that belongs to it; sum with this row.
    """

    latency = 3
    """Cycles from activation to sum."""

    def __init__(self, *, psum_width: int, sum_width: int) -> None:
        if not 16 <= psum_width <= sum_width:
            raise ValueError(
                f"psum_width must hold a product's 16 bits and sum_width the sum, "
                f"not {psum_width} and {sum_width}"
            )
        self.psum_width = psum_width
        self.sum_width = sum_width
        super().__init__(
            {
                "i_a": In(signed(8)),
                "o_a": Out(signed(8)),
                "swap": In(1),
                "i_b": In(signed(8)),
                "o_b": Out(signed(8)),
                "shift": In(1),
                "i_psum": In(signed(psum_width)),
                "o_psum": Out(signed(sum_width)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        activation = Signal(signed(8), reset_less=True)
        shadow = Signal(signed(8), reset_less=True)
        weight = Signal(signed(8), reset_less=True)
        product = Signal(signed(16), reset_less=True)
        psum = Signal(signed(self.sum_width), reset_less=True)

        m.d.sync += [
            activation.eq(self.i_a),
            product.eq(activation * weight),
            psum.eq(self.i_psum + product),
        ]
        # Both on one edge: the active weight is the shadow's old one.
        with m.If(self.shift):
            m.d.sync += shadow.eq(self.i_b)
        with m.If(self.swap):
            m.d.sync += weight.eq(shadow)
        m.d.comb += [
            self.o_a.eq(activation),
            self.o_b.eq(shadow),
            self.o_psum.eq(psum),
        ]
        return m
