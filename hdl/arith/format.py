# SPDX-License-Identifier: Apache-2.0
"""The coding of the small float, and the last step of every unit: round and pack.

The coding is that of `golden.number.Format.encode`: from the top a sign, a
10-bit exponent field `q` and `F` fraction bits, meaning
``(-1)**sign * 2**(q - 512) * 1.fraction``; `q` = 0 is zero, with a positive sign.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data

EXPONENT_BITS = 10
EXPONENT_BIAS = 512


def float_layout(fraction_bits: int) -> data.StructLayout:
    """Layout of a float with `fraction_bits` fraction bits.

    Raises
    ------
    ValueError
        If `fraction_bits` is outside 4..24.
    """
    check_range("fraction_bits", fraction_bits, 4, 24)
    return data.StructLayout({"fraction": fraction_bits, "exponent": EXPONENT_BITS, "sign": 1})


def check_range(name: str, value: int, low: int, high: int) -> None:
    """Raise a `ValueError` that names parameter and value unless ``low <= value <= high``."""
    if not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} must be an integer from {low} to {high}, not {value!r}")


def significand(number: data.View) -> Value:
    """``1.fraction`` as an integer of ``F + 1`` bits; 0 for zero, whose bits are all 0."""
    return Cat(number.fraction, number.exponent.any())


def pack(
    m: Module, *, sign: Value, exponent: Value, fraction: Value, above: Value, below: Value
) -> Signal:
    """Combinational: the float's bits.

    The largest float where `above` is set, and 0 where `below` is, which comes first.
    """
    bits = Signal(len(fraction) + EXPONENT_BITS + 1, name="packed")
    magnitude = Cat(fraction, exponent[:EXPONENT_BITS])
    m.d.comb += bits.eq(
        Mux(below, 0, Cat(magnitude | above.replicate(len(magnitude)), sign)),
    )
    return bits


def round_pack(
    m: Module,
    *,
    sign: Value,
    field: Value,
    fraction: Value,
    increment: Value,
    zero: Value,
) -> tuple[Signal, Signal]:
    """Combinational: the float's bits and its overflow flag, from a field of any range.

    `increment` is added to the last bit of the fraction; `field` is signed.  One
    adder does both: the carry out of a fraction of ones increments the field and
    leaves a fraction of zeros.  Overflow and underflow are found beside the adder,
    not after it, to shorten the stage.
    """
    f = len(fraction)
    rounded = Signal(f + EXPONENT_BITS, name="rounded")
    carry = Signal(name="carry")
    above = Signal(name="above")
    below = Signal(name="below")
    negative = field[-1]
    m.d.comb += [
        rounded.eq(Cat(fraction, field[:EXPONENT_BITS]) + increment),
        carry.eq(fraction.all() & increment),
        below.eq(zero | negative | ((field == 0) & ~carry)),
        above.eq(
            ~zero
            & ~negative
            & (field[EXPONENT_BITS:-1].any() | (field[:EXPONENT_BITS].all() & carry))
        ),
    ]
    bits = pack(m, sign=sign, exponent=rounded[f:], fraction=rounded[:f], above=above, below=below)
    return bits, above
