# SPDX-License-Identifier: Apache-2.0
"""Load and store engine, each between a DRAM and the tiles' memories kept here.

Random instructions of both targets run through; every word written must be the
one expected, in order, and of DRAM no byte else may change.  Parameters:
``config``, ``engine``, ``corrupt`` (flip a bit of the data once).
"""

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from itertools import groupby

import cocotb
from cocotb.triggers import RisingEdge

from afternorm.config import Config
from afternorm.isa import BODIES, DRAM_ADDRESS, Opcode, Target
from afternorm.memory_map import EXPONENT_BYTES, float_slot, float_word_bytes
from hdl.dma.bursts import RUN
from hdl.interfaces import SCRATCHPAD_LATENCY, VECTOR_MEMORY_LATENCY
from tb.stream import STALLS, Driver, Monitor, bounded, parameters, rng, start, ticks

ORIGIN = (1 << (DRAM_ADDRESS - 1)) - (1 << 14)
"""Where the instructions' data begin, so that addresses carry through all bits."""
LINE = 64
FIXED_LATENCY = 64
"""Of DRAM where throughput is measured."""


@dataclass
class Transfer:
    """An instruction: its body's fields, whether it drains, and the DRAM that is its own."""

    body: dict
    drain: bool
    start: int

    def payload(self, opcode):
        value, shift = 0, 0
        for name, width in BODIES[opcode]:
            assert 0 <= self.body[name] < 1 << width, name
            value |= self.body[name] << shift
            shift += width
        return opcode | (self.drain << 4) | (value << 5)


