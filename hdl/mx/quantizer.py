# SPDX-License-Identifier: Apache-2.0
"""Numbers to MX blocks: one shared exponent, int8 mantissas, as `golden.mx.quantize`.

With ``e`` the largest exponent among a block's non-zero elements, an element
``(-1)**sign * significand * 2**(exponent - (S - 1))`` becomes the mantissa::

    m = min(round_to_nearest_even(significand * 2**(6 - (S - 1) - (e - exponent))), 127)

with its sign; a block of zeros gets the exponent -512 (OCP Microscaling Formats 1.0, MXINT8).

`lanes` elements come in per valid cycle, and every ``block / lanes`` valid cycles complete a
block.  The maximum forms in a pipelined tree over the lanes and a running register over the
block's chunks, while the elements wait in a small circular buffer; then they are converted at
the pace at which the next block comes in, by one shifter a lane.  What waits is already cut to
the bits that rounding can see: a mantissa's 7 bits, a guard and a sticky bit.

Nothing ever stalls: the throughput is `lanes` elements a cycle, with or without gaps between the
valid cycles, and a block comes out `MXQuantizer.latency` cycles after its last elements.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from hdl.arith.delay import delay
from hdl.arith.format import check_range
from hdl.interfaces import EXPONENT_BITS, block_layout

ZERO_EXPONENT = -(1 << (EXPONENT_BITS - 1))
_MANTISSA_BITS = 7
_MANTISSA_MAX = (1 << _MANTISSA_BITS) - 1
_KEPT_BITS = _MANTISSA_BITS + 1
"""A mantissa and its guard bit."""
_SHIFT_BITS = 3
"""A shift by ``2**_SHIFT_BITS`` or more leaves less than half a mantissa's unit: zero."""


def element_layout(significand_bits: int) -> data.StructLayout:
    """An element: ``(-1)**sign * significand * 2**(exponent - (significand_bits - 1))``, or zero.

    The leading bit of `significand` is 1 unless `zero`; `exponent` is at least -511.
    """
    return data.StructLayout(
        {
            "significand": significand_bits,
            "exponent": signed(EXPONENT_BITS),
            "sign": 1,
            "zero": 1,
        }
    )


def float_element(number: data.View) -> data.View:
    """Combinational: a float (`hdl.arith.format.float_layout`) as an element, ``S = F + 1``."""
    top = EXPONENT_BITS - 1
    layout = element_layout(len(number.fraction) + 1)
    return layout(
        Cat(
            number.fraction,
            Const(1, 1),
            number.exponent[:top],
            ~number.exponent[top],  # subtracts the bias, 2**top
            number.sign,
            number.exponent == 0,
        )
    )


