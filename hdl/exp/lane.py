# SPDX-License-Identifier: Apache-2.0
"""One lane of the exp engine: a float score in fixed point, split for ``2**score``.

The score is rounded to nearest even to 8 fraction bits::

    256 * integer + fraction = round(256 * score)

so that ``2**score`` is ``2**integer``, the exponent of an MX element, times
``2**(fraction / 256)``, a significand from a table.  Where `integer` would be outside -511..511,
the result is the nearest in range and `saturated` is set.

The latency is five cycles, the throughput one score a cycle::

    1  distance of the score's exponent from the largest one, 8
    2  shift right by the distance's multiple of eight; what falls out is or-ed into a sticky bit
    3  shift by the rest
    4  round and negate, in one adder
    5  saturate
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hdl.arith.delay import delay
from hdl.arith.format import EXPONENT_BIAS, float_layout
from hdl.interfaces import EXPONENT_BITS

FRACTION_BITS = 8
"""As `golden.units.EXP_FRACTION_BITS`."""
_INTEGER_MAX = (1 << (EXPONENT_BITS - 1)) - 1
_STEPS_BITS = EXPONENT_BITS + FRACTION_BITS
_KEPT_BITS = _STEPS_BITS
"""The magnitude of a number of steps in range, and a guard bit."""
_TOP_FIELD = EXPONENT_BIAS + EXPONENT_BITS - 2
"""Exponent field of the largest scores in range, 256 to 511.99."""
_SHIFT_BITS = 5


class ExpLane(wiring.Component):
    """Splits a score into integer and fraction.

    Parameters
    ----------
    fraction_bits : int
        Fraction bits F of the score.

    Members
    -------
    i : In(float_layout(fraction_bits))
        Score.
    integer : Out(signed(10))
        Rounded score, integer part (towards minus infinity).
    fraction : Out(8)
        Rounded score, fraction.
    saturated : Out(1)
        The score is out of range.

    Attributes
    ----------
    latency : int
        Cycles from score to result.
    """

    def __init__(self, *, fraction_bits: int) -> None:
        self.fraction_bits = fraction_bits
        super().__init__(
            {
                "i": In(float_layout(fraction_bits)),
                "integer": Out(signed(EXPONENT_BITS)),
                "fraction": Out(FRACTION_BITS),
                "saturated": Out(1),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from score to result."""
        return 5

    def elaborate(self, platform: object) -> Module:
        m = Module()

        # 1: a zero's exponent field is so far from the largest that nothing is left of it.
        distance = Signal(signed(EXPONENT_BITS + 1))
        m.d.comb += distance.eq(_TOP_FIELD - self.i.exponent)
        huge = distance[-1]
        far = distance[_SHIFT_BITS:-1].any()
        significand = Cat(self.i.fraction, Const(1, 1))
        below = len(significand) - _KEPT_BITS
        if below > 0:
            kept, sticky = significand[below:], significand[:below].any()
        else:
            kept, sticky = Cat(Const(0, -below), significand), Const(0, 1)
        kept = delay(m, Mux(far, 0, kept), 1, name="kept")
        sticky = delay(m, sticky, 1, name="sticky")
        shift = delay(m, distance[:_SHIFT_BITS], 1, name="shift")

        # 2
        kept, sticky = _shift_right(kept, sticky, shift, (4, 3))
        kept = delay(m, kept, 1, name="kept")
        sticky = delay(m, sticky, 1, name="sticky")
        shift = delay(m, shift, 1, name="shift")

        # 3
        kept, sticky = _shift_right(kept, sticky, shift, (2, 1, 0))
        increment = delay(m, kept[0] & (sticky | kept[1]), 1, name="increment")
        magnitude = delay(m, kept[1:], 1, name="magnitude")
        sign = delay(m, self.i.sign, 3, name="sign")

        # 4: -(n + r) = ~n + 1 - r.  Out of range by one wraps to the least number, too.
        steps = Signal(_STEPS_BITS, reset_less=True)
        m.d.sync += steps.eq(
            Cat(magnitude ^ sign.replicate(len(magnitude)), sign) + (increment ^ sign)
        )
        sign = delay(m, sign, 1, name="sign")
        huge = delay(m, huge, 4, name="huge")

        # 5: what is below -511, or above 511 + 255/256, has -512 as its integer part now.
        layout = data.StructLayout(
            {"fraction": FRACTION_BITS, "integer": signed(EXPONENT_BITS), "saturated": 1}
        )
        o = Signal(layout, reset_less=True)
        integer = steps[FRACTION_BITS:]
        saturated = Signal()
        m.d.comb += saturated.eq(huge | (integer == 1 << (EXPONENT_BITS - 1)))
        m.d.sync += [
            o.fraction.eq(Mux(saturated, (~sign).replicate(FRACTION_BITS), steps[:FRACTION_BITS])),
            o.integer.eq(Mux(saturated, Mux(sign, -_INTEGER_MAX, _INTEGER_MAX), integer)),
            o.saturated.eq(saturated),
        ]
        m.d.comb += [
            self.integer.eq(o.integer),
            self.fraction.eq(o.fraction),
            self.saturated.eq(o.saturated),
        ]
        return m


def _shift_right(
    value: Value, sticky: Value, shift: Value, bits: tuple[int, ...]
) -> tuple[Value, Value]:
    """`value` shifted by the `bits` of `shift`; `sticky` with all ones that fell out."""
    for bit in bits:
        step = 1 << bit
        sticky = sticky | (shift[bit] & value[:step].any())
        value = Mux(shift[bit], value >> step, value)
    return value, sticky
