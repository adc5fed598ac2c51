# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of one lane of the vector engine: ``pair(function(x * a + b))``.

A straight pipeline of five float units, each operation rounded as in `golden.machine`::

    x * a  ->  + b  ->  function  ->  * u, partner * v  ->  sum

Operands that an instruction does not use are 1 for a factor and 0 for an addend, which the units
pass exactly; so all passes take the same `latency`, and none needs a bypass.  The pair stage::

    NONE    y * 1 + partner * 0
    ROTATE  y * u + partner * v
    GATE    held * y + partner * 0     held: y of the chunk before, its first half

The throughput is one element a cycle.  Operands are expected when their unit takes them:
`at_add`, `at_function`, `at_pair` say how many cycles after x.
"""

from amaranth.hdl import C, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from afternorm.isa import Pair
from hdl.arith.delay import delay
from hdl.arith.float_add import FloatAdd
from hdl.arith.float_multiply import FloatMultiply
from hdl.arith.format import EXPONENT_BIAS, float_layout
from hdl.once import once
from hdl.vector.function import FUNCTION_BITS, FunctionUnit


def one(fraction_bits: int) -> Value:
    """The bits of 1.0."""
    return C(EXPONENT_BIAS << fraction_bits, float_layout(fraction_bits).size)


class VectorLane(wiring.Component):
    """One lane of the vector engine.

    Parameters
    ----------
    fraction_bits
        Fraction bits F of all floats, 4 to 24.

    Members
    -------
    x, a : In(float)
        Element and its factor.
    x_overflow : In(1)
        The element was saturated when it was read.
    b : In(float)
        Addend, `at_add` cycles after x.
    select : In(3)
        Function, `at_function` cycles after x.
    y : Out(float)
        Result of the function, `at_pair` cycles after x, for the partner lane.
    pair, first_half : In(2), In(1)
        Pair stage, and whether y is to be held for a gate; `at_pair` cycles after x, as
    partner, u, v : In(float)
        y of the partner lane, and the factors of a rotation.
    o : Out(float)
        Result, `latency` cycles after x.
    overflow : Out(1)
        An operation on the way to `o` was saturated.
    """

    def __init__(self, *, fraction_bits: int) -> None:
        self.fraction_bits = fraction_bits
        layout = float_layout(fraction_bits)
        self._multiply = once(FloatMultiply, fraction_bits=fraction_bits)
        self._add = once(FloatAdd, fraction_bits=fraction_bits)
        self._function = once(FunctionUnit, fraction_bits=fraction_bits)
        super().__init__(
            {
                "x": In(layout),
                "a": In(layout),
                "x_overflow": In(1),
                "b": In(layout),
                "select": In(FUNCTION_BITS),
                "y": Out(layout),
                "pair": In(Pair),
                "first_half": In(1),
                "partner": In(layout),
                "u": In(layout),
                "v": In(layout),
                "o": Out(layout),
                "overflow": Out(1),
            }
        )

    @property
    def at_add(self) -> int:
        """Cycles from x to b."""
        return self._multiply.latency

    @property
    def at_function(self) -> int:
        """Cycles from x to the selection of the function."""
        return self.at_add + self._add.latency

    @property
    def at_pair(self) -> int:
        """Cycles from x to y and the operands of the pair stage."""
        return self.at_function + self._function.latency

    @property
    def latency(self) -> int:
        """Cycles from x to the result."""
        return self.at_pair + self._multiply.latency + self._add.latency

    def elaborate(self, platform: object) -> Module:
        m = Module()
        f = self.fraction_bits
        layout = float_layout(f)
        m.submodules.multiply = multiply = self._multiply
        m.submodules.add = add = self._add
        m.submodules.function = function = self._function
        m.submodules.pair_multiply = pair_multiply = once(FloatMultiply, fraction_bits=f)
        m.submodules.partner_multiply = partner_multiply = once(FloatMultiply, fraction_bits=f)
        m.submodules.pair_add = pair_add = once(FloatAdd, fraction_bits=f)

        held = Signal(layout, reset_less=True)
        held_overflow = Signal(reset_less=True)
        y_overflow = Signal()
        gate = self.pair == Pair.GATE
        rotate = self.pair == Pair.ROTATE
        with m.If(self.first_half):
            m.d.sync += [held.eq(self.y), held_overflow.eq(y_overflow)]
        m.d.comb += [
            multiply.a.eq(self.x),
            multiply.b.eq(self.a),
            add.a.eq(multiply.o),
            add.b.eq(self.b),
            function.i.eq(add.o),
            function.select.eq(self.select),
            self.y.eq(function.o),
            pair_multiply.a.eq(Mux(gate, held.as_value(), self.y.as_value())),
            pair_multiply.b.eq(
                Mux(gate, self.y.as_value(), Mux(rotate, self.u.as_value(), one(f)))
            ),
            partner_multiply.a.eq(self.partner),
            partner_multiply.b.eq(self.v.as_value() & rotate.replicate(layout.size)),
            pair_add.a.eq(pair_multiply.o),
            pair_add.b.eq(partner_multiply.o),
            self.o.eq(pair_add.o),
        ]

        def pass_by(overflow: Value, unit: wiring.Component, name: str) -> Value:
            return unit.overflow | delay(m, overflow, unit.latency, name=f"past_{name}")

        overflow = pass_by(self.x_overflow, multiply, "multiply")
        overflow = pass_by(overflow, add, "add")
        m.d.comb += y_overflow.eq(pass_by(overflow, function, "function"))
        overflow = pass_by(y_overflow | (gate & held_overflow), pair_multiply, "pair_multiply")
        overflow = pass_by(overflow | partner_multiply.overflow, pair_add, "pair_add")
        m.d.comb += self.overflow.eq(overflow)
        return m
