# SPDX-License-Identifier: Apache-2.0
"""``o = round(a + b)``.

The latency is five cycles, the throughput one sum a cycle::

    1  compare, swap so that |large| >= |small|, difference of the exponents
    2  align the small significand; what falls out is or-ed into a sticky bit
    3  add or subtract: never negative
    4  round, and beside it count the leading zeros
    5  normalize, exponent, saturation

Rounding comes before normalizing, which takes the two long steps apart: only
sums whose leading one is in one of the three top places have bits to round
away.  A lower one means cancellation, so that the exponents differed by at most
one, and then at most one bit was shifted out: with the place gained the sum is exact.
"""

from amaranth.hdl import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hdl.arith.delay import delay
from hdl.arith.format import EXPONENT_BITS, float_layout, pack, significand
from hdl.arith.leading_zeros import leading_zeros


class FloatAdd(wiring.Component):
    """Adder of two floats.

    Parameters
    ----------
    fraction_bits
        Fraction bits F of operands and result, 4 to 24.

    Members
    -------
    a, b : In(float)
        Operands.
    o : Out(float)
        Their sum, `latency` cycles later.
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
        """Cycles from operands to sum."""
        return 5

    def elaborate(self, platform: object) -> Module:
        m = Module()
        f = self.fraction_bits

        # 1: compare and swap
        swap = Signal()
        m.d.comb += swap.eq(
            Cat(self.a.fraction, self.a.exponent) < Cat(self.b.fraction, self.b.exponent)
        )
        large = delay(m, Mux(swap, self.b.as_value(), self.a.as_value()), 1, name="large")
        small = delay(m, Mux(swap, self.a.as_value(), self.b.as_value()), 1, name="small")
        some = delay(m, Mux(swap, self.a.exponent.any(), self.b.exponent.any()), 1, name="some")
        a_above_b = self.a.exponent - self.b.exponent
        b_above_a = self.b.exponent - self.a.exponent
        distance = delay(m, Mux(swap, b_above_a, a_above_b)[:10], 1, name="distance")

        # 2: align, with two places below the last and a sticky bit below these
        large, small = self.layout(large), self.layout(small)
        levels = ceil_log2(f + 3)
        aligned = Cat(C(0, 2), small.fraction, some)
        sticky = C(0, 1)
        for level in reversed(range(levels)):
            step = 1 << level
            shifted = Signal(f + 3, name=f"shifted_{level}")
            lost = Signal(name=f"lost_{level}")
            m.d.comb += [
                shifted.eq(Mux(distance[level], aligned >> step, aligned)),
                lost.eq(sticky | (distance[level] & aligned[:step].any())),
            ]
            aligned, sticky = shifted, lost
        # Less than half of a last place, also of the binade below: as good as zero.
        far = distance[levels:].any()
        addend = Signal(f + 4)
        m.d.comb += addend.eq(
            Mux(far, 0, Cat(sticky, aligned)),
        )
        addend = delay(m, addend, 1, name="addend")
        augend = delay(m, significand(large), 1, name="augend")
        subtract = delay(m, large.sign ^ small.sign, 1, name="subtract")

        # 3: add; the one operand is the larger, so that the difference is not negative.  The
        # place below the last carries the one of the two's complement: a single adder.
        total = Signal(f + 5, reset_less=True)
        m.d.sync += total.eq(
            (
                Cat(C(1, 1), C(0, 3), augend, C(0, 1))
                + Cat(subtract, Cat(addend, C(0, 1)) ^ subtract.replicate(f + 5))
            )
            >> 1
        )

        # 4: round at the place that the leading one fixes; count zeros
        carry, first, second = total[f + 4], total[f + 3], total[f + 2]
        increment = Signal(3)
        m.d.comb += increment.eq(
            Mux(
                carry,
                (total[3] & (total[4] | total[:3].any())) << 2,
                Mux(
                    first,
                    (total[2] & (total[3] | total[:2].any())) << 1,
                    second & total[1] & (total[2] | total[0]),
                ),
            )
        )
        rounded = Signal(f + 6)
        m.d.comb += rounded.eq(total + (increment << 2))
        # Rounding reached the next power of two: then the fraction is zero.
        carried = Mux(carry, rounded[f + 5], Mux(first, rounded[f + 4], second & rounded[f + 3]))
        count, zero = leading_zeros(m, total)
        count = delay(m, count, 1, name="count")
        zero = delay(m, zero, 1, name="zero")
        carried = delay(m, carried, 1, name="carried")
        rounded = delay(m, rounded[: f + 5], 1, name="rounded")
        sign = delay(m, large.sign, 3, name="sign")
        exponent = delay(m, large.exponent, 2, name="exponent")
        base = delay(m, exponent + 2, 1, name="base")
        base_less_1 = delay(m, exponent + 1, 1, name="base_less_1")

        # 5: normalize and pack
        # field = exponent + 1 - count + carried = base + ~count + carried, where a place below
        # the last brings `carried` in; a second adder for field - 1 tells underflow by its sign.
        normal = Signal(f + 5)
        field = Signal(signed(12))
        field_less_1 = Signal(signed(12))
        above = Signal()
        below = Signal()
        minus = Cat(carried, ~count, C(-1, 13 - len(count))).as_signed()
        m.d.comb += [
            normal.eq(rounded << count),
            field.eq((Cat(carried, base, 0).as_signed() + minus) >> 1),
            field_less_1.eq((Cat(carried, base_less_1, 0).as_signed() + minus) >> 1),
            below.eq(zero | field_less_1[-1]),
            above.eq(~zero & ~field[-1] & field[EXPONENT_BITS]),
        ]
        o = pack(m, sign=sign, exponent=field, fraction=normal[4 : f + 4], above=above, below=below)
        m.d.comb += [
            self.o.eq(delay(m, o, 1, name="o_register")),
            self.overflow.eq(delay(m, above, 1, name="overflow_register")),
        ]
        return m
