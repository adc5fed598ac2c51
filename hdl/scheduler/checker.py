# SPDX-License-Identifier: Apache-2.0
"""Checks an instruction before any engine sees it (the rules: `afternorm.legality`).

In the first cycle the semaphores' numbers, the operands, and what the rules add
up are looked at; then the address extents, one term ``(count - 1) * stride`` a cycle on
a single multiplier.  The longest instruction takes `latency` cycles.
"""

from amaranth import *
from amaranth.hdl._ast import Slice
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from afternorm.config import Config
from afternorm.isa import HEADER, INSTRUCTION_BITS, SIGNALS, WAITS, Error, Opcode
from afternorm.legality import rules
from hdl.interfaces import body_layout

HEADER_LAYOUT = data.StructLayout({name: unsigned(width) for name, width in HEADER})
SUM_BITS = 32


class Checker(wiring.Component):
    """Legality of one instruction at a time.

    Parameters
    ----------
    config : sizes, which are the limits.

    Members
    -------
    start : in. Begin with `instruction`, which holds until `done`.
    done, error : out. In the cycle of `done`, `error` says what is wrong (0: nothing).
    """

    def __init__(self, *, config: Config):
        self.config = config
        self.rules = rules(config)
        super().__init__(
            {
                "start": In(1),
                "instruction": In(INSTRUCTION_BITS),
                "done": Out(1),
                "error": Out(3),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from `start` to `done` for the longest instruction."""
        return 3 + max(self._steps(opcode) for opcode in Opcode)

    def _steps(self, opcode: Opcode) -> int:
        return sum(len(extent.terms) for extent in self.rules[opcode].extents)

    def elaborate(self, platform):
        m = Module()
        header = HEADER_LAYOUT(self.instruction[: HEADER_LAYOUT.size])
        bits = self.instruction[HEADER_LAYOUT.size :]

        semaphore_error = Signal()
        legal_opcode = Signal()
        operand_error = Signal()
        fields = [header[f"wait{n}"] for n in range(WAITS)]
        fields += [header[f"signal{n}"] for n in range(SIGNALS)] + [header.early]
        m.d.sync += semaphore_error.eq(
            Cat(field > self.config.semaphores for field in fields).any()
        )

        # What the rules compute has a register of its own, written every cycle: their
        # expressions are long, and the same ones come again.
        computed: dict[str, tuple[Signal, Value]] = {}

        def register(expression) -> Value:
            value = Value.cast(expression)
            if isinstance(value, (Const, Slice)):
                return value
            result = Signal(value.shape(), name="computed", reset_less=True)
            return computed.setdefault(repr(value), (result, value))[0]

        # One step an address term: its factors, the base on an extent's first
        # term, and the bound on its last.
        step = Signal(range(64))
        factor = Signal(16)
        stride = Signal(20)
        base = Signal(SUM_BITS)
        depth = Signal(SUM_BITS)
        first = Signal()
        last = Signal()
        enabled = Signal()
        finished = Signal()
        with m.Switch(header.opcode):
            for opcode in Opcode:
                with m.Case(opcode):
                    layout = body_layout(opcode)
                    body = layout(bits[: layout.size]) if layout.size else None
                    bad = [register(is_bad(body)) for is_bad in self.rules[opcode].operands]
                    m.d.sync += [legal_opcode.eq(1), operand_error.eq(Cat(bad).any())]
                    with m.Switch(step):
                        number = 0
                        for extent in self.rules[opcode].extents:
                            for index, (count, distance) in enumerate(extent.terms):
                                with m.Case(number):
                                    m.d.comb += [
                                        factor.eq(register(count(body))),
                                        stride.eq(register(distance(body))),
                                        base.eq(register(extent.base(body))),
                                        depth.eq(extent.depth),
                                        first.eq(index == 0),
                                        last.eq(index == len(extent.terms) - 1),
                                        enabled.eq(register(extent.when(body))),
                                    ]
                                number += 1
                        with m.Default():
                            m.d.comb += finished.eq(1)
            with m.Default():
                m.d.sync += legal_opcode.eq(0)
                m.d.comb += finished.eq(1)

        m.d.sync += [result.eq(value) for result, value in computed.values()]

        # One term a cycle: choose, multiply, then add and compare.
        checking = Signal()
        product = Signal(SUM_BITS, reset_less=True)
        total = Signal(SUM_BITS, reset_less=True)
        sum_now = Signal(SUM_BITS)
        chosen = Signal(
            data.StructLayout(
                {
                    "factor": len(factor),
                    "stride": len(stride),
                    "valid": 1,
                    "first": 1,
                    "last": 1,
                    "base": SUM_BITS,
                    "depth": SUM_BITS,
                }
            ),
            reset_less=True,
        )
        term = Signal.like(chosen, reset_less=True)  # whose product it is
        address_error = Signal()
        m.d.comb += sum_now.eq(Mux(term.first, term.base, total) + product)
        m.d.sync += [
            chosen.factor.eq(factor),
            chosen.stride.eq(stride),
            chosen.valid.eq(checking & ~finished),
            chosen.first.eq(first),
            chosen.last.eq(last & enabled),
            chosen.base.eq(base),
            chosen.depth.eq(depth),
            product.eq(chosen.factor * chosen.stride),
            term.eq(chosen),
            total.eq(sum_now),
        ]
        with m.If(term.valid & term.last & (sum_now >= term.depth)):
            m.d.sync += address_error.eq(1)

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [step.eq(0), address_error.eq(0)]
                with m.If(self.start):
                    m.next = "EXTENTS"
            with m.State("EXTENTS"):
                # The registers written every cycle now speak of this instruction.
                m.d.comb += checking.eq(1)
                m.d.sync += step.eq(step + 1)
                with m.If(finished):
                    m.next = "LAST"
            with m.State("LAST"):
                m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.eq(1)
                m.next = "IDLE"
        with m.If(~legal_opcode):
            m.d.comb += self.error.eq(Error.OPCODE)
        with m.Elif(semaphore_error):
            m.d.comb += self.error.eq(Error.SEMAPHORE)
        with m.Elif(operand_error):
            m.d.comb += self.error.eq(Error.OPERAND)
        with m.Elif(address_error):
            m.d.comb += self.error.eq(Error.ADDRESS)
        return m
