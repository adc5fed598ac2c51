# SPDX-License-Identifier: Apache-2.0
"""The function unit of a vector lane: ``o = function(i)``, as `golden.functions.apply`.

All functions are ``round(scale * g)``, with g from one table of quadratics (`golden.tables`), so
one pipeline serves them; identity is ``i * 1``.  Range reduction by the exponent, then a
piecewise quadratic in Horner's form (Muller, "Elementary Functions", ch. 4; Pineiro et al.,
"High-speed function approximation using a minimax quadratic interpolator", 2005).

The latency is 16 cycles for all functions, the throughput one number a cycle::

     1  exponent: distance that brings |i| into the table's unit, exponent of the scale
     2  significand times log2(e) (exp) or 1
     3  shift right by the distance's multiple of eight
     4  shift right by the rest
     5  complement (exp of a negative number; reciprocals), correction of log2(e)
     6  table
     7  its output register
     8  c2 times the top of the place, in two halves
     9  s = c1 + c2 * place
    10  s times the place
    11  g = c0 + s * place
    12  1 - g (sigmoid and Phi of a negative number) or g - 1/2 (tanh); count the leading zeros
    13  normalize g
    14  significand of the scale times g
    15  normalize by at most one place, rounding bits
    16  round, saturation

The table is one block RAM of 512 words of 36 bits.
"""

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from afternorm.isa import Function
from golden import tables
from golden.function_rom import ROM
from golden.functions import (
    ARGUMENT_BITS,
    ARGUMENT_STEPS,
    EXP_BITS,
    FACTOR_BITS,
    LOG2_E,
    LOG2_E_CORRECTION,
    RECIPROCAL_BITS,
    RSQRT_BITS,
    TABLE_BITS,
)
from golden.tables import Part
from hdl.arith.delay import delay
from hdl.arith.format import EXPONENT_BIAS, EXPONENT_BITS, float_layout, round_pack
from hdl.arith.leading_zeros import leading_zeros
from hdl.memory.delay_line import delay_line

FUNCTION_BITS = 3
_FIELD_MAX = (1 << EXPONENT_BITS) - 1
_FIELD_BITS = 12
_SHIFT_BITS = 5
_SATURATED_FIELD = _FIELD_MAX + 4
"""Large enough to be above the largest field after normalizing."""


