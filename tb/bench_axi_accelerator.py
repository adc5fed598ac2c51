# SPDX-License-Identifier: Apache-2.0
"""The accelerator behind its buses: registers, programs, errors, resets, and how fast it reads.

``registers``: each field of the map as its access says, whatever the strobes, the
order and the pauses.  ``interrupts``, ``errors``, ``resets``, ``stops``: programs
that copy blocks, and what may happen to them.  ``streams``: beats a cycle.

Parameters: ``config``, ``stall``, the probability of a pause on each channel of both buses.
"""

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiResp

from afternorm.config import Config
from afternorm.isa import INSTRUCTION_BYTES, Error, Instruction, Opcode, Target
from afternorm.memory_map import EXPONENT_BYTES, Cause, Status
from afternorm.register_map import OFFSET_BITS, REGISTER_BYTES, Access
from tb.axi import ERROR_RESPONSES, PERIOD_NS, Fault, Registers, memory
from tb.axi_rules import AxiMonitor, LiteRules, Watch
from tb.stream import parameters, rng, ticks

PROGRAM = (1 << 33) + 0x1000
"""Where programs lie."""
SOURCE, EXPONENTS = (1 << 32) + 0x10F88, (1 << 32) + 0x18FF2
"""Where blocks lie: neither at the start of a beat nor of a page."""
TARGET, TARGET_EXPONENTS = (1 << 34) + 0x20FB8, (1 << 34) + 0x28FE6
COUNT = 90
"""Blocks that a copy moves."""
COPIES = 12
"""Of a program of several."""


class Bench:
    """The accelerator, its memory and its registers, all watched."""

    def __init__(self, dut):
        options = parameters()
        self.dut, self.stall = dut, options["stall"]
        self.config = Config(**options["config"])
        self.random = rng("accelerator")
        self.ram = memory(dut, stall=self.stall)
        self.registers = Registers(dut, self.config, stall=self.stall)
        self.rules = AxiMonitor(dut)
        self.lite_rules = LiteRules()
        Watch(dut, self.lite_rules, "s_axil_")
        self.cycles = int(60000 / (1 - self.stall))

    async def power_up(self) -> None:
        cocotb.start_soon(Clock(self.dut.clk, PERIOD_NS, unit="ns").start())
        await self.hard_reset()

    async def hard_reset(self) -> None:
        self.dut.rst.value = 1
        await ticks(self.dut, 4)
        self.dut.rst.value = 0
        await ticks(self.dut, 2)

    def load_program(self, *instructions: Instruction) -> None:
        words = [i.pack().to_bytes(INSTRUCTION_BYTES, "little") for i in instructions]
        self.ram.write(PROGRAM, b"".join(words))

    def copies(self, number: int) -> list[Instruction]:
        """Instructions that copy the blocks to as many places."""
        size = self.size
        fields = {"target": Target.BLOCKS, "count": COUNT, "base": 100, "shared": 1}
        source = {"dram": SOURCE, "exponents": EXPONENTS}
        instructions = []
        for n in range(number):
            target = {
                "dram": TARGET + n * size[0],
                "exponents": TARGET_EXPONENTS + n * size[1],
            }
            # A load waits for the store before, a store for its load.
            after = (4,) if n else ()
            instructions += [
                Instruction(Opcode.LOAD, fields | source, waits=after, signals=(3,)),
                Instruction(Opcode.STORE, fields | target, waits=(3,), signals=(4,)),
            ]
        return instructions

    @property
    def size(self) -> tuple[int, int]:
        """Bytes of the mantissas and exponents of a copy, with a gap behind them."""
        return (COUNT + 3) * self.config.block, (COUNT + 5) * EXPONENT_BYTES

    def prepare(self, number: int) -> None:
        """New blocks to copy; what is at the targets is known."""
        random = self.random
        self.mantissas = random.randbytes(COUNT * self.config.block)
        values = [random.randrange(-512, 512) for _ in range(COUNT)]
        self.exponents = b"".join(
            value.to_bytes(EXPONENT_BYTES, "little", signed=True) for value in values
        )
        self.ram.write(SOURCE, self.mantissas)
        self.ram.write(EXPONENTS, self.exponents)
        for start, size in zip((TARGET, TARGET_EXPONENTS), self.size, strict=True):
            self.ram.write(start - 8, bytes([77]) * (number * size + 16))

    def check_margins(self, n: int) -> None:
        for start, size, data in (
            (TARGET, self.size[0], self.mantissas),
            (TARGET_EXPONENTS, self.size[1], self.exponents),
        ):
            first = start + n * size
            assert self.ram.read(first - 3, 3) == bytes([77]) * 3
            assert self.ram.read(first + len(data), 3) == bytes([77]) * 3

    def copied(self, n: int) -> bool:
        """Whether the n-th copy is there, as a whole; else nothing of it is."""
        self.check_margins(n)
        found = [
            self.ram.read(start + n * size, len(data))
            for start, size, data in (
                (TARGET, self.size[0], self.mantissas),
                (TARGET_EXPONENTS, self.size[1], self.exponents),
            )
        ]
        if found == [self.mantissas, self.exponents]:
            return True
        assert found == [bytes([77]) * len(data) for data in found], f"copy {n} is in pieces"
        return False

    async def check_copy(self) -> None:
        """A program runs, and does what it should."""
        self.prepare(1)
        self.load_program(*self.copies(1), Instruction(Opcode.END))
        assert await self.registers.run(PROGRAM, self.cycles) == Status.DONE
        assert self.copied(0)
        assert await self.registers.read("ERROR") == Error.NONE
        assert await self.registers.read("IRQ_CAUSE") == 1 << Cause.DONE
        assert 0 < await self.registers.read("LOAD_BUSY") <= await self.registers.read("CYCLES")

    async def quiet(self) -> None:
        """Nothing is under way on either bus."""
        for _ in range(self.cycles):
            if self.rules.idle:
                break
            await RisingEdge(self.dut.clk)
        assert self.rules.idle
        await self.registers.master.wait()
        await ticks(self.dut, 10)
        assert self.lite_rules.idle


