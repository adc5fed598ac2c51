# SPDX-License-Identifier: Apache-2.0
"""``o = round(a * b)``.

The latency is four cycles, the throughput one product a cycle::

    1  significands with their leading ones, sum of the exponents
    2  product of the significands, registered on both sides
    3  normalize by at most one place, rounding bits
    4  round, saturation
"""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.arith.delay import delay
from hdl.arith.format import EXPONENT_BIAS, float_layout, round_pack, significand


class FloatMultiply(wiring.Component):
    """Multiplier of two floats.

    Parameters
    ----------
    fraction_bits
        Fraction bits F of operands and result, 4 to 24.

    Members
    -------
    a, b : In(float)
        Operands.
    o : Out(float)
        Their product, `latency` cycles later.
    overflow : Out(1)
        `o` is saturated.
    """

    def __init__(self, *, fraction_bits: int) -> None:
        self.layout = float_layout(fraction_bits)
        self.fraction_bits = fraction_bits
        super().__init__(
            {"a": In(self.layout), "b": In(self.layout), "o": Out(self.layout), "overflow": Out(1)}
        )

    @property
    def latency(self) -> int:
        """Cycles from operands to product."""
        return 4

    def elaborate(self, platform: object) -> Module:
        m = Module()
        f = self.fraction_bits

        # 1
        a = delay(m, significand(self.a), 1, name="a_significand")
        b = delay(m, significand(self.b), 1, name="b_significand")
        field = Signal(signed(12), reset_less=True)
        m.d.sync += field.eq(self.a.exponent + self.b.exponent - EXPONENT_BIAS)
        sign = delay(m, self.a.sign ^ self.b.sign, 1, name="sign")

        # 2
        product = delay(m, a * b, 1, name="product")  # 1 <= product < 4, or 0
        field = delay(m, field, 1, name="field")
        sign = delay(m, sign, 1, name="sign")

        # 3
        two = product[2 * f + 1]
        upper = Signal(f + 2)  # fraction, and below it the first bit to round away
        sticky = Signal()
        m.d.comb += [
            upper.eq(Mux(two, product[f : 2 * f + 1], product[f - 1 : 2 * f])),
            sticky.eq(product[: f - 1].any() | (two & product[f - 1])),
        ]
        fraction = delay(m, upper[1 : f + 1], 1, name="fraction")
        increment = delay(m, upper[0] & (upper[1] | sticky), 1, name="increment")
        zero = delay(m, ~(two | product[2 * f]), 1, name="zero")
        field_3 = Signal(signed(12), reset_less=True)
        m.d.sync += field_3.eq(field + two)
        sign = delay(m, sign, 1, name="sign")

        # 4
        o, overflow = round_pack(
            m,
            sign=sign,
            field=field_3,
            fraction=fraction,
            increment=increment,
            zero=zero,
        )
        m.d.comb += [
            self.o.eq(delay(m, o, 1, name="o_register")),
            self.overflow.eq(delay(m, overflow, 1, name="overflow_register")),
        ]
        return m
