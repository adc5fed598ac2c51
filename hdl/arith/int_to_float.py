# SPDX-License-Identifier: Apache-2.0
"""``o = round(i * 2**exponent)``, rounded once.

The latency is four cycles, five if more than eight bits lie below the
rounding bit; the throughput is one number a cycle::

    1  magnitude
    2  count the leading zeros
    3  shift them out, exponent
       rounding bits, in a stage of their own if they are many
    4  round, saturation
"""

from amaranth.hdl import C, Cat, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.arith.delay import delay
from hdl.arith.format import EXPONENT_BIAS, check_range, float_layout, round_pack
from hdl.arith.leading_zeros import leading_zeros


class IntToFloat(wiring.Component):
    """Converter of scaled integers to floats.

    Parameters
    ----------
    fraction_bits
        Fraction bits F of the result, 4 to 24.
    width
        Bits of the integer with its sign, 2 to 40.

    Members
    -------
    i : In(signed(width))
        The integer.
    exponent : In(signed(12))
        Exponent of its scale.
    o : Out(float)
        The float, `latency` cycles later.
    overflow : Out(1)
        `o` is saturated.
    """

    def __init__(self, *, fraction_bits: int, width: int) -> None:
        self.layout = float_layout(fraction_bits)
        check_range("width", width, 2, 40)
        self.fraction_bits = fraction_bits
        self.width = width
        super().__init__(
            {
                "i": In(signed(width)),
                "exponent": In(signed(12)),
                "o": Out(self.layout),
                "overflow": Out(1),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from integer to float."""
        return 4 + self._late

    @property
    def _late(self) -> int:
        """Cycles by which the rounding bits come after the shift."""
        return int(self.width - self.fraction_bits - 2 > 8)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        f = self.fraction_bits

        # 1
        sign = self.i[-1]
        magnitude = Signal(self.width, reset_less=True)
        m.d.sync += magnitude.eq((self.i ^ sign.replicate(self.width)) + sign)

        # 2
        count, zero = leading_zeros(m, magnitude)
        count = delay(m, count, 1, name="count")
        zero = delay(m, zero, 1, name="zero")
        magnitude = delay(m, magnitude, 1, name="magnitude")
        exponent = delay(m, self.exponent, 2, name="exponent")

        # 3
        normal = Signal(self.width)
        m.d.comb += normal.eq(magnitude << count)
        padded = Cat(C(0, max(0, f + 2 - self.width)), normal)
        padded = delay(m, padded, self._late, name="padded")
        below = len(padded) - 1 - f  # bits to round away
        field = Signal(signed(13), reset_less=True)
        m.d.sync += field.eq(exponent + (EXPONENT_BIAS + self.width - 1) - count)
        fraction = delay(m, padded[below:-1], 1, name="fraction")
        increment = delay(
            m,
            padded[below - 1] & (padded[below] | padded[: below - 1].any()),
            1,
            name="increment",
        )

        # 4
        o, overflow = round_pack(
            m,
            sign=delay(m, sign, 3 + self._late, name="sign"),
            field=delay(m, field, self._late, name="field"),
            fraction=fraction,
            increment=increment,
            zero=delay(m, zero, 1 + self._late, name="zero"),
        )
        m.d.comb += [
            self.o.eq(delay(m, o, 1, name="o_register")),
            self.overflow.eq(delay(m, overflow, 1, name="overflow_register")),
        ]
        return m
