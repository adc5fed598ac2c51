# SPDX-License-Identifier: Apache-2.0
"""The scales of a row from its sums s1 = sum(x) and s2 = sum(x*x), by `afternorm.isa.Scale`.

Every operation is rounded, in the order of `golden.units.row_scales`::

    SOFTMAX   scale0 = 1 / s1
    RMS       scale0 = 1 / sqrt(s2 * inv_d + eps)
    LAYER     mean = s1 * inv_d
              scale0 = 1 / sqrt(max(s2 * inv_d - mean * mean, 0) + eps), scale1 = -mean * scale0
    SUM       scale0 = s1, scale1 = s2

All modes share one pipeline; each enters where its first operation is and leaves
after its last one::

    RMS, LAYER ──► *inv_d ──► mean² ──► subtract ──► +eps ──► sqrt ──┬──► 1/ ──┬──► *mean ──┬──►
    SOFTMAX ─────────────────────────────────────────────────────────┘         │            │
                                                        (SOFTMAX, RMS leave) ──┴────────────┤
    SUM ────────────────────────────────────────────────────────────────────────────────────┘

The throughput is one row a cycle; the latency depends on the mode, so that softmax,
which is the one a short product waits for, does not pay for a root.  In return `mode`,
`inv_d` and `eps` hold while rows are in flight, and nothing but data is pipelined.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from afternorm.isa import Scale
from hdl.arith.delay import delay, delay_valid
from hdl.arith.float_add import FloatAdd
from hdl.arith.float_divide import FloatDivide
from hdl.arith.float_multiply import FloatMultiply
from hdl.arith.float_sqrt import FloatSqrt
from hdl.arith.format import EXPONENT_BIAS, float_layout
from hdl.once import once


class ScaleUnit(wiring.Component):
    """Pipeline that makes row scales.

    Parameters
    ----------
    fraction_bits
        Fraction bits F of all floats, 4 to 24.

    Members
    -------
    mode : In(2)
        A value of `Scale`.  Like `inv_d` and `eps` it holds from the cycle before a row
        enters until the row has left.
    inv_d, eps : In(float)
        Constants of the norms; not negative.
    valid : In(1)
        A row enters.
    s1, s2 : In(float)
        Its sums.
    o_valid : Out(1)
        A row leaves, `mode_latency` cycles after it entered.
    scale0, scale1 : Out(float)
        Its scales.
    overflow : Out(1)
        An operation of a row in flight was saturated.  A row's pulses come no later than itself.
    zero : Out(1)
        A row in flight has a divisor of zero, hence the scale 0.
    """

    def __init__(self, *, fraction_bits: int) -> None:
        self.layout = layout = float_layout(fraction_bits)
        self.fraction_bits = fraction_bits
        super().__init__(
            {
                "mode": In(2),
                "inv_d": In(layout),
                "eps": In(layout),
                "valid": In(1),
                "s1": In(layout),
                "s2": In(layout),
                "o_valid": Out(1),
                "scale0": Out(layout),
                "scale1": Out(layout),
                "overflow": Out(1),
                "zero": Out(1),
            }
        )
        self._power = once(FloatMultiply, fraction_bits=fraction_bits)
        self._mean = once(FloatMultiply, fraction_bits=fraction_bits)
        self._mean_square = once(FloatMultiply, fraction_bits=fraction_bits)
        self._variance = once(FloatAdd, fraction_bits=fraction_bits)
        self._regular = once(FloatAdd, fraction_bits=fraction_bits)
        self._root = once(FloatSqrt, fraction_bits=fraction_bits)
        self._divide = once(FloatDivide, fraction_bits=fraction_bits)
        self._shift = once(FloatMultiply, fraction_bits=fraction_bits)

    def mode_latency(self, mode: Scale) -> int:
        """Cycles from a row's sums to its scales."""
        result = 1  # the output register
        if mode != Scale.SUM:
            result += self._divide.latency
        if mode in (Scale.RMS, Scale.LAYER):
            result += self._root_stages
        if mode == Scale.LAYER:
            result += self._shift.latency
        return result

    @property
    def latency(self) -> int:
        """The longest `mode_latency`."""
        return max(self.mode_latency(mode) for mode in Scale)

    @property
    def _root_stages(self) -> int:
        return (
            self._power.latency
            + self._mean_square.latency
            + self._variance.latency
            + self._regular.latency
            + self._root.latency
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.power = power = self._power
        m.submodules.mean = mean = self._mean
        m.submodules.mean_square = mean_square = self._mean_square
        m.submodules.variance = variance = self._variance
        m.submodules.regular = regular = self._regular
        m.submodules.root = root = self._root
        m.submodules.divide = divide = self._divide
        m.submodules.shift = shift = self._shift

        softmax = Signal()
        layer = Signal()
        sums = Signal()
        m.d.sync += [
            softmax.eq(self.mode == Scale.SOFTMAX),
            layer.eq(self.mode == Scale.LAYER),
            sums.eq(self.mode == Scale.SUM),
        ]

        # Whether a row is at the output of ...
        scaled = delay_valid(m, self.valid & ~softmax & ~sums, power.latency)
        squared = delay_valid(m, scaled, mean_square.latency)
        subtracted = delay_valid(m, squared, variance.latency)
        regularized = delay_valid(m, subtracted, regular.latency)
        rooted = delay_valid(m, regularized, root.latency)
        divided = delay_valid(m, rooted | (self.valid & softmax), divide.latency)
        shifted = delay_valid(m, divided & layer, shift.latency)

        negative = delay(m, variance.o.sign, regular.latency, name="negative")

        m.d.comb += [
            power.a.eq(self.s2),
            power.b.eq(self.inv_d),
            mean.a.eq(self.s1),
            mean.b.eq(self.inv_d),
            # RMS subtracts nothing, which is exact.
            mean_square.a.eq(Mux(layer, mean.o.as_value(), 0)),
            mean_square.b.eq(mean.o),
            variance.a.eq(delay(m, power.o, mean_square.latency, name="power")),
            variance.b.eq(_negative(mean_square.o)),
            regular.a.eq(variance.o),
            regular.b.eq(self.eps),
            # Rounding may leave the variance of a constant row below zero: it counts as zero.
            root.i.eq(Mux(negative, self.eps.as_value(), regular.o.as_value())),
            divide.a.eq(EXPONENT_BIAS << self.fraction_bits),  # 1
            divide.b.eq(Mux(softmax, self.s1.as_value(), root.o.as_value())),
        ]
        wait = self._root_stages - mean.latency + divide.latency
        m.d.comb += [
            shift.a.eq(_negative(_long_delay(m, mean.o, wait))),
            shift.b.eq(divide.o),
        ]

        scale0 = delay(m, divide.o, shift.latency, name="scale0")
        with m.If(sums):
            m.d.sync += [
                self.o_valid.eq(self.valid),
                self.scale0.eq(self.s1),
                self.scale1.eq(self.s2),
            ]
        with m.Elif(layer):
            m.d.sync += [
                self.o_valid.eq(shifted),
                self.scale0.eq(scale0),
                self.scale1.eq(shift.o),
            ]
        with m.Else():
            m.d.sync += [
                self.o_valid.eq(divided),
                self.scale0.eq(divide.o),
                self.scale1.eq(0),
            ]

        m.d.sync += [
            self.overflow.eq(
                (scaled & (power.overflow | (layer & mean.overflow)))
                | (squared & mean_square.overflow)
                | (subtracted & variance.overflow)
                | (regularized & ~negative & regular.overflow)
                | (divided & divide.overflow)
                | (shifted & shift.overflow)
            ),
            self.zero.eq(divided & divide.zero_divide),
        ]
        return m


def _negative(number: data.View) -> Value:
    """The float of opposite sign; zero stays as it is."""
    bits = number.as_value()
    return Cat(bits[:-1], ~number.sign & (number.exponent != 0))


def _long_delay(m: Module, number: data.View, cycles: int) -> data.View:
    """`delay` by a memory, for delays long enough that registers would cost more."""
    depth = cycles - 1  # a block RAM is slow, so its output is registered
    m.submodules.ring = ring = Memory(shape=number.shape(), depth=depth, init=[])
    write_port = ring.write_port()
    read_port = ring.read_port()
    place = Signal(range(depth))
    following = Signal(range(depth))
    m.d.comb += following.eq(Mux(place == depth - 1, 0, place + 1))
    m.d.sync += place.eq(following)
    m.d.comb += [
        write_port.addr.eq(place),
        write_port.data.eq(number),
        write_port.en.eq(1),
        read_port.addr.eq(following),  # the oldest; never the one being written
    ]
    return delay(m, read_port.data, 1, name="ring_data")
