# SPDX-License-Identifier: Apache-2.0
"""The load engine: DRAM to the tiles' scratchpads and vector memories.

LOAD moves `count` words of each tile in turn, or once to all tiles.  Requests
run ahead of the data by up to `AHEAD` bursts, over the ends of instructions as
well, so that the latency of DRAM is hidden; what comes back is taken in order.
The exponents of a run are kept until its mantissas come, and each block is
written whole.

A beat is cut into the words in it, or a word is put together of its beats: of
the two the one that there are more of takes a cycle each, a beat of exponents
one, and nothing is lost between bursts, runs and instructions.  From a beat's
transfer to the write of its first word are five cycles.
"""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Out
from amaranth.utils import exact_log2

from afternorm.config import Config
from afternorm.isa import Opcode
from afternorm.memory_map import EXPONENT_BYTES, float_slot
from hdl.arith.delay import delay, delay_valid
from hdl.dma.bursts import (
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
    DramRead,
    WritePort,
    block_layout,
    engine_members,
    floats_layout,
    scratchpad_write,
)

AHEAD = 16
"""Bursts that are requested and not yet begun to be taken."""
WORDS = 8
"""Words between the beats and the memories: more than the cycles that a word takes."""


class LoadEngine(wiring.Component):
    """DRAM to scratchpads and vector memories.

    Parameters
    ----------
    config : sizes.

    Members
    -------
    read : DRAM.
    write, vector : a word for the scratchpads or the vector memories of the tiles in `tiles`,
        and what tile 0 answers (all tiles answer alike).
    tiles : out. A bit a tile that takes the word.

    `early` and `done` pulse when the last word was accepted by the memories.  `drain`: nothing
    is read before all earlier instructions are done.
    """

    def __init__(self, *, config: Config):
        self.config = config
        super().__init__(
            {
                **engine_members(Opcode.LOAD),
                "read": Out(DramRead(config)),
                "write": Out(scratchpad_write(config)),
                "vector": Out(WritePort(config.vector_depth, floats_layout(config, config.lanes))),
                "tiles": Out(config.tiles),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config

        # Requests, and what their beats will be.
        m.submodules.bursts = bursts = Bursts(config=c, opcode=Opcode.LOAD)
        wiring.connect(m, wiring.flipped(self.i), bursts.i)
        layout = part_layout(c)
        m.submodules.requested = requested = SyncFIFOBuffered(width=layout.size, depth=AHEAD)
        m.d.comb += [
            self.read.request.valid.eq(bursts.o.valid & requested.w_rdy),
            self.read.request.payload.eq(bursts.o.payload.burst),
            bursts.o.ready.eq(self.read.request.ready & requested.w_rdy),
            requested.w_en.eq(bursts.o.valid & self.read.request.ready),
            requested.w_data.eq(bursts.o.payload.carries.as_value()),
        ]

        # The latest beats, the last one on top, and where in its burst it is.
        sizes = {part: 8 << word_shift(c, part) for part in (Part.MANTISSAS, Part.FLOATS)}
        beats = Signal(max(c.dram_width, *sizes.values()), reset_less=True)
        full = Signal()
        burst = Signal(layout, reset_less=True)
        active = Signal()
        steps = Signal.like(burst.steps, reset_less=True)
        place = Signal(max(1, *(span_bits(c, part) for part in sizes)), reset_less=True)
        slots = beat_bytes(c) // EXPONENT_BYTES
        exponent = Signal(exact_log2(exponent_rows(c) * slots), reset_less=True)
        row = Signal(exact_log2(exponent_rows(c)), reset_less=True)
        address = Signal(word_address_bits(c), reset_less=True)

        issue = Signal()
        beat_ends = Signal()
        word_ends = Signal()
        last_step = steps == 1
        room = Signal()
        m.d.comb += issue.eq(active & full & room)
        with m.Switch(burst.part):
            with m.Case(Part.EXPONENTS):
                m.d.comb += beat_ends.eq(1)
            for part in sizes:
                with m.Case(part):
                    span = span_bits(c, part)
                    at_end = place[:span].all() if span else Const(1)
                    if exceeds_beat(c, part):
                        m.d.comb += [beat_ends.eq(1), word_ends.eq(at_end)]
                    else:
                        m.d.comb += [beat_ends.eq(at_end | last_step), word_ends.eq(1)]

        m.d.comb += self.read.beats.ready.eq(~full | (issue & beat_ends))
        take = self.read.beats.valid & self.read.beats.ready
        m.d.sync += full.eq(take | (full & ~(issue & beat_ends)))
        with m.If(take):
            m.d.sync += beats.eq(Cat(beats, self.read.beats.payload)[-len(beats) :])

        finishes = issue & last_step
        begin = requested.r_rdy & (~active | finishes)
        m.d.comb += requested.r_en.eq(begin)
        m.d.sync += active.eq(begin | (active & ~finishes))
        with m.If(issue):
            m.d.sync += [
                steps.eq(steps - 1),
                place.eq(place + 1),
                row.eq(row + 1),
                address.eq(address + word_ends),
                exponent.eq(exponent + word_ends),
            ]
        with m.If(begin):
            new = layout(requested.r_data)
            m.d.sync += [
                burst.eq(new),
                steps.eq(new.steps),
                row.eq(0),
                address.eq(new.base),
                exponent.eq(new.exponent),
            ]
            with m.Switch(new.part):
                for part in sizes:
                    with m.Case(part):
                        within = 0 if exceeds_beat(c, part) else new.offset[word_shift(c, part) :]
                        m.d.sync += place.eq(within)

        # A run's exponents, as they came.
        m.submodules.exponents = exponents = Memory(
            shape=c.dram_width, depth=exponent_rows(c), init=[]
        )
        beat = beats[-c.dram_width :]
        write, read = exponents.write_port(), exponents.read_port()
        m.d.comb += [
            write.en.eq(issue & (burst.part == Part.EXPONENTS)),
            write.addr.eq(row),
            write.data.eq(beat),
            read.addr.eq(exponent[exact_log2(slots) :]),
        ]

        # The word is selected, then its exponent from the beat that came with it.
        def word_of(part: Part) -> Value:
            size = sizes[part]
            if exceeds_beat(c, part):
                return beats[-size:]
            return beat.word_select(place[: span_bits(c, part)], size)

        is_floats = burst.part == Part.FLOATS
        slot = float_slot(c)
        lanes = word_of(Part.FLOATS)
        floats = Cat(lanes[lane * slot :][: c.float_width] for lane in range(c.lanes))
        selected = Signal(max(len(floats), 8 * c.block), reset_less=True)
        m.d.sync += selected.eq(Mux(is_floats, floats, word_of(Part.MANTISSAS)))
        chosen = read.data.word_select(
            delay(m, exponent[: exact_log2(slots)], 1), 8 * EXPONENT_BYTES
        )[:EXPONENT_BITS]
        block = Cat(selected[: 8 * c.block], chosen)
        word_width = max(len(floats), block_layout(c.block).size)
        whole = Signal(word_width, reset_less=True)
        m.d.sync += whole.eq(Mux(delay(m, is_floats, 1), selected, block))

        # To the memories.
        target = data.StructLayout(
            {
                "address": word_address_bits(c),
                "floats": 1,
                "tile": layout["tile"].shape,
                "shared": 1,
                "last": 1,
            }
        )
        entry = data.StructLayout({"target": target, "word": word_width})
        m.submodules.words = words = SyncFIFOBuffered(width=entry.size, depth=WORDS)
        waiting = Signal(range(WORDS + 1))
        side = Signal(target)
        m.d.comb += [
            side.address.eq(address),
            side.floats.eq(is_floats),
            side.tile.eq(burst.tile),
            side.shared.eq(burst.shared),
            side.last.eq(burst.last & last_step),
        ]
        issues_word = issue & word_ends
        m.d.comb += [
            room.eq(waiting != WORDS),
            words.w_en.eq(delay_valid(m, issues_word, 2)),
            words.w_data.eq(Cat(delay(m, side, 2), whole)),
        ]
        head = entry(words.r_data)
        to = head.target
        written = (self.write.valid & self.write.ready) | (self.vector.valid & self.vector.ready)
        in_flight = Signal(8)
        m.d.comb += [
            self.write.valid.eq(words.r_rdy & ~to.floats),
            self.write.address.eq(to.address),
            self.write.data.eq(head.word),
            self.vector.valid.eq(words.r_rdy & to.floats),
            self.vector.address.eq(to.address),
            self.vector.data.eq(head.word),
            self.tiles.eq(Mux(to.shared, -1, 1 << to.tile)),
            words.r_en.eq(written),
            self.conflict.eq(words.r_rdy & ~written),
            self.done.eq(written & to.last),
            self.early.eq(self.done),
            self.busy.eq(in_flight != 0),
            bursts.alone.eq(in_flight == 1),
        ]
        m.d.sync += [
            waiting.eq(waiting + issues_word - written),
            in_flight.eq(in_flight + (self.i.valid & self.i.ready) - self.done),
        ]
        return m