@cocotb.test()
async def registers(dut):
    bench = Bench(dut)
    await bench.power_up()
    bus, random = bench.registers, bench.random
    entries = bus.entries.values()
    expected = {entry.name: entry.reset for entry in entries}
    assert expected["CONFIG_BLOCK"] == bench.config.block and expected["BUILD_ID"]

    async def check() -> None:
        for entry in entries:
            got = await bus.read(entry.name)
            assert got == expected[entry.name], f"{entry.name}: {got:#x}"

    await check()
    for _ in range(3):
        for entry in random.sample(list(entries), len(entries)):
            low = random.randrange(REGISTER_BYTES)
            data = random.randbytes(random.randrange(1, REGISTER_BYTES - low + 1))
            if entry.name == "CONTROL" and low == 0:  # the machine stays as it is
                data = bytes([data[0] & ~entry.mask(Access.W1S)]) + data[1:]
            assert await bus.write_at(entry.offset + low, data) == AxiResp.OKAY
            kept = expected[entry.name]
            written = bytearray(kept.to_bytes(REGISTER_BYTES, "little"))
            written[low : low + len(data)] = data
            mask = entry.mask(Access.RW)
            expected[entry.name] = (int.from_bytes(written, "little") & mask) | (kept & ~mask)
        await check()

    mapped = {entry.offset for entry in entries}
    missing = sorted(set(range(0, 1 << OFFSET_BITS, REGISTER_BYTES)) - mapped)
    assert len(missing) > 100
    for offset in [*random.sample(missing, 30), missing[0], missing[-1]]:
        assert await bus.read_at(offset) == (0, AxiResp.SLVERR)
        assert await bus.write_at(offset, b"\xff" * REGISTER_BYTES) == AxiResp.SLVERR
    await check()

    # Address and data of a write in any order, and reads at the same time.
    write, register = bus.master.write_if, bus.entries["PROGRAM_LOW"]
    for gap in (0, 1, 2, 5, 20):
        for first, second in (("aw", "w"), ("w", "aw")):
            value = random.getrandbits(32)
            transactions = {}
            for name, fields in (
                ("aw", {"awaddr": register.offset}),
                ("w", {"wdata": value, "wstrb": 15}),
            ):
                transaction = getattr(write, f"{name}_channel")._transaction_obj()
                for field, its in fields.items():
                    setattr(transaction, field, its)
                transactions[name] = transaction
            reading = bus.master.init_read(bus.entries["CONFIG_TILES"].offset, REGISTER_BYTES)
            for name in (first, second):
                await getattr(write, f"{name}_channel").send(transactions[name])
                await ticks(dut, gap)
            answer = await write.b_channel.recv()
            assert int(answer.bresp) == AxiResp.OKAY
            await reading.wait()
            assert int.from_bytes(reading.data.data, "little") == bench.config.tiles
            expected["PROGRAM_LOW"] = value & register.mask(Access.RW)
            assert await bus.read("PROGRAM_LOW") == expected["PROGRAM_LOW"]
    await bench.quiet()


