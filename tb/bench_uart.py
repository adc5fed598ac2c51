# SPDX-License-Identifier: Apache-2.0
"""UART, frames and block RAM of a board, one component at a time.

``receiver``, ``transmitter``: bytes on a line, with clocks that differ; parameter ``divisor``.
``frames``: requests in, good and broken; ``answers``: frames out; ``stall``, as ever.
``block_dram``: bursts of the machine and bytes of the link; ``stall``, ``width``, and the
windows, ``program`` and ``data``.
"""

from collections import deque

import cocotb
from cocotb.triggers import FallingEdge, RisingEdge, Timer

from afternorm.board.protocol import ANSWER, MAX_PAYLOAD, Command, Frame, FrameDecoder
from afternorm.job import DATA
from tb.stream import PERIOD_NS, Driver, Monitor, bounded, finish, parameters, rng, start, ticks

BYTES = 200
ADDRESS_BITS = 40
READ_LATENCY = 6
"""Cycles from a read request to its first beat."""


async def put(dut, byte, bit_ps, *, stop=1):
    """A byte onto the line `rx`, with bits of any length."""
    for level in (0, *(byte >> place & 1 for place in range(8)), stop):
        dut.rx.value = level
        await Timer(bit_ps, "ps")
    dut.rx.value = 1


