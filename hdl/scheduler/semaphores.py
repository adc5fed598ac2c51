# SPDX-License-Identifier: Apache-2.0
"""Counting semaphores between the engines.

Any number of engines may signal in the same cycle.  An engine asks with the set
of all semaphores that its next instruction waits for, and is granted when every
one of them counts more than zero; each then counts one less.  Engines that ask
for disjoint sets are granted in the same cycle; where sets overlap the engine
with the lower number goes first.  A signal can be waited for two cycles later.
"""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

COUNT_BITS = 8


class Semaphores(wiring.Component):
    """Counting semaphores.

    Parameters
    ----------
    count : semaphores.
    waiters : engines that wait.
    signallers : sources of signals.

    Members
    -------
    signal : in. By source, the set of semaphores to add one to.
    ask, ask_set : in. By waiter, whether it asks, and for which set.
    grant : out. By waiter, in the cycle of asking; the set is taken.
    overflow : out. A count would have exceeded its `COUNT_BITS` bits.
    """

    def __init__(self, *, count: int, waiters: int, signallers: int):
        self.count = count
        self.waiters = waiters
        self.signallers = signallers
        super().__init__(
            {
                "signal": In(data.ArrayLayout(count, signallers)),
                "ask": In(waiters),
                "ask_set": In(data.ArrayLayout(count, waiters)),
                "grant": Out(waiters),
                "overflow": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        counts = [Signal(COUNT_BITS, name=f"count{s}") for s in range(self.count)]
        available = Signal(self.count)
        m.d.comb += available.eq(Cat(count.any() for count in counts))

        claimed = Const(0, self.count)
        taken = Const(0, self.count)
        for waiter in range(self.waiters):
            wanted = Mux(self.ask[waiter], self.ask_set[waiter], 0)
            granted = Signal(name=f"granted{waiter}")
            m.d.comb += [
                granted.eq(
                    self.ask[waiter] & ~(wanted & ~available).any() & ~(wanted & claimed).any()
                ),
                self.grant[waiter].eq(granted),
            ]
            claimed = claimed | wanted
            taken = taken | Mux(granted, wanted, 0)

        arrived = Signal(data.ArrayLayout(self.count, self.signallers))
        m.d.sync += arrived.eq(self.signal)
        overflows = Signal(self.count)
        for s, count in enumerate(counts):
            more = sum((arrived[source][s] for source in range(self.signallers)), Const(0))
            total = Signal(COUNT_BITS + 1, name=f"total{s}")
            m.d.comb += [
                total.eq(count + more - taken[s]),
                overflows[s].eq(total[COUNT_BITS]),
            ]
            m.d.sync += count.eq(total)
        m.d.comb += self.overflow.eq(overflows.any())
        return m
