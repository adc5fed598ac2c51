# SPDX-License-Identifier: Apache-2.0
"""Random reads and writes on all ports of the vector memory, against a dictionary.

Precedence must be the vector engine's, then the DMA's, then the host's.
Parameters: ``depth``, ``bits`` of a word, ``activity`` (probability that a port asks).
"""

import cocotb
from cocotb.triggers import ReadOnly, RisingEdge

from hdl.interfaces import VECTOR_MEMORY_LATENCY
from tb.stream import parameters, rng, start

CYCLES = 4000
READERS = ("read", "dma_read", "host_read")
WRITERS = ("write", "dma_write", "host_write")


@cocotb.test()
async def traffic(dut):
    options = parameters()
    random = rng("traffic")
    addresses = random.sample(range(options["depth"]), 8)  # few, so that reads meet writes
    ports = READERS + WRITERS
    for name in ports:
        getattr(dut, f"{name}__valid").value = 0
    dut.dma_enable.value = 1
    await start(dut)

    content = dict.fromkeys(addresses, 0)
    pending = {}
    enabled = 1
    expected = []
    served = dict.fromkeys(ports, 0)
    for cycle in range(CYCLES):
        for name in ports:
            if name not in pending and random.random() < options["activity"]:
                pending[name] = (random.choice(addresses), random.getrandbits(options["bits"]))
                getattr(dut, f"{name}__address").value = pending[name][0]
                if name in WRITERS:
                    getattr(dut, f"{name}__data").value = pending[name][1]
                if name == "dma_write":
                    enabled = random.randrange(2)
                    dut.dma_enable.value = enabled
            getattr(dut, f"{name}__valid").value = int(name in pending)
        await ReadOnly()
        for name, value in [(name, value) for due, name, value in expected if due == cycle]:
            got = int(getattr(dut, f"{name}__data").value)
            assert got == value, f"cycle {cycle}: {name} read {got:x}, not {value:x}"
        expected = [entry for entry in expected if entry[0] > cycle]
        accepted = {}
        for group in (READERS, WRITERS):
            first = next((name for name in group if name in pending), None)
            for name in group:
                if name in pending:
                    ready = int(getattr(dut, f"{name}__ready").value)
                    assert ready == (name == first), f"cycle {cycle}: {name} is not in its turn"
            if first is not None:
                served[first] += 1
                accepted[first] = pending.pop(first)
        written = {
            address: value
            for name, (address, value) in accepted.items()
            if name in WRITERS and (name != "dma_write" or enabled)
        }
        for name, (address, _) in accepted.items():
            # What a read gives that meets a write of its word is not defined.
            if name in READERS and address not in written:
                expected.append((cycle + VECTOR_MEMORY_LATENCY, name, content[address]))
        content |= written
        await RisingEdge(dut.clk)
    assert all(served.values()), f"starved: {served}"