@cocotb.test()
async def receiver(dut):
    """Clocks that differ, glitches, missing stop bits, breaks."""
    divisor, random = parameters()["divisor"], rng("receiver")
    # A cycle is lost in looking at the line: the fewer a bit has, the less is left for clocks.
    drift = 0.03 if divisor >= 16 else 0.005
    bit = divisor * PERIOD_NS * 1000
    got, expected = [], []

    async def listen():
        while True:
            await RisingEdge(dut.clk)
            if int(dut.valid.value):
                got.append(int(dut.data.value))

    dut.rx.value = 1
    await start(dut)
    cocotb.start_soon(listen())
    for _ in range(BYTES):
        byte = random.choice([0x00, 0xFF, random.randrange(256)])
        speed = random.choice([1 - drift, 1, 1 + drift])
        kind = random.random()
        if kind < 0.1:  # no stop bit: dropped
            await put(dut, byte, round(bit * speed), stop=0)
            await Timer(2 * bit, "ps")
            assert got == expected
        elif kind < 0.15:  # a break
            dut.rx.value = 0
            await Timer(random.randrange(11, 30) * bit, "ps")
            dut.rx.value = 1
            await Timer(2 * bit, "ps")
            assert got == expected
        elif kind < 0.25 and divisor >= 16:  # too short for a start bit
            dut.rx.value = 0
            await Timer(bit // 5, "ps")
            dut.rx.value = 1
            await Timer(2 * bit, "ps")
            assert got == expected
        else:
            await put(dut, byte, round(bit * speed))
            expected.append(byte)
            await Timer(random.choice([0, 0, random.randrange(3 * bit)]) + bit // 8, "ps")
    await Timer(2 * bit, "ps")
    assert got == expected
    # One cycle's noise in the middle of each bit does no harm where a bit has many.
    if divisor >= 16:
        for byte in (0x55, 0xA6):
            for level in (0, *(byte >> place & 1 for place in range(8)), 1):
                dut.rx.value = level
                await Timer(bit // 2 - PERIOD_NS * 1000, "ps")
                dut.rx.value = 1 - level
                await Timer(PERIOD_NS * 1000, "ps")
                dut.rx.value = level
                await Timer(bit // 2, "ps")
            await Timer(bit, "ps")
            assert got[-1] == byte


@cocotb.test()
async def transmitter(dut):
    """Bytes as a line of the right speed has them, without a gap where there is none."""
    divisor, random = parameters()["divisor"], rng("transmitter")
    bit = divisor * PERIOD_NS
    driver = Driver(dut, "i", stall=0.0)
    sent = [random.choice([0x00, 0xFF, random.randrange(256)]) for _ in range(BYTES)]
    got = []

    async def listen():
        while True:
            if int(dut.tx.value):
                await FallingEdge(dut.tx)
            await Timer(3 * bit / 2, "ns")
            byte = 0
            for place in range(8):
                byte |= int(dut.tx.value) << place
                await Timer(bit, "ns")
            assert int(dut.tx.value) == 1, "no stop bit"
            got.append(byte)
            await Timer(bit / 2 - 1, "ns")

    await start(dut)
    assert int(dut.tx.value) == 1
    cocotb.start_soon(listen())
    for first, last in ((0, BYTES // 2), (BYTES // 2, BYTES)):
        driver.send(sent[first:last])
        await bounded(driver.wait(), cycles=(last - first) * 10 * divisor + 20)
        await ticks(dut, 12 * divisor)
        assert got == sent[:last]


@cocotb.test()
async def frames(dut):
    """Good requests come through, each once; of broken ones, nothing."""
    stall, random = parameters()["stall"], rng("frames")
    dut.valid.value = dut.served.value = dut.place.value = 0
    await start(dut)
    lost = 0
    for number in range(60):
        command = random.choice(list(Command))
        size = random.choice([0, 1, random.randrange(60)])
        if number in (20, 40):
            command, size = Command.WRITE, MAX_PAYLOAD
        payload = bytes(
            random.choice([0xC0, 0xDB, 0xDC, random.randrange(256)]) for _ in range(size)
        )
        carried = payload if command == Command.WRITE else b""
        frame = Frame(command, random.randrange(256), size, random.getrandbits(32), carried)
        line = bytearray(frame.encode())
        broken = random.random() < 0.4
        if broken:
            at = random.randrange(1, len(line) - 1)
            change = random.choice(["lose", "change", "add", "escape"])
            if change == "lose":
                del line[at]
            elif change == "escape":
                line.insert(len(line) - 1, 0xDB)
            elif change == "add":
                line.insert(at, line[at] ^ 1)
            else:
                line[at] ^= 1 << random.randrange(8)
            broken = not any(frame == each for each in FrameDecoder().feed(bytes(line)))
        for byte in line:
            while random.random() < stall:
                await RisingEdge(dut.clk)
            dut.valid.value, dut.data.value = 1, byte
            await RisingEdge(dut.clk)
            dut.valid.value = 0
        await ticks(dut, 2)
        assert int(dut.request.value) == (not broken), f"frame {number}: {bytes(line).hex()}"
        if broken:
            lost += 1
            # The end of the broken frame may begin the next: it is dropped with it.
            dut.valid.value, dut.data.value = 1, 0xC0
            await RisingEdge(dut.clk)
            dut.valid.value = 0
            continue
        header = int(dut.header.value)
        fields = [header & 255, header >> 8 & 255, header >> 16 & 0xFFFF, header >> 32]
        assert fields == [frame.command, frame.number, frame.count, frame.address]
        # Bytes that come now are dropped, and spoil nothing.
        for byte in Frame(Command.WRITE, 1, 3, 4, b"abc").encode()[:-3]:
            dut.valid.value, dut.data.value = 1, byte
            await RisingEdge(dut.clk)
        dut.valid.value = 0
        for place, byte in enumerate(carried):
            dut.place.value = place
            await ticks(dut, 2)
            assert int(dut.payload.value) == byte
        assert int(dut.header.value) == header
        dut.served.value = 1
        await RisingEdge(dut.clk)
        dut.served.value = 0
        await ticks(dut, 2)
        assert not int(dut.request.value)
    assert lost > 5


@cocotb.test()
async def answers(dut):
    """Every frame comes out as the host's decoder expects it."""
    stall, random = parameters()["stall"], rng("answers")
    driver, monitor = Driver(dut, "i", stall=stall), Monitor(dut, "o", stall=stall)
    await start(dut)
    sent, line = [], b""
    for _ in range(40):
        payload = bytes(
            random.choice([0xC0, 0xDB, random.randrange(256)])
            for _ in range(random.choice([0, 1, random.randrange(100)]))
        )
        frame = Frame(
            random.choice(list(Command)) | ANSWER,
            random.randrange(256),
            len(payload),
            random.getrandbits(32),
            payload,
        )
        sent.append(frame)
        line += frame.encode()
        body = bytes([frame.command, frame.number])
        body += frame.count.to_bytes(2, "little") + frame.address.to_bytes(4, "little") + payload
        driver.send(byte | (place + 1 == len(body)) << 8 for place, byte in enumerate(body))
    await finish(
        dut, drivers=[driver], monitors=[(monitor, len(line))], cycles=200 * len(line) + 100
    )
    assert bytes(monitor.received) == line
    assert list(FrameDecoder().feed(line)) == sent


@cocotb.test()
async def block_dram(dut):
    """Reads see the writes before them; what is outside of the windows is an error."""
    options = parameters()
    stall, lanes, random = options["stall"], options["width"] // 8, rng("block_dram")
    windows = [(0, options["program"]), (DATA, options["data"])]
    memory = {}
    reads = Driver(dut, "read__request", stall=stall)
    beats = Monitor(dut, "read__beats", stall=stall)
    writes = Driver(dut, "write__request", stall=stall)
    write_beats = Driver(dut, "write__beats", stall=stall)
    dut.bus_reset.value = dut.bytes__valid.value = 0
    await start(dut)
    written = [0]

    async def count_written():
        while True:
            await RisingEdge(dut.clk)
            written[0] += int(dut.write__written.value)

    async def byte(address, data=None):
        """The link reads or writes a byte."""
        dut.bytes__valid.value, dut.bytes__address.value = 1, address
        dut.bytes__write.value, dut.bytes__data.value = int(data is not None), data or 0
        await RisingEdge(dut.clk)
        while not int(dut.bytes__ready.value):
            await RisingEdge(dut.clk)
        dut.bytes__valid.value = 0
        if data is not None:
            return data
        while not int(dut.bytes__answered.value):
            await RisingEdge(dut.clk)
        return int(dut.bytes__answer.value)

    def place(most):
        """A burst within a window, often at its end."""
        first, size = random.choice(windows)
        count = random.randrange(1, 1 + min(most, size // lanes))
        low = size - count * lanes
        return first + random.choice([0, low, random.randrange(0, low + 1, lanes)]), count

    def content(address):
        return memory.get(address, 0)

    cocotb.start_soon(count_written())
    expected, bursts = deque(), 0
    for number in range(120):
        address, count = place(20)
        kind = random.random()
        if kind < 0.4:
            for at in range(count):
                data, strobe = random.getrandbits(8 * lanes), random.getrandbits(lanes)
                last = int(at + 1 == count)
                payload = data | strobe << 8 * lanes | last << 9 * lanes
                write_beats.send([payload])
                for lane in range(lanes):
                    if strobe >> lane & 1:
                        memory[address + at * lanes + lane] = data >> 8 * lane & 255
            writes.send([address | count << ADDRESS_BITS])
            bursts += 1
        elif kind < 0.8:
            for at in range(address, address + count * lanes, lanes):
                word = bytes(content(at + lane) for lane in range(lanes))
                expected.append(int.from_bytes(word, "little"))
            reads.send([address | count << ADDRESS_BITS])
            if random.random() < 0.5:
                # Meanwhile the link reads.
                at = address + random.randrange(count * lanes)
                assert await bounded(byte(at), cycles=2000) == content(at), f"round {number}"
        else:
            at = address + random.randrange(count * lanes)
            if random.random() < 0.5:
                memory[at] = await bounded(byte(at, random.randrange(256)), cycles=2000)
            assert await bounded(byte(at), cycles=2000) == content(at), f"round {number}"
            continue
        for driver in (writes, write_beats, reads):
            await bounded(driver.wait(), cycles=3000)
        await bounded(beats.wait(len(expected)), cycles=3000)
        await ticks(dut, 4)
        assert written[0] == bursts
        assert beats.received == list(expected)
        assert not int(dut.bus_error.value)
    if not stall:  # what the component's docstring says
        cycle, begun, first = 0, len(beats), None
        reads.send([20 << ADDRESS_BITS])
        while len(beats) < begun + 20:
            await RisingEdge(dut.clk)
            cycle += 1
            if int(dut.read__request__valid.value) and int(dut.read__request__ready.value):
                asked = cycle
            if first is None and int(dut.read__beats__valid.value):
                first = cycle
            assert cycle < 100
        assert first == asked + READ_LATENCY
        assert beats.cycles[-1] == beats.cycles[begun] + 19
    # One beat too far, and places far away.
    for first, size in (*windows, (DATA << 4, 0)):
        address = first + size - (lanes if size else 0)
        reads.send([address | 2 << ADDRESS_BITS])
        await bounded(reads.wait(), cycles=3000)
        await ticks(dut, 2)
        assert int(dut.bus_error.value)
        assert int(dut.bus_error_address.value) == address
        dut.bus_reset.value = 1
        await ticks(dut, 2)
        dut.bus_reset.value = 0
        await ticks(dut, 1)
        assert not int(dut.bus_error.value)
    before = await byte(windows[0][1] - 1)
    writes.send([windows[0][1] - lanes | 2 << ADDRESS_BITS])
    write_beats.send([(1 << 9 * lanes) - 1, (1 << 9 * lanes + 1) - 1])
    await bounded(write_beats.wait(), cycles=3000)
    await ticks(dut, 5)
    assert int(dut.bus_error.value)
    assert written[0] == bursts + 1
    assert await byte(windows[0][1] - 1) == before
