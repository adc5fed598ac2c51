# SPDX-License-Identifier: Apache-2.0
"""Counters under events that are rare, frequent or constant, against counts.

Parameters: ``count``, ``width``.
"""

import cocotb
from cocotb.triggers import ReadOnly, RisingEdge

from tb.stream import parameters, rng, start

CYCLES = 6000


@cocotb.test()
async def random_events(dut):
    options = parameters()
    count, width = options["count"], options["width"]
    random = rng("counters")
    often = [random.choice((0.01, 0.5, 1.0)) for _ in range(count)]
    dut.clear.value = 0
    dut.events.value = 0
    await start(dut)
    counts = [0] * count
    for _ in range(CYCLES):
        events = [random.random() < rate for rate in often]
        clear = random.random() < 0.004
        index = random.randrange(count)
        dut.events.value = sum(event << n for n, event in enumerate(events))
        dut.clear.value = clear
        dut.index.value = index
        await ReadOnly()
        assert int(dut.value.value) == counts[index] % (1 << width), f"event {index}"
        counts = [0 if clear else n + event for n, event in zip(counts, events, strict=True)]
        await RisingEdge(dut.clk)
    assert max(counts) > 0
