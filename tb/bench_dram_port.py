# SPDX-License-Identifier: Apache-2.0
"""Readers and a writer on their way to a model of DRAM, and resets of them in between.

``arbiter``: each reader gets the beats of its own bursts, in order, and after a
flush none of a burst from before.  ``guard``: DRAM gets every beat of every burst,
those that a flushed writer did not send without a strobe.

Parameters: ``stall``, the probability of a stall on each stream; ``width`` of a beat in bits.
"""

from collections import deque

import cocotb
from cocotb.triggers import RisingEdge

from tb.stream import parameters, rng, start

CYCLES = 30000
ADDRESS_BITS = 40
FLUSH = 0.01
"""Probability that a flush begins in a cycle."""


class Stream:
    """One side's wires of a stream; what was driven is known without reading it back."""

    def __init__(self, dut, prefix):
        self.valid_wire = getattr(dut, f"{prefix}__valid")
        self.ready_wire = getattr(dut, f"{prefix}__ready")
        self.payload_wire = getattr(dut, f"{prefix}__payload", None)

    def offer(self, payload):
        """Drive a payload, or nothing (None)."""
        self.valid_wire.value = int(payload is not None)
        if payload is not None:
            self.payload_wire.value = payload

    def accept(self, ready):
        self.ready_wire.value = int(ready)

    @property
    def ready(self):
        return bool(int(self.ready_wire.value))

    @property
    def payload(self):
        """What the design offers, or None."""
        return int(self.payload_wire.value) if int(self.valid_wire.value) else None


def burst(random):
    """A random request."""
    beats = random.choice([1, 1, 2, random.randrange(1, 30)])
    return random.getrandbits(ADDRESS_BITS) | beats << ADDRESS_BITS


@cocotb.test()
async def arbiter(dut):
    options = parameters()
    stall, random = options["stall"], rng("arbiter")
    readers = range(2)
    requests = [Stream(dut, f"readers__{n}__request") for n in readers]
    beats = [Stream(dut, f"readers__{n}__beats") for n in readers]
    dram_request, dram_beats = Stream(dut, "dram__request"), Stream(dut, "dram__beats")
    contents = {}

    def content(request):
        if request not in contents:
            count = request >> ADDRESS_BITS
            contents[request] = [random.getrandbits(options["width"]) for _ in range(count)]
        return contents[request]

    def chance():
        return random.random() >= stall

    for stream in (*requests, dram_beats):
        stream.offer(None)
    for stream in (*beats, dram_request):
        stream.accept(False)
    dut.flush.value = 0
    await start(dut)
    offered = [None, None]
    expected = [deque(), deque()]
    coming, beat = deque(), None
    flushing, flushes = 0, 0
    received = [0, 0]
    for _ in range(CYCLES):
        if not flushing and random.random() < FLUSH:
            flushing, flushes = random.randrange(1, 20), flushes + 1
            offered = [None, None]
            for each in expected:
                each.clear()
        ready = [chance() and not flushing for _ in readers]
        for n in readers:
            if offered[n] is None and not flushing and random.random() < 0.2 and chance():
                offered[n] = burst(random)
            requests[n].offer(offered[n])
            beats[n].accept(ready[n])
        takes = chance()
        dram_request.accept(takes)
        if beat is None and coming and chance():
            beat = coming.popleft()
        dram_beats.offer(beat)
        dut.flush.value = int(bool(flushing))
        await RisingEdge(dut.clk)
        idle = int(dut.idle.value)
        if idle:
            assert not coming and beat is None and not any(expected)
        taken = [n for n in readers if offered[n] is not None and requests[n].ready]
        assert len(taken) < 2
        assert taken != [1] or offered[0] is None, "the second reader came first"
        for n in taken:
            expected[n].extend(content(offered[n]))
            offered[n] = None
        for n in readers:
            got = beats[n].payload
            assert got is None or not flushing
            if got is not None and ready[n]:
                assert got == expected[n].popleft(), f"reader {n}, beat {received[n]}"
                received[n] += 1
        if beat is not None and dram_beats.ready:
            beat = None
        request = dram_request.payload
        if request is not None and takes:
            coming.extend(content(request))
        if flushing:
            flushing = max(flushing - 1, 0 if idle else 1)
    assert flushes > 10 and min(received) > 50


@cocotb.test()
async def guard(dut):
    options = parameters()
    stall, random, width = options["stall"], rng("guard"), options["width"]
    strobes = width // 8
    request, beats = Stream(dut, "writer__request"), Stream(dut, "writer__beats")
    dram_request, dram_beats = Stream(dut, "dram__request"), Stream(dut, "dram__beats")

    def chance():
        return random.random() >= stall

    for stream in (request, beats):
        stream.offer(None)
    for stream in (dram_request, dram_beats):
        stream.accept(False)
    dut.flush.value = dut.dram__written.value = 0
    await start(dut)
    offered, beat = None, None
    sending = deque()  # beats that the writer has still to send
    sent = deque()  # beats that DRAM must get as they are
    asked, wanted = deque(), deque()  # bursts that DRAM must be asked for; beats of each
    unwritten = done = flushes = completed = 0
    flushing = 0
    for _ in range(CYCLES):
        if not flushing and random.random() < FLUSH:
            flushing, flushes = random.randrange(1, 20), flushes + 1
            offered, beat = None, None
            sending.clear()
        if offered is None and not flushing and random.random() < 0.2 and chance():
            offered = burst(random)
            # Beats may be offered before their request.
            for n in range(count := offered >> ADDRESS_BITS):
                last = int(n == count - 1)
                sending.append(random.getrandbits(width + strobes) | last << (width + strobes))
        if beat is None and sending and chance():
            beat = sending.popleft()
        request.offer(offered)
        beats.offer(beat)
        takes_request, takes_beat = chance(), chance() and bool(wanted)
        dram_request.accept(takes_request)
        dram_beats.accept(takes_beat)
        writes = unwritten > 0 and random.random() < 0.3
        dut.dram__written.value = int(writes)
        dut.flush.value = int(bool(flushing))
        await RisingEdge(dut.clk)
        assert int(dut.writer__written.value) == int(writes and not flushing)
        unwritten -= writes
        done += writes
        idle = int(dut.idle.value)
        if idle:
            assert not wanted and not asked
        if offered is not None and request.ready:
            asked.append(offered)
            offered = None
        if beat is not None and beats.ready:
            sent.append(beat)
            beat = None
        got = dram_beats.payload
        if got is not None and takes_beat:
            assert got >> (width + strobes) == int(wanted[0] == 1), "`last` is wrong"
            if sent:
                assert got == sent.popleft()
            else:
                assert flushing
                assert got >> width & ((1 << strobes) - 1) == 0, "a beat that nobody sent"
                completed += 1
            wanted[0] -= 1
            if not wanted[0]:
                wanted.popleft()
                unwritten += 1
        got = dram_request.payload
        if got is not None and takes_request:
            assert got == asked.popleft()
            wanted.append(got >> ADDRESS_BITS)
        if flushing:
            flushing = max(flushing - 1, 0 if idle else 1)
    assert flushes > 10 and done > 50 and completed > 10
