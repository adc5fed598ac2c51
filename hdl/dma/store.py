# SPDX-License-Identifier: Apache-2.0
"""The store engine: the tiles' scratchpads and vector memories to DRAM.

STORE moves `count` words of each tile in turn, or once those of tile 0.  All
tiles see the same reads; of what they answer, only that of the tile whose turn
it is is used.  Words are read ahead as far as there is room for them, in cycles
that no other engine wants.  The exponents of a run are gathered while its
mantissas are sent, and follow them as a burst of their own.

A beat is put together of its words, or a word is sent as its beats: of the two
the one that there are more of takes a cycle each, a beat of exponents one, and
nothing is lost between bursts, runs and instructions.  Strobes keep the bytes
of a beat that are not the burst's.
"""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from afternorm.config import Config
from afternorm.isa import Opcode
from afternorm.memory_map import EXPONENT_BYTES, float_slot
from hdl.arith.delay import delay, delay_valid
from hdl.dma.bursts import (
    RUN,
    Bursts,
    Part,
    beat_bytes,
    exceeds_beat,
    exponent_rows,
    part_layout,
    span_bits,
    word_address_bits,
    word_shift,
)
from hdl.interfaces import (
    EXPONENT_BITS,
    SCRATCHPAD_LATENCY,
    VECTOR_MEMORY_LATENCY,
    DramWrite,
    ReadPort,
    block_layout,
    engine_members,
    floats_layout,
    scratchpad_read,
)

UNSENT = 4
"""Bursts that are requested and whose beats are not yet begun."""
UNWRITTEN = 16
"""Bursts that are requested and not yet written."""
WORDS = 8
"""Words between the memories and the beats: more than the cycles that a word takes."""