@cocotb.test()
async def interrupts(dut):
    bench = Bench(dut)
    await bench.power_up()
    bus = bench.registers
    await bench.check_copy()
    assert int(dut.interrupt.value) == 1
    done = 1 << Cause.DONE
    for enable in (0, done, 0, 0b110, 0b111):
        await bus.write("IRQ_ENABLE", enable)
        await ticks(dut, 5)
        assert int(dut.interrupt.value) == int(enable & done != 0)
    await bus.write("IRQ_CAUSE", 0)
    await bus.write("IRQ_CAUSE", 0b110)
    assert await bus.read("IRQ_CAUSE") == done
    assert await bus.write_at(bus.entries["IRQ_CAUSE"].offset + 1, b"\xff") == AxiResp.OKAY
    assert await bus.read("IRQ_CAUSE") == done, "a byte without a strobe was cleared"
    await bus.write("IRQ_CAUSE", done)
    assert await bus.read("IRQ_CAUSE") == 0 and int(dut.interrupt.value) == 0
    # A program that is no program.
    bench.load_program(*bench.copies(1)[:1])
    bench.ram.write(PROGRAM + INSTRUCTION_BYTES, bytes(INSTRUCTION_BYTES))
    assert await bus.run(PROGRAM, bench.cycles) == Status.ERROR
    assert await bus.read("ERROR") == Error.OPCODE and await bus.read("ERROR_INDEX") == 1
    assert await bus.read("IRQ_CAUSE") == 1 << Cause.ERROR
    await bus.reset()
    assert await bus.read("STATUS") == Status.IDLE and int(dut.interrupt.value) == 0
    await bench.check_copy()
    await bench.quiet()


@cocotb.test()
async def errors(dut):
    """An error response on any beat or burst stops the machine, and a reset makes it good."""
    bench = Bench(dut)
    await bench.power_up()
    bus, rules, random = bench.registers, bench.rules, bench.random
    await bench.check_copy()
    answers = {"r": len(rules.beats), "b": len(rules.written)}
    assert min(answers.values()) > 5
    for number in range(16):
        channel = "rb"[number % 2]
        bench.prepare(COPIES)
        bench.load_program(*bench.copies(COPIES), Instruction(Opcode.END))
        fault = Fault(
            bench.ram,
            channel,
            random.randrange(2 * answers[channel]),
            random.choice(ERROR_RESPONSES),
        )
        assert await bus.run(PROGRAM, bench.cycles) == Status.ERROR
        fault.remove()
        assert fault.given
        address = await bus.read("ERROR_ADDRESS_LOW")
        address |= await bus.read("ERROR_ADDRESS_HIGH") << 32
        assert await bus.read("ERROR") == Error.BUS
        assert address == rules.error_address
        assert await bus.read("IRQ_CAUSE") == 1 << Cause.ERROR
        cycles = await bus.read("CYCLES")
        await bus.write("CONTROL", bus.bit("CONTROL", "start"))
        assert await bus.read("STATUS") == Status.ERROR, "it started after an error"
        assert await bus.read("CYCLES") == cycles > 0
        before = len(rules.written)
        await ticks(dut, 300)
        assert len(rules.written) == before
        await bus.reset()
        rules.forgive()
        assert rules.idle
        assert await bus.read("STATUS") == Status.IDLE
        assert await bus.read("ERROR_ADDRESS_LOW") == 0
        await bench.check_copy()
    await bench.quiet()