class FunctionUnit(wiring.Component):
    """Function unit of one lane.

    Parameters
    ----------
    fraction_bits
        Fraction bits F of argument and result, 4 to 24.

    Members
    -------
    i : In(float)
        Argument.
    select : In(3)
        Which function, an `afternorm.isa.Function`; may change every cycle.
    o : Out(float)
        Result, `latency` cycles later.
    overflow : Out(1)
        `o` is saturated, or the function is not defined at `i` and `o` is 0.
    """

    def __init__(self, *, fraction_bits: int) -> None:
        self.layout = float_layout(fraction_bits)
        self.fraction_bits = fraction_bits
        super().__init__(
            {
                "i": In(self.layout),
                "select": In(FUNCTION_BITS),
                "o": Out(self.layout),
                "overflow": Out(1),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from argument to result."""
        return 16

    def elaborate(self, platform: object) -> Module:
        m = Module()
        f = self.fraction_bits

        def is_(function: Value, *functions: Function) -> Value:
            return Cat(function == each for each in functions).any()

        # 1: the distance; the reciprocals' significands come to lie at bit 0 through a fixed one.
        function = delay(m, self.select, 1, name="function")
        leading = ARGUMENT_BITS - 1  # where |i| = 2**exponent has its leading one, unshifted
        distance = Signal(signed(_FIELD_BITS), reset_less=True)
        with m.Switch(self.select):
            for number in Function:
                with m.Case(number):
                    if number == Function.RECIPROCAL:
                        m.d.sync += distance.eq(leading - RECIPROCAL_BITS)
                    elif number == Function.RSQRT:
                        m.d.sync += distance.eq(leading - RSQRT_BITS)
                    else:
                        steps = ARGUMENT_STEPS.get(number, EXP_BITS)
                        m.d.sync += distance.eq(leading - steps + EXPONENT_BIAS - self.i.exponent)
        exponent = self.i.exponent
        field = Signal(signed(_FIELD_BITS), reset_less=True)  # of the result, if g is in [1/2, 1)
        with m.Switch(self.select):
            with m.Case(Function.NONE):
                m.d.sync += field.eq(exponent)
            with m.Case(Function.SILU, Function.GELU):
                m.d.sync += field.eq(exponent - 1)
            with m.Case(Function.SIGMOID):
                m.d.sync += field.eq(EXPONENT_BIAS - 1)
            with m.Case(Function.RECIPROCAL):
                m.d.sync += field.eq(_FIELD_MAX - exponent)
            with m.Case(Function.RSQRT):
                m.d.sync += field.eq(_FIELD_MAX - EXPONENT_BIAS // 2 - (exponent >> 1))
            with m.Default():
                m.d.sync += field.eq(EXPONENT_BIAS)
        significand = delay(m, Cat(self.i.fraction, C(1, 1)), 1, name="significand")
        factor = Signal(FACTOR_BITS + 1, reset_less=True)
        m.d.sync += factor.eq(Mux(is_(self.select, Function.EXP), LOG2_E, 1 << FACTOR_BITS))
        negative = self.i.sign
        is_zero = self.i.exponent == 0
        odd = delay(m, exponent[0], 5, name="odd")
        scaled = is_(self.select, Function.NONE, Function.SILU, Function.GELU)
        fraction = delay_line(
            m, Mux(scaled, self.i.fraction, 0), self._multiply_stage - 1, name="fraction"
        )

        # 2
        product = delay(m, significand * factor, 1, name="product")
        distance_2 = delay(m, distance, 1, name="distance")

        # 3, 4
        below = f + FACTOR_BITS - leading
        top = product[below:] if below >= 0 else Cat(C(0, -below), product)
        coarse = distance_2[3:_SHIFT_BITS]
        far = distance_2[_SHIFT_BITS:-1].any() & ~distance_2[-1]
        shifted = delay(m, Mux(far, 0, top >> (coarse << 3)), 1, name="shifted")
        beyond = delay(m, distance_2[-1], 2, name="beyond")
        distance_3 = delay(m, distance_2[:3], 1, name="distance")
        argument = delay(m, (shifted >> distance_3)[: len(top)], 1, name="argument")

        # 5
        function = delay(m, function, 3, name="function")
        negative = delay(m, negative, 4, name="negative")
        is_zero = delay(m, is_zero, 4, name="is_zero")
        exp = is_(function, Function.EXP)
        complement = is_(function, Function.RECIPROCAL, Function.RSQRT) | (exp & negative)
        excess = argument[LOG2_E_CORRECTION:ARGUMENT_BITS]
        correction = Signal(ARGUMENT_BITS + 1)
        m.d.comb += correction.eq(
            Mux(exp, Mux(negative, excess, ~Cat(excess, C(0, ARGUMENT_BITS - len(excess)))), 0)
        )
        reduced = Signal(ARGUMENT_BITS, reset_less=True)
        m.d.sync += reduced.eq(
            (argument[:ARGUMENT_BITS] ^ complement.replicate(ARGUMENT_BITS))
            + correction
            + (exp & ~negative)
        )
        outside = Signal()
        m.d.comb += outside.eq(
            beyond | Mux(exp, argument[ARGUMENT_BITS:].any(), argument[TABLE_BITS:].any())
        )
        bounded = is_(function, Function.SILU, Function.GELU, Function.SIGMOID, Function.TANH)
        odd_function = is_(function, Function.TANH, Function.NONE, Function.SILU, Function.GELU)
        reciprocal = is_(function, Function.RECIPROCAL)
        root = is_(function, Function.RSQRT)
        half = is_(function, Function.NONE) | (outside & (bounded | exp))
        undefined = (reciprocal & is_zero) | (root & (is_zero | negative))
        vanishes = (
            outside
            & negative
            & is_(function, Function.SILU, Function.GELU, Function.SIGMOID, Function.EXP)
        )
        control = data.StructLayout(
            {
                "function": FUNCTION_BITS,
                "half": 1,
                "outside": 1,
                "below_one": 1,
                "doubled": 1,
                "zero": 1,
                "undefined": 1,
                "negative": 1,
                "flip": 1,
                "middle": 1,
            }
        )
        stage_5 = Signal(control, reset_less=True)
        tanh = is_(function, Function.TANH)
        m.d.sync += [
            stage_5.function.eq(function),
            stage_5.half.eq(half),
            stage_5.outside.eq(outside),
            stage_5.below_one.eq(exp & negative),
            stage_5.doubled.eq(outside & bounded & ~tanh),
            stage_5.zero.eq((odd_function & is_zero) | vanishes | undefined),
            stage_5.undefined.eq(undefined),
            stage_5.negative.eq(negative & (odd_function | reciprocal)),
            stage_5.flip.eq(bounded & negative & ~tanh & ~outside),
            stage_5.middle.eq(tanh & ~outside),
        ]
        field = delay(m, field, 4, name="field")

        # 6, 7
        m.submodules.table = table = Memory(
            shape=unsigned(tables.ENTRY_BITS), depth=1 << tables.ADDRESS_BITS, init=ROM
        )
        lookup = table.read_port()
        place_bits = tables.PLACE_BITS
        exp = is_(stage_5.function, Function.EXP)
        unused = RECIPROCAL_BITS - EXP_BITS
        place = Mux(exp, Cat(C(0, unused), reduced), reduced)[:place_bits]
        segment = reduced[place_bits:TABLE_BITS]

        def of_part(part: Part, segment: Value) -> Value:
            return segment | C(part, tables.ADDRESS_BITS)

        with m.Switch(Cat(stage_5.function, stage_5.half)):
            for number in (Function.SILU, Function.SIGMOID, Function.TANH):
                with m.Case(number):
                    m.d.comb += lookup.addr.eq(of_part(Part.SIGMOID, segment))
            with m.Case(Function.GELU):
                m.d.comb += lookup.addr.eq(of_part(Part.PHI, segment))
            with m.Case(Function.EXP):
                m.d.comb += lookup.addr.eq(
                    of_part(Part.EXP, reduced[place_bits - unused : EXP_BITS])
                )
            with m.Case(Function.RECIPROCAL):
                m.d.comb += lookup.addr.eq(of_part(Part.RECIP, reduced[place_bits:RECIPROCAL_BITS]))
            with m.Case(Function.RSQRT):
                m.d.comb += lookup.addr.eq(
                    of_part(Part.RSQRT, Cat(reduced[place_bits:RSQRT_BITS], odd))
                )
            with m.Default():
                m.d.comb += lookup.addr.eq(Part.HALF)
        entry = delay(m, lookup.data, 1, name="entry")
        place = delay(m, place, 2, name="place")
        scale_layout = data.StructLayout(
            {"field": signed(_FIELD_BITS), "zero": 1, "undefined": 1, "negative": 1}
        )
        scale = Signal(scale_layout, reset_less=True)
        m.d.sync += [
            scale.field.eq(
                Mux(
                    exp,
                    Mux(
                        stage_5.outside,
                        _SATURATED_FIELD,
                        Cat(reduced[EXP_BITS:], stage_5.below_one).as_signed() + EXPONENT_BIAS,
                    ),
                    # The entry for one is that for 1/2.
                    field + stage_5.doubled,
                )
            ),
            scale.zero.eq(stage_5.zero),
            scale.undefined.eq(stage_5.undefined),
            scale.negative.eq(stage_5.negative),
        ]

        # 8, 9: the product with c2 is too small to be worth a multiplier block.
        c0, c1 = entry[: tables.C0_BITS], entry[tables.C0_BITS :][: tables.C1_BITS]
        c2 = entry[tables.C0_BITS + tables.C1_BITS :]
        offset = Cat(place[:-1], ~place[-1]).as_signed()  # place - 2048
        high = offset[place_bits - tables.COARSE_BITS :].as_signed()
        rows = [Mux(bit, high << n, 0) for n, bit in enumerate(c2)]
        rows[-1] = -rows[-1]
        lower = Signal(signed(12), reset_less=True)
        upper = Signal(signed(14), reset_less=True)
        m.d.sync += [lower.eq(sum(rows[:4])), upper.eq(sum(rows[4:]))]
        s = Signal(signed(tables.C1_BITS + tables.S_SHIFT + 2), reset_less=True)
        m.d.sync += s.eq(
            (delay(m, c1, 1, name="c1") << tables.S_SHIFT) + ((lower + upper) >> tables.Q_SHIFT)
        )

        # 10, 11
        offset = delay(m, offset, 2, name="offset")
        sp = Signal(signed(len(s) + place_bits), reset_less=True)
        m.d.sync += sp.eq(s * offset)
        c0 = delay(m, Cat(c0, C(1, 1)), 3, name="c0")
        guard = tables.GUARD_BITS
        total = Signal(tables.G_BITS + 1 + guard)
        g = Signal(tables.G_BITS + 1, reset_less=True)
        m.d.comb += total.eq(Cat(C(1 << (guard - 1), guard), c0) + (sp >> tables.P_SHIFT))
        m.d.sync += g.eq(total[guard:])

        # 12
        stage_11 = delay_line(m, Cat(stage_5.flip, stage_5.middle), 6, name="stage_11")
        flip, middle = stage_11[0], stage_11[1]
        one, body = g[-1], g[:-1]
        chosen = Signal(len(g))
        m.d.comb += chosen.eq(
            Mux(
                flip,
                ~body & ~one.replicate(len(body)),
                Mux(middle, Cat(body[:-1], one), g),
            )
        )
        count, zero = leading_zeros(m, chosen)
        count, zero = delay(m, count, 1, name="count"), delay(m, zero, 1, name="zero")
        chosen = delay(m, chosen, 1, name="chosen")

        # 13
        scale = scale_layout(delay_line(m, scale.as_value(), 6, name="scale"))
        normal = delay(m, (chosen << count)[1 : len(g)], 1, name="normal")
        field_13 = Signal(signed(_FIELD_BITS), reset_less=True)
        m.d.sync += field_13.eq(scale.field + 1 - count)
        zero = delay(m, zero | scale.zero, 1, name="zero")
        significand = Cat(fraction, C(1, 1))

        # 14
        product = delay(m, significand * normal, 1, name="final_product")
        field_14 = delay(m, field_13, 1, name="field")

        # 15
        width = len(normal)
        two = product[f + width]
        kept = Mux(two, product[width - 1 : f + width], product[width - 2 : f + width - 1])
        sticky = product[: width - 2].any() | (two & product[width - 2])
        fraction = delay(m, kept[1:], 1, name="result_fraction")
        increment = delay(m, kept[0] & (kept[1] | sticky), 1, name="increment")
        field_15 = Signal(signed(_FIELD_BITS), reset_less=True)
        m.d.sync += field_15.eq(field_14 + two)

        # 16
        bits, overflow = round_pack(
            m,
            sign=delay(m, scale.negative, 3, name="result_sign"),
            field=field_15,
            fraction=fraction,
            increment=increment,
            zero=delay(m, zero, 2, name="result_zero"),
        )
        undefined = delay(m, scale.undefined, 3, name="result_undefined")
        m.d.comb += [
            self.o.eq(delay(m, bits, 1, name="o_register")),
            self.overflow.eq(delay(m, overflow | undefined, 1, name="overflow_register")),
        ]
        return m

    @property
    def _multiply_stage(self) -> int:
        """The cycle whose multiplication takes the scale's significand."""
        return 14
