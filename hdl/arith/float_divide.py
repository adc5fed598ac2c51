# SPDX-License-Identifier: Apache-2.0
"""``o = round(a / b)``; a quotient by zero is zero and flagged.

Restoring division, a row of subtractors: a stage yields `bits_per_stage` bits.
The latency is ``ceil((F + 3) / bits_per_stage) + 2`` cycles, the throughput one
quotient a cycle.

The quotient never lies half way between two floats: it would be an odd integer
of F + 2 bits that divides the dividend's significand of F + 1.  So the first bit to
round away decides, and no remainder is kept.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.arith.delay import delay
from hdl.arith.format import EXPONENT_BIAS, check_range, float_layout, round_pack, significand


class FloatDivide(wiring.Component):
    """Divider of two floats.

    Parameters
    ----------
    fraction_bits
        Fraction bits F of operands and result, 4 to 24.
    bits_per_stage
        Bits of the quotient that one pipeline stage yields, 1 to F + 3.

    Members
    -------
    a, b : In(float)
        Dividend and divisor.
    o : Out(float)
        The quotient, `latency` cycles later; 0 if `b` was 0.
    overflow : Out(1)
        `o` is saturated.
    zero_divide : Out(1)
        `b` was 0.
    """

    def __init__(self, *, fraction_bits: int, bits_per_stage: int = 1) -> None:
        self.layout = float_layout(fraction_bits)
        check_range("bits_per_stage", bits_per_stage, 1, fraction_bits + 3)
        self.fraction_bits = fraction_bits
        self.bits_per_stage = bits_per_stage
        super().__init__(
            {
                "a": In(self.layout),
                "b": In(self.layout),
                "o": Out(self.layout),
                "overflow": Out(1),
                "zero_divide": Out(1),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from operands to quotient."""
        return self._stages + 2

    @property
    def _stages(self) -> int:
        return -(-(self.fraction_bits + 3) // self.bits_per_stage)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        f = self.fraction_bits

        remainder: Value = significand(self.a)
        divisor: Value = Cat(self.b.fraction, 1)
        quotient: list[Value] = []  # from the top
        for stage in range(self._stages):
            for _ in range(min(self.bits_per_stage, f + 3 - len(quotient))):
                # remainder < 2 * divisor
                difference = Signal(signed(f + 3), name="difference")
                rest = Signal(f + 2, name="rest")
                m.d.comb += [
                    difference.eq(remainder - divisor),
                    rest.eq(Mux(difference[-1], remainder, difference) << 1),
                ]
                quotient.append(~difference[-1])
                remainder = rest
            remainder = delay(m, remainder, 1, name=f"remainder_{stage}")
            divisor = delay(m, divisor, 1, name=f"divisor_{stage}")
            register = delay(m, Cat(*quotient), 1, name=f"quotient_{stage}")
            quotient = [register[n] for n in range(len(quotient))]

        field = Signal(signed(12), reset_less=True)
        m.d.sync += field.eq(self.a.exponent - self.b.exponent + EXPONENT_BIAS)
        field = delay(m, field, self._stages - 1, name="field")
        sign = delay(m, self.a.sign ^ self.b.sign, self._stages + 1, name="sign")
        zero_divide = delay(m, self.b.exponent == 0, self._stages + 1, name="by_zero")
        zero = delay(m, self.a.exponent == 0, self._stages + 1, name="zero") | zero_divide

        # Normalize by at most one place
        bits = Cat(*reversed(quotient))
        one = quotient[0]  # the quotient is 1 or more
        kept = Signal(f + 1, reset_less=True)
        field_normal = Signal(signed(12), reset_less=True)
        m.d.sync += [
            kept.eq(Mux(one, bits[1 : f + 2], bits[: f + 1])),
            field_normal.eq(field - ~one),
        ]
        o, overflow = round_pack(
            m,
            sign=sign,
            field=field_normal,
            fraction=kept[1:],
            increment=kept[0],
            zero=zero,
        )
        m.d.comb += [
            self.o.eq(delay(m, o, 1, name="o_register")),
            self.overflow.eq(delay(m, overflow, 1, name="overflow_register")),
            self.zero_divide.eq(delay(m, zero_divide, 1, name="zero_divide_register")),
        ]
        return m
