# SPDX-License-Identifier: Apache-2.0
"""``o = round(sqrt(i))``; 0 for negative numbers.

Digit by digit, a row of subtractors: a stage yields `bits_per_stage` bits.  The
latency is ``ceil((F + 1) / bits_per_stage) + 1`` cycles, the throughput one root a cycle.

A root never lies half way between two floats: its square would have more than
twice F fraction bits.  So the first bit to round away decides, and no remainder is kept.
The exponent is halved, so that nothing can overflow.
"""

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.arith.delay import delay
from hdl.arith.format import EXPONENT_BIAS, EXPONENT_BITS, check_range, float_layout, pack


class FloatSqrt(wiring.Component):
    """Square root of a float.

    Parameters
    ----------
    fraction_bits
        Fraction bits F of operand and result, 4 to 24.
    bits_per_stage
        Bits of the root that one pipeline stage yields, 1 to F + 1.

    Members
    -------
    i : In(float)
        Operand.
    o : Out(float)
        Its root, `latency` cycles later.
    overflow : Out(1)
        Always 0.
    """

    def __init__(self, *, fraction_bits: int, bits_per_stage: int = 1) -> None:
        self.layout = float_layout(fraction_bits)
        check_range("bits_per_stage", bits_per_stage, 1, fraction_bits + 1)
        self.fraction_bits = fraction_bits
        self.bits_per_stage = bits_per_stage
        super().__init__({"i": In(self.layout), "o": Out(self.layout), "overflow": Out(1)})

    @property
    def latency(self) -> int:
        """Cycles from operand to root."""
        return self._stages + 1

    @property
    def _stages(self) -> int:
        return -(-(self.fraction_bits + 1) // self.bits_per_stage)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        f = self.fraction_bits

        # The radicand is 1.fraction, or twice that to make the exponent even.  Its root
        # begins with a one; `rest` is what that leaves, `digits` what follows, two a step.
        odd = self.i.exponent[0]
        pairs = (f + 1) // 2  # steps with digits of the operand
        radicand = Signal(2 * pairs + 2)
        m.d.comb += radicand.eq(
            Mux(odd, Cat(self.i.fraction, 1) << 1, Cat(self.i.fraction, 1)) << (2 * pairs - f)
        )
        rest: Value = radicand[2 * pairs :] - 1
        rest = rest[:2]
        digits: Value = radicand[: 2 * pairs]
        root: Value = C(1, 1)
        for stage in range(self._stages):
            for _ in range(min(self.bits_per_stage, f + 2 - len(root))):
                bits = len(root)
                digit = digits[-2:] if len(digits) else C(0, 2)
                digits = digits[:-2] if len(digits) else digits
                # rest <= 2 * root
                trial = Signal(bits + 3, name="trial")
                difference = Signal(signed(bits + 4), name="difference")
                left = Signal(bits + 2, name="left")
                m.d.comb += [
                    trial.eq(Cat(digit, rest)),
                    difference.eq(trial - Cat(C(1, 2), root)),
                    left.eq(Mux(difference[-1], trial, difference)),
                ]
                root = Cat(~difference[-1], root)
                rest = left
            rest = delay(m, rest, 1, name=f"rest_{stage}")
            root = delay(m, root, 1, name=f"root_{stage}")
            digits = delay(m, digits, 1, name=f"digits_{stage}") if len(digits) else digits

        zero = delay(m, (self.i.exponent == 0) | self.i.sign, self._stages, name="zero")
        half = delay(m, self.i.exponent[1:], self._stages, name="half")
        rounded = Signal(f + EXPONENT_BITS)
        m.d.comb += rounded.eq(Cat(root[1 : f + 1], half + EXPONENT_BIAS // 2) + root[0])
        o = pack(
            m,
            sign=C(0, 1),
            exponent=rounded[f:],
            fraction=rounded[:f],
            above=C(0, 1),
            below=zero,
        )
        m.d.comb += self.o.eq(delay(m, o, 1, name="o_register"))
        return m