class MXQuantizer(wiring.Component):
    """Collects `block` elements, `lanes` a cycle, and emits them as one MX block.

    Parameters
    ----------
    block : int
        Elements of a block.
    lanes : int
        Elements a cycle; divides `block`.
    significand_bits : int
        Bits S of an element's significand, leading one included.

    Members
    -------
    i_valid : In(1)
        `i` holds the block's next `lanes` elements.
    i : In(ArrayLayout(element_layout(significand_bits), lanes))
        Elements, the lower columns first.
    o_valid : Out(1)
        `o` holds a block, for this cycle only.
    o : Out(block_layout(block))
        The block.

    Attributes
    ----------
    latency : int
        Cycles from a block's last valid to its `o_valid`.
    """

    def __init__(self, *, block: int, lanes: int, significand_bits: int) -> None:
        check_range("block", block, 1, 1024)
        check_range("lanes", lanes, 1, block)
        check_range("significand_bits", significand_bits, 2, 32)
        if block % lanes or block & (block - 1):
            raise ValueError(f"lanes={lanes} and block={block} must be powers of two")
        self.block = block
        self.lanes = lanes
        self.significand_bits = significand_bits
        super().__init__(
            {
                "i_valid": In(1),
                "i": In(data.ArrayLayout(element_layout(significand_bits), lanes)),
                "o_valid": Out(1),
                "o": Out(block_layout(block)),
            }
        )

    @property
    def _maximum_latency(self) -> int:
        """Cycles from the cut elements to the block's exponent."""
        return exact_log2(self.lanes) + 1

    @property
    def latency(self) -> int:
        """Cycles from a block's last valid to its `o_valid`."""
        cut, distance, shift, round_ = 1, 1, 1, 1
        chunks = self.block // self.lanes  # they are converted one after the other
        return cut + self._maximum_latency + chunks - 1 + distance + shift + round_

    def elaborate(self, platform: object) -> Module:
        m = Module()
        chunks = self.block // self.lanes

        cut_layout = data.StructLayout(
            {"kept": _KEPT_BITS, "sticky": 1, "exponent": signed(EXPONENT_BITS), "sign": 1}
        )
        cut = Signal(data.ArrayLayout(cut_layout, self.lanes), reset_less=True)
        # Valids are shift registers with a reset, unlike `delay`: none survives one.
        tree = Signal(self._maximum_latency)
        cut_valid, tree_valid = tree[0], tree[-1]
        m.d.sync += tree.eq(Cat(self.i_valid, tree))
        for lane in range(self.lanes):
            m.d.sync += cut[lane].eq(_cut(self.i[lane], cut_layout))

        # The block's exponent.
        level = [cut[lane].exponent for lane in range(self.lanes)]
        while len(level) > 1:
            larger = []
            for left, right in zip(level[::2], level[1::2], strict=True):
                maximum = Signal(
                    signed(EXPONENT_BITS), name=f"maximum_{len(level) // 2}", reset_less=True
                )
                m.d.sync += maximum.eq(Mux(left > right, left, right))
                larger.append(maximum)
            level = larger
        running = Signal(signed(EXPONENT_BITS), init=ZERO_EXPONENT)
        maximum = Signal(signed(EXPONENT_BITS))
        exponent = Signal(signed(EXPONENT_BITS), reset_less=True)
        chunk = Signal(range(chunks))
        last = Signal()
        m.d.comb += [
            maximum.eq(Mux(running > level[0], running, level[0])),
            last.eq(tree_valid & (chunk == chunks - 1)),
        ]
        with m.If(tree_valid):
            m.d.sync += [running.eq(maximum), chunk.eq(chunk + 1)]
        with m.If(last):
            m.d.sync += [running.eq(ZERO_EXPONENT), exponent.eq(maximum), chunk.eq(0)]

        # The elements wait for it.  A block is read from the cycle of `last` on, in as many
        # cycles as it has chunks; before the next block can be complete.
        m.submodules.waiting = waiting = Memory(
            shape=cut.shape(), depth=1 << ceil_log2(chunks + self._maximum_latency), init=[]
        )
        write = waiting.write_port()
        read = waiting.read_port(domain="comb")
        left = Signal(range(max(chunks, 2)))
        reading = Signal()
        element = Signal.like(cut, reset_less=True)
        element_valid = Signal()
        m.d.comb += [
            write.en.eq(cut_valid),
            write.data.eq(cut),
            reading.eq(last | (left != 0)),
        ]
        with m.If(cut_valid):
            m.d.sync += write.addr.eq(write.addr + 1)
        with m.If(last):
            m.d.sync += left.eq(chunks - 1)
        with m.Elif(reading):
            m.d.sync += left.eq(left - 1)
        with m.If(reading):
            m.d.sync += read.addr.eq(read.addr + 1)
        m.d.sync += [element.eq(read.data), element_valid.eq(reading)]

        # Conversion, three cycles a chunk: distance to the exponent, shift, round.
        converted = Signal(
            data.ArrayLayout(signed(_MANTISSA_BITS + 1), self.lanes), reset_less=True
        )
        for lane in range(self.lanes):
            _convert(m, element[lane], exponent, converted[lane])
        converting = Signal(3)
        converted_valid = converting[-1]
        m.d.sync += converting.eq(Cat(element_valid, converting))
        converted_exponent = delay(m, exponent, len(converting))

        # The chunks of the block so far; its last is just being converted.
        width = len(converted.as_value())
        mantissas = Value.cast(converted)
        if chunks > 1:
            earlier = Signal(width * (chunks - 1), reset_less=True)
            with m.If(converted_valid):
                m.d.sync += earlier.eq(Cat(earlier, converted)[width:])
            mantissas = Cat(earlier, converted)
        done = Signal(range(chunks))
        with m.If(converted_valid):
            m.d.sync += done.eq(Mux(done == chunks - 1, 0, done + 1))
        m.d.comb += [
            self.o.mantissas.eq(mantissas),
            self.o.exponent.eq(converted_exponent),
            self.o_valid.eq(converted_valid & (done == chunks - 1)),
        ]
        return m


