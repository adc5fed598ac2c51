# SPDX-License-Identifier: Apache-2.0
"""Random reads and writes on all scratchpad ports, against a dictionary.

Readers ask at random and keep asking until they are served; what they get must
be what was written at least two cycles before the request was accepted.
Parameters: ``depth``, ``banks``, ``block_bits``, ``activity`` (probability that a port asks).
"""

import cocotb
from cocotb.triggers import NextTimeStep, ReadOnly, RisingEdge

from hdl.interfaces import SCRATCHPAD_LATENCY
from hdl.memory.scratchpad import SHARED_READERS, WRITERS
from tb.stream import parameters, rng, start

CYCLES = 4000
OPERANDS = ("a", "b")


@cocotb.test()
async def traffic(dut):
    options = parameters()
    random = rng("traffic")
    ask = options["activity"]
    # Few addresses, so that ports meet; every bank has some.
    bank_words = options["depth"] // options["banks"]
    addresses = [bank * bank_words + word for bank in range(options["banks"]) for word in range(4)]
    mantissa_bits = options["block_bits"] - 10
    ports = {name: f"read_{name}" for name in (*OPERANDS, *SHARED_READERS)} | {
        f"w_{name}": f"write_{name}" for name in WRITERS
    }

    def port(name, member):
        return getattr(dut, f"{ports[name]}__{member}")

    def accepted(name):
        """Whether a request of this cycle is; of B, unless A reads the same bank."""
        if name not in OPERANDS:
            return bool(int(port(name, "ready").value))
        banks = {other: pending[other][0] // bank_words for other in OPERANDS if other in pending}
        return name == "a" or banks["b"] != banks.get("a")

    for name in ports:
        port(name, "valid").value = 0
    dut.host_mantissas.value = dut.host_exponent.value = dut.load_enable.value = 1
    await start(dut)

    content = dict.fromkeys(addresses, 0)
    pending = {}
    landing, expected = [], []
    served = dict.fromkeys(ports, 0)
    refused = dict.fromkeys(ports, 0)
    halves = dict.fromkeys(ports, 3)  # what a write takes: mantissas, exponent
    for cycle in range(CYCLES):
        for name in ports:
            if name not in pending and random.random() < ask:
                value = random.getrandbits(options["block_bits"])
                pending[name] = (random.choice(addresses), value)
                port(name, "address").value = pending[name][0]
                if name.startswith("w_"):
                    port(name, "data").value = value
                if name == "w_host":
                    halves[name] = random.choice([1, 2, 3])
                    dut.host_mantissas.value = halves[name] & 1
                    dut.host_exponent.value = halves[name] >> 1
                if name == "w_load":
                    halves[name] = random.choice([0, 3])
                    dut.load_enable.value = halves[name] & 1
            port(name, "valid").value = int(name in pending)
        await RisingEdge(dut.clk)
        await ReadOnly()  # the requests still stand, so their readies do too
        due, expected = (
            [e for e in expected if e[0] == cycle],
            [e for e in expected if e[0] != cycle],
        )
        for _, name, value in due:
            got = int(port(name, "data").value)
            assert got == value, f"cycle {cycle}: {name} read {got:x}, not {value:x}"
        served_now = {name for name in pending if accepted(name)}
        for at, address, value, half in [w for w in landing if w[0] == cycle]:
            mask = (half & 1) * ((1 << mantissa_bits) - 1) | (half >> 1) * (1023 << mantissa_bits)
            content[address] = content[address] & ~mask | value & mask
            landing.remove((at, address, value, half))
        writers = [name for name in served_now if name.startswith("w_")]
        assert len(writers) <= 1, "two writers in one cycle"
        for name in list(pending):
            if name not in served_now:
                refused[name] += 1
                continue
            address, value = pending.pop(name)
            served[name] += 1
            if name.startswith("w_"):
                landing.append((cycle + 2, address, value, halves[name]))
            else:
                # One edge less: what is seen here is already past the cycle's edge.
                expected.append((cycle + SCRATCHPAD_LATENCY - 1, name, content[address]))
        await NextTimeStep()
    assert all(served.values()), f"starved: {served}"
    assert any(refused.values()) or ask < 0.1