class StoreEngine(wiring.Component):
    """Scratchpads and vector memories to DRAM.

    Parameters
    ----------
    config : sizes.

    Members
    -------
    write : DRAM.
    read, vector : the request to all tiles' scratchpads or vector memories, and what tile 0
        answers (all tiles answer alike).
    tile_blocks, tile_floats : in. What each tile read, in place of ``read.data`` and
        ``vector.data``.

    `early` and `done` pulse when the last burst was written.  `drain`: nothing is read before
    all earlier instructions are done.
    """

    def __init__(self, *, config: Config):
        self.config = config
        floats = floats_layout(config, config.lanes)
        super().__init__(
            {
                **engine_members(Opcode.STORE),
                "write": Out(DramWrite(config)),
                "read": Out(scratchpad_read(config)),
                "vector": Out(ReadPort(config.vector_depth, floats)),
                "tile_blocks": In(data.ArrayLayout(block_layout(config.block), config.tiles)),
                "tile_floats": In(data.ArrayLayout(floats, config.tiles)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config
        layout = part_layout(c)

        # A burst is requested; its parts are known to the packer and its words to the reader.
        m.submodules.bursts = bursts = Bursts(config=c, opcode=Opcode.STORE)
        wiring.connect(m, wiring.flipped(self.i), bursts.i)
        m.submodules.unsent = unsent = SyncFIFOBuffered(width=layout.size, depth=UNSENT)
        m.submodules.unwritten = unwritten = SyncFIFO(width=1, depth=UNWRITTEN)
        offered = bursts.o.payload.carries
        reading = Signal()
        last_read = Signal()
        room = unsent.w_rdy & unwritten.w_rdy & (~reading | (offered.part == Part.EXPONENTS))
        requested = bursts.o.valid & bursts.o.ready
        m.d.comb += [
            self.write.request.valid.eq(bursts.o.valid & room),
            self.write.request.payload.eq(bursts.o.payload.burst),
            bursts.o.ready.eq(self.write.request.ready & room),
            unsent.w_en.eq(requested),
            unsent.w_data.eq(offered.as_value()),
            unwritten.w_en.eq(requested),
            unwritten.w_data.eq(offered.last),
            unwritten.r_en.eq(self.write.written),
        ]

        # Reads, as far as there is room for the words.
        floats = Signal(reset_less=True)
        tile = Signal(layout["tile"].shape, reset_less=True)
        address = Signal(word_address_bits(c), reset_less=True)
        left = Signal(range(RUN + 1), reset_less=True)
        waiting = Signal(range(WORDS + 1))
        asking = reading & (waiting != WORDS)
        accepted = (self.read.valid & self.read.ready) | (self.vector.valid & self.vector.ready)
        m.d.comb += [
            self.read.valid.eq(asking & ~floats),
            self.read.address.eq(address),
            self.vector.valid.eq(asking & floats),
            self.vector.address.eq(address),
            self.conflict.eq(asking & ~accepted),
            last_read.eq(accepted & (left == 1)),
        ]
        with m.If(accepted):
            m.d.sync += [address.eq(address + 1), left.eq(left - 1)]
        with m.If(last_read):
            m.d.sync += reading.eq(0)
        with m.If(requested & (offered.part != Part.EXPONENTS)):
            m.d.sync += [
                reading.eq(1),
                floats.eq(offered.part == Part.FLOATS),
                tile.eq(offered.tile),
                address.eq(offered.base),
                left.eq(offered.words),
            ]

        # The word of the tile whose turn it is.
        latency = max(SCRATCHPAD_LATENCY, VECTOR_MEMORY_LATENCY)
        blocks = delay(m, self.tile_blocks, latency - SCRATCHPAD_LATENCY)
        vectors = delay(m, self.tile_floats, latency - VECTOR_MEMORY_LATENCY)
        arrived_tile, arrived_floats = delay(m, tile, latency), delay(m, floats, latency)
        block, vector = blocks[arrived_tile].as_value(), vectors[arrived_tile].as_value()
        word = Signal(max(len(block), len(vector)), reset_less=True)
        m.d.sync += word.eq(Mux(arrived_floats, vector, block))
        m.submodules.words = words = SyncFIFOBuffered(width=len(word), depth=WORDS)
        m.d.comb += [words.w_en.eq(delay_valid(m, accepted, latency + 1)), words.w_data.eq(word)]

        # The packer: where in the burst it is.
        sizes = {part: 8 << word_shift(c, part) for part in (Part.MANTISSAS, Part.FLOATS)}
        slots = beat_bytes(c) // EXPONENT_BYTES
        burst = Signal(layout, reset_less=True)
        active = Signal()
        steps = Signal.like(burst.steps, reset_less=True)
        place = Signal(max(1, *(span_bits(c, part) for part in sizes)), reset_less=True)
        fresh = Signal(init=1)
        exponent = Signal(exact_log2(exponent_rows(c) * slots), reset_less=True)
        row = Signal(exact_log2(exponent_rows(c)), reset_less=True)

        is_exponents = burst.part == Part.EXPONENTS
        advance = Signal()
        issue = Signal()
        beat_ends = Signal()
        word_ends = Signal()
        last_step = steps == 1
        m.d.comb += [
            advance.eq(~self.write.beats.valid | self.write.beats.ready),
            issue.eq(active & advance & (is_exponents | words.r_rdy)),
            words.r_en.eq(issue & word_ends),
        ]
        m.d.sync += waiting.eq(waiting + accepted - words.r_en)

        finishes = issue & last_step
        begin = unsent.r_rdy & (~active | finishes)
        m.d.comb += unsent.r_en.eq(begin)
        m.d.sync += active.eq(begin | (active & ~finishes))
        with m.If(issue):
            m.d.sync += [
                steps.eq(steps - 1),
                place.eq(place + 1),
                row.eq(row + 1),
                exponent.eq(exponent + word_ends),
                fresh.eq(beat_ends),
            ]
        with m.If(begin):
            new = layout(unsent.r_data)
            m.d.sync += [burst.eq(new), steps.eq(new.steps), row.eq(0), exponent.eq(new.exponent)]
            with m.Switch(new.part):
                for part in sizes:
                    with m.Case(part):
                        within = 0 if exceeds_beat(c, part) else new.offset[word_shift(c, part) :]
                        m.d.sync += place.eq(within)

        # The exponents of a run, where they will lie in its burst's beats.
        m.submodules.exponents = exponents = Memory(
            shape=EXPONENT_BITS * slots, depth=exponent_rows(c), init=[]
        )
        write = exponents.write_port(granularity=EXPONENT_BITS)
        read = exponents.read_port(domain="comb")
        slot_bits = exact_log2(slots)
        m.d.comb += [
            write.en.eq(Mux(words.r_en, 1 << exponent[:slot_bits], 0)),
            write.addr.eq(exponent[slot_bits:]),
            write.data.eq(words.r_data[8 * c.block :][:EXPONENT_BITS].replicate(slots)),
            read.addr.eq(row),
        ]
        gathered = [read.data.word_select(n, EXPONENT_BITS) for n in range(slots)]
        extension = 8 * EXPONENT_BYTES - EXPONENT_BITS
        extended = Cat(Cat(value, value[-1].replicate(extension)) for value in gathered)
        last_slot = Signal(slot_bits)
        mine = Signal(slots)
        m.d.comb += last_slot.eq(burst.exponent + burst.words - 1)
        for n in range(slots):
            m.d.comb += mine[n].eq(
                ((row != 0) | (burst.exponent <= n)) & (~last_step | (last_slot >= n))
            )
        exponent_strobe = Cat(bit.replicate(EXPONENT_BYTES) for bit in mine)

        # Floats in their slots.
        slot = float_slot(c)
        slotted = Cat(
            words.r_data[lane * c.float_width :][: c.float_width] | Const(0, slot)
            for lane in range(c.lanes)
        )
        contents = {Part.MANTISSAS: words.r_data[: 8 * c.block], Part.FLOATS: slotted}

        beat = self.write.beats.payload
        m.d.sync += self.write.beats.valid.eq(
            (issue & beat_ends) | (self.write.beats.valid & ~advance)
        )
        with m.If(issue):
            m.d.sync += beat.last.eq(last_step)
        with m.Switch(burst.part):
            for part, content in contents.items():
                with m.Case(part):
                    span = span_bits(c, part)
                    at = place[:span]
                    at_end = at.all() if span else Const(1)
                    if exceeds_beat(c, part):
                        m.d.comb += [beat_ends.eq(1), word_ends.eq(at_end)]
                        with m.If(issue):
                            m.d.sync += [
                                beat.data.eq(content.word_select(at, c.dram_width)),
                                beat.strobe.eq(-1),
                            ]
                    else:
                        m.d.comb += [beat_ends.eq(at_end | last_step), word_ends.eq(1)]
                        size = len(content)
                        strobe = ((1 << size // 8) - 1) << (at << word_shift(c, part))
                        with m.If(issue):
                            m.d.sync += [
                                beat.data.word_select(at, size).eq(content),
                                beat.strobe.eq(Mux(fresh, 0, beat.strobe) | strobe),
                            ]
            with m.Case(Part.EXPONENTS):
                m.d.comb += beat_ends.eq(1)
                with m.If(issue):
                    m.d.sync += [
                        beat.data.eq(extended),
                        beat.strobe.eq(exponent_strobe),
                    ]

        in_flight = Signal(8)
        m.d.comb += [
            self.done.eq(self.write.written & unwritten.r_data),
            self.early.eq(self.done),
            self.busy.eq(in_flight != 0),
            bursts.alone.eq(in_flight == 1),
        ]
        m.d.sync += in_flight.eq(in_flight + (self.i.valid & self.i.ready) - self.done)
        return m
