# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: Apache-2.0
"""Event counters that share a memory and its adder.

A counter of its own for each event would be a chain of flip-flops and carries as wide as its
value.  Here an event has a few bits, for what happened since its turn; at its turn they are added
to its word of the memory and start again.  Every event has its turn once in `count` cycles, which
is why the few bits never overflow.  Clearing takes one cycle, as words that had no turn since then
count as zero.
"""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out


class Counters(wiring.Component):
    """Counts events, each in a word.

    Parameters
    ----------
    count : events.
    width : bits of a word.

    Members
    -------
    events : In(count)
        The events of this cycle.
    clear : In(1)
        All words are zero from the next cycle on; the events of this cycle do not count.
    index, value : In(range(count)), Out(width)
        An event, and how often it happened until the last cycle; combinational.
    """

    def __init__(self, *, count: int, width: int) -> None:
        self.count = count
        self.width = width
        super().__init__(
            {
                "events": In(count),
                "clear": In(1),
                "index": In(range(count)),
                "value": Out(width),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.words = words = Memory(shape=self.width, depth=self.count, init=[])
        write = words.write_port()
        read, shown = words.read_port(domain="comb"), words.read_port(domain="comb")

        turn = Signal(range(self.count))
        first_round = Signal(init=1)
        wraps = turn == self.count - 1
        m.d.sync += [
            turn.eq(Mux(self.clear | wraps, 0, turn + 1)),
            first_round.eq(self.clear | (first_round & ~wraps)),
        ]

        recent = Signal(data.ArrayLayout(self.count.bit_length(), self.count))
        for n in range(self.count):
            rest = Mux(turn == n, 0, recent[n])
            m.d.sync += recent[n].eq(Mux(self.clear, 0, rest + self.events[n]))

        m.d.comb += [
            read.addr.eq(turn),
            write.addr.eq(turn),
            write.en.eq(1),
            write.data.eq(Mux(first_round, 0, read.data) + recent[turn]),
            shown.addr.eq(self.index),
            self.value.eq(
                Mux(first_round & (self.index >= turn), 0, shown.data) + recent[self.index]
            ),
        ]
        return m
