# SPDX-License-Identifier: Apache-2.0
"""Block RAM in the place of DRAM, for boards whose machines are small enough.

Has the windows of `afternorm.board.memory.BoardMemory`.  A burst that is not wholly
within one of them raises `bus_error`, with its address, until `bus_reset`; its beats
are zeros or go nowhere, but they come.

Reads: the first beat comes six cycles after its request, then one a cycle.  Writes:
a beat a cycle; `written` comes two cycles after the last.  Between two bursts is a
cycle.  The link's bytes take the cycles that the machine leaves.

Block RAM is read into a register of its own, and what it is addressed with comes
from one: its way through the chip is long.
"""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from afternorm.board.memory import BoardMemory
from afternorm.config import Config
from afternorm.isa import DRAM_ADDRESS
from afternorm.job import DATA
from hdl.board.bytes_port import BytesPort
from hdl.interfaces import BURST_BITS, DramRead, DramWrite

_AHEAD = 8
"""Beats that are read and not yet taken, at most; more than the pipeline's stages."""


class BlockDram(wiring.Component):
    """DRAM of block RAM.

    Parameters
    ----------
    config : sizes, for the width of a beat.
    memory : its windows.

    Members
    -------
    read, write : in. The machine's ports.
    bytes : in. The link's.
    bus_error, bus_error_address, bus_reset : as the accelerator's, from the other side.
    """

    def __init__(self, *, config: Config, memory: BoardMemory):
        self.config = config
        self.memory = memory
        super().__init__(
            {
                "read": In(DramRead(config)),
                "write": In(DramWrite(config)),
                "bytes": In(BytesPort()),
                "bus_error": Out(1),
                "bus_error_address": Out(DRAM_ADDRESS),
                "bus_reset": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes = self.config.dram_width // 8
        shift = exact_log2(lanes)
        depth = self.memory.size // lanes
        window_bits = exact_log2(DATA) - shift
        program, beats_of_data = self.memory.program // lanes, self.memory.data // lanes

        def find(address: Value, beats: Value | int) -> tuple[Value, Value]:
            """The place of a byte address in the memory; whether `beats` from there on are."""
            beat = address[shift:]
            offset, window = beat[:window_bits], beat[window_bits:]
            end = offset + beats
            inside = ((window == 0) & (end <= program)) | ((window == 1) & (end <= beats_of_data))
            return (offset + Mux(window[0], program, 0))[: ceil_log2(depth)], inside

        # Bursts, and the link's byte where they leave it a cycle.
        bursts = {}
        for name, port in (("read", self.read), ("write", self.write)):
            burst = data.StructLayout({"place": ceil_log2(depth), "inside": 1, "left": BURST_BITS})
            bursts[name] = current = Signal(burst, name=name)
            request = port.request
            m.d.comb += request.ready.eq(current.left == 0)
            with m.If(request.valid & request.ready):
                place, inside = find(request.payload.address, request.payload.beats)
                m.d.sync += [
                    current.place.eq(place),
                    current.inside.eq(inside),
                    current.left.eq(request.payload.beats),
                ]
                with m.If(~inside & ~self.bus_error):
                    m.d.sync += [
                        self.bus_error.eq(1),
                        self.bus_error_address.eq(request.payload.address),
                    ]
        with m.If(self.bus_reset):
            m.d.sync += self.bus_error.eq(0)

        def next_beat(current) -> None:
            m.d.sync += [current.place.eq(current.place + 1), current.left.eq(current.left - 1)]

        byte_place, byte_inside = find(self.bytes.address, 1)
        byte_lane = self.bytes.address[:shift]

        # Reads: address, memory, its register, queue.
        m.submodules.queue = queue = SyncFIFOBuffered(width=self.config.dram_width, depth=_AHEAD)
        ahead = Signal(range(_AHEAD + 1))
        reading = bursts["read"]
        issues = Signal()
        byte_reads = Signal()
        m.d.comb += [
            issues.eq((reading.left != 0) & (ahead != _AHEAD)),
            byte_reads.eq(self.bytes.valid & ~self.bytes.write & ~issues),
        ]
        with m.If(issues):
            next_beat(reading)
        m.d.sync += ahead.eq(ahead + issues - (queue.r_rdy & queue.r_en))
        stage = data.StructLayout({"beat": 1, "byte": 1, "inside": 1, "lane": shift})
        stages = [Signal(stage, name=f"stage{number}") for number in range(3)]
        read_place = Signal(ceil_log2(depth))
        m.d.sync += [
            read_place.eq(Mux(issues, reading.place, byte_place)),
            stages[0].beat.eq(issues),
            stages[0].byte.eq(byte_reads),
            stages[0].inside.eq(Mux(issues, reading.inside, byte_inside)),
            stages[0].lane.eq(byte_lane),
            stages[1].eq(stages[0]),
            stages[2].eq(stages[1]),
        ]

        # Writes: beat, memory.
        writing = bursts["write"]
        beat = self.write.beats
        takes = Signal()
        byte_writes = Signal()
        m.d.comb += [
            beat.ready.eq(writing.left != 0),
            takes.eq(beat.valid & beat.ready),
            byte_writes.eq(self.bytes.valid & self.bytes.write & ~takes),
            self.bytes.ready.eq(byte_reads | byte_writes),
        ]
        with m.If(takes):
            next_beat(writing)
        write_place = Signal(ceil_log2(depth))
        written = Signal()
        write_data = Signal(self.config.dram_width)
        strobe = Signal(lanes)
        machine = beat.payload.strobe & writing.inside.replicate(lanes)
        m.d.sync += [
            write_place.eq(Mux(takes, writing.place, byte_place)),
            write_data.eq(Mux(takes, beat.payload.data, self.bytes.data.replicate(lanes))),
            strobe.eq(
                Mux(
                    takes,
                    machine,
                    (byte_writes & byte_inside).replicate(lanes) & (1 << byte_lane),
                )
            ),
            written.eq(takes & (writing.left == 1)),
            self.write.written.eq(written),
        ]

        loaded = Signal(self.config.dram_width)
        for lane in range(lanes):
            memory = Memory(shape=8, depth=depth, init=[])
            m.submodules[f"lane{lane}"] = memory
            write, read = memory.write_port(), memory.read_port()
            m.d.comb += [
                write.addr.eq(write_place),
                write.data.eq(write_data.word_select(lane, 8)),
                write.en.eq(strobe[lane]),
                read.addr.eq(read_place),
            ]
            m.d.sync += loaded.word_select(lane, 8).eq(read.data)
        found = Mux(stages[2].inside, loaded, 0)
        m.d.comb += [
            queue.w_data.eq(found),
            queue.w_en.eq(stages[2].beat),
            self.read.beats.valid.eq(queue.r_rdy),
            self.read.beats.payload.eq(queue.r_data),
            queue.r_en.eq(self.read.beats.ready),
            self.bytes.answered.eq(stages[2].byte),
            self.bytes.answer.eq(found.word_select(stages[2].lane, 8)),
        ]
        return m