@cocotb.test()
async def resets(dut):
    """A reset amid bursts: soft, when all that was begun is completed; hard, with the bus."""
    bench = Bench(dut)
    await bench.power_up()
    bus, rules, random = bench.registers, bench.rules, bench.random
    amid = 0
    for number in range(12):
        bench.prepare(COPIES)
        bench.load_program(*bench.copies(COPIES), Instruction(Opcode.END))
        await bus.start(PROGRAM)
        await ticks(dut, int(random.randrange(100, 1600) / (1 - bench.stall)))
        assert await bus.read("STATUS") == Status.RUNNING
        amid += not rules.idle
        if number % 2:
            await bus.reset()
            assert rules.idle, "something is under way after a reset"
            for n in range(COPIES):
                bench.check_margins(n)
        else:
            await bench.hard_reset()
        assert await bus.read("STATUS") == Status.IDLE
        await bench.check_copy()
    assert amid > 3, "hardly a reset came in the middle of a burst"
    await bench.quiet()


@cocotb.test()
async def stops(dut):
    """A stop: what an engine has begun is done, nothing more is."""
    bench = Bench(dut)
    await bench.power_up()
    bus, random = bench.registers, bench.random
    stop = bus.bit("CONTROL", "stop")
    await bus.write("CONTROL", stop)
    assert await bus.read("CONTROL") == 0
    numbers = []
    for _ in range(6):
        bench.prepare(COPIES)
        bench.load_program(*bench.copies(COPIES), Instruction(Opcode.END))
        await bus.start(PROGRAM)
        await ticks(dut, int(random.randrange(100, 1600) / (1 - bench.stall)))
        await bus.write("CONTROL", stop)
        assert await bus.interrupted(bench.cycles) == Status.STOPPED
        assert await bus.read("IRQ_CAUSE") == 1 << Cause.STOPPED
        assert await bus.read("CONTROL") == 0 and await bus.read("ERROR") == Error.NONE
        done = [bench.copied(n) for n in range(COPIES)]
        assert done == sorted(done, reverse=True)
        numbers.append(sum(done))
        await bus.write("CONTROL", bus.bit("CONTROL", "start"))
        assert await bus.read("STATUS") == Status.STOPPED, "it started without a reset"
        await bus.reset()
        assert await bus.read("STATUS") == Status.IDLE
        assert [bench.copied(n) for n in range(COPIES)] == done
        await bench.check_copy()
    assert max(numbers) > 0 and min(numbers) < COPIES
    await bench.quiet()


@cocotb.test()
async def streams(dut):
    """Weights from memory that never pauses: beats over cycles, from the first to the last."""
    bench = Bench(dut)
    await bench.power_up()
    count, loads = 1000, 6
    start, exponents = 1 << 20, 1 << 24
    instructions = [
        Instruction(
            Opcode.LOAD,
            {
                "target": Target.BLOCKS,
                "count": count,
                "base": n * count,
                "shared": 1,
                "dram": start + n * count * bench.config.block,
                "exponents": exponents + n * count * EXPONENT_BYTES,
            },
        )
        for n in range(loads)
    ]
    bench.load_program(*instructions, Instruction(Opcode.END))
    assert await bench.registers.run(PROGRAM, bench.cycles) == Status.DONE
    cycles = [cycle for cycle, address in bench.rules.beats if address < PROGRAM]
    size = bench.rules.bytes
    assert len(cycles) >= loads * count * (bench.config.block + EXPONENT_BYTES) // size
    efficiency = len(cycles) / (cycles[-1] - cycles[0] + 1)
    cocotb.log.info("read efficiency: %.2f %% of %d beats", 100 * efficiency, len(cycles))
    assert efficiency >= 0.95
    await bench.quiet()
