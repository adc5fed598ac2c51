# SPDX-License-Identifier: Apache-2.0
"""Counting semaphores between the engines.

Any number of engines may signal in the same cycle.  An engine asks with the set
of all semaphores that its next instruction waits for, and is granted when every
one of them counts more than zero; each then counts one less.  A semaphore is
meant for one engine to wait for: so no engine's grant depends on another's, which
keeps the path to it short.  Where two take the same token in the same cycle, that is
an error.  A signal can be waited for two cycles later.
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
    available : out. The semaphores that count more than zero.
    error : out. A count would have exceeded its `COUNT_BITS` bits, or two waiters took the same
        token: two cycles ago.
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
                "available": Out(count),
                "error": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        counts = [Signal(COUNT_BITS, name=f"count{s}") for s in range(self.count)]
        # What was taken in the cycle before; `counts` still have it.
        owed = Signal(self.count)
        available = self.available
        m.d.comb += available.eq(
            Cat(
                count[1:].any() | (count[0] & ~taken)
                for count, taken in zip(counts, owed, strict=True)
            )
        )

        taken, twice = Const(0, self.count), Const(0, self.count)
        for waiter in range(self.waiters):
            wanted = self.ask_set[waiter]
            takes = Signal(self.count, name=f"takes{waiter}")
            m.d.comb += [
                self.grant[waiter].eq(self.ask[waiter] & ~(wanted & ~available).any()),
                takes.eq(Mux(self.grant[waiter], wanted, 0)),
            ]
            twice = twice | (taken & takes)
            taken = taken | takes

        arrived = Signal(data.ArrayLayout(self.count, self.signallers))
        m.d.sync += [arrived.eq(self.signal), owed.eq(taken)]
        overflows = Signal(self.count)
        for s, count in enumerate(counts):
            more = sum((arrived[source][s] for source in range(self.signallers)), Const(0))
            total = Signal(COUNT_BITS + 1, name=f"total{s}")
            m.d.comb += [
                total.eq(count + more - owed[s]),
                overflows[s].eq(total[COUNT_BITS]),
            ]
            m.d.sync += count.eq(total)
        shared = Signal(self.count)
        over = Signal(self.count)
        m.d.sync += [shared.eq(twice), over.eq(overflows), self.error.eq((shared | over).any())]
        return m