def _cut(element: data.View, layout: data.StructLayout) -> Value:
    """The bits of `element` that its mantissa can depend on; a zero has the least exponent."""
    significand = element.significand
    below = len(significand) - _KEPT_BITS
    if below > 0:
        kept, sticky = significand[below:], significand[:below].any()
    else:
        kept, sticky = Cat(Const(0, -below), significand), Const(0, 1)
    nonzero = ~element.zero
    return Cat(
        kept & nonzero.replicate(_KEPT_BITS),
        sticky & nonzero,
        Mux(nonzero, element.exponent, ZERO_EXPONENT)[:EXPONENT_BITS],
        element.sign,
    )


def _convert(m: Module, element: data.View, exponent: Value, mantissa: Value) -> None:
    """The signed `mantissa` of a cut `element`, three cycles later."""
    # The exponent is no less than the element's: the difference is not negative.
    distance = Signal(EXPONENT_BITS, name="distance")
    shift = Signal(_SHIFT_BITS, name="shift", reset_less=True)
    kept = Signal(_KEPT_BITS, name="kept", reset_less=True)
    sticky = Signal(name="sticky", reset_less=True)
    sign = Signal(name="sign", reset_less=True)
    far = Signal(name="far")
    m.d.comb += [
        distance.eq((exponent - element.exponent)[:EXPONENT_BITS]),
        far.eq(distance[_SHIFT_BITS:].any()),
    ]
    m.d.sync += [
        shift.eq(distance),
        kept.eq(Mux(far, 0, element.kept)),
        sticky.eq(element.sticky),
        sign.eq(element.sign),
    ]

    value, lost = Value.cast(kept), Value.cast(sticky)
    for bit in reversed(range(_SHIFT_BITS)):
        step = 1 << bit
        lost = lost | (shift[bit] & value[:step].any())
        value = Mux(shift[bit], value[step:], value)
    shifted = Signal(_KEPT_BITS, name="shifted")
    shifted_lost = Signal(name="shifted_lost")
    m.d.comb += [shifted.eq(value), shifted_lost.eq(lost)]
    truncated = Signal(_MANTISSA_BITS, name="truncated", reset_less=True)
    increment = Signal(name="increment", reset_less=True)
    shifted_sign = Signal(name="shifted_sign", reset_less=True)
    m.d.sync += [
        truncated.eq(shifted[1:]),
        # Round to nearest even; what is already 127 stays there.
        increment.eq(shifted[0] & (shifted_lost | shifted[1]) & (shifted[1:] != _MANTISSA_MAX)),
        shifted_sign.eq(sign),
    ]

    # One adder rounds and negates: -(t + r) = ~t + 1 - r.
    negated = Cat(truncated ^ shifted_sign.replicate(_MANTISSA_BITS), shifted_sign)
    m.d.sync += mantissa.eq((negated + (increment ^ shifted_sign))[: _MANTISSA_BITS + 1])