class Bench:
    """Instructions, DRAM and tile memories."""

    def __init__(self, dut, *, stall, memory_stall):
        """`stall` : probability, of every stream; `memory_stall` : of the tiles' memories."""
        options = parameters()
        self.dut = dut
        self.config = Config(**options["config"])
        self.stall = stall
        self.memory_stall = memory_stall
        self.corrupt = options["corrupt"]
        self.random = rng(f"dma {stall} {memory_stall}")
        self.beat_bytes = self.config.dram_width // 8
        self.mantissa_bits = 8 * self.config.block
        self.end = ORIGIN
        self.offsets = [0, 0]
        self.transfers = []
        self.cycle = 0
        self.done_at = []
        cocotb.start_soon(self._count())

    async def _count(self):
        while True:
            await RisingEdge(self.dut.clk)
            self.cycle += 1
            assert int(self.dut.done.value) == int(self.dut.early.value)
            if int(self.dut.done.value):
                self.done_at.append(self.cycle)

    # -- instructions --------------------------------------------------------------------------

    def word_bytes(self, target):
        return self.config.block if target == Target.BLOCKS else float_word_bytes(self.config)

    def place(self, size, within):
        """A free range of DRAM, lines away from the others, that starts `within` a line."""
        start = -(-self.end // LINE) * LINE + LINE * self.random.randrange(1, 4) + within % LINE
        self.end = start + size
        return start

    def add(self, target, count, *, shared=False, drain=False):
        c, random = self.config, self.random
        begin = -(-self.end // LINE) * LINE + LINE
        self.end = begin
        depth = c.scratchpad_depth if target == Target.BLOCKS else c.vector_depth
        tiles = 1 if shared else c.tiles
        number = self.offsets[target]
        self.offsets[target] += 1
        # Each start within a beat has its turn.
        arrays = {"dram": self.word_bytes(target)}
        if target == Target.BLOCKS:
            arrays["exponents"] = EXPONENT_BYTES
        body = {"exponents": 0, "exponents_tile": 0}
        for name, size in arrays.items():
            stride = size * (count + random.choice([0, 1, 5]))
            body[name] = self.place(stride * tiles, number * size)
            body[f"{name}_tile"] = stride
        base = random.choice([0, depth - count, random.randrange(depth - count + 1)])
        body |= {"target": target, "count": count, "base": base, "shared": int(shared)}
        self.transfers.append(Transfer(body, drain, begin))

    def random_transfers(self, count):
        random = self.random
        for _ in range(count):
            words = random.choice([1, 1, 2, random.randrange(1, 9), RUN, random.randrange(1, 80)])
            self.add(
                Target(random.random() < 0.25),
                words,
                shared=random.random() < 0.3,
                drain=random.random() < 0.3,
            )

    def owner(self, address):
        """The number of the instruction whose DRAM this is."""
        return bisect_right([transfer.start for transfer in self.transfers], address) - 1

    def words(self):
        """All words that move: instruction, tile (None: all), target, address, DRAM addresses."""
        for number, transfer in enumerate(self.transfers):
            body = transfer.body
            shared = body["shared"]
            for tile in range(1 if shared else self.config.tiles):
                for i in range(body["count"]):
                    yield (
                        number,
                        None if shared else tile,
                        body["target"],
                        body["base"] + i,
                        body["dram"]
                        + tile * body["dram_tile"]
                        + i * self.word_bytes(body["target"]),
                        body["exponents"] + tile * body["exponents_tile"] + i * EXPONENT_BYTES,
                    )

    def unslotted(self, value):
        slot, width = float_slot(self.config), self.config.float_width
        mask = (1 << width) - 1
        return sum(
            ((value >> lane * slot) & mask) << (lane * width) for lane in range(self.config.lanes)
        )

    def slotted(self, value):
        slot, width = float_slot(self.config), self.config.float_width
        mask = (1 << width) - 1
        return sum(
            ((value >> lane * width) & mask) << (lane * slot) for lane in range(self.config.lanes)
        )

    def memory_stalls(self):
        return self.random.random() < self.memory_stall

    def burst(self, payload):
        """Address and beats of a request; it must be whole and lie in one instruction's DRAM."""
        address, beats = payload & ((1 << DRAM_ADDRESS) - 1), payload >> DRAM_ADDRESS
        assert address % self.beat_bytes == 0 and beats > 0
        owner = self.owner(address)
        last = self.owner(address + beats * self.beat_bytes - 1)
        assert owner == last >= 0, "a burst leaves its instruction's DRAM"
        return address, beats, owner

    def steps(self):
        """Cycles that the data take: beats of exponents, and beats or words, the more."""
        total = 0
        for transfer in self.transfers:
            body = transfer.body
            size = self.word_bytes(body["target"])
            for tile in range(1 if body["shared"] else self.config.tiles):
                dram = body["dram"] + tile * body["dram_tile"]
                exponents = body["exponents"] + tile * body["exponents_tile"]
                for first in range(0, body["count"], RUN):
                    words = min(RUN, body["count"] - first)
                    total += max(words, self.beats(dram + first * size, words * size))
                    if body["target"] == Target.BLOCKS:
                        at = exponents + first * EXPONENT_BYTES
                        total += self.beats(at, words * EXPONENT_BYTES)
        return total

    def beats(self, address, size):
        return (address + size - 1) // self.beat_bytes - address // self.beat_bytes + 1

    async def finish(self, check, *, cycles):
        async def complete():
            while len(self.done_at) < len(self.transfers):
                await RisingEdge(self.dut.clk)

        await bounded(complete(), cycles=cycles)
        await ticks(self.dut, 100)
        assert len(self.done_at) == len(self.transfers)
        assert not int(self.dut.busy.value), "busy after the last instruction"
        check()

    def check_drains(self, first_action):
        """`first_action` by instruction: the cycle of its first request."""
        for number, transfer in enumerate(self.transfers):
            if transfer.drain and number:
                assert first_action[number] > self.done_at[number - 1], (
                    f"instruction {number} did not wait for the earlier ones"
                )


class LoadBench(Bench):
    """The load engine: DRAM has random bytes, the memories note what is written."""

    def __init__(self, dut, *, stall=0.0, memory_stall=0.0, latency=None):
        super().__init__(dut, stall=stall, memory_stall=memory_stall)
        self.latency = latency
        self.requests = []
        self.writes = []
        self.coming = deque()
        self.content = {}
        self.instructions = Driver(dut, "i", stall=self.stall / 2)
        self.beats_out = Driver(dut, "read__beats", stall=self.stall)
        Monitor(dut, "read__request", stall=self.stall, on_receive=self._request)
        for port in ("write", "vector"):
            getattr(dut, f"{port}__ready").value = 0
        cocotb.start_soon(self._memories())
        cocotb.start_soon(self._answer())

    def byte(self, address):
        if address not in self.content:
            self.content[address] = self.random.randrange(256)
        return self.content[address]

    def read(self, address, size):
        return int.from_bytes(bytes(self.byte(address + i) for i in range(size)), "little")

    def _request(self, payload):
        address, beats, owner = self.burst(payload)
        self.requests.append((self.cycle, owner))
        latency = self.random.randrange(60) if self.latency is None else self.latency
        self.coming.append((self.cycle + latency, address, beats))

    async def _answer(self):
        while True:
            await RisingEdge(self.dut.clk)
            while self.coming and self.coming[0][0] <= self.cycle:
                _, address, beats = self.coming.popleft()
                data = [
                    self.read(address + i * self.beat_bytes, self.beat_bytes) for i in range(beats)
                ]
                if self.corrupt and self.owner(address) == 0:
                    # A bit of the burst's first word, wherever it begins in the beat.
                    body = self.transfers[0].body
                    data[0] ^= 1 << 8 * (body["dram"] % self.beat_bytes)
                self.beats_out.send(data)

    async def _memories(self):
        dut = self.dut
        ports = {Target.BLOCKS: "write", Target.FLOATS: "vector"}
        held = {}
        while True:
            await RisingEdge(dut.clk)
            ready = {}
            for target, port in ports.items():
                signals = [getattr(dut, f"{port}__{name}") for name in ("valid", "address", "data")]
                valid, ready[target] = (
                    int(signals[0].value),
                    int(getattr(dut, f"{port}__ready").value),
                )
                now = (
                    (int(signals[1].value), int(signals[2].value), int(dut.tiles.value))
                    if valid
                    else None
                )
                assert held.get(target) in (None, now), f"{port} changed before its transfer"
                held[target] = None if ready[target] else now
                if valid and ready[target]:
                    self.writes.append((self.cycle, int(dut.done.value), target, *now))
                getattr(dut, f"{port}__ready").value = int(not self.memory_stalls())
            assert not all(held.get(target) for target in ports), "both memories are written"

    def check(self):
        c = self.config
        words = list(self.words())
        assert len(self.writes) == len(words), f"{len(self.writes)} writes, not {len(words)}"
        every = (1 << c.tiles) - 1
        dones = []
        for index, (word, write) in enumerate(zip(words, self.writes, strict=True)):
            number, tile, target, address, dram, exponents = word
            value = self.read(dram, self.word_bytes(target))
            if target == Target.BLOCKS:
                value |= (self.read(exponents, EXPONENT_BYTES) & 1023) << self.mantissa_bits
            else:
                value = self.unslotted(value)
            cycle, done, *got = write
            expected = [target, address, value, every if tile is None else 1 << tile]
            assert got == expected, f"instruction {number}: wrote {got}, not {expected}"
            last = index + 1 == len(words) or words[index + 1][0] != number
            assert done == last, f"instruction {number}: done at word {index}"
            if done:
                dones.append(cycle)
        assert dones == self.done_at, "done without a write"
        owners = [owner for _, owner in self.requests]
        assert owners == sorted(owners)
        first = {}
        for cycle, owner in self.requests:
            first.setdefault(owner, cycle)
        assert sorted(first) == list(range(len(self.transfers)))
        self.check_drains(first)


class StoreBench(Bench):
    """The store engine: the memories have random words, DRAM notes what is written."""

    def __init__(self, dut, *, stall=0.0, memory_stall=0.0, latency=None):
        super().__init__(dut, stall=stall, memory_stall=memory_stall)
        self.latency = latency
        self.content = {}
        self.dram = {}
        self.requests = deque()
        self.beats_in = deque()
        self.pulses = []
        self.read_at = []
        self.instructions = Driver(dut, "i", stall=self.stall / 2)
        Monitor(dut, "write__request", stall=self.stall, on_receive=self._request)
        Monitor(dut, "write__beats", stall=self.stall, on_receive=self.beats_in.append)
        dut.write__written.value = 0
        for port in ("read", "vector"):
            getattr(dut, f"{port}__ready").value = 0
        cocotb.start_soon(self._memories())
        cocotb.start_soon(self._write())

    def word(self, target, tile, address):
        key = (target, tile, address)
        if key not in self.content:
            c = self.config
            bits = self.mantissa_bits + 10
            if target == Target.FLOATS:
                bits = c.lanes * c.float_width
            self.content[key] = self.random.getrandbits(bits)
        return self.content[key]

    def _request(self, payload):
        self.requests.append(self.burst(payload))

    async def _write(self):
        """Takes whole bursts, and says of each in order that it is written."""
        dut = self.dut
        size = self.beat_bytes
        due = deque()
        while True:
            await RisingEdge(dut.clk)
            if self.requests and len(self.beats_in) >= self.requests[0][1]:
                address, beats, owner = self.requests.popleft()
                for i in range(beats):
                    payload = self.beats_in.popleft()
                    data = (payload & ((1 << 8 * size) - 1)).to_bytes(size, "little")
                    strobe = (payload >> 8 * size) & ((1 << size) - 1)
                    assert payload >> 9 * size == (i + 1 == beats), "last at the wrong beat"
                    for lane in range(size):
                        if (strobe >> lane) & 1:
                            at = address + i * size + lane
                            assert at not in self.dram, f"byte {at:#x} is written twice"
                            self.dram[at] = data[lane]
                latency = self.random.randrange(60) if self.latency is None else self.latency
                due.append((self.cycle + latency, owner))
            pulse = bool(due) and due[0][0] <= self.cycle
            if pulse:
                self.pulses.append((self.cycle, due.popleft()[1]))
            dut.write__written.value = int(pulse)

    async def _memories(self):
        dut, c = self.dut, self.config
        ports = {Target.BLOCKS: "read", Target.FLOATS: "vector"}
        data = {Target.BLOCKS: dut.tile_blocks, Target.FLOATS: dut.tile_floats}
        widths = {
            Target.BLOCKS: self.mantissa_bits + 10,
            Target.FLOATS: c.lanes * c.float_width,
        }
        latencies = {Target.BLOCKS: SCRATCHPAD_LATENCY, Target.FLOATS: VECTOR_MEMORY_LATENCY}
        held = {}
        answers = {target: deque([None] * (latencies[target] - 1)) for target in ports}
        while True:
            await RisingEdge(dut.clk)
            for target, port in ports.items():
                valid = int(getattr(dut, f"{port}__valid").value)
                ready = int(getattr(dut, f"{port}__ready").value)
                now = int(getattr(dut, f"{port}__address").value) if valid else None
                assert held.get(target) in (None, now), f"{port} changed before its transfer"
                held[target] = None if ready else now
                answers[target].append(now if valid and ready else None)
                if valid and ready:
                    self.read_at.append((self.cycle, target, now))
                address = answers[target].popleft()
                width = widths[target]
                data[target].value = (
                    self.random.getrandbits(width * c.tiles)
                    if address is None
                    else sum(
                        self.word(target, tile, address) << (width * tile)
                        for tile in range(c.tiles)
                    )
                )
                getattr(dut, f"{port}__ready").value = int(not self.memory_stalls())

    def check(self):
        words = list(self.words())
        reads = [(target, address) for _, target, address in self.read_at]
        assert reads == [(word[2], word[3]) for word in words], "wrong reads"
        expected = {}
        for _, tile, target, address, dram, exponents in words:
            value = self.word(target, tile or 0, address)
            parts = []
            if target == Target.BLOCKS:
                exponent = value >> self.mantissa_bits
                exponent -= (exponent & 512) << 1
                parts.append((exponents, exponent & 0xFFFF, EXPONENT_BYTES))
                value &= (1 << self.mantissa_bits) - 1
            else:
                value = self.slotted(value)
            parts.append((dram, value, self.word_bytes(target)))
            for at, part, size in parts:
                for i, byte in enumerate(part.to_bytes(size, "little")):
                    expected[at + i] = byte
        if self.corrupt:
            self.dram[next(iter(self.dram))] ^= 1
        wrong = sorted(
            at for at in expected.keys() | self.dram.keys() if expected.get(at) != self.dram.get(at)
        )
        assert not wrong, (
            f"{len(wrong)} wrong bytes, the first of instruction {self.owner(wrong[0])}"
        )
        assert not self.requests and not self.beats_in, "beats or requests are left"
        owners = [owner for _, owner in self.pulses]
        assert owners == sorted(owners)
        # The pulse is driven after its cycle's edge, and seen at the next.
        last = [list(group)[-1][0] + 1 for _, group in groupby(self.pulses, lambda pulse: pulse[1])]
        assert last == self.done_at, "done is not the last burst's write"
        first = {}
        for (number, *_), (cycle, _, _) in zip(words, self.read_at, strict=True):
            first.setdefault(number, cycle)
        self.check_drains(first)


BENCHES = {"load": (LoadBench, Opcode.LOAD), "store": (StoreBench, Opcode.STORE)}


@cocotb.test()
@cocotb.parametrize(
    # In the last the memories hold up DRAM.
    (("stall", "memory_stall"), [*((stall, stall) for stall in STALLS), (0.0, 0.9)])
)
async def random_instructions(dut, stall, memory_stall):
    make, opcode = BENCHES[parameters()["engine"]]
    bench = make(dut, stall=stall, memory_stall=memory_stall)
    await start(dut)
    heavy = memory_stall > 0.5
    bench.random_transfers(24 if heavy else 48)
    bench.instructions.send(transfer.payload(opcode) for transfer in bench.transfers)
    patience = 80 if heavy else 12
    await bench.finish(bench.check, cycles=200 * len(bench.transfers) + patience * bench.steps())


@cocotb.test()
async def streams(dut):
    """256 blocks in one instruction, and in many, take no cycle but the latencies and the data."""
    make, opcode = BENCHES[parameters()["engine"]]
    bench = make(dut, latency=FIXED_LATENCY)
    await start(dut)
    for counts in ([256], [RUN] * 8):
        before, taken = bench.cycle, bench.steps()
        for count in counts:
            bench.add(Target.BLOCKS, count, shared=True)
        new = bench.transfers[-len(counts) :]
        bench.instructions.send(transfer.payload(opcode) for transfer in new)
        await bench.finish(bench.check, cycles=4000)
        cycles = bench.done_at[-1] - before
        data = bench.steps() - taken
        dut._log.info("%s: %d cycles for %d", counts, cycles, data)
        assert cycles <= data + FIXED_LATENCY + 20, f"{cycles} cycles for {data} of data"
