# SPDX-License-Identifier: Apache-2.0
"""Semaphores under random signals and requests, each semaphore for one waiter, against counts.

Parameters: ``count``, ``waiters``, ``signallers``.
"""

import cocotb
from cocotb.triggers import ReadOnly, RisingEdge

from tb.stream import parameters, rng, start

CYCLES = 4000


@cocotb.test()
async def random_traffic(dut):
    options = parameters()
    count, waiters = options["count"], options["waiters"]
    random = rng("semaphores")
    dut.ask.value = 0
    dut.ask_set.value = 0
    dut.signal.value = 0
    await start(dut)

    counts = [0] * count
    arriving = [0] * count
    asking = {}
    granted_total = 0
    for _ in range(CYCLES):
        for waiter in range(waiters):
            if waiter not in asking and random.random() < 0.5:
                own = range(waiter, count, waiters)
                asking[waiter] = {random.choice(own) for _ in range(random.randrange(4))}
        signals = [
            {random.randrange(count) for _ in range(random.randrange(3))}
            if random.random() < 0.3 and max(counts) < 200  # far from an overflow
            else set()
            for _ in range(options["signallers"])
        ]
        dut.ask.value = sum(1 << w for w in asking)
        dut.ask_set.value = sum(
            sum(1 << s for s in wanted) << (w * count) for w, wanted in asking.items()
        )
        dut.signal.value = sum(
            sum(1 << s for s in names) << (n * count) for n, names in enumerate(signals)
        )
        await ReadOnly()
        grant = int(dut.grant.value)
        for waiter in sorted(asking):
            wanted = asking[waiter]
            expected = all(counts[s] for s in wanted)
            assert (grant >> waiter) & 1 == expected, f"waiter {waiter} wants {wanted}: {counts}"
            if expected:
                for s in wanted:
                    counts[s] -= 1
                del asking[waiter]
                granted_total += 1
        assert not int(dut.error.value)
        counts = [c + a for c, a in zip(counts, arriving, strict=True)]
        arriving = [sum(s in names for names in signals) for s in range(count)]
        await RisingEdge(dut.clk)
    assert granted_total > 100


@cocotb.test()
async def overflow(dut):
    dut.ask.value = 0
    dut.signal.value = 1
    await start(dut)
    for _ in range(300):
        await RisingEdge(dut.clk)
        if int(dut.error.value):
            return
    raise AssertionError("300 signals did not overflow the count")


@cocotb.test()
async def two_take_the_same_token(dut):
    dut.ask.value = 0
    dut.ask_set.value = 2 | 2 << parameters()["count"]
    dut.signal.value = 2
    await start(dut)
    dut.signal.value = 0
    for _ in range(4):
        await RisingEdge(dut.clk)
    # One after the other, the second waits.
    for asking, granted in ((1, 1), (2, 0)):
        dut.ask.value = asking
        await ReadOnly()
        assert int(dut.grant.value) == granted
        await RisingEdge(dut.clk)
    dut.ask.value = 0
    dut.signal.value = 2
    await RisingEdge(dut.clk)
    dut.signal.value = 0
    for _ in range(4):
        await RisingEdge(dut.clk)
    assert not int(dut.error.value)
    dut.ask.value = 3
    await RisingEdge(dut.clk)
    dut.ask.value = 0
    for _ in range(3):
        await RisingEdge(dut.clk)
        if int(dut.error.value):
            return
    raise AssertionError("two waiters took one token unnoticed")
