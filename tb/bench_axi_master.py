# SPDX-License-Identifier: Apache-2.0
"""The AXI master between its two ports and an `AxiRam`, with all rules watched.

``moves``: random bursts, many of them across 4 KiB, are read and written right to
the byte, and a burst that is called written is in memory.  ``errors``: an error
on any beat or burst is reported with its address, nothing is written after it,
everything that was asked for ends, and after `clear` all is as before.

Parameters: ``config``, ``stall`` (of every channel and stream), ``corrupt`` (flip a bit of memory).
"""

import cocotb
from cocotb.triggers import RisingEdge

from afternorm.config import Config
from afternorm.isa import DRAM_ADDRESS
from hdl.interfaces import BURST_BITS
from tb.axi import ERROR_RESPONSES, Fault, memory
from tb.axi_rules import PAGE, AxiMonitor
from tb.stream import Driver, Monitor, bounded, finish, parameters, rng, start, ticks

LONGEST = (1 << BURST_BITS) - 1
SPACE = 1 << 20
"""Bytes of a part of DRAM that one side of a test has for itself."""
READS, WRITES = (1 << DRAM_ADDRESS) - 4 * SPACE, (1 << 33) - SPACE
"""Where they lie: addresses carry through the high bits."""


class Bench:
    """The master, its memory, and what was asked of it."""

    def __init__(self, dut):
        options = parameters()
        self.dut, self.stall = dut, options["stall"]
        self.config = Config(**options["config"])
        self.size = self.config.dram_width // 8
        self.random = rng("master")
        self.ram = memory(dut, stall=self.stall)
        self.rules = AxiMonitor(dut)
        self.requests = {
            name: Driver(dut, f"{name}__request", stall=self.stall) for name in ("read", "write")
        }
        self.beats_in = Driver(dut, "write__beats", stall=self.stall)
        self.beats_out = Monitor(dut, "read__beats", stall=self.stall)
        dut.clear.value = 0
        self.expected: list[int] = []  # beats that are to be read
        self.image: dict[int, int] = {}  # bytes that are to be written
        self.bursts: list[tuple[int, bytes, list[int]]] = []  # written: address, bytes, strobes
        self.written = 0
        self.place = {READS: READS, WRITES: WRITES}
        cocotb.start_soon(self._count())

    def burst(self, part: int) -> tuple[int, int]:
        """Address and beats of a burst behind the others, often close to a page's end."""
        random, size = self.random, self.size
        beats = random.choice([1, 2, random.randrange(1, 40), random.randrange(1, LONGEST + 1)])
        at = self.place[part]
        if random.random() < 0.6:
            before = random.choice([size, 0, random.randrange(beats * size + 1)]) // size * size
            at = -(-(at + before) // PAGE) * PAGE - before
        else:
            at += random.randrange(8) * size
        self.place[part] = at + beats * size
        return at, beats

    def read(self, count: int) -> None:
        for _ in range(count):
            address, beats = self.burst(READS)
            data = self.random.randbytes(beats * self.size)
            self.ram.write(address, data)
            self.expected += [
                int.from_bytes(data[n : n + self.size], "little")
                for n in range(0, len(data), self.size)
            ]
            self.requests["read"].send([address | beats << DRAM_ADDRESS])

    def write(self, count: int) -> None:
        for _ in range(count):
            address, beats = self.burst(WRITES)
            data, width = self.random.randbytes(beats * self.size), 8 * self.size
            every = (1 << self.size) - 1
            strobes = [
                self.random.choice([every, every, 0, self.random.getrandbits(self.size)])
                for _ in range(beats)
            ]
            # Whatever lies there stays where there is no strobe.
            before = self.random.randbytes(len(data))
            self.ram.write(address, before)
            after = bytes(
                new if strobes[n // self.size] >> n % self.size & 1 else old
                for n, (new, old) in enumerate(zip(data, before, strict=True))
            )
            self.bursts.append((address, after, before))
            payloads = []
            for n, strobe in enumerate(strobes):
                word = int.from_bytes(data[n * self.size :][: self.size], "little")
                last = int(n == beats - 1)
                payloads.append(word | strobe << width | last << (width + self.size))
            self.requests["write"].send([address | beats << DRAM_ADDRESS])
            self.beats_in.send(payloads)

    async def _count(self) -> None:
        """Count `written`; the burst is in memory, unless there was an error."""
        while True:
            await RisingEdge(self.dut.clk)
            if int(self.dut.write__written.value):
                assert self.written < len(self.bursts), "a burst too many is written"
                address, after, _ = self.bursts[self.written]
                if self.rules.error_address is None:
                    assert self.ram.read(address, len(after)) == after, "not yet in memory"
                self.written += 1

    async def finish(self) -> None:
        """Everything ends, and nothing follows."""
        cycles = int((len(self.expected) + len(self.bursts) * 300 + 2000) * 12 / (1 - self.stall))

        async def answered() -> None:
            while self.written < len(self.bursts):
                await RisingEdge(self.dut.clk)

        await finish(
            self.dut,
            drivers=[*self.requests.values(), self.beats_in],
            monitors=[(self.beats_out, len(self.expected))],
            cycles=cycles,
        )
        await bounded(answered(), cycles=cycles)
        await ticks(self.dut, 100)
        assert self.written == len(self.bursts)
        assert self.rules.idle and int(self.dut.idle.value)


@cocotb.test()
async def moves(dut):
    bench = Bench(dut)
    await start(dut)
    bench.read(40)
    bench.write(40)
    if parameters()["corrupt"]:
        at = bench.rules.bytes + READS
        address = next(a for a in range(READS, at + SPACE) if bench.ram.read(a, 1) != b"\0")
        bench.ram.write(address, bytes([bench.ram.read(address, 1)[0] ^ 1]))
    await bench.finish()
    assert bench.beats_out.received == bench.expected
    for address, after, _ in bench.bursts:
        assert bench.ram.read(address, len(after)) == after
    asked = bench.rules.read + bench.rules.written
    pages = [(a, n) for a, n in asked if (a + n * bench.size) % PAGE == 0]
    assert len(pages) > 8 and max(n for _, n in asked) > min(100, 0.8 * PAGE / bench.size)
    assert len(asked) > 80, "no burst was cut"
    assert int(dut.error.value) == 0
    if not bench.stall:
        # No beat is lost where the memory has one in every cycle.
        cycles = bench.rules.beats[-1][0] - bench.rules.beats[0][0] + 1
        print(f"{len(bench.expected)} beats read in {cycles} cycles")
        assert len(bench.expected) >= 0.97 * cycles


@cocotb.test()
async def errors(dut):
    bench = Bench(dut)
    rules, random = bench.rules, bench.random
    await start(dut)
    for number in range(10):
        channel = "rb"[number % 2]
        response = random.choice(ERROR_RESPONSES)
        bench.read(6)
        bench.write(6)
        fault = Fault(bench.ram, channel, random.choice([0, random.randrange(6)]), response)
        await bench.finish()
        fault.remove()
        assert fault.given
        assert int(dut.error.value) == 1
        assert int(dut.error_address.value) == rules.error_address
        # Reads are complete, and writes are as they were, or as they were to be.
        assert bench.beats_out.received == bench.expected
        issued = {address // PAGE for address, _ in rules.written}
        for address, after, before in bench.bursts[-6:]:
            now = bench.ram.read(address, len(after))
            for n, byte in enumerate(now):
                assert byte in (before[n], after[n])
                assert byte == before[n] or (address + n) // PAGE in issued
        dut.clear.value = 1
        await ticks(dut, 3)
        dut.clear.value = 0
        assert int(dut.error.value) == 0
        rules.forgive()
        bench.write(2)
        await bench.finish()
        for address, after, _ in bench.bursts[-2:]:
            assert bench.ram.read(address, len(after)) == after
